package message

import (
	"bytes"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// bytesSource is a Source in memory.
type bytesSource struct {
	*bytes.Reader
	read int // bytes
}

func (s *bytesSource) Close() error { return nil }

func (s *bytesSource) Size() (int64, error) { return s.Reader.Size(), nil }

func (s *bytesSource) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Reader.ReadAt(p, off)
	s.read += n
	return n, err
}

func opener(b []byte) func() (Source, error) {
	return func() (Source, error) { return &bytesSource{Reader: bytes.NewReader(b)}, nil }
}

// mail is what a test writes with LF, as it has CRLF on the wire.
func mail(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

func parsed(tb testing.TB, b []byte) *Structure {
	tb.Helper()
	m := New(opener(b))
	defer m.Close()
	s, err := m.Structure()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// readAll reads a section, and checks that it has as many bytes as were told.
func readAll(tb testing.TB, r io.Reader, size int64, err error) []byte {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	if int64(len(b)) != size {
		tb.Fatalf("%d bytes, but %d were told", len(b), size)
	}
	return b
}

func read(tb testing.TB, m *Message, item *imap.FetchItemBodySection) []byte {
	tb.Helper()
	r, n, err := m.BodySection(item)
	return readAll(tb, r, n, err)
}

// section is BODY[spec], for a spec without lists of fields.
func section(tb testing.TB, m *Message, spec string) []byte {
	tb.Helper()
	item := new(imap.FetchItemBodySection)
	for _, w := range strings.Split(spec, ".") {
		if n, err := strconv.Atoi(w); err == nil {
			item.Part = append(item.Part, n)
		} else {
			item.Specifier = imap.PartSpecifier(w)
		}
	}
	return read(tb, m, item)
}

// checkStrings checks that IMAP can carry all strings in v.
func checkStrings(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			checkStrings(t, v.Elem())
		}
	case reflect.Struct:
		if v.Type().PkgPath() == "time" {
			return
		}
		for i := range v.NumField() {
			checkStrings(t, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			checkStrings(t, v.Index(i))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			checkStrings(t, k)
			checkStrings(t, v.MapIndex(k))
		}
	case reflect.String:
		if s := v.String(); !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("string %q", s)
		}
	}
}
