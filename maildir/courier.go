package maildir

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// What Courier-IMAP keeps beside the mail (its maildir/README.imapkeywords, and 5.0.13 as it was seen
// running): the UIDs in a uidlist of version 1; in a directory the keywords; the names that are
// subscribed, each behind "INBOX."; and a lock, taken as dovecot-uidlist.lock is.
const (
	courierList   = "courierimapuiddb"
	courierKeys   = "courierimapkeywords"
	courierSubs   = "courierimapsubscribed"
	courierLock   = "tmp/courier.lock"
	courierPrefix = "INBOX."
)

// encodeCourier is the file's content, in version 1.
func (l *uidlist) encodeCourier() []byte {
	b := fmt.Appendf(nil, "1 %d %d\n", l.validity, l.nextUID())
	for _, r := range l.records {
		b = fmt.Appendf(b, "%d %s\n", r.uid, r.base)
	}
	return b
}

// readCourierKeywords reads the keywords of messages, by base name. A file ":list" has them all: the names,
// an empty line, and a line "base:0 2" for each message that has some of them. A file with the base name
// has the keywords of one message since, a line each; ".N.base" is what became of it, of which the one with
// the highest N counts.
func readCourierKeywords(d *dir) (map[string][]string, error) {
	named := map[string][]string{}
	text, err := readText(d, courierKeys+"/:list")
	if err != nil && !notExist(err) {
		return nil, err
	}
	head, rest, _ := strings.Cut(text, "\n\n")
	names := strings.Split(head, "\n")
	for line := range strings.Lines(rest) {
		base, indexes, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		for field := range strings.FieldsSeq(indexes) {
			if i, err := strconv.Atoi(field); err == nil && 0 <= i && i < len(names) {
				named[base] = append(named[base], names[i])
			}
		}
	}
	type single struct {
		file string
		age  int
	}
	singles := map[string]single{} // by base name
	err = eachName(d, courierKeys, func(file string) {
		base, age := file, math.MaxInt
		if strings.HasPrefix(file, ".") {
			number, after, _ := strings.Cut(file[1:], ".")
			n, err := strconv.Atoi(number)
			if err != nil {
				return // .tmp.…
			}
			base, age = after, n
		} else if !listedName(file) {
			return
		}
		if s, ok := singles[base]; !ok || s.age < age {
			singles[base] = single{file, age}
		}
	})
	if err != nil && !notExist(err) {
		return nil, err
	}
	for base, s := range singles {
		text, err := readText(d, courierKeys+"/"+s.file)
		if err != nil {
			return nil, err
		}
		named[base] = strings.Fields(text)
	}
	return named, nil
}

// encodeCourierKeywords is the content of ":list".
func encodeCourierKeywords(keys *keywords, named map[string][]string) []byte {
	var b bytes.Buffer
	var names []string
	for _, name := range keys {
		if name != "" {
			names = append(names, name)
			b.WriteString(name + "\n")
		}
	}
	b.WriteByte('\n')
	for _, base := range slices.Sorted(maps.Keys(named)) {
		b.WriteString(base + ":")
		for i, name := range named[base] {
			if i > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprint(&b, slices.Index(names, name))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
