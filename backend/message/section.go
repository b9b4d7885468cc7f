package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/emersion/go-imap/v2"
)

// ErrUnknownEncoding tells that a part has a transfer encoding that BINARY can't decode; the client is
// told NO [UNKNOWN-CTE] (RFC 9051 7.1).
var ErrUnknownEncoding = errors.New("unknown transfer encoding")

// BodySection returns the bytes of BODY[...] (RFC 9051 6.4.5), and how many there are. What does not exist
// is empty. Errors come only from opening and reading the source.
func (m *Message) BodySection(item *imap.FetchItemBodySection) (r io.Reader, size int64, err error) {
	if len(item.Part) == 0 {
		return m.topSection(item)
	}
	p, err := m.find(item.Part, item.Specifier)
	switch {
	case err != nil:
		return nil, 0, err
	case p == nil:
		return nothing()
	case item.Specifier == imap.PartSpecifierHeader || item.Specifier == imap.PartSpecifierMIME:
		return m.headerSection(p, item)
	}
	return m.section(span{p.body, p.end}, item.Partial)
}

// topSection is a section of the message itself, for which at most its header has to be read.
func (m *Message) topSection(item *imap.FetchItemBodySection) (io.Reader, int64, error) {
	switch item.Specifier {
	case imap.PartSpecifierHeader:
		p, err := m.head()
		if err != nil {
			return nil, 0, err
		}
		return m.headerSection(p, item)
	case imap.PartSpecifierMIME: // it needs a part number
		return nothing()
	}
	src, err := m.source()
	if err != nil {
		return nil, 0, err
	}
	size, err := src.Size()
	if err != nil {
		return nil, 0, err
	}
	all := span{0, size}
	if item.Specifier == imap.PartSpecifierText {
		p, err := m.head()
		if err != nil {
			return nil, 0, err
		}
		all.from = p.body
	}
	return m.section(all, item.Partial)
}

// headerSection is the header of p, or some fields of it.
func (m *Message) headerSection(p *part, item *imap.FetchItemBodySection) (io.Reader, int64, error) {
	names, not := item.HeaderFields, false
	if len(names) == 0 {
		names, not = item.HeaderFieldsNot, true
	}
	if len(names) == 0 && !p.whole {
		return m.section(span{p.header, p.body}, item.Partial)
	}
	h, err := m.headerBytes(p)
	if err != nil {
		return nil, 0, err
	}
	if len(names) > 0 {
		h = keepFields(h, names, not)
	}
	s := clip(span{0, int64(len(h))}, item.Partial)
	return bytes.NewReader(h[s.from:s.to]), s.to - s.from, nil
}

// headerBytes returns the header of p, up to maxHeader. It may be of the structure: it is not to be changed.
func (m *Message) headerBytes(p *part) ([]byte, error) {
	if p.whole {
		return p.fields, nil
	}
	return m.bytes(span{p.header, p.body}, maxHeader)
}

// find returns the part that a path and what is wanted of it name; nil if there is none.
func (m *Message) find(path []int, of imap.PartSpecifier) (*part, error) {
	s, err := m.places()
	if err != nil {
		return nil, err
	}
	i, ok := s.find(path)
	if !ok {
		return nil, nil
	}
	if of == imap.PartSpecifierHeader || of == imap.PartSpecifierText {
		if s.parts[i].kind != message { // RFC 9051 6.4.5.1
			return nil, nil
		}
		i = s.parts[i].children[0]
	}
	return &s.parts[i], nil
}

// find follows a path of part numbers, which has one at least. A message that is not a multipart has
// one part: itself.
func (s *Structure) find(path []int) (i int, ok bool) {
	whole := true // i is a message of which no part was named yet
	for _, n := range path {
		if !whole && s.parts[i].kind == message {
			i, whole = s.parts[i].children[0], true
		}
		switch {
		case s.parts[i].kind == multipart:
			if n < 1 || n > len(s.parts[i].children) {
				return 0, false
			}
			i, whole = s.parts[i].children[n-1], false
		case whole && n == 1:
			whole = false
		default:
			return 0, false
		}
	}
	return i, true
}

// section returns a range of the source, or a part of it.
func (m *Message) section(s span, partial *imap.SectionPartial) (io.Reader, int64, error) {
	src, err := m.source()
	if err != nil {
		return nil, 0, err
	}
	s = clip(s, partial)
	n := s.to - s.from
	return &exactReader{io.NewSectionReader(src, s.from, n), n}, n, nil
}

// clip returns that part of s which partial wants; nil: all.
func clip(s span, partial *imap.SectionPartial) span {
	if partial == nil {
		return s
	}
	from := s.from + min(max(partial.Offset, 0), s.to-s.from)
	return span{from, from + min(max(partial.Size, 0), s.to-from)}
}

func nothing() (io.Reader, int64, error) { return bytes.NewReader(nil), 0, nil }

// BinarySection returns the bytes of BINARY[...] (RFC 9051 6.4.5), and how many there are: the body of a
// part without its transfer encoding. The whole message and multiparts have none. The part is decoded
// twice, to count and to read. An encoding that isn't known is ErrUnknownEncoding; other errors come
// only from opening and reading the source. What does not exist is empty.
func (m *Message) BinarySection(item *imap.FetchItemBinarySection) (r io.Reader, size int64, err error) {
	if len(item.Part) == 0 {
		return m.BodySection(&imap.FetchItemBodySection{Partial: item.Partial})
	}
	p, err := m.find(item.Part, imap.PartSpecifierNone)
	if err != nil {
		return nil, 0, err
	}
	if p == nil {
		return nothing()
	}
	encoding := p.encoding()
	if p.kind != leaf || isIdentity(encoding) {
		return m.section(span{p.body, p.end}, item.Partial)
	}
	counted, err := m.decoded(p, encoding, item.Partial)
	if err != nil {
		return nil, 0, err
	}
	if size, err = io.Copy(io.Discard, counted); err != nil {
		return nil, 0, fmt.Errorf("decode part: %w", err)
	}
	r, err = m.decoded(p, encoding, item.Partial)
	return r, size, err
}

// decoded returns a part's body without its transfer encoding, or a part of that.
func (m *Message) decoded(p *part, encoding string, partial *imap.SectionPartial) (io.Reader, error) {
	body, _, err := m.section(span{p.body, p.end}, nil)
	if err != nil {
		return nil, err
	}
	r, ok := decode(body, encoding)
	if !ok {
		return nil, fmt.Errorf("decode part: %w: %q", ErrUnknownEncoding, encoding)
	}
	if partial == nil {
		return r, nil
	}
	if _, err := io.CopyN(io.Discard, r, max(partial.Offset, 0)); err != nil && err != io.EOF {
		return nil, fmt.Errorf("decode part: %w", err)
	}
	return io.LimitReader(r, max(partial.Size, 0)), nil
}

// BinarySize returns the size of BINARY[...] without partial, as BINARY.SIZE tells it. Errors are
// BinarySection's.
func (m *Message) BinarySize(part []int) (int64, error) {
	_, size, err := m.BinarySection(&imap.FetchItemBinarySection{Part: part})
	return size, err
}

// An exactReader has left bytes to come; it is an error if they don't.
type exactReader struct {
	r    io.Reader
	left int64
}

func (r *exactReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.left -= int64(n)
	if err == io.EOF && r.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
