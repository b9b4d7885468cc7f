package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// FuzzMessage: every operation on any bytes gives what IMAP can carry.
func FuzzMessage(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkMessage(t, b) })
}

// FuzzStructure: UnmarshalBinary takes only what is sound. The first bytes are taken for a header of
// the right version and checksum, too.
func FuzzStructure(f *testing.F) {
	for _, b := range seeds(f) {
		s := parsed(f, b)
		enc, err := s.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(enc)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkDecoded(t, b)
		if len(b) >= 5 {
			b = bytes.Clone(b)
			b[0] = version
			binary.BigEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
			checkDecoded(t, b)
		}
	})
}

func seeds(tb testing.TB) [][]byte {
	names, err := filepath.Glob("testdata/*.eml")
	if err != nil {
		tb.Fatal(err)
	}
	var l [][]byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			tb.Fatal(err)
		}
		l = append(l, mail(string(b)))
	}
	return l
}

func checkDecoded(t *testing.T, b []byte) {
	var s Structure
	if err := s.UnmarshalBinary(b); err != nil {
		return
	}
	s.Envelope()
	s.BodyStructure(true)
	s.BodyStructure(false)
	again, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var s2 Structure
	if err := s2.UnmarshalBinary(again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, s2) {
		t.Errorf("%+v became %+v", s, s2)
	}
	// Whatever it says of a message, reading one by it stays in bounds.
	m := With(opener(make([]byte, min(s.size, 1<<20))), &s)
	defer m.Close()
	for _, p := range s.parts[:min(len(s.parts), 20)] {
		r, n, err := m.section(span{p.header, p.end}, nil)
		if err != nil || n < 0 {
			t.Fatal(n, err)
		}
		io.Copy(io.Discard, r)
	}
}

// checkMessage does everything with a message, and checks what must hold for all.
func checkMessage(t *testing.T, b []byte) {
	t.Helper()
	m := New(opener(b))
	defer m.Close()

	header, text := section(t, m, "HEADER"), section(t, m, "TEXT")
	if whole := append(header, text...); !bytes.Equal(whole, b) {
		t.Errorf("BODY[HEADER] and BODY[TEXT] are not BODY[]: %q", whole)
	}
	s, err := m.Structure()
	if err != nil {
		t.Fatal(err)
	}

	enc, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var dec Structure
	if err := dec.UnmarshalBinary(enc); err != nil {
		t.Fatal(err)
	}
	again, _ := dec.MarshalBinary()
	if !bytes.Equal(enc, again) {
		t.Errorf("encoded %x, decoded and encoded %x", enc, again)
	}
	e, bs := s.Envelope(), s.BodyStructure(true)
	if d := dec.Envelope(); !reflect.DeepEqual(d, e) {
		t.Errorf("decoded %+v, parsed %+v", d, e)
	}
	if d := dec.BodyStructure(true); !reflect.DeepEqual(d, bs) {
		t.Errorf("decoded %+v, parsed %+v", d, bs)
	}
	checkWritable(t, bs, true)
	checkWritable(t, s.BodyStructure(false), false)
	checkStrings(t, reflect.ValueOf(e))
	checkStrings(t, reflect.ValueOf(bs))
	checkStrings(t, reflect.ValueOf(s.BodyStructure(false)))

	for _, m := range []*Message{m, With(opener(b), &dec)} {
		n := 0
		bs.Walk(func(path []int, p imap.BodyStructure) bool {
			if n++; n < 20 {
				checkPart(t, m, path, p)
			}
			return true
		})
		for _, item := range []*imap.FetchItemBodySection{
			{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"subject", "To"}},
			{Specifier: imap.PartSpecifierHeader, HeaderFieldsNot: []string{"subject", "To"}},
			{Specifier: imap.PartSpecifierMIME},
			{Part: []int{0}}, {Part: []int{1, 1, 1}}, {Part: []int{1}, Specifier: imap.PartSpecifierText},
			{Part: []int{1}, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Subject"}},
			{Partial: &imap.SectionPartial{Offset: 10, Size: 1 << 62}},
		} {
			read(t, m, item)
		}
		for _, text := range []string{"", "a", "ß", "x\x00", "--"} {
			if _, err := m.MatchHeader("Subject", text); err != nil {
				t.Error(err)
			}
			if _, err := m.MatchText(text); err != nil {
				t.Error(err)
			}
		}
		if _, err := m.SentDate(); err != nil {
			t.Error(err)
		}
		m.Close()
	}
}

