package message

import (
	"errors"
	"io"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// numbered is a mail of the form that RFC 9051 6.4.5.1 shows the numbers of:
//
//	HEADER     ([RFC5322] header of the message)
//	TEXT       ([RFC5322] text body of the message) MULTIPART/MIXED
//	1          TEXT/PLAIN
//	2          APPLICATION/OCTET-STREAM
//	3          MESSAGE/RFC822
//	3.HEADER   ([RFC5322] header of the message)
//	3.TEXT     ([RFC5322] text body of the message) MULTIPART/MIXED
//	3.1        TEXT/PLAIN
//	3.2        APPLICATION/OCTET-STREAM
//	4          MULTIPART/MIXED
//	4.1        IMAGE/GIF
//	4.1.MIME   ([MIME-IMB] header for the IMAGE/GIF)
//	4.2        MESSAGE/RFC822
//	4.2.HEADER ([RFC5322] header of the message)
//	4.2.TEXT   ([RFC5322] text body of the message) MULTIPART/MIXED
//	4.2.1      TEXT/PLAIN
//	4.2.2      MULTIPART/ALTERNATIVE
//	4.2.2.1    TEXT/PLAIN
//	4.2.2.2    TEXT/RICHTEXT
const numbered = `Subject: outer
Content-Type: multipart/mixed; boundary=o

preamble
--o

one
--o
Content-Type: application/octet-stream

two
--o
Content-Type: message/rfc822

Subject: three
Content-Type: multipart/mixed; boundary=three

--three
Content-Type: text/plain

three one
--three
Content-Type: application/octet-stream

three two
--three--
--o
Content-Type: multipart/mixed; boundary=four

--four
Content-Type: image/gif
Content-ID: <gif>

four one
--four
Content-Type: message/rfc822

Subject: four two
Content-Type: multipart/mixed; boundary=b

--b

four two one
--b
Content-Type: multipart/alternative; boundary=c

--c
Content-Type: text/plain

four two two one
--c
Content-Type: text/richtext

four two two two

--c--
--b--
--four--
epilogue of four
--o--
epilogue
`

func TestSectionNumbers(t *testing.T) {
	m := New(opener(mail(numbered)))
	defer m.Close()
	four2 := "Subject: four two\nContent-Type: multipart/mixed; boundary=b\n\n"
	for _, tt := range []struct{ section, want string }{
		{"HEADER", "Subject: outer\nContent-Type: multipart/mixed; boundary=o\n\n"},
		{"1", "one"},
		{"1.MIME", "\n"},
		{"2", "two"},
		{"2.MIME", "Content-Type: application/octet-stream\n\n"},
		{"3.MIME", "Content-Type: message/rfc822\n\n"},
		{"3.HEADER", "Subject: three\nContent-Type: multipart/mixed; boundary=three\n\n"},
		{"3.1", "three one"},
		{"3.1.MIME", "Content-Type: text/plain\n\n"},
		{"3.2", "three two"},
		{"4.1", "four one"},
		{"4.1.MIME", "Content-Type: image/gif\nContent-ID: <gif>\n\n"},
		{"4.2.HEADER", four2},
		{"4.2.1", "four two one"},
		{"4.2.2.MIME", "Content-Type: multipart/alternative; boundary=c\n\n"},
		{"4.2.2.1", "four two two one"},
		{"4.2.2.2", "four two two two\n"},

		// What does not exist.
		{"MIME", ""},
		{"0", ""},
		{"5", ""},
		{"1.1", ""},
		{"3.3", ""},
		{"4.2.2.3", ""},
		{"1.HEADER", ""}, // of no message/rfc822
		{"1.TEXT", ""},
		{"4.HEADER", ""},
		{"4.TEXT", ""},
	} {
		if got, want := section(t, m, tt.section), mail(tt.want); string(got) != string(want) {
			t.Errorf("BODY[%s] is %q, want %q", tt.section, got, want)
		}
	}
	// A part is the header and the body of what is in it.
	for _, p := range []string{"3", "4.2"} {
		if got, want := section(t, m, p), string(section(t, m, p+".HEADER"))+string(section(t, m, p+".TEXT")); string(got) != want {
			t.Errorf("BODY[%s] is %q, its HEADER and TEXT are %q", p, got, want)
		}
	}
	if got := string(section(t, m, "")); got != string(mail(numbered)) {
		t.Errorf("BODY[] is %q", got)
	}
}

// A message that is no multipart has one part (RFC 9051 6.4.5.1).
func TestSectionSinglePart(t *testing.T) {
	m := New(opener(mail("Subject: s\n\nbody\n")))
	defer m.Close()
	for _, tt := range []struct{ section, want string }{
		{"1", "body\n"}, {"TEXT", "body\n"}, {"1.MIME", "Subject: s\n\n"}, {"1.1", ""}, {"2", ""}, {"1.TEXT", ""},
	} {
		if got, want := section(t, m, tt.section), mail(tt.want); string(got) != string(want) {
			t.Errorf("BODY[%s] is %q, want %q", tt.section, got, want)
		}
	}

	m = New(opener(mail("Content-Type: message/rfc822\n\nSubject: in\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n")))
	defer m.Close()
	for _, tt := range []struct{ section, want string }{
		{"1.HEADER", "Subject: in\nContent-Type: multipart/mixed; boundary=b\n\n"}, {"1.1", "x"}, {"1.2", ""},
	} {
		if got, want := section(t, m, tt.section), mail(tt.want); string(got) != string(want) {
			t.Errorf("BODY[%s] is %q, want %q", tt.section, got, want)
		}
	}
}

func TestHeaderFields(t *testing.T) {
	const top = "Received: a\n\tb\nSUBJECT : s\nTo: x\nnot a field\nReceived: c\n"
	for _, tt := range []struct {
		name, mail   string
		fields, nots []string
		want         string
	}{
		{"some", top + "\nbody", []string{"subject", "RECEIVED", "Cc"}, nil, "Received: a\n\tb\nSUBJECT : s\nReceived: c\n\n"},
		{"not", top + "\nbody", nil, []string{"received", "to"}, "SUBJECT : s\nnot a field\n\n"},
		{"none", top + "\nbody", []string{"Date"}, nil, "\n"},
		{"part of a name", top + "\nbody", []string{"Sub"}, nil, "\n"},
		// RFC 9051 6.4.5.1: the empty line is in all, but where the message has neither it nor a body.
		{"no body", top, []string{"To"}, nil, "To: x\n"},
		{"no header", "Hello there\n", []string{"To"}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(opener(mail(tt.mail)))
			defer m.Close()
			item := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: tt.fields, HeaderFieldsNot: tt.nots}
			if got, want := read(t, m, item), mail(tt.want); string(got) != string(want) {
				t.Errorf("%q, want %q", got, want)
			}
			inner := mail("Content-Type: message/rfc822\n\n" + tt.mail)
			m = New(opener(inner))
			defer m.Close()
			item.Part = []int{1}
			if got, want := read(t, m, item), mail(tt.want); string(got) != string(want) {
				t.Errorf("inside: %q, want %q", got, want)
			}
		})
	}
}

