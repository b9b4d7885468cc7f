package maildir

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Flags are what the letters of a file name say. Bits 0 to 25 are the keyword letters a to z,
// which dovecot-keywords names.
type Flags uint32

// The flags that IMAP defines, by their Maildir letters D, F, R, S and T.
const (
	FlagDraft Flags = 1 << (26 + iota)
	FlagFlagged
	FlagAnswered
	FlagSeen
	FlagDeleted
)

const systemLetters = "DFRST"

func keywordFlag(i int) Flags { return 1 << i }

// letterFlag is the flag of a letter, or 0.
func letterFlag(c byte) Flags {
	if 'a' <= c && c <= 'z' {
		return keywordFlag(int(c - 'a'))
	}
	if i := strings.IndexByte(systemLetters, c); i >= 0 {
		return FlagDraft << i
	}
	return 0
}

// splitName cuts a file name into its base, which is all before the first colon, and its info,
// which is all after the last one: that is how Dovecot reads them (maildir-filename.c).
func splitName(name string) (base, info string) {
	first := strings.IndexByte(name, ':')
	if first < 0 {
		return name, ""
	}
	return name[:first], name[strings.LastIndexByte(name, ':')+1:]
}

// letters are the flag letters of a file name, and what follows them after another comma.
func letters(name string) (flags, tail string) {
	_, info := splitName(name)
	rest, ok := strings.CutPrefix(info, "2,")
	if !ok {
		return "", ""
	}
	if i := strings.IndexByte(rest, ','); i >= 0 {
		return rest[:i], rest[i:]
	}
	return rest, ""
}

// parseFlags reads the flags of a file name. Letters that mean nothing here are left out.
func parseFlags(name string) Flags {
	var f Flags
	l, _ := letters(name)
	for i := range len(l) {
		f |= letterFlag(l[i])
	}
	return f
}

// withFlags is the file name in cur/ with these flags, the letters in ASCII order as the Maildir
// format asks. Letters that mean nothing here, and what follows a second comma, stay.
func withFlags(name string, f Flags) string {
	base, _ := splitName(name)
	old, tail := letters(name)
	l := make([]byte, 0, 32)
	for i := range len(old) {
		if letterFlag(old[i]) == 0 && !slices.Contains(l, old[i]) {
			l = append(l, old[i])
		}
	}
	for i := range len(systemLetters) {
		if f&(FlagDraft<<i) != 0 {
			l = append(l, systemLetters[i])
		}
	}
	for i := range 26 {
		if f&keywordFlag(i) != 0 {
			l = append(l, byte('a'+i))
		}
	}
	slices.Sort(l)
	return base + ":2," + string(l) + tail
}

// sizesOf reads the sizes in a base name: ,S= is that of the file, ,W= that with CRLF line ends;
// -1 where the name doesn't tell.
func sizesOf(base string) (s, w int64) { return sizeField(base, ",S="), sizeField(base, ",W=") }

func sizeField(base, key string) int64 {
	_, rest, ok := strings.Cut(base, key)
	if !ok {
		return -1
	}
	if i := strings.IndexAny(rest, ",:"); i >= 0 {
		rest = rest[:i]
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil || n < 0 || rest[0] == '+' {
		return -1
	}
	return n
}

func withSizes(base string, s, w int64) string { return fmt.Sprintf("%s,S=%d,W=%d", base, s, w) }

// A baseOrder is where a base name stands in the order in which Dovecot numbers files: by their
// leading seconds, by their microseconds where both have them, then byte by byte
// (maildir_filename_sort_cmp).
type baseOrder struct {
	base      string
	sec, usec uint64
	rest      string // after the seconds
	tail      string // after the microseconds; "" where there are none
}

func orderOf(base string) baseOrder {
	o := baseOrder{base: base}
	o.sec, o.rest = leadingNumber(base)
	if usec, ok := strings.CutPrefix(o.rest, ".M"); ok {
		o.usec, o.tail = leadingNumber(usec)
	}
	return o
}

func (o baseOrder) compare(p baseOrder) int {
	if c := cmp.Compare(o.sec, p.sec); c != 0 {
		return c
	}
	if strings.HasPrefix(o.rest, ".M") && strings.HasPrefix(p.rest, ".M") {
		if c := cmp.Compare(o.usec, p.usec); c != 0 {
			return c
		}
		if c := strings.Compare(o.tail, p.tail); c != 0 {
			return c
		}
	} else if c := strings.Compare(o.rest, p.rest); c != 0 {
		return c
	}
	return strings.Compare(o.base, p.base)
}

// sortBases sorts base names in the order in which files are numbered.
func sortBases(bases []string) {
	orders := make([]baseOrder, len(bases))
	for i, base := range bases {
		orders[i] = orderOf(base)
	}
	slices.SortFunc(orders, baseOrder.compare)
	for i, o := range orders {
		bases[i] = o.base
	}
}

func leadingNumber(s string) (uint64, string) {
	i := 0
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	n, _ := strconv.ParseUint(s[:i], 10, 64) // out of range: the greatest, which is fine for an order
	return n, s[i:]
}

// listedName reports whether a file of this name may be a message.
func listedName(name string) bool {
	if name == "" || name[0] == '.' || name[0] == ':' {
		return false
	}
	for i := range len(name) {
		switch name[i] {
		case '\r', '\n', 0, '/':
			return false
		}
	}
	return true
}

var (
	baseCounter atomic.Uint64
	hostName    = func() string {
		h, err := os.Hostname()
		if err != nil {
			h = "localhost"
		}
		return h
	}()
	baseHost = strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`, " ", `\040`, "\n", `\012`).Replace(hostName)
)

// newBase is a base name that nobody else uses: time, process, a counter and the host.
func newBase(now time.Time) string {
	return fmt.Sprintf("%d.M%dP%dQ%d.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), baseCounter.Add(1), baseHost)
}
