package wire

import (
	"bytes"
	"strconv"
	"strings"
	"unicode"
)

const (
	maxTag       = 256
	tlsHandshake = 0x16 // the first byte that a TLS client sends (RFC 8446 section 5.1)
)

// An input is what a client has sent and the server has not read, and where in its commands the client stands.
// The package comment tells the rules.
type input struct {
	buf    []byte // received, not read by the server
	lent   bool   // buf is memory of the caller of add
	ready  int    // bytes at the start of buf that the server may read
	lit    int64  // bytes of a literal that follow them
	begun  bool   // a command has begun and is not answered
	more   bool   // a literal and the rest of a line belong to it still
	waits  bool   // the client sends them only when it is asked to: nothing of the literal was received
	refuse bool   // they go nowhere: the command is answered
	size   int    // bytes of the command's lines that were made ready
	tag    string // of a command whose first line is too long, which goes nowhere
	passed bool   // that line is over: the command is to be answered
	stuck  bool   // a command is too long that can't be answered
	search search // what the command is, if it is a SEARCH
}

// add appends p to what was received. p may be kept until own is called.
func (in *input) add(p []byte) {
	if len(in.buf) == 0 {
		in.buf, in.lent = p, true
		return
	}
	in.buf = append(in.buf, p...)
}

// own makes the memory of buf our own, and gives it back when it is empty: an idle connection has
// none.
func (in *input) own() {
	switch {
	case len(in.buf) == 0:
		in.buf = nil
	case in.lent:
		in.buf = bytes.Clone(in.buf)
	}
	in.lent = false
}

// read moves bytes that are ready to p, which may be the memory that add was given.
func (in *input) read(p []byte) int {
	n := copy(p, in.buf[:in.ready])
	in.buf = in.buf[n:]
	in.ready -= n
	return n
}

// rest makes the unfinished line at the end of all input ready, and reports whether there is one.
func (in *input) rest() bool {
	if in.refuse {
		return false
	}
	in.ready = len(in.buf)
	return in.ready > 0
}

// tooLong returns the tag of a command that was too long, once, after its first line.
func (in *input) tooLong() (tag string, ok bool) {
	if !in.passed {
		return "", false
	}
	tag, in.tag, in.passed = in.tag, "", false
	return tag, true
}

// answered tells that a tagged line was written. Nothing may be ready.
func (in *input) answered() {
	if in.more && !in.waits {
		in.refuse, in.size = true, 0
		return
	}
	in.begin()
}

// begin makes the next line the first of a command.
func (in *input) begin() {
	in.begun, in.more, in.waits, in.refuse, in.lit, in.size = false, false, false, false, 0, 0
}

// next makes the next line or the next bytes of a literal ready, as far as they were received. Nothing
// may be ready before. It returns the line if a command begins with it.
func (in *input) next() []byte {
	for {
		if n := int(min(in.lit, int64(len(in.buf)))); n > 0 {
			in.lit -= int64(n)
			in.waits = false
			if !in.refuse {
				in.ready = n
				return nil
			}
			in.buf = in.buf[n:]
		}
		if in.lit > 0 {
			return nil
		}

		if in.tag != "" {
			in.pass()
			return nil
		}

		limit := maxCommand - in.size
		end := bytes.IndexByte(in.buf[:min(len(in.buf), limit)], '\n') + 1
		switch {
		case end > 0:
		case len(in.buf) >= limit:
			if in.exceed(); in.stuck {
				return nil
			}
			continue
		case !in.begun && len(in.buf) > 0 && in.buf[0] == tlsHandshake: // will have no end
			in.begun, in.ready = true, len(in.buf)
			return in.buf
		default:
			return nil
		}
		line := in.buf[:end]
		if !in.begun && len(trimEOL(line)) == 0 {
			in.buf = in.buf[end:]
			continue
		}
		by := line // what the server is to read in its place
		switch {
		case !in.begun:
			by = in.search.first(line)
		case !in.refuse:
			by = in.search.next(line)
		}
		if !in.refuse && len(by) > limit {
			if in.exceed(); in.stuck {
				return nil
			}
			continue
		}
		first := !in.begun
		in.begun = true
		in.lit, in.waits, in.more = literal(line)
		switch {
		case !in.refuse:
			in.replace(line, by)
			if first {
				return in.buf[:in.ready]
			}
			return nil
		case in.more && !in.waits:
			in.buf = in.buf[end:]
		default:
			in.buf = in.buf[end:]
			in.begin()
		}
	}
}

// replace makes the line at the start of buf ready, or what is to take its place.
func (in *input) replace(line, by []byte) {
	if &by[0] != &line[0] {
		in.buf, in.lent = append(by, in.buf[len(line):]...), false
	}
	in.ready = len(by)
	in.size += in.ready
}

// exceed deals with a line that makes a command too long.
func (in *input) exceed() {
	tag, _, _ := bytes.Cut(in.buf[:min(len(in.buf), maxTag)], []byte(" "))
	if in.begun || len(tag) == 0 || len(tag) == maxTag || !isAtom(tag) {
		in.stuck = true
		return
	}
	in.tag = string(tag)
}

// pass drops a first line that is too long, as far as it was received.
func (in *input) pass() {
	const tail = 64 // bytes at its end that may announce a literal
	end := bytes.IndexByte(in.buf, '\n') + 1
	if end == 0 {
		in.buf = in.buf[max(0, len(in.buf)-tail):]
		return
	}
	in.begun, in.passed = true, true
	in.lit, in.waits, in.more = literal(in.buf[max(0, end-tail):end])
	in.buf = in.buf[end:]
}

// trimEOL returns the line without its end, LF or CRLF.
func trimEOL(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// literal reports whether a line ends with the announcement of a literal (RFC 9051 section 9, literal and
// literal8), its size, and whether the client waits to be asked for it. As in go-imap a space may
// stand behind it.
func literal(line []byte) (size int64, waits, ok bool) {
	line = bytes.TrimSuffix(trimEOL(line), []byte(" "))
	line, ok = bytes.CutSuffix(line, []byte("}"))
	if !ok {
		return 0, false, false
	}
	line, nonSync := bytes.CutSuffix(line, []byte("+"))
	digits := line[bytes.LastIndexByte(line, '{')+1:]
	if len(digits) == len(line) { // no brace
		return 0, false, false
	}
	for _, b := range digits {
		if b < '0' || b > '9' {
			return 0, false, false
		}
	}
	size, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return 0, false, false
	}
	return size, !nonSync, true
}

// command splits a line that begins a command into its tag and its name, upper case, as go-imap reads them.
// It reports whether there are both; args is what follows the name.
func command(line []byte) (tag, name string, args []byte, ok bool) {
	t, rest, ok := bytes.Cut(trimEOL(line), []byte(" "))
	if !ok || len(t) == 0 || !isAtom(t) {
		return "", "", nil, false
	}
	n, args, _ := bytes.Cut(rest, []byte(" "))
	return string(t), string(bytes.ToUpper(n)), args, true
}

// beginsAtom reports whether go-imap finds an atom where s begins.
func beginsAtom(s string) bool { return s != "" && isAtom([]byte(s[:1])) }

// isAtom reports whether go-imap reads b as an atom.
func isAtom(b []byte) bool {
	for _, ch := range b {
		if strings.IndexByte("(){ %*\"\\]", ch) >= 0 || unicode.IsControl(rune(ch)) {
			return false
		}
	}
	return true
}
