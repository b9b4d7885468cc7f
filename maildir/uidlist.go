package maildir

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// A uidlist is what dovecot-uidlist says (Dovecot maildir-uidlist.c).
//
//	3 V1795424725 N12 G<32 hex digits>
//	7 W1423 :1795424725.M3779P14033.vm,S=130
//
// The header names UIDVALIDITY, a UID that was not given to a message when the header was written,
// and the mailbox's GUID; each record a message by its base name. Fields start with a letter;
// those that mean nothing here are kept. Version 1 is Courier's form, without letters.
type uidlist struct {
	version  int
	validity uint32
	next     imap.UID // the header's N
	guid     string   // "" if the header has none
	ext      []string // further header fields, as they stand
	records  []uidRecord
	size     int64 // bytes in whole lines
	tail     bool  // the records are only those that were appended since the list was last read
	damaged  bool  // lines were left out
}

// A uidRecord is one message of a uidlist.
type uidRecord struct {
	uid    imap.UID
	fields string // between the UID and the colon, as they stand
	base   string
}

// field returns the value of a record's field.
func (r uidRecord) field(key byte) (string, bool) {
	for f := range strings.SplitSeq(r.fields, " ") {
		if f != "" && f[0] == key {
			return f[1:], true
		}
	}
	return "", false
}

// withField is the record with a field set.
func (r uidRecord) withField(key byte, value string) uidRecord {
	var fields []string
	for f := range strings.SplitSeq(r.fields, " ") {
		if f != "" && f[0] != key {
			fields = append(fields, f)
		}
	}
	r.fields = strings.Join(append(fields, string(key)+value), " ")
	return r
}

// parseUIDList reads a uidlist. A record that is wrong is left out and told among the problems,
// and takes no other one with it; but of records with the same UID nobody knows which is right, and
// one message under another's UID is worse than two that get new ones. A last line without its end is not there yet. The error is a
// *FormatError where the header can't be read, or where no UID is left to be given.
//
// The records are cut from text: who keeps a part of them copies it.
func parseUIDList(text string) (*uidlist, []*FormatError, error) {
	text = text[:strings.LastIndexByte(text, '\n')+1]
	l := &uidlist{size: int64(len(text))}
	header, rest, ok := strings.Cut(text, "\n")
	if !ok {
		return nil, nil, &FormatError{listFile, 1, "no header"}
	}
	if err := l.parseHeader(header); err != nil {
		return nil, nil, err
	}
	l.records = make([]uidRecord, 0, strings.Count(rest, "\n"))
	var problems []*FormatError
	sorted := true
	var highest imap.UID
	left := 0 // lines left out: each may have been a record, with a UID above all others
	for line := 2; rest != ""; line++ {
		var s string
		s, rest, _ = strings.Cut(rest, "\n")
		rec, reason := l.parseRecord(s)
		if reason != "" {
			problems = append(problems, &FormatError{listFile, line, reason})
		}
		if rec.base == "" {
			left++
			continue
		}
		if rec.uid <= highest {
			problems = append(problems, &FormatError{listFile, line, fmt.Sprintf("UID %d after %d", rec.uid, highest)})
			sorted = false
			left++
		}
		highest = max(highest, rec.uid)
		l.records = append(l.records, rec)
	}
	if !sorted {
		uses := make(map[imap.UID]int, len(l.records))
		for _, rec := range l.records {
			uses[rec.uid]++
		}
		l.records = slices.DeleteFunc(l.records, func(rec uidRecord) bool { return uses[rec.uid] > 1 })
		slices.SortFunc(l.records, func(a, b uidRecord) int { return cmp.Compare(a.uid, b.uid) })
	}
	l.damaged = len(problems) > 0
	if uint64(l.nextUID())+uint64(left) >= maxUID {
		return nil, nil, &FormatError{listFile, 1, "no UID is left to be given"}
	}
	if left > 0 {
		l.next = l.nextUID() + imap.UID(left)
	}
	return l, append(problems, l.dropRepeated()...), nil
}

// parseNews reads records that were appended to a list that is known.
func parseNews(validity uint32, next imap.UID, guid, records string) (*uidlist, error) {
	header := fmt.Sprintf("3 V%d N%d G%s\n", validity, next, guid)
	l, _, err := parseUIDList(header + records)
	if err != nil {
		return nil, err
	}
	l.size -= int64(len(header))
	l.tail = true
	return l, nil
}

// dropRepeated leaves out all but the last record of a name.
func (l *uidlist) dropRepeated() []*FormatError {
	ascending := true // as mail comes in; that is seen faster than a map is filled
	for i := 1; i < len(l.records) && ascending; i++ {
		ascending = l.records[i-1].base < l.records[i].base
	}
	if ascending {
		return nil
	}
	last := make(map[string]imap.UID, len(l.records))
	for _, rec := range l.records {
		last[rec.base] = rec.uid
	}
	if len(last) == len(l.records) {
		return nil
	}
	var problems []*FormatError
	l.records = slices.DeleteFunc(l.records, func(rec uidRecord) bool {
		again := last[rec.base] != rec.uid
		if again {
			problems = append(problems, &FormatError{listFile, 0, fmt.Sprintf("%q has UID %d and later %d", rec.base, rec.uid, last[rec.base])})
		}
		return again
	})
	return problems
}

