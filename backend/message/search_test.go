package message

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestMatchHeader(t *testing.T) {
	m := New(opener(mail(`Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?iso-8859-1?q?K=F6ln?=
From: "O'Neil, J=?utf-8?q?=C3=BCrgen?=" <j@Example.ORG>
To: folded
	over lines
Received: one
Received: two
X-Empty:
X-Raw: Stra` + "\xdf" + `e

Subject: not in the header
`)))
	defer m.Close()
	for _, tt := range []struct {
		field, text string
		want        bool
	}{
		{"Subject", "grüße AUS köln", true},
		{"subject", "Gru\u0308\u00dfe", true}, // ü in two characters (RFC 5051)
		{"Subject", "not in", false},
		{"Subject", "utf-8", false},
		{"From", "example.org", true},
		{"From", "jürgen", true},
		{"To", "folded over", true},
		{"To", "over lines", true},
		{"Received", "two", true},
		{"Received", "onetwo", false},
		{"X-Raw", "straße", true},
		{"X-Empty", "", true},
		{"X-Empty", "x", false},
		{"X-None", "", false},
		{"X-None", "x", false},
		{"", "", false},
	} {
		if got, err := m.MatchHeader(tt.field, tt.text); err != nil || got != tt.want {
			t.Errorf("HEADER %q %q: %v, %v", tt.field, tt.text, got, err)
		}
	}
}

func TestMatchBodyAndText(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	m := New(opener(mail(`Subject: =?utf-8?q?=C3=A4u=C3=9Feres?=
X-Top: top field
Content-Type: multipart/mixed; boundary=b

preamble
--b
Content-Type: text/plain; charset=iso-8859-15
Content-Transfer-Encoding: quoted-printable
X-Part: part field

soft=
 break for 5 =A4, na=EFve
--b
Content-Type: text/html; charset=gb2312
Content-Transfer-Encoding: base64

` + b64("<p>\xb2\xe2\xca\xd4") + `
--b
Content-Type: text/plain; charset=ISO-8859-1

in ` + "\x93quotes\x94" + `
--b
Content-Type: text/plain; charset=none-such

raw caf` + "\xe9" + `, and UTF-8 caf` + "é" + `
--b
Content-Type: text/plain
Content-Transfer-Encoding: x-unknown

mystery
--b
Content-Type: application/octet-stream

in a binary attachment
--b
Content-Type: message/rfc822

Subject: =?utf-8?q?inner_s=C3=BCbject?=
Content-Transfer-Encoding: base64

` + b64("inner body") + `
--b
Content-Type: message/delivery-status

Status: 5.0.0
--b--
epilogue
`)))
	defer m.Close()
	for _, tt := range []struct {
		text       string
		body, full bool
	}{
		{"Soft break", true, true},
		{"5 €, NAÏVE", true, true},
		{"测试", true, true},
		{"raw café", true, true},
		{"in “quotes”", true, true},
		{"utf-8 CAFÉ", true, true},
		{"inner body", true, true},
		{"inner sübject", true, true},
		{"status: 5", true, true},
		{"mystery", false, false},
		{"binary attachment", false, false},
		{"preamble", false, false},
		{"epilogue", false, false},
		{"äußeres", false, true},
		{"x-top: TOP", false, true},
		{"part field", false, true},
		{"nowhere", false, false},
		{"", true, true},
	} {
		if got, err := m.MatchBody(tt.text); err != nil || got != tt.body {
			t.Errorf("BODY %q: %v, %v", tt.text, got, err)
		}
		if got, err := m.MatchText(tt.text); err != nil || got != tt.full {
			t.Errorf("TEXT %q: %v, %v", tt.text, got, err)
		}
	}
}

// A match is found wherever reads end.
func TestFinder(t *testing.T) {
	hay := strings.Repeat("ab", bufferSize) + "needle" + strings.Repeat("ab", 10)
	for _, r := range []io.Reader{
		strings.NewReader(hay), iotest.OneByteReader(strings.NewReader(hay)), iotest.DataErrReader(strings.NewReader(hay)),
	} {
		if f := (finder{needle: []byte("bneedlea")}); !f.in(r) {
			t.Errorf("not found by %T", r)
		}
	}
	f := finder{needle: []byte("needles")}
	if f.in(strings.NewReader(hay)) {
		t.Error("found what is not there")
	}
	if f.in(iotest.ErrReader(io.ErrClosedPipe)) {
		t.Error("found in an error")
	}
}

