package wire

import (
	"bytes"
	"strings"
)

// A search rewrites the keys of a SEARCH command that go-imap loses (SearchCriteria.And in search.go of its
// v2.0.0-beta.8): SMALLER when another size or a date follows, and both sizes when they are 0. In a
// criterion of its own, behind NOT, each holds.
//
//	SMALLER n  →  NOT NOT SMALLER n   (behind NOT it stays)
//	SMALLER 0  →  NOT ALL
//	LARGER 0   →  NOT SMALLER 1
//
// It reads the command as go-imap does, so that no value is taken for a key, and leaves what follows
// something that it can't read as it is.
type search struct {
	on   bool // the command is a SEARCH and could be read so far
	args int  // values of the last key that are still to come
	not  bool // the last key was NOT
}

// first returns what the server is to read in place of the first line of a command, which may be the
// line itself.
func (s *search) first(line []byte) []byte {
	*s = search{}
	tag, rest, _ := bytes.Cut(trimEOL(line), []byte(" "))
	name, rest := word(rest)
	if name == "UID" {
		name, rest = word(bytes.TrimPrefix(rest, []byte(" ")))
	}
	s.on = name == "SEARCH" && len(tag) > 0 && isAtom(tag)
	return s.keys(line, rest)
}

// next is first for a line behind a literal.
func (s *search) next(line []byte) []byte { return s.keys(line, trimEOL(line)) }

// keys rewrites the keys in rest, which is the end of the line.
func (s *search) keys(line, rest []byte) []byte {
	end := len(trimEOL(line))
	var out []byte
	done := 0 // what is in out instead of line[:done]
	for s.on && len(rest) > 0 {
		at := end - len(rest)
		switch rest[0] {
		case ' ':
			rest = rest[1:]
		case '(', ')':
			s.on, s.not = s.args == 0, false
			rest = rest[1:]
		case '"':
			rest = rest[quoted(rest):]
			s.on = s.args > 0 && end-len(rest) > at && (len(rest) == 0 || isDelimiter(rest[0]))
			s.args--
		case '{':
			_, _, ok := literal(rest)
			s.on = s.args > 0 && ok
			s.args--
			rest = nil
		default:
			var key string
			key, rest = word(rest)
			switch {
			case strings.ContainsAny(key, `"{`):
				s.on = false
			case s.args > 0:
				s.args--
			case key == "RETURN": // not a key
				_, rest, _ = bytes.Cut(rest, []byte(")"))
			case key == "SMALLER" || key == "LARGER":
				var n string
				n, rest = word(bytes.TrimPrefix(rest, []byte(" ")))
				s.on = n != "" && strings.Trim(n, "0123456789") == ""
				if size, ok := sizeKey(key, n, s.not); ok && s.on {
					out = append(append(out, line[done:at]...), size...)
					done = end - len(rest)
				}
				s.not = false
			default:
				s.args, s.not = searchArgs[key], key == "NOT"
			}
		}
	}
	if done == 0 {
		return line
	}
	return append(out, line[done:]...)
}

// searchArgs has how many values follow a search key, for those that have any and the charset.
var searchArgs = map[string]int{
	"BCC": 1, "BEFORE": 1, "BODY": 1, "CC": 1, "CHARSET": 1, "FROM": 1, "HEADER": 2, "KEYWORD": 1, "ON": 1, "SENTBEFORE": 1,
	"SENTON": 1, "SENTSINCE": 1, "SINCE": 1, "SUBJECT": 1, "TEXT": 1, "TO": 1, "UID": 1, "UNKEYWORD": 1,
}

// sizeKey returns what stands for the key with the number n, and whether it is something else.
func sizeKey(key, n string, not bool) (string, bool) {
	zero := strings.Trim(n, "0") == ""
	switch {
	case key == "LARGER":
		return "NOT SMALLER 1", zero
	case zero:
		return "NOT ALL", true
	}
	return "NOT NOT SMALLER " + n, !not
}

func isDelimiter(ch byte) bool { return ch == ' ' || ch == '(' || ch == ')' }

// word cuts the word at the start of b, upper case as go-imap has it, from what follows.
func word(b []byte) (w string, rest []byte) {
	n := 0
	for n < len(b) && !isDelimiter(b[n]) {
		n++
	}
	return strings.ToUpper(string(b[:n])), b[n:]
}

// quoted returns the length of the quoted string at the start of b, 0 if it does not end.
func quoted(b []byte) int {
	for n := 1; n < len(b); n++ {
		switch b[n] {
		case '\\':
			n++
		case '"':
			return n + 1
		}
	}
	return 0
}
