package message

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	goparser "go/parser"
	"go/token"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// With the structure from a cache, what concerns the top header opens no file.
func TestWithoutSource(t *testing.T) {
	b := mail("Date: 1 Jan 2026 10:00 +0000\nSubject: s\nX: y\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n")
	enc, err := parsed(t, b).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	s := new(Structure)
	if err := s.UnmarshalBinary(enc); err != nil {
		t.Fatal(err)
	}
	m := With(func() (Source, error) { t.Error("opened"); return nil, errors.New("opened") }, s)
	defer m.Close()
	header, _, _ := bytes.Cut(b, []byte("--b"))
	if got := section(t, m, "HEADER"); !bytes.Equal(got, header) {
		t.Errorf("HEADER is %q", got)
	}
	got := read(t, m, &imap.FetchItemBodySection{
		Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"X"}, Partial: &imap.SectionPartial{Offset: 1, Size: 3},
	})
	if string(got) != ": y" {
		t.Errorf("HEADER.FIELDS is %q", got)
	}
	if ok, err := m.MatchHeader("X", "Y"); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := m.MatchText("x: Y"); !ok || err != nil {
		t.Error(ok, err)
	}
	if d, err := m.SentDate(); d.Year() != 2026 || err != nil {
		t.Error(d, err)
	}
	if s, err := m.Structure(); s.Envelope().Subject != "s" || err != nil {
		t.Error(s, err)
	}
}

// A structure that is not this message's is dropped.
func TestWrongStructure(t *testing.T) {
	other := parsed(t, mail("Subject: long\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nnot here\n--b\n--b--\n"))
	for _, sec := range []struct{ section, want string }{{"TEXT", "body"}, {"1", "body"}, {"2", ""}, {"", "A: b\r\n\r\nbody"}} {
		m := With(opener([]byte("A: b\r\n\r\nbody")), other)
		if got := section(t, m, sec.section); string(got) != sec.want {
			t.Errorf("BODY[%s] is %q, want %q", sec.section, got, sec.want)
		}
		m.Close()
	}
	m := With(opener([]byte("A: b\r\n\r\nbody")), other)
	if ok, err := m.MatchBody("body"); !ok || err != nil {
		t.Error(ok, err)
	}
}

// What needs only the header reads no more.
func TestReadsOnlyHeader(t *testing.T) {
	src := &bytesSource{Reader: bytes.NewReader(append(mail("Subject: s\n\n"), make([]byte, 1<<20)...))}
	m := New(func() (Source, error) { return src, nil })
	defer m.Close()
	section(t, m, "HEADER")
	if _, _, err := m.BodySection(&imap.FetchItemBodySection{Specifier: imap.PartSpecifierText}); err != nil {
		t.Error(err)
	}
	if _, _, err := m.BodySection(&imap.FetchItemBodySection{}); err != nil {
		t.Error(err)
	}
	if ok, err := m.MatchHeader("Subject", "S"); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := m.MatchText("subject: s"); !ok || err != nil {
		t.Error(ok, err)
	}
	if _, err := m.SentDate(); err != nil {
		t.Error(err)
	}
	if src.read > bufferSize {
		t.Errorf("%d bytes read", src.read)
	}
}

// depth is how many parts are inside one another.
func depth(bs imap.BodyStructure) int {
	d := 0
	switch bs := bs.(type) {
	case *imap.BodyStructureMultiPart:
		for _, c := range bs.Children {
			d = max(d, depth(c))
		}
	case *imap.BodyStructureSinglePart:
		if bs.MessageRFC822 != nil {
			d = depth(bs.MessageRFC822.BodyStructure)
		}
	}
	return d + 1
}

