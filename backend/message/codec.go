package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// A structure as bytes:
//
//	version  1 byte
//	CRC-32C  4 bytes, big endian, of all that follows
//	size, number of parts
//	of each part:
//	  kind      1 byte; bit 7: fields is the whole header
//	  parent    how many parts it is before this one; 0: none
//	  header    from the header of the part before
//	  body, end each from the one before
//	  lines
//	  fields    their length, and they
//
// Numbers are unsigned varints.
const version = 1

const wholeBit = 0x80

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalBinary implements encoding.BinaryMarshaler. It never fails.
func (s *Structure) MarshalBinary() ([]byte, error) {
	b := make([]byte, 5, 64+16*len(s.parts)+len(s.parts[0].fields))
	b[0] = version
	put := func(n int64) { b = binary.AppendUvarint(b, uint64(n)) }
	put(s.size)
	put(int64(len(s.parts)))
	before := int64(0)
	for i, p := range s.parts {
		k := byte(p.kind)
		if p.whole {
			k |= wholeBit
		}
		b = append(b, k)
		if p.parent < 0 {
			put(0)
		} else {
			put(int64(i - p.parent))
		}
		put(p.header - before)
		put(p.body - p.header)
		put(p.end - p.body)
		put(p.lines)
		put(int64(len(p.fields)))
		b = append(b, p.fields...)
		before = p.header
	}
	binary.BigEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
	return b, nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. Bytes that MarshalBinary of this version did not
// make are an error, and s is as it was. It must not be called while others use s.
func (s *Structure) UnmarshalBinary(data []byte) error {
	if len(data) < 5 || data[0] != version {
		return errors.New("decode structure: not of this version")
	}
	if crc32.Checksum(data[5:], castagnoli) != binary.BigEndian.Uint32(data[1:]) {
		return errors.New("decode structure: wrong checksum")
	}
	d := structureDecoder{b: bytes.Clone(data[5:])}
	t, err := d.structure()
	if err != nil {
		return fmt.Errorf("decode structure: %w", err)
	}
	*s = *t
	return nil
}

type structureDecoder struct {
	b   []byte
	bad bool // something was missing or too large
}

var errTorn = errors.New("torn")

func (d *structureDecoder) number() int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > math.MaxInt64/4 { // sums of a few don't overflow
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

func (d *structureDecoder) bytes(n int64) []byte {
	if n > int64(len(d.b)) {
		d.bad = true
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *structureDecoder) structure() (*Structure, error) {
	s := &Structure{size: d.number()}
	n := d.number()
	if d.bad || n < 1 || n > maxParts+1 || n > int64(len(d.b)) {
		return nil, errTorn
	}
	s.parts = make([]part, 0, n)
	before := int64(0)
	for range n {
		var p part
		if k := d.bytes(1); k != nil {
			p.kind, p.whole = kind(k[0]&^wholeBit), k[0]&wholeBit != 0
		}
		p.parent = len(s.parts) - int(min(d.number(), maxParts+1))
		p.header = before + d.number()
		p.body = p.header + d.number()
		p.end = p.body + d.number()
		p.lines = d.number()
		p.fields = d.bytes(d.number())
		if d.bad {
			return nil, errTorn
		}
		if err := s.adopt(&p); err != nil {
			return nil, err
		}
		before = p.header
	}
	if len(d.b) > 0 {
		return nil, errors.New("more bytes than parts")
	}
	for i, p := range s.parts {
		if n := len(p.children); p.kind > message || p.kind == leaf && n > 0 || p.kind == multipart && n == 0 || p.kind == message && n != 1 {
			return nil, fmt.Errorf("part %d of kind %d has %d children", i, p.kind, n)
		}
	}
	return s, nil
}

// adopt adds p as the last part, if it is where parse could have put it.
func (s *Structure) adopt(p *part) error {
	i := len(s.parts)
	if p.parent == i {
		p.parent = -1
	}
	if p.end > s.size || p.lines > p.end-p.body || p.whole && (i > 0 || int64(len(p.fields)) != p.body-p.header) {
		return fmt.Errorf("part %d is out of place", i)
	}
	if i == 0 {
		if p.parent != -1 || p.header != 0 || p.end != s.size {
			return errors.New("the first part is not the message")
		}
		s.parts = append(s.parts, *p)
		return nil
	}
	// The parent is the part before, or one around that.
	up, depth := i-1, 0
	for up >= 0 && up != p.parent {
		up = s.parts[up].parent
	}
	if up < 0 {
		return fmt.Errorf("part %d has no parent", i)
	}
	q := &s.parts[up]
	from := q.body
	if n := len(q.children); n > 0 {
		from = s.parts[q.children[n-1]].end
	}
	for ; up >= 0; up = s.parts[up].parent {
		depth++
	}
	if p.header < from || p.end > q.end || depth >= maxDepth {
		return fmt.Errorf("part %d is out of place", i)
	}
	q.children = append(q.children, i)
	s.parts = append(s.parts, *p)
	return nil
}
