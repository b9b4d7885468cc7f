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
// its name for ever (Dovecot maildir-keywords.c).
type keywords [26]string

// parseKeywords reads dovecot-keywords. Of a letter or a name that comes again the first counts;
// lines of another form are told and left out.
func parseKeywords(r io.Reader) (keywords, []*FormatError) {
	var k keywords
	b, err := io.ReadAll(r)
	if err != nil {
		return k, []*FormatError{{keysFile, 0, err.Error()}}
	}
	var problems []*FormatError
	line := 0
	for s := range strings.Lines(string(b)) {
		line++
		number, name, _ := strings.Cut(strings.TrimRight(s, "\r\n"), " ")
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= len(k) || !validKeyword(name) || k[i] != "" || k.find(name) >= 0 {
			problems = append(problems, &FormatError{keysFile, line, fmt.Sprintf("%.60q names no letter", s)})
			continue
		}
		k[i] = name
	}
	return k, problems
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