func TestDeep(t *testing.T) {
	var multi strings.Builder
	for i := range 3 * maxDepth {
		fmt.Fprintf(&multi, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	for name, b := range map[string][]byte{
		"multipart": mail(multi.String() + "\nbottom\n"),
		"message":   mail(strings.Repeat("Content-Type: message/rfc822\n\n", 3*maxDepth) + "\nbottom\n"),
		"digest":    mail("Content-Type: multipart/digest; boundary=b\n\n--b\n\n" + strings.Repeat("Content-Type: message/rfc822\n\n", 3*maxDepth)),
	} {
		t.Run(name, func(t *testing.T) {
			checkMessage(t, b)
			bs := parsed(t, b).BodyStructure(true)
			if d := depth(bs); d != maxDepth {
				t.Errorf("%d parts deep", d)
			}
			addr := serve(t, b)
			if v := rawItem(t, addr, "BODYSTRUCTURE"); !strings.Contains(v, `"application" "octet-stream"`) {
				t.Errorf("no opaque leaf in %s", v)
			}
			fetchAll(t, addr, b)
		})
	}
}

func TestManyParts(t *testing.T) {
	b := mail("Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 2*maxParts) + "--b--\n")
	s := parsed(t, b)
	if len(s.parts) != maxParts {
		t.Errorf("%d parts", len(s.parts))
	}
	enc, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Structure).UnmarshalBinary(enc); err != nil {
		t.Error(err)
	}
	last := section(t, New(opener(b)), fmt.Sprint(maxParts-1))
	if n := bytes.Count(last, []byte("--b\r\n")); n != maxParts+1 {
		t.Errorf("the last part has %d delimiters", n)
	}

	b = mail("Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", maxParts-2) + "--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\ny\n--c--\n--b--\n")
	s = parsed(t, b) // the last one is a multipart that can't have any
	if n := len(s.parts); n != maxParts {
		t.Errorf("%d parts", n)
	}
	checkWritable(t, s.BodyStructure(true), true)
}

func TestLongHeaderLine(t *testing.T) {
	addrs := strings.Repeat("someone@example.org, ", 50_000)
	for name, h := range map[string]string{
		"To":           "To: " + addrs + "\nSubject: s\n",
		"Subject":      "To: a@b\nSubject: " + strings.Repeat("x", 1<<20) + "\n",
		"unknown":      "X: " + strings.Repeat("x", 1<<20) + "\nSubject: s\n",
		"many fields":  strings.Repeat("X: y\n", 200_000) + "Subject: s\n",
		"folded":       "To: " + strings.ReplaceAll(addrs, ", ", ",\n ") + "\nSubject: s\n",
		"no line ends": strings.Repeat("x", 1<<20),
		"huge":         strings.Repeat("X: y\n", maxHeader/6+1000) + "Subject: s\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := mail(h + "\nbody\n")
			addr := serve(t, b)
			fetchAll(t, addr, b)
			s := parsed(t, b)
			if e := s.Envelope(); name == "To" && (len(e.To) < 10_000 || e.Subject != "s") {
				t.Errorf("%d addresses, subject %q", len(e.To), e.Subject)
			}
			enc, _ := s.MarshalBinary()
			if len(enc) > maxKept+1000 {
				t.Errorf("%d bytes", len(enc))
			}
		})
	}
}

