package message

import (
	"bytes"
	"iter"
	"strings"
)

const (
	maxHeader = 4 << 20   // bytes of a header in which fields are looked for
	maxWhole  = 16 << 10  // a top header up to this size is kept whole
	maxField  = 256 << 10 // bytes of one field that are kept
	maxKept   = 1 << 20   // bytes of all fields of a message that are kept
)

// The fields that BODYSTRUCTURE is made of, and those of ENVELOPE.
var (
	mimeFields = []string{
		"Content-Type", "Content-Transfer-Encoding", "Content-ID", "Content-Description",
		"Content-Disposition", "Content-Language", "Content-Location",
	}
	envelopeFields = []string{
		"Date", "Subject", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "In-Reply-To", "Message-ID",
	}
)

// fieldName returns the name of the field that begins with line. It has none if line is not the
// first one of a field.
func fieldName(line []byte) (name []byte, ok bool) {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return nil, false
	}
	name = bytes.TrimRight(line[:i], " \t")
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return nil, false
		}
	}
	return name, len(name) > 0
}

// isField reports whether line begins a field of a name.
func isField(line []byte, name string) bool {
	if len(line) <= len(name) || !strings.EqualFold(string(line[:len(name)]), name) {
		return false
	}
	rest := bytes.TrimLeft(line[len(name):], " \t")
	return len(rest) > 0 && rest[0] == ':'
}

// mboxFrom reports whether line is the one that divides the mails of an mbox file. Programs that take
// mail from one leave it at the top.
func mboxFrom(line []byte) bool {
	return bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))
}

func continues(line []byte) bool { return line[0] == ' ' || line[0] == '\t' }

func blank(line []byte) bool { return string(line) == "\r\n" || string(line) == "\n" }

// A collector keeps fields of a header that is read line by line. Lines may come in pieces.
type collector struct {
	names [][]string // the fields to keep
	seen  [][]byte
	kept  []byte
	left  int  // bytes that may still be kept
	keep  bool // the current field is kept
	from  int  // where it begins in kept
}

func (c *collector) add(b []byte, begins bool) {
	if begins && !continues(b) {
		c.end()
		name, ok := fieldName(b)
		c.keep = ok && c.wants(name)
		c.from = len(c.kept)
	}
	if !c.keep {
		return
	}
	if n := min(maxField-(len(c.kept)-c.from), c.left); len(b) > n {
		b = b[:max(n, 0)]
	}
	c.left -= len(b)
	c.kept = append(c.kept, b...)
}

// end sees to it that a field that was cut does not run into the next one.
func (c *collector) end() {
	if n := len(c.kept); n > 0 && c.kept[n-1] != '\n' {
		c.kept = append(c.kept, "\r\n"...)
	}
}

func (c *collector) wants(name []byte) bool {
	for _, names := range c.names {
		for _, n := range names {
			if len(n) == len(name) && strings.EqualFold(n, string(name)) {
				for _, s := range c.seen {
					if bytes.EqualFold(s, name) {
						return false
					}
				}
				c.seen = append(c.seen, []byte(n))
				return true
			}
		}
	}
	return false
}

// fields goes through a header: each field's name (nil where lines are no field) and its bytes, all
// lines of it. The empty line at the end comes as a field without name.
func fields(header []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, raw []byte) bool) {
		for len(header) > 0 {
			n := lineLen(header)
			name, ok := fieldName(header[:n])
			for ok && n < len(header) && continues(header[n:]) {
				n += lineLen(header[n:])
			}
			if !yield(name, header[:n]) {
				return
			}
			header = header[n:]
		}
	}
}

func lineLen(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// value returns a field's value on one line, as text of the header: encoded words are not decoded.
func value(raw []byte) string {
	v := raw[bytes.IndexByte(raw, ':')+1:]
	if bytes.IndexByte(v, '\n') >= 0 {
		v = unfold(v)
	}
	return strings.TrimSpace(text(v))
}

// unfold removes the line ends before white space (RFC 5322 2.2.3).
func unfold(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		n := lineLen(b)
		out = append(out, bytes.TrimRight(b[:n], "\r\n")...)
		b = b[n:]
	}
	return out
}

// keepFields makes the header that has only the fields named, or (not) all others. The empty line at its
// end stays (RFC 9051 6.4.5.1).
func keepFields(header []byte, names []string, not bool) []byte {
	var out []byte
	for name, raw := range fields(header) {
		named := false
		for _, n := range names {
			named = named || name != nil && strings.EqualFold(n, string(name))
		}
		if named != not || blank(raw) {
			out = append(out, raw...)
		}
	}
	return out
}
