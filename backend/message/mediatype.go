package message

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A mediaType is the value of a Content-Type field. All but values of parameters is in lower case.
type mediaType struct {
	typ, subtype string
	params       map[string]string // nil: none
}

func (t *mediaType) isMultipart() bool { return t.typ == "multipart" }

// isMessage reports whether a whole message is inside.
func (t *mediaType) isMessage() bool {
	return t.typ == "message" && (t.subtype == "rfc822" || t.subtype == "global")
}

// contentType returns the type of a part: what its header says, or the default if it says nothing or
// nothing that can be read.
func contentType(parts []part, i int) mediaType {
	p := &parts[i]
	v, ok := p.field("Content-Type")
	if ok {
		s := scanner(v)
		s.space()
		t := mediaType{typ: strings.ToLower(s.token())}
		s.space()
		if s.eat('/') {
			s.space()
			t.subtype = strings.ToLower(s.token())
		}
		if t.typ != "" && t.subtype != "" {
			t.params = s.params()
			if !t.isMultipart() {
				return t
			}
			b := strings.TrimRight(t.params["boundary"], " ")
			if b != "" && len(b) <= maxBoundary {
				t.params["boundary"] = b
				return t
			}
		}
	} else if p.parent >= 0 && parts[p.parent].kind == multipart {
		if up := contentType(parts, p.parent); up.subtype == "digest" { // RFC 2046 5.1.5
			return mediaType{typ: "message", subtype: "rfc822"}
		}
	}
	return mediaType{typ: "text", subtype: "plain", params: map[string]string{"charset": "us-ascii"}} // RFC 2045 5.2
}

// A scanner reads the values of structured MIME fields, forgiving what can be understood.
type scanner string

func (s *scanner) eat(c byte) bool {
	if *s == "" || (*s)[0] != c {
		return false
	}
	*s = (*s)[1:]
	return true
}

func (s *scanner) skip() {
	if *s != "" {
		*s = (*s)[1:]
	}
}

// until returns what comes before the first of chars, or all.
func (s *scanner) until(chars string) string {
	i := strings.IndexAny(string(*s), chars)
	if i < 0 {
		i = len(*s)
	}
	v := string((*s)[:i])
	*s = (*s)[i:]
	return v
}

// space skips white space and comments.
func (s *scanner) space() {
	for {
		*s = scanner(strings.TrimLeft(string(*s), " \t"))
		if *s == "" || (*s)[0] != '(' {
			return
		}
		s.comment()
	}
}

// comment reads a comment, in which there may be others, and returns what it says. s is at its "(".
func (s *scanner) comment() string {
	v, depth := *s, 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				*s = v[i+1:]
				return unescape(string(v[1:i]))
			}
		}
	}
	*s = ""
	return unescape(string(v[1:]))
}

// quoted reads a quoted string. s is at its first quote; the last one may be missing.
func (s *scanner) quoted() string {
	v := *s
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			*s = v[i+1:]
			return unescape(string(v[1:i]))
		}
	}
	*s = ""
	return unescape(string(v[1:]))
}

// unescape removes the backslashes of quoted pairs. Others than those that quoting needs stay: some
// programs put unquoted paths of Windows in quotes.
func unescape(v string) string {
	if strings.IndexByte(v, '\\') < 0 {
		return v
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) && strings.IndexByte(`"\()`, v[i+1]) >= 0 {
			i++
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// token reads a token of RFC 2045 5.1; empty if there is none.
func (s *scanner) token() string {
	v := string(*s)
	i := strings.IndexFunc(v, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?=`, c)
	})
	if i < 0 {
		i = len(v)
	}
	*s = scanner(v[i:])
	return v[:i]
}

// params reads parameters; nil if there is none. Values in several pieces or with a charset are
// decoded (RFC 2231). A value with a charset is told as "name*", as RFC 9051 7.5.2 wants it, and as
// "name", where clients and go-imap look for it, unless the field has that too.
func (s *scanner) params() map[string]string {
	params := make(map[string]string)
	var pieces map[string]map[int]piece
	for {
		s.space()
		for s.eat(';') {
			s.space()
		}
		if *s == "" {
			break
		}
		name := strings.ToLower(s.token())
		s.space()
		if name == "" || !s.eat('=') {
			if name == "" {
				s.skip()
			}
			continue
		}
		s.space()
		var v string
		if strings.HasPrefix(string(*s), `"`) {
			v = s.quoted()
			s.until(";")
		} else if v = strings.TrimRight(s.until(";"), " \t"); name != "name" && name != "filename" {
			// In file names that should be quoted white space is common, elsewhere it ends the value.
			rest := scanner(v)
			v = rest.until(" \t(")
			rest.space()
			*s = rest + *s
		}
		base, section, split := strings.Cut(name, "*")
		if !split {
			if _, ok := params[name]; !ok {
				params[name] = v
			}
			continue
		}
		n, extended := strings.CutSuffix(section, "*")
		if section == "" {
			n, extended = "0", true
		}
		i, err := strconv.ParseUint(n, 10, 16)
		if err != nil || base == "" {
			continue
		}
		if pieces == nil {
			pieces = make(map[string]map[int]piece)
		}
		if pieces[base] == nil {
			pieces[base] = make(map[int]piece)
		}
		if _, ok := pieces[base][int(i)]; !ok {
			pieces[base][int(i)] = piece{v, extended}
		}
	}
	for _, base := range slices.Sorted(maps.Keys(pieces)) {
		v, extended := join(pieces[base])
		if extended {
			params[base+"*"] = v
		}
		if _, ok := params[base]; !ok {
			params[base] = v
		}
	}
	if len(params) == 0 {
		return nil
	}
	return params
}

// A piece is a value of "name*n", or if extended of "name*n*".
type piece struct {
	value    string
	extended bool
}

// join puts the pieces of a value together, and tells whether one was extended (RFC 2231 4.1).
func join(pieces map[int]piece) (v string, extended bool) {
	var b []byte
	charset := ""
	for i := range len(pieces) {
		p, ok := pieces[i]
		if !ok {
			break
		}
		if !p.extended {
			b = append(b, p.value...)
			continue
		}
		extended = true
		if i == 0 {
			if c, rest, ok := strings.Cut(p.value, "'"); ok {
				if _, rest, ok = strings.Cut(rest, "'"); ok {
					charset, p.value = c, rest
				}
			}
		}
		b = append(b, unhexed(p.value, '%')...)
	}
	if !extended {
		return string(b), false
	}
	return strings.TrimSpace(text([]byte(decodeCharset(charset, b)))), true
}

// unhexed replaces each mark that two hex digits follow by the byte they stand for.
func unhexed(v string, mark byte) []byte {
	b := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == mark && i+2 < len(v) && isHex(v[i+1]) && isHex(v[i+2]) {
			b = append(b, unhex(v[i+1])<<4|unhex(v[i+2]))
			i += 2
			continue
		}
		b = append(b, v[i])
	}
	return b
}
