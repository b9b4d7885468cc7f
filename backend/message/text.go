package message

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"
)

// text makes b a string that IMAP can carry: valid UTF-8 on one line. Bytes that are not UTF-8 are
// windows-1252, control characters become spaces.
func text(b []byte) string {
	clean := true
	for _, c := range b {
		if c < ' ' || c >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return string(b)
	}
	var s strings.Builder
	s.Grow(len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			r = charmap.Windows1252.DecodeByte(b[0])
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			r = ' '
		}
		s.WriteRune(r)
		b = b[n:]
	}
	return s.String()
}

// decodeCharset returns b as UTF-8. With a charset that isn't known, it is as text takes it.
func decodeCharset(name string, b []byte) string {
	r, ok := charsetReader(name, bytes.NewReader(b))
	if !ok {
		return text(b)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return text(b)
	}
	return string(out)
}

// charsetReader returns a reader of r as UTF-8. It is not ok if the charset says no more than what is tried
// anyway, UTF-8 and then windows-1252: what calls itself ASCII or UTF-8 and isn't, is mostly that.
func charsetReader(name string, r io.Reader) (_ io.Reader, ok bool) {
	switch strings.ToLower(name) {
	case "", "us-ascii", "ascii", "utf-8", "utf8":
		return nil, false
	case "iso-8859-1", "latin1": // has only control characters where windows-1252 has more letters
		name = "windows-1252"
	}
	r, err := charset.Reader(name, r)
	return r, err == nil
}

// decodeWords decodes the encoded words in a value (RFC 2047). Words of one charset that follow each
// other are decoded as one, since some programs cut between the bytes of a character. What is no
// encoded word stays as it is.
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	var out strings.Builder
	var charset string // of the words in word
	var word []byte
	flush := func() {
		if word != nil {
			out.WriteString(text([]byte(decodeCharset(charset, word))))
			word = nil
		}
	}
	for s != "" {
		i := strings.Index(s, "=?")
		if i < 0 {
			break
		}
		c, b, rest, ok := cutWord(s[i:])
		if !ok {
			flush()
			out.WriteString(s[:i+2])
			s = s[i+2:]
			continue
		}
		if word == nil || strings.TrimLeft(s[:i], " \t") != "" {
			flush()
			out.WriteString(s[:i])
		} else if !strings.EqualFold(c, charset) {
			flush()
		}
		charset, word = c, append(word, b...)
		if word == nil {
			word = []byte{}
		}
		s = rest
	}
	flush()
	out.WriteString(s)
	return out.String()
}

// cutWord takes the encoded word apart with which s begins.
func cutWord(s string) (charset string, b []byte, rest string, ok bool) {
	charset, s, ok = strings.Cut(s[2:], "?")
	if !ok || charset == "" || len(charset) > 75 || strings.ContainsAny(charset, " =") || len(s) < 2 || s[1] != '?' {
		return "", nil, "", false
	}
	enc := s[0] | 0x20
	v, rest, ok := strings.Cut(s[2:], "?=")
	if !ok {
		return "", nil, "", false
	}
	charset, _, _ = strings.Cut(charset, "*") // a language may follow (RFC 2231 5)
	switch enc {
	case 'b':
		d := new(base64Decoder)
		b = d.flush(d.decode(nil, []byte(v)))
	case 'q':
		b = unhexed(strings.ReplaceAll(v, "_", " "), '=')
	default:
		return "", nil, "", false
	}
	return charset, b, rest, true
}