func TestSentDate(t *testing.T) {
	at := func(year int, month time.Month, day, hour, min, sec, zone int) time.Time {
		return time.Date(year, month, day, hour, min, sec, 0, time.FixedZone("", zone*60))
	}
	for v, want := range map[string]time.Time{
		"Fri, 21 Nov 1997 09:55:06 -0600":         at(1997, 11, 21, 9, 55, 6, -360),
		"Fri, 21 Nov 97 09(comment):55 (c) GMT":   {},
		"21 Nov 97 09:55:06 EDT":                  at(1997, 11, 21, 9, 55, 6, -240),
		"21 Nov 09 09:55 PST":                     at(2009, 11, 21, 9, 55, 0, -480),
		"21 Nov 125 09:55 Z":                      at(2025, 11, 21, 9, 55, 0, 0),
		"Thu,\t13 (a (b)) Feb\t1969 23:32 -0330":  at(1969, 2, 13, 23, 32, 0, -210),
		"Sat, 31 Dec 2016 23:59:60 +0000":         at(2017, 1, 1, 0, 0, 0, 0),
		"Thu Jan  1 10:00:00 2026":                at(2026, 1, 1, 10, 0, 0, 0),
		"Thu Jan  1 10:00:00 CST 2026":            at(2026, 1, 1, 10, 0, 0, -360),
		"1-Jan-2026 10:00:00 +0100":               at(2026, 1, 1, 10, 0, 0, 60),
		"Thursday, 1 January 2026 10:00:00 +0545": at(2026, 1, 1, 10, 0, 0, 345),
		"2026-01-01T10:00:00+01:00":               at(2026, 1, 1, 10, 0, 0, 60),
		"1 Jan 2026":                              at(2026, 1, 1, 0, 0, 0, 0),
		"29 Feb 2024 00:00 +0000":                 at(2024, 2, 29, 0, 0, 0, 0),
		"30 Feb 2024 00:00 +0000":                 {},
		"1 Jan 2026 24:00 +0000":                  {},
		"1 Jan 2026 10:00:00:00 +0000":            {},
		"1 Jan 99999 10:00 +0000":                 {},
		"1 Foo 2026 10:00 +0000":                  {},
		"Jan 2026":                                {},
		"1 2026":                                  {},
		"yesterday":                               {},
		"":                                        {},
		"1 Jan 2026 10:00 +9":                     at(2026, 1, 1, 10, 0, 0, 0),
		"1 Jan 2026 10:00 +0199":                  at(2026, 1, 1, 10, 0, 0, 0),
	} {
		m := New(opener([]byte("Subject: s\r\nDATE: " + v + "\r\nDate: 1 Jan 2000 00:00 +0000\r\n\r\n")))
		if got, err := m.SentDate(); err != nil || !got.Equal(want) || got.Format("-0700") != want.Format("-0700") {
			t.Errorf("Date: %s is %v, %v, want %v", v, got, err, want)
		}
	}
	if got, err := New(opener(mail("Subject: s\n\nDate: 1 Jan 2026\n"))).SentDate(); err != nil || !got.IsZero() {
		t.Errorf("without Date: %v, %v", got, err)
	}
}

// Decoders give the same however their input is cut.
func TestDecoders(t *testing.T) {
	for _, tt := range []struct{ encoding, in, want string }{
		{"base64", "YWJjZA==", "abcd"},
		{"base64", "YWJj\r\n ZGU=\r\n", "abcde"},
		{"base64", "YW*Jj!ZG\x00U", "abcde"}, // junk, no padding
		{"base64", "YWJj=\r\n-- \r\nfooter", "abc"},
		{"base64", "YWJjZ", "abc"},
		{"base64", "====", ""},
		{"quoted-printable", "a=20=\r\nb=\t \r\nc", "a bc"},
		{"quoted-printable", "white \t \r\nspace ", "white\r\nspace"},
		{"quoted-printable", "x  y\ttab", "x  y\ttab"},
		{"quoted-printable", "lower=c3=bc", "lower\xc3\xbc"},
		{"quoted-printable", "=ZZ =4 = x ==41 =4=41", "=ZZ =4 = x =A =4A"},
		{"quoted-printable", "=4\r\n=\rx \rx", "=4\r\n=\rx \rx"},
		{"quoted-printable", "\xff8bit\n \n", "\xff8bit\n\n"},
		{"quoted-printable", "end=", "end"},
		{"quoted-printable", "end=4", "end=4"},
		{"quoted-printable", "a" + strings.Repeat(" ", maxHeld+1) + "b", "a" + strings.Repeat(" ", maxHeld+1) + "b"},
		{"7bit", "=41", "=41"},
		{"8bit", "YWJj", "YWJj"},
		{"binary", "\x00\r", "\x00\r"},
	} {
		for _, cut := range []func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
		} {
			r, ok := decode(cut(strings.NewReader(tt.in)), tt.encoding)
			if !ok {
				t.Fatal(tt.encoding)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != tt.want {
				t.Errorf("%s %q is %q, %v, want %q", tt.encoding, tt.in, got, err, tt.want)
			}
		}
	}
	if _, ok := decode(bytes.NewReader(nil), "x-uuencode"); ok {
		t.Error("x-uuencode is known")
	}
}
