package message

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

// What stands in ENVELOPE for the parts of an address that are missing, since there a missing host
// marks a group (RFC 9051 7.5.2). Dovecot uses the same words.
const (
	missingMailbox = "MISSING_MAILBOX"
	missingHost    = "MISSING_DOMAIN"
)

// An addressParser takes what programs write for an address list of RFC 5322 3.4, with the obsolete
// forms of 4.4, and other things. It never fails: what it doesn't understand becomes part of a name.
type addressParser struct {
	list  []imap.Address
	group bool

	// The address that is being read.
	words   []string // not yet known of what
	name    string   // once it is known
	comment string
	addr    *imap.Address // nil: no "@" or "<" yet
	angle   bool          // addr came in angle brackets
}

// parseAddresses parses a value as of From or To. A group is a start, its members and an end, as go-imap
// wants it (imap.Address).
func parseAddresses(v string) []imap.Address {
	p := new(addressParser)
	s := scanner(v)
	for s != "" {
		switch s[0] {
		case ' ', '\t':
			s.skip()
		case '(':
			if c := strings.TrimSpace(s.comment()); p.comment == "" {
				p.comment = c
			}
		case ',':
			s.skip()
			p.end()
		case ';': // also between addresses, as some programs show them
			s.skip()
			p.end()
			p.endGroup()
		case ':':
			s.skip()
			if !p.group && p.addr == nil && len(p.words) > 0 {
				p.list = append(p.list, imap.Address{Mailbox: strings.Join(p.words, " ")})
				p.group = true
				p.reset()
			}
		case '<':
			s.skip()
			if p.addr == nil {
				p.name = strings.Join(p.words, " ")
			} else if !p.angle { // "a@b <a@b>": what came first is the name
				p.name = p.addr.Mailbox + "@" + p.addr.Host
			}
			p.addr, p.angle = s.angleAddr(), true
			p.words = nil
		case '@':
			s.skip()
			s.space()
			if p.addr != nil {
				break
			}
			p.addr = &imap.Address{Host: s.domain()}
			// The last word is the local part, with what dots join to it (RFC 5322 4.4). If there are more,
			// the angle brackets are missing.
			n := len(p.words)
			for ; n > 0; n-- {
				w := p.words[n-1]
				if l := p.addr.Mailbox; l != "" && l[0] != '.' && !strings.HasSuffix(w, ".") {
					break
				}
				p.addr.Mailbox = w + p.addr.Mailbox
			}
			p.name, p.words = strings.Join(p.words[:n], " "), nil
		case '"':
			p.words = append(p.words, s.quoted())
		default:
			p.words = append(p.words, s.until(" \t(,;:<@\""))
		}
	}
	p.end()
	p.endGroup()
	return p.list
}

// end adds the address that was read, if there is one.
func (p *addressParser) end() {
	if p.addr == nil && len(p.words) > 0 {
		// One word is a local user, several are a name.
		p.addr = new(imap.Address)
		if len(p.words) == 1 {
			p.addr.Mailbox = p.words[0]
		} else {
			p.name = strings.Join(p.words, " ")
		}
	}
	if a := p.addr; a != nil {
		if a.Name = decodeWords(p.name); a.Name == "" {
			a.Name = decodeWords(p.comment)
		}
		if a.Mailbox == "" {
			a.Mailbox = missingMailbox
		}
		if a.Host == "" {
			a.Host = missingHost
		}
		p.list = append(p.list, *a)
	}
	p.reset()
}

func (p *addressParser) endGroup() {
	if p.group {
		p.list = append(p.list, imap.Address{})
		p.group = false
	}
}

func (p *addressParser) reset() {
	p.words, p.name, p.comment, p.addr, p.angle = nil, "", "", nil, false
}

// angleAddr reads what is in angle brackets, of which the first was read. A route before the address
// ("@a,@b:") is dropped: go-imap has no place for it.
func (s *scanner) angleAddr() *imap.Address {
	a := new(imap.Address)
	var local strings.Builder
	at := false
	for *s != "" && !s.eat('>') {
		switch (*s)[0] {
		case ' ', '\t':
			s.skip()
		case '(':
			s.comment()
		case '"':
			local.WriteString(s.quoted())
		case ':': // that was a route, or "mailto"
			s.skip()
			local.Reset()
			a.Host, at = "", false
		case '@':
			s.skip()
			s.space()
			if d := s.domain(); !at {
				a.Host, at = d, true
			}
		case ',':
			s.skip()
		default:
			w := s.until(" \t(\":@,>")
			if !at {
				local.WriteString(w)
			}
		}
	}
	a.Mailbox = local.String()
	return a
}

// domain reads a domain, or an address in square brackets. White space around its dots is dropped
// (RFC 5322 4.4).
func (s *scanner) domain() string {
	if strings.HasPrefix(string(*s), "[") {
		d := s.until("]>")
		if s.eat(']') {
			d += "]"
		}
		return d
	}
	d := s.until(" \t(,;:<>@\"")
	for {
		next := *s
		next.space()
		if d == "" || next == "" || !strings.HasSuffix(d, ".") && next[0] != '.' {
			return d
		}
		more := next.until(" \t(,;:<>@\"")
		if more == "" {
			return d
		}
		d += more
		*s = next
	}
}
