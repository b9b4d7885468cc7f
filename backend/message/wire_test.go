package message

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-imap/v2/imapserver"
)

var update = flag.Bool("update", false, "rewrite the golden files, but not those that an RFC demands (rfc*)")

// A session serves one mailbox with one message.
type session struct {
	imapserver.Session // what is not written here is not called
	m                  *Message
}

func (s *session) Close() error                                           { return nil }
func (s *session) Poll(*imapserver.UpdateWriter, bool) error              { return nil }
func (s *session) Unselect() error                                        { return nil }
func (s *session) Namespace() (*imap.NamespaceData, error)                { return &imap.NamespaceData{}, nil }
func (s *session) Move(*imapserver.MoveWriter, imap.NumSet, string) error { return nil }

func (s *session) Select(string, *imap.SelectOptions) (*imap.SelectData, error) {
	return &imap.SelectData{NumMessages: 1, UIDNext: 2, UIDValidity: 1}, nil
}

func (s *session) Fetch(w *imapserver.FetchWriter, _ imap.NumSet, options *imap.FetchOptions) error {
	structure, err := s.m.Structure()
	if err != nil {
		return err
	}
	f := w.CreateMessage(1)
	if options.Envelope {
		f.WriteEnvelope(structure.Envelope())
	}
	if options.BodyStructure != nil {
		f.WriteBodyStructure(structure.BodyStructure(options.BodyStructure.Extended))
	}
	if options.RFC822Size {
		f.WriteRFC822Size(structure.Size())
	}
	for _, item := range options.BodySection {
		r, n, err := s.m.BodySection(item)
		if err != nil {
			return err
		}
		if err := send(f.WriteBodySection(item, n), r); err != nil {
			return err
		}
	}
	for _, item := range options.BinarySection {
		r, n, err := s.m.BinarySection(item)
		if err != nil {
			return err
		}
		if err := send(f.WriteBinarySection(item, n), r); err != nil {
			return err
		}
	}
	for _, item := range options.BinarySectionSize {
		n, err := s.m.BinarySize(item.Part)
		if err != nil {
			return err
		}
		f.WriteBinarySectionSize(item, uint32(n))
	}
	return f.Close()
}

func send(w io.WriteCloser, r io.Reader) error {
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Close()
}

// serve starts a go-imap server for a message and returns its address.
func serve(t *testing.T, b []byte) string {
	t.Helper()
	srv := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &session{m: New(opener(b))}, &imapserver.GreetingData{PreAuth: true}, nil
		},
		Caps:   imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		Logger: log.New(testWriter{t}, "", 0),
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		srv.Serve(ln)
		close(done)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return ln.Addr().String()
}

// A testWriter fails a test with what is logged: go-imap logs panics of its writers.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Errorf("go-imap: %s", p)
	return len(p), nil
}

// rawItem is the value of a FETCH item as it is sent.
func rawItem(t *testing.T, addr, item string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "a SELECT INBOX\r\nb FETCH 1 %s\r\n", item)
	r := bufio.NewReader(c)
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, all.String())
		}
		if rest, ok := strings.CutPrefix(line, "b "); ok {
			if !strings.HasPrefix(rest, "OK") {
				t.Fatalf("FETCH %s: %s", item, line)
			}
			break
		}
		all.WriteString(line)
	}
	_, v, _ := strings.Cut(all.String(), "FETCH ("+item+" ")
	v, ok := strings.CutSuffix(v, ")\r\n")
	if !ok {
		t.Fatalf("FETCH %s: %q", item, all.String())
	}
	return v
}

// TestMails compares ENVELOPE and BODYSTRUCTURE of each testdata/*.eml, as go-imap's server sends them, with
// the files beside it, and has go-imap's client read all FETCH items. The mails are kept with LF.
//
// In the files beside, line ends and tabs are for the eye: they stand for nothing.
func TestMails(t *testing.T) {
	names, err := filepath.Glob("testdata/*.eml")
	if err != nil || len(names) == 0 {
		t.Fatal("no mails", err)
	}
	for _, name := range names {
		stem := strings.TrimSuffix(name, ".eml")
		t.Run(filepath.Base(stem), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b = mail(string(b))
			checkMessage(t, b)
			addr := serve(t, b)
			compare(t, stem+".envelope", rawItem(t, addr, "ENVELOPE"))
			compare(t, stem+".bodystructure", rawItem(t, addr, "BODYSTRUCTURE"))
			fetchAll(t, addr, b)
		})
	}
}

