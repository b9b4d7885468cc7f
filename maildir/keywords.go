package maildir

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// keywords are the names of the letters a to z in a mailbox's file names, as dovecot-keywords
// gives them: a line "0 $Work" names the letter a. "" is a letter without a name. A letter keeps
// its name for ever (Dovecot maildir-keywords.c), also one that can be no keyword in IMAP and is not shown.
type keywords [26]string

// parseKeywords reads dovecot-keywords. Lines of another form are told and left out. As for Dovecot a name ends
// before a NUL, of a letter's names the last counts, and a name is that of its first letter; but a last line
// without its end counts here.
func parseKeywords(r io.Reader) (k keywords, problems []*FormatError, err error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return k, nil, err
	}
	line := 0
	for s := range strings.Lines(string(b)) {
		line++
		wrong := func(reason string) {
			problems = append(problems, &FormatError{keysFile, line, fmt.Sprintf("%.60q %s", s, reason)})
		}
		text, _, cut := strings.Cut(strings.TrimSuffix(s, "\n"), "\x00")
		number, name, _ := strings.Cut(strings.TrimRight(text, "\r"), " ")
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= len(k) || name == "" {
			wrong("names no letter")
			continue
		}
		switch j := k.find(name); {
		case j >= 0 && j != i:
			wrong(fmt.Sprintf("has the name of the letter %c", 'a'+j))
			continue
		case k[i] != "":
			wrong(fmt.Sprintf("names a letter that was %.60q", k[i]))
		case cut:
			wrong("has a NUL")
		case !strings.HasSuffix(s, "\n"):
			wrong("has no end")
		}
		k[i] = name
	}
	return k, problems, nil
}

// validKeyword reports whether a name can be a flag-keyword (RFC 9051 section 9) on one line.
func validKeyword(name string) bool {
	if name == "" {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\]`, c) >= 0 {
			return false
		}
	}
	return true
}

// named are the flags whose letters have a name.
func (k *keywords) named() Flags {
	var f Flags
	for i, name := range k {
		if name != "" {
			f |= keywordFlag(i)
		}
	}
	return f
}

// find returns the letter of a keyword, from 0, or -1. Case does not matter.
func (k *keywords) find(name string) int {
	for i, s := range k {
		if s != "" && strings.EqualFold(s, name) {
			return i
		}
	}
	return -1
}

// add names the first letter that has no name and is not used: a message whose letter nobody has named
// would be marked by that.
func (k *keywords) add(name string, used Flags) (int, error) {
	for i, s := range k {
		if s == "" && used&keywordFlag(i) == 0 {
			k[i] = name
			return i, nil
		}
	}
	return -1, ErrTooManyKeywords
}

func (k *keywords) encode() []byte {
	var b []byte
	for i, name := range k {
		if name != "" {
			b = fmt.Appendf(b, "%d %s\n", i, name)
		}
	}
	return b
}

// writeKeywords replaces dovecot-keywords. Dovecot looks at its modification time in whole seconds
// only, so each writing makes it later by one at least. The caller holds dovecot-uidlist.lock.
func writeKeywords(d *dir, k *keywords, a access) error {
	old, err := d.stat(keysFile)
	if err != nil && !notExist(err) {
		return err
	}
	if err := d.writeFile(keysFile, keysFile+".lock", k.encode(), a); err != nil {
		return err
	}
	st, err := d.stat(keysFile)
	if err == nil && st.mtime.Sec <= old.mtime.Sec {
		err = d.setTimes(keysFile, unix.Timespec{Sec: old.mtime.Sec + 1})
	}
	return err
}
