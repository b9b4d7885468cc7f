package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// badMails are mails that are not what they should be, as files have them.
func badMails() map[string]string {
	var nested strings.Builder
	nested.WriteString("Subject: nested\n")
	for i := range 10_000 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=\"b%d\"\n\n--b%d\n", i, i)
	}
	nested.WriteString("\nThe innermost.\n")
	for i := 9_999; i >= 0; i-- {
		fmt.Fprintf(&nested, "--b%d--\n", i)
	}
	long := strings.Repeat("x", 1<<20)
	return map[string]string{
		"nested":                            nested.String(),
		"siblings":                          "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 10_000) + "--b--\n",
		"rfc822":                            strings.Repeat("Content-Type: message/rfc822\n\n", 10_000),
		"long line":                         "Subject: " + long + "\nTo: a@test.example\n\nbody\n",
		"long field":                        "Subject: a\n" + strings.Repeat(" "+strings.Repeat("y", 70)+"\n", 15_000) + "\nbody\n",
		"many fields":                       strings.Repeat("X-Field: value\n", 70_000) + "\nbody\n",
		"long name":                         long + ": value\n\nbody\n",
		"NULs":                              "Subject: a\x00b\nFrom: \x00 <a\x00@test.example>\nContent-Type: text/plain; name=\"\x00\"\n\n\x00\x00\x00\n",
		"no header":                         "\nbody only\n",
		"no body":                           "Subject: header only\n",
		"no field":                          "this is no header at all\nand neither is this\n",
		"empty":                             "",
		"lies: multipart without parts":     "Content-Type: multipart/mixed; boundary=b\n\nNot one part.\n",
		"lies: multipart without boundary":  "Content-Type: multipart/alternative\n\n--\n--\n",
		"lies: multipart with no end":       "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>\n--b\nContent-T",
		"lies: message that is none":        "Content-Type: message/rfc822\n\n\x80\x81\x82",
		"lies: base64 that is none":         "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n!!!! not base64 \xff\n",
		"lies: charset and type":            "Content-Type: text/;;; charset=\"\n  nonsense\nContent-Type: \xff/\xfe\n\nx\n",
		"lies: addresses and date":          "From: <<<@@,;:\"\nTo: (((\nDate: yesterday\nMessage-ID: <<>\nIn-Reply-To: >><\nSubject: =?utf-8?b?!!?= =?x\n\nx\n",
		"lies: base64 multipart":            "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n--b\n\nx\n--b--\n",
		"CR":                                "Subject: a\rb\r\r\nTo: c\r\n\r\r\n\rx\r",
		"8 bit in every field of structure": "Content-Type: text/plain; charset=\xff; n\xffme=\xfe\nContent-ID: <\xff>\nContent-Description: \xff\nContent-Disposition: \xff; filename*=utf-8''%ff\nContent-Language: \xff\nContent-Location: \xff\n\nx\n",
	}
}

// Every FETCH item of every bad mail is something that a client can read, and the bytes are those of
// the file.
func TestBadMail(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	for name, text := range badMails() {
		t.Run(name, func(t *testing.T) {
			c := s.client(t, "ada", nil)
			box := strings.Map(func(r rune) rune {
				if r == ' ' || r == ':' {
					return '_'
				}
				return r
			}, name)
			must(t, c.Create(box, nil).Wait())
			dir := filepath.Join(s.root("ada"), "."+box)
			writeFile(t, filepath.Join(dir, "cur", "1700000000.bad.host:2,"), text)
			writeFile(t, filepath.Join(dir, "cur", "1700000001.good.host:2,"), "Subject: good\n\nA good neighbour.\n")
			want := strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")

			other.during(t, func() {
				_, err := c.Select(box, &imap.SelectOptions{ReadOnly: true}).Wait()
				must(t, err)
				for _, set := range []imap.NumSet{imap.SeqSetNum(1, 2), imap.UIDSetNum(1, 2)} { // the second is answered from the cache
					whole := &imap.FetchItemBodySection{Peek: true}
					sections := []*imap.FetchItemBodySection{
						whole,
						{Peek: true, Specifier: imap.PartSpecifierHeader},
						{Peek: true, Specifier: imap.PartSpecifierText},
						{Peek: true, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Subject", "To"}},
						{Peek: true, Part: []int{1}},
						{Peek: true, Part: []int{1}, Specifier: imap.PartSpecifierMIME},
						{Peek: true, Part: []int{1, 1, 1, 1, 1, 2}},
						{Peek: true, Partial: &imap.SectionPartial{Offset: 3, Size: 10}},
						{Peek: true, Part: []int{1000000}},
					}
					msgs, err := c.Fetch(set, &imap.FetchOptions{
						UID: true, Flags: true, InternalDate: true, RFC822Size: true, Envelope: true,
						BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
						BodySection:   sections,
					}).Collect()
					must(t, err)
					if len(msgs) != 2 {
						t.Fatalf("FETCH answers for %d messages, not 2", len(msgs))
					}
					m := msgs[0]
					if m.UID != 1 || m.Envelope == nil || m.BodyStructure == nil {
						t.Errorf("FETCH answers with UID %d, envelope %v, structure %v", m.UID, m.Envelope, m.BodyStructure)
					}
					if got := string(m.FindBodySection(whole)); got != want || m.RFC822Size != int64(len(want)) {
						t.Errorf("BODY[] is %.100q of %d bytes, RFC822.SIZE %d; the file is %.100q of %d", got, len(got), m.RFC822Size, want, len(want))
					}
					if got := string(m.FindBodySection(sections[1])) + string(m.FindBodySection(sections[2])); got != want {
						t.Errorf("BODY[HEADER] and BODY[TEXT] are %.100q of %d bytes; the file is %.100q of %d", got, len(got), want, len(want))
					}
				}
				if _, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodyStructure: &imap.FetchItemBodyStructure{}}).Collect(); err != nil {
					t.Errorf("FETCH BODY: %v", err)
				}
				data, err := c.Search(&imap.SearchCriteria{Text: []string{"good neighbour"}}, nil).Wait()
				must(t, err)
				if got := data.AllSeqNums(); len(got) != 1 || got[0] != 2 {
					t.Errorf("SEARCH TEXT found %v, not 2", got)
				}
				raw := login(t, s.imap, "ada")
				raw.ok("EXAMINE " + box)
				for _, line := range raw.ok("FETCH 1 (ENVELOPE BODYSTRUCTURE BODY)") {
					if strings.ContainsRune(line, 0) {
						t.Errorf("a NUL in %.1000q", line)
					}
				}
			})
		})
	}
}
