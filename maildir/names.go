package maildir

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

var layoutTexts = [...]string{"maildir++", "fs"}
var nameTexts = [...]string{"utf-7", "utf-8"}

func (l Layout) String() string       { return layoutTexts[l] }
func (e NameEncoding) String() string { return nameTexts[e] }

// UnmarshalText reads "maildir++" or "fs".
func (l *Layout) UnmarshalText(b []byte) error {
	for i, s := range layoutTexts {
		if s == string(b) {
			*l = Layout(i)
			return nil
		}
	}
	return fmt.Errorf("unknown value %q; allowed: %s", b, strings.Join(layoutTexts[:], ", "))
}

// UnmarshalText reads "utf-7" or "utf-8".
func (e *NameEncoding) UnmarshalText(b []byte) error {
	for i, s := range nameTexts {
		if s == string(b) {
			*e = NameEncoding(i)
			return nil
		}
	}
	return fmt.Errorf("unknown value %q; allowed: %s", b, strings.Join(nameTexts[:], ", "))
}

// storageSeparator is the hierarchy separator in storage names.
func (o *Options) storageSeparator() string {
	if o.Layout == LayoutFS {
		return "/"
	}
	return "."
}

// separator is the hierarchy separator that clients see.
func (o *Options) separator() rune {
	if o.Separator != 0 {
		return o.Separator
	}
	return rune(o.storageSeparator()[0])
}

// storageName spells a mailbox's name as it is on disk, with the layout's separator: "INBOX",
// "Work.Entw&APw-rfe". The error is a *NameError.
func (o *Options) storageName(name string) (string, error) {
	whole := name
	bad := func(reason string) (string, error) { return "", &NameError{whole, reason} }
	sep, storeSep := string(o.separator()), o.storageSeparator()
	name = strings.TrimSuffix(name, sep)
	if strings.EqualFold(name, "INBOX") {
		return "INBOX", nil
	}
	name, ok := o.trimPrefix(name)
	switch {
	case !ok:
		return bad(fmt.Sprintf("does not begin with %q, as all but INBOX do", o.Prefix))
	case o.Prefix != "" && name == "INBOX":
		return "INBOX", nil // as Dovecot has it
	case name == "":
		return bad("is empty")
	case !utf8.ValidString(name):
		return bad("is not valid UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return bad("has a control character")
	case name[0] == '~':
		return bad("begins with '~'")
	}
	parts := strings.Split(name, sep)
	for i, part := range parts {
		switch {
		case part == "":
			return bad(fmt.Sprintf("has an empty part; parts are separated by one %q", sep))
		case strings.ContainsAny(part, "/"+storeSep):
			return bad(fmt.Sprintf("has a part with '/' or %q; parts are separated by %q", storeSep, sep))
		case part == "." || part == "..":
			return bad("has a part \".\" or \"..\"")
		}
		if o.Layout == LayoutFS && (isMaildirPart(part) || i == 0 && ownFile(part)) {
			return bad(fmt.Sprintf("has the part %q, which is the server's own", part))
		}
		if o.Names == NamesUTF7 {
			parts[i] = EncodeUTF7(part)
		}
		if len(parts[i]) > 255 {
			return bad("has a part of more than 255 bytes on disk")
		}
	}
	if o.Prefix == "" && strings.EqualFold(parts[0], "INBOX") {
		parts[0] = "INBOX"
	}
	storage := strings.Join(parts, storeSep)
	if o.Layout == LayoutMaildirpp && len(storage) > 254 {
		return bad("has more than 255 bytes on disk")
	}
	return storage, nil
}

// trimPrefix takes the prefix off a mailbox's name; ok is whether it was there. If it begins with INBOX, that
// is as good in other letters.
func (o *Options) trimPrefix(name string) (rest string, ok bool) {
	if len(name) < len(o.Prefix) {
		return name, false
	}
	prefix, rest := name[:len(o.Prefix)], name[len(o.Prefix):]
	if prefix == o.Prefix {
		return rest, true
	}
	const inbox = "INBOX"
	ok = strings.HasPrefix(o.Prefix, inbox+string(o.separator())) && strings.EqualFold(prefix[:len(inbox)], inbox) &&
		prefix[len(inbox):] == o.Prefix[len(inbox):]
	return rest, ok
}

// ownFile reports whether a name in the root is one of the files that mail servers keep there.
func ownFile(name string) bool {
	for _, prefix := range []string{"dovecot", "subscriptions", "maildirfolder", "maildirsize", "imapmaildir", "courierimap", ".."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// path is a mailbox's directory, from the root.
func (o *Options) path(storage string) string {
	switch {
	case storage == "INBOX":
		return "."
	case o.Layout == LayoutFS:
		return storage
	}
	return "." + storage
}

// mailboxName is the name by which clients know a storage name. What another program spelled in
// its own way gets a name that can be shown; canonical is whether storageName leads back.
func (o *Options) mailboxName(storage string) (name string, canonical bool) {
	if storage == "INBOX" {
		return storage, true
	}
	parts := strings.Split(storage, o.storageSeparator())
	for i, part := range parts {
		if o.Names == NamesUTF7 {
			part = decodeUTF7(part)
		}
		parts[i] = strings.ToValidUTF8(part, "\uFFFD")
	}
	name = o.Prefix + strings.Join(parts, string(o.separator()))
	back, err := o.storageName(name)
	return name, err == nil && back == storage
}
