package message

import (
	"math"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// A Structure says where the parts of a message are, and holds what ENVELOPE and BODYSTRUCTURE are
// made of. It is immutable, apart from UnmarshalBinary; any number of goroutines may use it.
type Structure struct {
	size  int64
	parts []part // in the order in which they begin; the first one is the message itself
}

// A kind is what may be inside a part.
type kind byte

const (
	leaf kind = iota
	multipart
	message // message/rfc822 or message/global that could be read: it has one child, the message in it
)

// A part is a message or a part of one. Its places count from the start of the source.
type part struct {
	kind     kind
	parent   int // index in parts; -1: none
	children []int

	header, body, end int64 // where header and body begin, and where the body ends
	lines             int64 // line ends in the body

	fields []byte // the header, or those of its fields that ENVELOPE and BODYSTRUCTURE need
	whole  bool   // fields is all bytes of the header
}

// Size returns the size of the message in bytes (RFC822.SIZE).
func (s *Structure) Size() int64 { return s.size }

// Envelope returns what ENVELOPE tells (RFC 9051 7.5.2). Sender and Reply-To are From's where they are
// missing.
func (s *Structure) Envelope() *imap.Envelope { return s.parts[0].envelope() }

// BodyStructure returns the tree of BODYSTRUCTURE, or if not extended that of BODY. Each value in it is
// one that go-imap's FetchWriter can write.
func (s *Structure) BodyStructure(extended bool) imap.BodyStructure { return s.build(0, extended) }

// build is recursive; the parser and UnmarshalBinary bound the depth.
func (s *Structure) build(i int, extended bool) imap.BodyStructure {
	p := &s.parts[i]
	t := contentType(s.parts, i)
	if p.kind == multipart {
		m := &imap.BodyStructureMultiPart{Subtype: t.subtype}
		for _, c := range p.children {
			m.Children = append(m.Children, s.build(c, extended))
		}
		if extended {
			m.Extended = &imap.BodyStructureMultiPartExt{
				Params:      t.params,
				Disposition: p.disposition(),
				Language:    p.language(),
				Location:    p.location(),
			}
		}
		return m
	}

	l := &imap.BodyStructureSinglePart{
		Type:        t.typ,
		Subtype:     t.subtype,
		Params:      t.params,
		ID:          p.text("Content-ID"),
		Description: p.text("Content-Description"),
		Encoding:    p.encoding(),
		Size:        uint32(min(p.end-p.body, math.MaxUint32)),
	}
	switch {
	case p.kind == message:
		c := p.children[0]
		l.MessageRFC822 = &imap.BodyStructureMessageRFC822{
			Envelope:      s.parts[c].envelope(),
			BodyStructure: s.build(c, extended),
			NumLines:      p.lines,
		}
	case t.isMultipart() || t.isMessage():
		// It can't be said what is inside, as BODYSTRUCTURE demands for these types.
		l.Type, l.Subtype, l.Params = "application", "octet-stream", nil
	case t.typ == "text":
		l.Text = &imap.BodyStructureText{NumLines: p.lines}
	}
	if extended {
		l.Extended = &imap.BodyStructureSinglePartExt{
			Disposition: p.disposition(),
			Language:    p.language(),
			Location:    p.location(),
		}
	}
	return l
}

func (p *part) envelope() *imap.Envelope {
	date, _ := p.field("Date")
	subject, _ := p.field("Subject")
	e := &imap.Envelope{
		Date:      parseDate(date),
		Subject:   decodeWords(subject),
		From:      p.addresses("From"),
		Sender:    p.addresses("Sender"),
		ReplyTo:   p.addresses("Reply-To"),
		To:        p.addresses("To"),
		Cc:        p.addresses("Cc"),
		Bcc:       p.addresses("Bcc"),
		InReplyTo: p.messageIDs("In-Reply-To"),
	}
	if ids := p.messageIDs("Message-ID"); len(ids) > 0 {
		e.MessageID = ids[0]
	}
	if len(e.Sender) == 0 {
		e.Sender = e.From
	}
	if len(e.ReplyTo) == 0 {
		e.ReplyTo = e.From
	}
	return e
}

// field returns the value of the first field of a name, and whether there is one.
func (p *part) field(name string) (string, bool) {
	for h := p.fields; len(h) > 0; {
		n := lineLen(h)
		if isField(h[:n], name) {
			for n < len(h) && continues(h[n:]) {
				n += lineLen(h[n:])
			}
			return value(h[:n]), true
		}
		h = h[n:]
	}
	return "", false
}

func (p *part) text(name string) string {
	v, _ := p.field(name)
	return v
}

func (p *part) addresses(name string) []imap.Address { return parseAddresses(p.text(name)) }

// messageIDs returns the identifiers in a field, without their angle brackets. A value that has none
// is an identifier if it is one word.
func (p *part) messageIDs(name string) []string {
	v := p.text(name)
	var ids []string
	for rest := v; ; {
		var id string
		var ok bool
		if _, rest, ok = strings.Cut(rest, "<"); !ok {
			break
		}
		id, rest, _ = strings.Cut(rest, ">")
		if id = strings.Join(strings.Fields(id), ""); id != "" {
			ids = append(ids, id)
		}
	}
	if ids == nil && v != "" && !strings.ContainsAny(v, " <>") {
		ids = []string{v}
	}
	return ids
}

// encoding returns the transfer encoding in lower case; 7bit if none is told (RFC 2045 6.1).
func (p *part) encoding() string {
	v := p.text("Content-Transfer-Encoding")
	s := scanner(v)
	s.space()
	if e := s.token(); e != "" {
		return strings.ToLower(e)
	}
	return "7bit"
}

func (p *part) disposition() *imap.BodyStructureDisposition {
	v, ok := p.field("Content-Disposition")
	if !ok {
		return nil
	}
	s := scanner(v)
	s.space()
	d := strings.ToLower(s.token())
	params := s.params()
	if d == "" {
		if len(params) == 0 {
			return nil
		}
		d = "attachment" // what it is unless it's known to be inline (RFC 2183 2.8)
	}
	return &imap.BodyStructureDisposition{Value: d, Params: params}
}

// language returns the tags of Content-Language (RFC 3282).
func (p *part) language() []string {
	s := scanner(p.text("Content-Language"))
	var l []string
	for s != "" {
		s.space()
		if t := s.token(); t != "" {
			l = append(l, t)
		} else {
			s.skip()
		}
	}
	return l
}

// location returns the URI of Content-Location; white space in it is of folding (RFC 2557 4.4.2).
func (p *part) location() string {
	return strings.Join(strings.Fields(p.text("Content-Location")), "")
}