func (l *uidlist) parseHeader(s string) error {
	fields := strings.Fields(s)
	bad := func(reason string) error { return &FormatError{listFile, 1, reason} }
	if len(fields) == 0 {
		return bad("no header")
	}
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0 // which is refused below
		}
		return uint32(n)
	}
	switch fields[0] {
	case "1":
		if len(fields) != 3 {
			return bad("header of version 1 is not \"1 UIDVALIDITY NEXTUID\"")
		}
		l.version, l.validity, l.next = 1, number(fields[1]), imap.UID(number(fields[2]))
	case "3":
		l.version = 3
		for _, f := range fields[1:] {
			switch f[0] {
			case 'V':
				l.validity = number(f[1:])
			case 'N':
				l.next = imap.UID(number(f[1:]))
			case 'G':
				l.guid = f[1:]
			default:
				l.ext = append(l.ext, f)
			}
		}
	default:
		return bad(fmt.Sprintf("version %.20q; 1 and 3 are known", fields[0]))
	}
	if l.validity == 0 || l.next == 0 {
		return bad("no UIDVALIDITY or no next UID")
	}
	if len(l.guid) != 32 || strings.Trim(l.guid, "0123456789abcdefABCDEF") != "" {
		l.guid = ""
	}
	l.guid = strings.Clone(l.guid) // the mailbox keeps it, and must not keep the whole file with it
	return nil
}

// maxUID is no UID any more.
const maxUID = 1<<32 - 1

// parseRecord reads one line; reason says what is wrong with it. Of a line that can't be used there is no base.
func (l *uidlist) parseRecord(s string) (rec uidRecord, reason string) {
	s, crlf := strings.CutSuffix(s, "\r")
	if crlf {
		reason = "ends in CRLF"
	}
	number, rest, _ := strings.Cut(s, " ")
	uid, err := strconv.ParseUint(number, 10, 32)
	if err != nil || uid == 0 || uid == maxUID {
		return rec, fmt.Sprintf("%.20q is no UID", number)
	}
	rec.uid = imap.UID(uid)
	if l.version == 1 {
		rec.base = rest
	} else if strings.HasPrefix(rest, ":") {
		rec.base = rest[1:]
	} else if i := strings.Index(rest, " :"); i >= 0 {
		rec.fields, rec.base = rest[:i], rest[i+2:]
	}
	if fields, bad := knownKeys(rec.fields); bad != "" { // for Dovecot, too
		rec.fields, reason = fields, fmt.Sprintf("%.20q is no field of UID %d", bad, uid)
	}
	rec.base, _ = splitName(rec.base)
	if !listedName(rec.base) {
		rec.base, reason = "", fmt.Sprintf("no file name for UID %d", uid)
	}
	return rec, reason
}

// knownKeys leaves out fields that have no capital letter, and returns one of them.
func knownKeys(fields string) (known, bad string) {
	if fields == "" {
		return "", ""
	}
	all := strings.Split(fields, " ")
	good := slices.DeleteFunc(all, func(f string) bool {
		ok := f != "" && 'A' <= f[0] && f[0] <= 'Z' && !strings.ContainsAny(f, "\r\x00")
		if !ok {
			bad = f + " " // so that it is not empty
		}
		return !ok
	})
	if bad == "" {
		return fields, ""
	}
	return strings.Join(good, " "), bad
}

// nextUID is a UID that was never given to a message. The header alone does not tell: it stays as
// it was when records are appended.
func (l *uidlist) nextUID() imap.UID {
	next := max(l.next, 1)
	if n := len(l.records); n > 0 {
		next = max(next, l.records[n-1].uid+1)
	}
	return next
}

// encode is the file's content, in version 3.
func (l *uidlist) encode() []byte {
	b := fmt.Appendf(make([]byte, 0, 256+80*len(l.records)), "3 V%d N%d G%s", l.validity, l.nextUID(), l.guid)
	for _, f := range l.ext {
		b = append(append(b, ' '), f...)
	}
	b = append(b, '\n')
	for _, r := range l.records {
		b = appendRecord(b, r)
	}
	return b
}

// appendRecord adds the line of a record.
func appendRecord(b []byte, r uidRecord) []byte {
	b = strconv.AppendUint(b, uint64(r.uid), 10)
	b = append(b, ' ')
	if r.fields != "" {
		b = append(append(b, r.fields...), ' ')
	}
	b = append(append(b, ':'), r.base...)
	return append(b, '\n')
}

// newGUID is a mailbox's name for ever: 128 random bits in hex.
func newGUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
