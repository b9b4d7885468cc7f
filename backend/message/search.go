package message

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

// MatchHeader reports whether a top-level field has text in its value, decoded (SEARCH HEADER, FROM,
// SUBJECT, …, RFC 9051 6.4.4), or with an empty text whether it exists. Case does not matter, nor how an
// accented letter is composed (RFC 5051).
func (m *Message) MatchHeader(field, text string) (bool, error) {
	top, err := m.head()
	if err != nil {
		return false, err
	}
	header, err := m.headerBytes(top)
	if err != nil {
		return false, err
	}
	needle := fold(text)
	for name, raw := range fields(header) {
		if name == nil || !strings.EqualFold(string(name), field) {
			continue
		}
		if text == "" || bytes.Contains(fold(decodeWords(value(raw))), needle) {
			return true, nil
		}
	}
	return false, nil
}

// MatchBody reports whether the body has text in it (SEARCH BODY, RFC 9051 6.4.4): in the text parts,
// their transfer encoding and charset decoded, and in messages inside, with their headers. HTML is
// searched as it is written.
func (m *Message) MatchBody(text string) (bool, error) { return m.match(text, false) }

// MatchText reports whether the header, the body or the header of a part has text in it (SEARCH TEXT,
// RFC 9051 6.4.4).
func (m *Message) MatchText(text string) (bool, error) { return m.match(text, true) }

func (m *Message) match(text string, headers bool) (bool, error) {
	if text == "" {
		return true, nil
	}
	f := finder{needle: fold(text)}
	if headers {
		top, err := m.head()
		if err != nil {
			return false, err
		}
		if ok, err := m.matchFields(top, f.needle); ok || err != nil {
			return ok, err
		}
	}
	s, err := m.places()
	if err != nil {
		return false, err
	}
	for i := range s.parts {
		p := &s.parts[i]
		if i > 0 && (headers || s.parts[p.parent].kind == message) {
			if ok, err := m.matchFields(p, f.needle); ok || err != nil {
				return ok, err
			}
		}
		if t := contentType(s.parts, i); p.kind == leaf && (t.typ == "text" || t.typ == "message" && !t.isMessage()) {
			if ok, err := m.matchLeaf(p, t.params["charset"], &f); ok || err != nil {
				return ok, err
			}
		}
	}
	return false, nil
}

// matchFields looks into all fields of a header, their names too.
func (m *Message) matchFields(p *part, needle []byte) (bool, error) {
	header, err := m.headerBytes(p)
	if err != nil {
		return false, err
	}
	for name, raw := range fields(header) {
		line := text(raw)
		if name != nil {
			line = string(name) + ": " + decodeWords(value(raw))
		}
		if bytes.Contains(fold(line), needle) {
			return true, nil
		}
	}
	return false, nil
}

// matchLeaf looks into the body of a part of text. What can't be decoded has no text.
func (m *Message) matchLeaf(p *part, name string, f *finder) (bool, error) {
	body, _, err := m.section(span{p.body, p.end}, nil)
	if err != nil {
		return false, err
	}
	src := &sourceReader{r: body}
	r, ok := decode(src, p.encoding())
	if !ok {
		return false, nil
	}
	if c, ok := charsetReader(name, r); ok {
		r = c
	}
	found := f.in(norm.NFKD.Reader(transform.NewReader(r, folder{})))
	if src.err != nil {
		return false, fmt.Errorf("read message: %w", src.err)
	}
	return found, nil
}

// A sourceReader remembers the error of a source, to tell it from those of charsets.
type sourceReader struct {
	r   io.Reader
	err error
}

func (r *sourceReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// A finder looks for something in what is read.
type finder struct {
	needle []byte // not empty
	buf    []byte
}

// in reports whether the needle is in what r reads before it ends or fails.
func (f *finder) in(r io.Reader) bool {
	if f.buf == nil {
		f.buf = make([]byte, len(f.needle)+bufferSize)
	}
	have := 0
	for {
		n, err := r.Read(f.buf[have:])
		have += n
		if bytes.Contains(f.buf[:have], f.needle) {
			return true
		}
		if err != nil {
			return false
		}
		if keep := len(f.needle) - 1; have > keep {
			have = copy(f.buf, f.buf[have-keep:have])
		}
	}
}

// fold makes equal what SEARCH takes for equal: letters in one case, then decomposed (RFC 5051 2).
func fold(s string) []byte {
	b, _, _ := transform.Bytes(folder{}, []byte(s))
	return norm.NFKD.Bytes(b)
}

// A folder is a transformer to one case. Bytes that are not UTF-8 are windows-1252.
type folder struct{ transform.NopResetter }

func (folder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if c := src[nSrc]; c < utf8.RuneSelf {
			if nDst == len(dst) {
				return nDst, nSrc, transform.ErrShortDst
			}
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			dst[nDst] = c
			nDst++
			nSrc++
			continue
		}
		if !atEOF && !utf8.FullRune(src[nSrc:]) {
			return nDst, nSrc, transform.ErrShortSrc
		}
		r, n := utf8.DecodeRune(src[nSrc:])
		if r == utf8.RuneError && n == 1 {
			r = charmap.Windows1252.DecodeByte(src[nSrc])
		}
		if len(dst)-nDst < utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += utf8.EncodeRune(dst[nDst:], unicode.ToLower(unicode.ToUpper(r)))
		nSrc += n
	}
	return nDst, nSrc, nil
}
