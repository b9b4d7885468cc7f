package message

import "io"

// A decoder undoes a transfer encoding, in pieces. It never fails: what is broken is decoded as far
// as it goes.
type decoder interface {
	decode(dst, src []byte) []byte // appends to dst what is certain after src
	flush(dst []byte) []byte       // appends the rest, at the end
}

// isIdentity reports whether an encoding leaves the bytes as they are (RFC 2045 6.2).
func isIdentity(encoding string) bool {
	return encoding == "7bit" || encoding == "8bit" || encoding == "binary"
}

// decode returns a reader of what r encodes; ok is false if the encoding is not known.
func decode(r io.Reader, encoding string) (_ io.Reader, ok bool) {
	switch {
	case isIdentity(encoding):
		return r, true
	case encoding == "base64":
		return &decodingReader{r: r, d: new(base64Decoder)}, true
	case encoding == "quoted-printable":
		return &decodingReader{r: r, d: new(qpDecoder)}, true
	}
	return nil, false
}

type decodingReader struct {
	r   io.Reader
	d   decoder
	in  []byte
	out []byte
	off int // of what is in out, this was read
	err error
}

func (r *decodingReader) Read(p []byte) (int, error) {
	if r.in == nil {
		r.in = make([]byte, 8<<10)
	}
	for r.off == len(r.out) {
		if r.err != nil {
			return 0, r.err
		}
		var n int
		n, r.err = r.r.Read(r.in)
		r.out, r.off = r.d.decode(r.out[:0], r.in[:n]), 0
		if r.err == io.EOF {
			r.out = r.d.flush(r.out)
		}
	}
	n := copy(p, r.out[r.off:])
	r.off += n
	return n, nil
}

// A base64Decoder skips what is not of the alphabet, and ends at the first "=" (RFC 2045 6.8).
type base64Decoder struct {
	bits uint32
	n    int // characters in bits
	done bool
}

// base64Values are the values of the alphabet's characters; 0xff: not in it.
var base64Values = func() (v [256]byte) {
	for i := range v {
		v[i] = 0xff
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		v[c] = byte(i)
	}
	return v
}()

func (d *base64Decoder) decode(dst, src []byte) []byte {
	if d.done {
		return dst
	}
	for _, c := range src {
		v := base64Values[c]
		if v == 0xff {
			if c == '=' {
				dst = d.flush(dst)
				d.done = true
				return dst
			}
			continue
		}
		d.bits = d.bits<<6 | uint32(v)
		if d.n++; d.n == 4 {
			dst = append(dst, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
			d.bits, d.n = 0, 0
		}
	}
	return dst
}

func (d *base64Decoder) flush(dst []byte) []byte {
	switch d.n {
	case 2:
		dst = append(dst, byte(d.bits>>4))
	case 3:
		dst = append(dst, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return dst
}

// A qpDecoder decodes quoted-printable (RFC 2045 6.7). White space before a line end is dropped, a
// "=" that encodes nothing is itself.
type qpDecoder struct {
	// What can't be decided yet: white space, which may be before a line end; or "=" and what
	// followed it: a hex digit, or white space, before a line end too. A CR may be last.
	held []byte
}

const maxHeld = 1000 // bytes; longer white space is not of a line end

func (d *qpDecoder) decode(dst, src []byte) []byte {
	for _, c := range src {
		dst = d.step(dst, c)
	}
	return dst
}

func (d *qpDecoder) step(dst []byte, c byte) []byte {
	n := len(d.held)
	if n == 0 {
		if c == '=' || c == ' ' || c == '\t' {
			d.held = append(d.held, c)
			return dst
		}
		return append(dst, c)
	}
	last := d.held[n-1]
	soft := d.held[0] == '='
	switch {
	case c == '\n':
		if soft && n == 2 && isHex(last) {
			break
		}
		d.held = d.held[:0]
		if soft {
			return dst
		}
		if last == '\r' {
			dst = append(dst, '\r')
		}
		return append(dst, '\n')
	case soft && n == 1 && isHex(c):
		d.held = append(d.held, c)
		return dst
	case soft && n == 2 && isHex(last):
		if isHex(c) {
			d.held = d.held[:0]
			return append(dst, unhex(last)<<4|unhex(c))
		}
	case (c == ' ' || c == '\t' || c == '\r') && last != '\r' && n < maxHeld:
		d.held = append(d.held, c)
		return dst
	}
	dst = append(dst, d.held...)
	d.held = d.held[:0]
	return d.step(dst, c)
}

func (d *qpDecoder) flush(dst []byte) []byte {
	if len(d.held) == 2 && isHex(d.held[1]) {
		dst = append(dst, d.held...)
	}
	d.held = d.held[:0]
	return dst
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// unhex is the value of a hex digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0xf + 9 // letters are numbered from 1, in both cases
}