func TestBinary(t *testing.T) {
	part := func(encoding, body string) string {
		return "--b\nContent-Type: application/x\nContent-Transfer-Encoding: " + encoding + "\n\n" + body + "\n"
	}
	m := New(opener(mail("Content-Type: multipart/mixed; boundary=b\n\n" +
		part("BASE64", "AGEA\n=AAA") + part("Quoted-Printable (as ever)", "a=3D=\nb =C3=BC \nc=") +
		part("x-uuencode", "begin") + part("8bit", "\x00\xff=41") + "--b--\n")))
	defer m.Close()
	for _, tt := range []struct {
		part    int
		partial *imap.SectionPartial
		want    string
	}{
		{1, nil, "\x00a\x00"},
		{1, &imap.SectionPartial{Offset: 1, Size: 1}, "a"},
		{1, &imap.SectionPartial{Offset: 3, Size: 1}, ""},
		{1, &imap.SectionPartial{Offset: 9, Size: 1}, ""},
		{2, nil, "a=b ü\r\nc"},
		{4, nil, "\x00\xff=41"},
		{5, nil, ""},
	} {
		r, n, err := m.BinarySection(&imap.FetchItemBinarySection{Part: []int{tt.part}, Partial: tt.partial})
		if got := readAll(t, r, n, err); string(got) != tt.want {
			t.Errorf("BINARY[%d]%v is %q, want %q", tt.part, tt.partial, got, tt.want)
		}
	}
	if _, _, err := m.BinarySection(&imap.FetchItemBinarySection{Part: []int{3}}); !errors.Is(err, ErrUnknownEncoding) {
		t.Errorf("x-uuencode: %v", err)
	}
	if _, err := m.BinarySize([]int{3}); !errors.Is(err, ErrUnknownEncoding) {
		t.Errorf("size of x-uuencode: %v", err)
	}
	r, n, err := m.BinarySection(&imap.FetchItemBinarySection{})
	if got, want := readAll(t, r, n, err), section(t, m, ""); string(got) != string(want) {
		t.Errorf("BINARY[] is %q, want %q", got, want)
	}
}

