package backend

import (
	"reflect"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// specialUse is what a folder is made for.
func specialUse(f Folder) []imap.MailboxAttr {
	if f.SpecialUse == "" {
		return nil
	}
	return []imap.MailboxAttr{f.SpecialUse}
}

// A name is a mailbox name that LIST may show.
type name struct {
	maildir.Entry
	exists     bool // as a mailbox or above one
	subscribed bool
	children   bool // there are names below it
	subscribes bool // there are subscribed names below it
}

// List shows mailbox names (LIST, and LSUB).
func (s *Session) List(w *imapserver.ListWriter, ref string, patterns []string, options *imap.ListOptions) (err error) {
	command, lsub := "LIST", isLSUB(w)
	if lsub {
		command = "LSUB"
	}
	defer s.begin(command)(&err)
	sep := s.acct.Separator()
	if len(patterns) == 0 || len(patterns) == 1 && patterns[0] == "" { // RFC 9051 6.3.9: asks for the separator
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: sep})
	}
	names, err := s.names(lsub || options.SelectSubscribed)
	if err != nil {
		return err
	}
	for _, n := range names {
		if !slices.ContainsFunc(patterns, func(p string) bool { return matchList(ref, p, n.Name, sep) }) {
			continue
		}
		var data *imap.ListData
		if lsub {
			data = n.lsub(slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(p, "%") }))
		} else {
			data = n.list(options)
		}
		if data == nil {
			continue
		}
		data.Mailbox, data.Delim = n.Name, sep
		if options.ReturnStatus != nil && n.Selectable {
			if data.Status, err = s.status(n.Name, options.ReturnStatus); err != nil {
				s.log.Warn("status for LIST", "mailbox", n.Name, "err", err) // the name is shown without (RFC 5819)
			}
		}
		if err := w.WriteList(data); err != nil {
			return err
		}
	}
	return nil
}

// isLSUB reports whether w answers LSUB. go-imap calls List in the same way for LSUB and for
// LIST (SUBSCRIBED), which differ in what they show; only the writer knows which it is.
func isLSUB(w *imapserver.ListWriter) bool {
	f := reflect.ValueOf(w).Elem().FieldByName("lsub")
	return f.IsValid() && f.Bool()
}

// matchList reports whether a name matches a pattern that is put behind a reference, as Dovecot
// puts it: a pattern that begins with the separator stands alone.
func matchList(ref, pattern, name string, sep rune) bool {
	if !strings.HasPrefix(pattern, string(sep)) {
		pattern = ref + pattern
	}
	return policy.Match(strings.TrimPrefix(pattern, string(sep)), name, sep)
}

// names are all names: those of mailboxes, those above them, and those subscribed. If these can't be known, it fails
// where they are what was asked for.
func (s *Session) names(subscribed bool) ([]*name, error) {
	entries, err := s.acct.List()
	if err != nil {
		return nil, err
	}
	subscriptions, err := s.acct.Subscriptions()
	if err != nil && subscribed {
		return nil, err
	} else if err != nil {
		s.log.Warn("subscriptions for LIST", "err", err)
	}
	byName := make(map[string]*name, len(entries)+len(subscriptions))
	var names []*name
	get := func(n string) *name {
		if byName[n] == nil {
			byName[n] = &name{Entry: maildir.Entry{Name: n}}
			names = append(names, byName[n])
		}
		return byName[n]
	}
	for _, e := range entries {
		n := get(e.Name)
		n.Entry, n.exists = e, true
	}
	for _, f := range s.user.Folders {
		if n := byName[f.Name]; n != nil && len(n.SpecialUse) == 0 {
			n.SpecialUse = specialUse(f)
		}
	}
	sep := string(s.acct.Separator())
	above := func(n string, f func(*name)) {
		for i := strings.LastIndex(n, sep); i > 0; i = strings.LastIndex(n, sep) {
			n = n[:i]
			f(get(n))
		}
	}
	for _, e := range entries {
		above(e.Name, func(parent *name) { parent.children = true })
	}
	for _, n := range subscriptions {
		if strings.EqualFold(n, "INBOX") {
			n = "INBOX"
		}
		get(n).subscribed = true
		above(n, func(parent *name) { parent.subscribes = true })
	}
	slices.SortStableFunc(names, func(a, b *name) int {
		switch {
		case a == b:
			return 0
		case a.Name == "INBOX":
			return -1
		case b.Name == "INBOX":
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return names, nil
}

// list is what LIST shows of a name, or nil.
func (n *name) list(o *imap.ListOptions) *imap.ListData {
	selected := n.exists
	if o.SelectSubscribed {
		selected = n.subscribed || o.SelectRecursiveMatch && n.subscribes
	}
	if o.SelectSpecialUse && len(n.SpecialUse) == 0 {
		selected = false
	}
	if !selected {
		return nil
	}
	data := &imap.ListData{Attrs: []imap.MailboxAttr{}}
	switch {
	case !n.exists:
		data.Attrs = append(data.Attrs, imap.MailboxAttrNonExistent)
	case !n.Selectable:
		data.Attrs = append(data.Attrs, imap.MailboxAttrNoSelect)
	}
	if n.subscribed && (o.SelectSubscribed || o.ReturnSubscribed) {
		data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
	}
	if n.children {
		data.Attrs = append(data.Attrs, imap.MailboxAttrHasChildren)
	} else {
		data.Attrs = append(data.Attrs, imap.MailboxAttrHasNoChildren)
	}
	data.Attrs = append(data.Attrs, n.SpecialUse...)
	if o.SelectRecursiveMatch && n.subscribes {
		data.ChildInfo = &imap.ListDataChildInfo{Subscribed: true}
	}
	return data
}

// lsub is what LSUB shows of a name, or nil: subscribed names as they are, and for a pattern with
// "%" the names above them, which it would hide otherwise (RFC 3501 6.3.9).
func (n *name) lsub(percent bool) *imap.ListData {
	switch {
	case n.subscribed:
		return &imap.ListData{Attrs: []imap.MailboxAttr{}}
	case n.subscribes && percent:
		return &imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}}
	}
	return nil
}