// checkWritable checks that go-imap's FetchWriter can write a structure, and what it tells together fits.
func checkWritable(t *testing.T, bs imap.BodyStructure, extended bool) {
	t.Helper()
	switch bs := bs.(type) {
	case *imap.BodyStructureMultiPart:
		if len(bs.Children) == 0 || bs.Subtype == "" || (bs.Extended != nil) != extended {
			t.Errorf("multipart %+v", bs)
		}
		for _, c := range bs.Children {
			checkWritable(t, c, extended)
		}
	case *imap.BodyStructureSinglePart:
		typ := bs.MediaType()
		if bs.Type == "" || bs.Subtype == "" || bs.Type == "multipart" || bs.Encoding == "" || (bs.Extended != nil) != extended ||
			(bs.Text != nil) != (bs.Type == "text") || (bs.MessageRFC822 != nil) != (typ == "message/rfc822" || typ == "message/global") {
			t.Errorf("part %+v", bs)
		}
		if bs.MessageRFC822 != nil {
			checkWritable(t, bs.MessageRFC822.BodyStructure, extended)
		}
	default:
		t.Errorf("part of type %T", bs)
	}
}

func checkPart(t *testing.T, m *Message, path []int, bs imap.BodyStructure) {
	t.Helper()
	if len(path) == 0 {
		return
	}
	item := &imap.FetchItemBodySection{Part: path}
	body := read(t, m, item)
	if p, ok := bs.(*imap.BodyStructureSinglePart); ok {
		if int(p.Size) != len(body) {
			t.Errorf("part %v has %d bytes, BODYSTRUCTURE says %d", path, len(body), p.Size)
		}
		lines := int64(bytes.Count(body, []byte("\n")))
		if p.Text != nil && p.Text.NumLines != lines {
			t.Errorf("part %v has %d lines, BODYSTRUCTURE says %d", path, lines, p.Text.NumLines)
		}
		if p.MessageRFC822 != nil {
			if p.MessageRFC822.NumLines != lines {
				t.Errorf("part %v has %d lines, BODYSTRUCTURE says %d", path, lines, p.MessageRFC822.NumLines)
			}
			h := read(t, m, &imap.FetchItemBodySection{Part: path, Specifier: imap.PartSpecifierHeader})
			b := read(t, m, &imap.FetchItemBodySection{Part: path, Specifier: imap.PartSpecifierText})
			if whole := append(h, b...); !bytes.Equal(whole, body) {
				t.Errorf("part %v: HEADER and TEXT are %q, the part is %q", path, whole, body)
			}
		}
	}
	for _, partial := range []imap.SectionPartial{{Offset: 0, Size: 5}, {Offset: 3, Size: math.MaxInt64}, {Offset: 1 << 40, Size: 1}} {
		item.Partial = &partial
		from := min(partial.Offset, int64(len(body)))
		want := body[from:]
		want = want[:min(partial.Size, int64(len(want)))]
		if got := read(t, m, item); !bytes.Equal(got, want) {
			t.Errorf("part %v<%v> is %q, want %q", path, partial, got, want)
		}
	}
	read(t, m, &imap.FetchItemBodySection{Part: path, Specifier: imap.PartSpecifierMIME})

	bin := &imap.FetchItemBinarySection{Part: path}
	r, n, err := m.BinarySection(bin)
	if errors.Is(err, ErrUnknownEncoding) {
		return
	}
	all := readAll(t, r, n, err)
	if size, err := m.BinarySize(path); err != nil || size != n {
		t.Errorf("BINARY.SIZE of %v is %d (%v), want %d", path, size, err, n)
	}
	bin.Partial = &imap.SectionPartial{Offset: 2, Size: 7}
	r, n, err = m.BinarySection(bin)
	from := min(2, len(all))
	if got, want := readAll(t, r, n, err), all[from:min(from+7, len(all))]; !bytes.Equal(got, want) {
		t.Errorf("BINARY[%v]<2.7> is %q, want %q", path, got, want)
	}
}