// Errors of the source come through, and nothing else is an error.
func TestSourceErrors(t *testing.T) {
	gone := errors.New("gone")
	calls := map[string]func(m *Message) error{
		"Structure": func(m *Message) error { _, err := m.Structure(); return err },
		"BodySection": func(m *Message) error {
			_, _, err := m.BodySection(&imap.FetchItemBodySection{Part: []int{1}})
			return err
		},
		"HEADER": func(m *Message) error {
			_, _, err := m.BodySection(&imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader})
			return err
		},
		"BinarySize":  func(m *Message) error { _, err := m.BinarySize([]int{1}); return err },
		"MatchHeader": func(m *Message) error { _, err := m.MatchHeader("To", "x"); return err },
		"MatchBody":   func(m *Message) error { _, err := m.MatchBody("x"); return err },
		"MatchText":   func(m *Message) error { _, err := m.MatchText("x"); return err },
		"SentDate":    func(m *Message) error { _, err := m.SentDate(); return err },
	}
	for name, call := range calls {
		m := New(func() (Source, error) { return nil, gone })
		if err := call(m); !errors.Is(err, gone) {
			t.Errorf("%s of a source that does not open: %v", name, err)
		}
		m = New(func() (Source, error) { return failing{gone}, nil })
		if err := call(m); !errors.Is(err, gone) {
			t.Errorf("%s of a source that does not read: %v", name, err)
		}
		m.Close()
	}
	m := New(func() (Source, error) { return failing{io.EOF}, nil })
	if _, err := m.Structure(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that is too short: %v", err)
	}
}

// A body that becomes unreadable after the structure is known is an error of what reads it.
func TestSourceErrorsLater(t *testing.T) {
	b := mail("Content-Transfer-Encoding: base64\n\nYWJj\n")
	s := parsed(t, b)
	gone := errors.New("gone")
	for name, call := range map[string]func(m *Message) error{
		"BinarySize": func(m *Message) error { _, err := m.BinarySize([]int{1}); return err },
		"MatchBody":  func(m *Message) error { _, err := m.MatchBody("x"); return err },
		"BodySection": func(m *Message) error {
			r, _, err := m.BodySection(new(imap.FetchItemBodySection))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			return err
		},
	} {
		m := With(func() (Source, error) { return sized{failing{gone}, int64(len(b))}, nil }, s)
		if err := call(m); !errors.Is(err, gone) {
			t.Errorf("%s: %v", name, err)
		}
		m = With(func() (Source, error) { return sized{failing{io.EOF}, int64(len(b))}, nil }, s)
		if err := call(m); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s of a source that is too short: %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }
func (f failing) Close() error                      { return nil }
func (f failing) Size() (int64, error)              { return 10, nil }

type sized struct {
	failing
	size int64
}

func (s sized) Size() (int64, error) { return s.size, nil }
