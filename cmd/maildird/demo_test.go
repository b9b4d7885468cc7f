package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// The demo needs nothing set up, and what it prints to type next is right.
func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	p := start(t, "demo", "-listen", "127.0.0.1:0")
	addr := p.address("imap")
	said := func() string {
		b, err := os.ReadFile(p.out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	eventually(t, "what to type next", func() bool { return strings.Contains(said(), "Ctrl-C") })
	if want := "curl --user demo:demo 'imap://" + addr + "/INBOX;MAILINDEX=1'"; !strings.Contains(said(), want) {
		t.Errorf("says\n%s, and not\n%s", said(), want)
	}
	root := regexp.MustCompile(`The mail is in (.*)`).FindStringSubmatch(said())[1]

	c, err := imapclient.DialInsecure(addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("demo", "demo").Wait(); err != nil {
		t.Fatal(err)
	}
	boxes, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range boxes {
		names = append(names, b.Mailbox)
		if strings.HasPrefix(b.Mailbox, "Sent") && !slices.Contains(b.Attrs, imap.MailboxAttrSent) {
			t.Errorf("%s is not for sent mail: %v", b.Mailbox, b.Attrs)
		}
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "Drafts INBOX Sent Trash Work Work.2026 Zürich" {
		t.Errorf("mailboxes: %s", got)
	}
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil || selected.NumMessages != 7 {
		t.Fatalf("INBOX: %+v, %v", selected, err)
	}
	all := imap.SeqSet{{Start: 1, Stop: 0}}
	messages, err := c.Fetch(all, &imap.FetchOptions{Envelope: true, Flags: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var flagged, unseen, multipart int
	subjects := map[string]bool{}
	for _, m := range messages {
		subjects[m.Envelope.Subject] = true
		if slices.Contains(m.Flags, imap.FlagFlagged) {
			flagged++
		}
		if !slices.Contains(m.Flags, imap.FlagSeen) {
			unseen++
		}
		if _, ok := m.BodyStructure.(*imap.BodyStructureMultiPart); ok {
			multipart++
		}
	}
	if flagged != 2 || unseen != 3 || multipart != 3 || !subjects["Ihre Rechnung für „Maildir für alle“"] {
		t.Errorf("flagged %d, unseen %d, multipart %d, subjects %v", flagged, unseen, multipart, subjects)
	}

	p.end(syscall.SIGINT)
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", root, err)
	}
}

// A folder is filled once and kept; what is a Maildir already is served as it is.
func TestDemoDir(t *testing.T) {
	root := filepath.Join(t.TempDir(), "mail")
	p := start(t, "demo", "-dir", root, "-listen", "127.0.0.1:0")
	p.address("imap")
	p.end(syscall.SIGTERM)
	if mail, _ := filepath.Glob(root + "/[cn][ue][rw]/*"); len(mail) != 7 {
		t.Errorf("%d messages are kept: %v", len(mail), mail)
	}

	mine := t.TempDir()
	for _, dir := range []string{"cur", "new", "tmp"} {
		if err := os.Mkdir(filepath.Join(mine, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := deliver(mine, "lunch", "new"); err != nil {
		t.Fatal(err)
	}
	p = start(t, "demo", "-dir", mine, "-listen", "127.0.0.1:0")
	c, err := imapclient.DialInsecure(p.address("imap"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("demo", "demo").Wait(); err != nil {
		t.Fatal(err)
	}
	boxes, err := c.List("", "*", nil).Collect()
	if err != nil || len(boxes) != 1 {
		t.Errorf("mailboxes: %v, %v", boxes, err)
	}
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil || selected.NumMessages != 1 {
		t.Errorf("INBOX: %+v, %v", selected, err)
	}
}