var blanks = strings.NewReplacer("\r\n", "", "\n", "", "\t", "")

func compare(t *testing.T, file, got string) {
	t.Helper()
	want, err := os.ReadFile(file)
	if *update && !strings.HasPrefix(filepath.Base(file), "rfc") {
		err = os.WriteFile(file, []byte(layOut(got)), 0o644)
		want = []byte(got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if blanks.Replace(got) != blanks.Replace(string(want)) {
		t.Errorf("%s: got\n%swant\n%s", filepath.Base(file), layOut(got), want)
	}
}

// layOut makes the value of an item readable: parts, and the lists of addresses of the message, have lines
// of their own.
func layOut(v string) string {
	var b strings.Builder
	depth, quoted := 0, false
	v = blanks.Replace(v)
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case quoted && c == '\\':
			b.WriteByte(c)
			i++
			c = v[i]
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ' ' && depth == 1 && strings.HasPrefix(v[i:], " (("):
			b.WriteString("\n")
		case c == '(':
			if i == 1 || i > 0 && v[i-1] == ')' {
				b.WriteString("\n" + strings.Repeat("\t", depth))
			}
			depth++
		case c == ')':
			depth--
		}
		b.WriteByte(c)
	}
	b.WriteByte('\n')
	return b.String()
}

// fetchAll has go-imap's client fetch all there is, and checks the bytes.
func fetchAll(t *testing.T, addr string, b []byte) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	c := imapclient.New(nc, nil)
	defer c.Close()
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	fetch := func(options *imap.FetchOptions) *imapclient.FetchMessageBuffer {
		t.Helper()
		l, err := c.Fetch(imap.SeqSetNum(1), options).Collect()
		if err != nil {
			t.Fatal(err)
		}
		if len(l) != 1 {
			t.Fatalf("%d messages", len(l))
		}
		return l[0]
	}
	all := &imap.FetchOptions{
		Envelope:      true,
		RFC822Size:    true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection: []*imap.FetchItemBodySection{
			{},
			{Specifier: imap.PartSpecifierHeader},
			{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"From", "Subject"}},
			{Specifier: imap.PartSpecifierHeader, HeaderFieldsNot: []string{"From", "Subject"}},
			{Specifier: imap.PartSpecifierText, Partial: &imap.SectionPartial{Offset: 1, Size: 20}},
		},
		BinarySection:     []*imap.FetchItemBinarySection{{}},
		BinarySectionSize: []*imap.FetchItemBinarySectionSize{{}},
	}
	got := fetch(all)
	if got.Envelope == nil || got.BodyStructure == nil || got.RFC822Size != int64(len(b)) {
		t.Fatalf("incomplete: %+v", got)
	}
	if !bytes.Equal(got.BodySection[0].Bytes, b) {
		t.Errorf("BODY[] is %q", got.BodySection[0].Bytes)
	}
	if !bytes.Equal(got.BinarySection[0].Bytes, b) {
		t.Errorf("BINARY[] is %q", got.BinarySection[0].Bytes)
	}
	if body := fetch(&imap.FetchOptions{BodyStructure: &imap.FetchItemBodyStructure{}}); body.BodyStructure == nil {
		t.Error("no BODY")
	}

	n := 0
	got.BodyStructure.Walk(func(path []int, bs imap.BodyStructure) bool {
		if n++; len(path) == 0 || n > 50 {
			return true
		}
		sections := fetch(&imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{
			{Part: path},
			{Part: path, Specifier: imap.PartSpecifierMIME},
			{Part: path, Specifier: imap.PartSpecifierHeader},
			{Part: path, Specifier: imap.PartSpecifierText},
		}})
		if p, ok := bs.(*imap.BodyStructureSinglePart); ok && int(p.Size) != len(sections.BodySection[0].Bytes) {
			t.Errorf("BODY[%v] has %d bytes, BODYSTRUCTURE says %d", path, len(sections.BodySection[0].Bytes), p.Size)
		}
		return true
	})
}