// All headers together keep no more than maxKept.
func TestManyLongHeaders(t *testing.T) {
	part := "--b\nContent-Description: " + strings.Repeat("x", 100_000) + "\n\nx\n"
	b := mail("Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat(part, 20) + "--b--\n")
	enc, _ := parsed(t, b).MarshalBinary()
	if len(enc) > maxKept+2000 {
		t.Errorf("%d bytes", len(enc))
	}
	checkWritable(t, parsed(t, b).BodyStructure(true), true)
}

// A line end that the buffer cuts is one all the same.
func TestLineEndAcrossBuffer(t *testing.T) {
	for n := bufferSize - 3; n < bufferSize+3; n++ {
		head := mail("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n")
		b := append(head, []byte(strings.Repeat("x", n)+"\r\n--b--\r\n")...)
		if got := section(t, New(opener(b)), "1"); len(got) != n {
			t.Errorf("part of %d bytes has %d", n, len(got))
		}
	}
}

// Fields that come again take nothing from what may be kept.
func TestRepeatedFields(t *testing.T) {
	b := mail(strings.Repeat("Subject: "+strings.Repeat("x", 900)+"\n", 2*maxKept/900) + "From: a@b.c\n\n")
	if e := parsed(t, b).Envelope(); len(e.Subject) != 900 || len(e.From) != 1 {
		t.Errorf("subject of %d bytes, From %v", len(e.Subject), e.From)
	}
}

// RFC 9051 7.5.2: Sender and Reply-To are From's if they are missing or empty.
func TestEnvelopeDefaults(t *testing.T) {
	from := []imap.Address{{Mailbox: "a", Host: "b"}}
	for _, more := range []string{"", "Sender:\nReply-To: \n", "Sender: (none)\nReply-To: ,\n"} {
		e := parsed(t, mail("From: a@b\n"+more+"\n")).Envelope()
		if !reflect.DeepEqual(e.Sender, from) || !reflect.DeepEqual(e.ReplyTo, from) {
			t.Errorf("with %q: %+v", more, e)
		}
	}
	if e := parsed(t, mail("From: a@b\nSender: s@b\nReply-To: r@b\n\n")).Envelope(); e.Sender[0].Mailbox != "s" || e.ReplyTo[0].Mailbox != "r" {
		t.Errorf("%+v", e)
	}
}

// Bytes with the right checksum that parse can't have made are refused too.
func TestUnmarshalRefusesNonsense(t *testing.T) {
	root := part{kind: multipart, parent: -1, end: 100, body: 10}
	chain := []part{}
	for i := range maxDepth + 1 {
		chain = append(chain, part{kind: message, parent: i - 1, header: 10, body: 10, end: 100})
	}
	chain[0].header, chain[maxDepth].kind = 0, leaf
	for name, parts := range map[string][]part{
		"multipart without parts":    {root},
		"message without a message":  {{kind: message, parent: -1, end: 100}},
		"leaf with a part":           {{parent: -1, end: 100}, {parent: 0, header: 10, body: 10, end: 20}},
		"kind":                       {{kind: 7, parent: -1, end: 100}},
		"message with two":           {{kind: message, parent: -1, end: 100}, {header: 1, body: 1, end: 2}, {header: 2, body: 2, end: 3}},
		"part outside its parent":    {root, {kind: multipart, header: 10, body: 20, end: 30}, {parent: 1, header: 20, body: 20, end: 31}},
		"part in the header":         {root, {header: 9, body: 9, end: 20}},
		"part in the one before":     {root, {header: 10, body: 10, end: 20}, {header: 15, body: 15, end: 20}},
		"end after that of the mail": {{parent: -1, end: 101}},
		"mail that does not end":     {{parent: -1, end: 99}},
		"two messages":               {{parent: -1, end: 100}, {parent: -1, end: 100}},
		"lines in nothing":           {{parent: -1, end: 100, lines: 101}},
		"whole header of a part":     {root, {header: 10, body: 10, end: 20, whole: true}},
		"header that isn't whole":    {{parent: -1, body: 10, end: 100, whole: true}},
		"parent that ended": {root, {kind: multipart, header: 10, body: 10, end: 20}, {parent: 1, header: 10, body: 10, end: 20},
			{parent: 0, header: 20, body: 20, end: 30}, {parent: 1, header: 30, body: 30, end: 40}},
		"too deep": chain,
	} {
		enc, err := (&Structure{size: 100, parts: parts}).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := new(Structure).UnmarshalBinary(enc); err == nil {
			t.Errorf("took a %s", name)
		}
	}
	enc, _ := parsed(t, mail("A: b\n\n")).MarshalBinary()
	enc = append(enc, 0)
	binary.BigEndian.PutUint32(enc[1:], crc32.Checksum(enc[5:], castagnoli))
	if err := new(Structure).UnmarshalBinary(enc); err == nil {
		t.Error("took a byte too many")
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	b, err := os.ReadFile("testdata/rfc9051-numbers.eml")
	if err != nil {
		t.Fatal(err)
	}
	s := parsed(t, mail(string(b)))
	enc, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var got Structure
	for i := range enc {
		if err := got.UnmarshalBinary(enc[:i]); err == nil {
			t.Errorf("took the first %d bytes", i)
		}
		bad := bytes.Clone(enc)
		bad[i] ^= 0x10
		if err := got.UnmarshalBinary(bad); err == nil {
			t.Errorf("took a flipped bit in byte %d", i)
		}
	}
	if err := got.UnmarshalBinary(append(bytes.Clone(enc), 0)); err == nil {
		t.Error("took a byte too many")
	}
	if got.parts != nil {
		t.Error("changed by what it refused")
	}
	if err := got.UnmarshalBinary(enc); err != nil {
		t.Fatal(err)
	}
	clear(enc) // it holds a copy
	if !reflect.DeepEqual(got.BodyStructure(true), s.BodyStructure(true)) || !reflect.DeepEqual(got.Envelope(), s.Envelope()) {
		t.Error("decoded otherwise than encoded")
	}
}

// message is for the backend, which imports it together with maildir and imapserver.
func TestImports(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := goparser.ParseFile(token.NewFileSet(), name, nil, goparser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if strings.Contains(i.Path.Value, "imapmaildir") || strings.Contains(i.Path.Value, "imapserver") {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}

// typical is a mail as programs send them: text, HTML and an attachment.
func typical(attachment int) []byte {
	line := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("attached"), 7)) + "\n" // 76 characters
	received := "Received: from mx.example.org (mx.example.org [192.0.2.1])\n\tby mail.example.net with ESMTPS id 4Xyz\n\tfor <you@example.net>; Mon, 2 Mar 2026 10:00:00 +0100\n"
	return mail(strings.Repeat(received, 6) + `Date: Mon, 2 Mar 2026 09:59:58 +0100
From: =?utf-8?q?J=C3=BCrgen?= <juergen@example.org>
To: You <you@example.net>, Others <others@example.net>
Subject: =?utf-8?q?Ein_Gru=C3=9F?= and a file
Message-ID: <1234@example.org>
In-Reply-To: <1233@example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=_outer"

--=_outer
Content-Type: multipart/alternative; boundary="=_inner"

--=_inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

` + strings.Repeat("A line of text, as people write it, with gr=C3=BC=C3=9Fe in it.\n", 60) + `
--=_inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

` + strings.Repeat("<p style=3D\"margin: 0\">A line of text, as programs write it.</p>\n", 80) + `
--=_inner--
--=_outer
Content-Type: application/pdf; name="file.pdf"
Content-Disposition: attachment; filename="file.pdf"
Content-Transfer-Encoding: base64

` + strings.Repeat(line, attachment/len(line)) + `
--=_outer--
`)
}

// Memory does not grow with the size of bodies.
func TestAllocations(t *testing.T) {
	small, large := opener(typical(10<<10)), opener(typical(4<<20))
	for name, op := range map[string]func(m *Message){
		"Structure": func(m *Message) { m.Structure() },
		"BODY[]":    func(m *Message) { r, _, _ := m.BodySection(new(imap.FetchItemBodySection)); io.Copy(io.Discard, r) },
		"BINARY[2]": func(m *Message) {
			r, _, _ := m.BinarySection(&imap.FetchItemBinarySection{Part: []int{2}})
			io.Copy(io.Discard, r)
		},
		"MatchText": func(m *Message) { m.MatchText("nowhere") },
	} {
		one := func(open func() (Source, error)) uint64 {
			const runs = 5
			var before, after runtime.MemStats
			for i := range runs + 1 {
				if i == 1 { // the first one fills pools
					runtime.ReadMemStats(&before)
				}
				m := New(open)
				op(m)
				m.Close()
			}
			runtime.ReadMemStats(&after)
			return (after.TotalAlloc - before.TotalAlloc) / runs
		}
		s, l := one(small), one(large)
		if l > s+64<<10 {
			t.Errorf("%s: %d bytes for a large attachment, %d for a small one", name, l, s)
		}
	}
}

func BenchmarkStructure(b *testing.B) {
	for _, bb := range []struct {
		name       string
		attachment int
	}{{"20KB", 8 << 10}, {"20MB", 20 << 20}} {
		b.Run(bb.name, func(b *testing.B) {
			mail := typical(bb.attachment)
			b.SetBytes(int64(len(mail)))
			b.ReportAllocs()
			for b.Loop() {
				m := New(opener(mail))
				if _, err := m.Structure(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCached is FETCH (ENVELOPE BODYSTRUCTURE) of a message in a cache.
func BenchmarkCached(b *testing.B) {
	enc, err := parsed(b, typical(8<<10)).MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(enc)), "cached-bytes")
	b.ReportAllocs()
	for b.Loop() {
		var s Structure
		if err := s.UnmarshalBinary(enc); err != nil {
			b.Fatal(err)
		}
		s.Envelope()
		s.BodyStructure(true)
	}
	b.ReportMetric(float64(len(enc)), "cached-bytes")
}

func BenchmarkSearch(b *testing.B) {
	s := parsed(b, typical(8<<10))
	for _, bb := range []struct {
		name string
		op   func(m *Message) (bool, error)
	}{
		{"Header", func(m *Message) (bool, error) { return m.MatchHeader("Subject", "nowhere") }},
		{"Body", func(m *Message) (bool, error) { return m.MatchBody("nowhere") }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			open := opener(typical(8 << 10))
			b.ReportAllocs()
			for b.Loop() {
				m := With(open, s)
				if _, err := bb.op(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
