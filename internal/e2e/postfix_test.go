package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// await returns when something in another process came true.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not come within %v", what, patience)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// files are the paths of the files in new/ and cur/ of a mailbox's directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			found = append(found, filepath.Join(dir, sub, e.Name()))
		}
	}
	return found
}

// crlf is a text with the line ends of IMAP.
func crlf(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}

// An idler is a session that is in IDLE, and says how many messages there are when it is told, and how many EXPUNGEs came.
type idler struct {
	exists   chan uint32
	expunges atomic.Int32
	client   *imapclient.Client
}

func idle(t *testing.T, s *server, user, mailbox string) *idler {
	t.Helper()
	i := &idler{exists: make(chan uint32, 100)}
	i.client = s.client(t, user, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Expunge: func(uint32) { i.expunges.Add(1) },
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				i.exists <- *data.NumMessages
			}
		},
	}})
	if _, err := i.client.Select(mailbox, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	cmd, err := i.client.Idle()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Close() })
	return i
}

// wantExists waits until the session was told of n messages.
func (i *idler) wantExists(t *testing.T, n uint32) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-i.exists:
			if got == n {
				return
			}
		case <-timeout:
			t.Fatalf("the idling session did not hear of message %d", n)
		}
	}
}

// Postfix delivers, a session in IDLE hears of it, and curl fetches it: for a user whose Maildir
// Postfix makes, and for one whose Maildir maildird made.
func TestPostfix(t *testing.T) {
	mail, location := mailDir(t)
	p := peers.StartPostfix(t, mail, users...)
	s := serve(t, location, "")
	// fetch compares a message as curl gets it with the file and with what was sent.
	fetch := func(user, uid, subject string) {
		t.Helper()
		var file string
		for _, name := range files(t, s.root(user)) {
			if text := readFile(t, name); strings.Contains(text, "Subject: "+subject+"\n") {
				file = text
			}
		}
		for _, args := range [][]string{
			{"imap://" + s.imap + "/INBOX;UID=" + uid},
			{"imap://" + s.imap + "/INBOX;UID=" + uid, "--ssl-reqd", "--cacert", s.cert},
			{"imaps://" + s.imaps + "/INBOX;UID=" + uid, "--cacert", s.cert},
		} {
			got, _ := run(t, nil, "curl", append(args, "--silent", "--show-error", "--user", user+":pass")...)
			if got != crlf(file) {
				t.Errorf("curl %q got\n%q, the file is\n%q", args, got, file)
			}
			if !strings.HasSuffix(got, crlf(letter(subject))) {
				t.Errorf("curl %q got\n%q, sent was\n%q", args, got, letter(subject))
			}
		}
	}

	p.Send(t, "ada", letter("first"))
	await(t, "first delivery", func() bool { return len(files(t, s.root("ada"))) == 1 })
	i := idle(t, s, "ada", "INBOX")
	if n := i.client.Mailbox().NumMessages; n != 1 {
		t.Errorf("%d messages in a Maildir that Postfix made, not 1", n)
	}
	fetch("ada", "1", "first")
	p.Send(t, "ada", letter("second"))
	i.wantExists(t, 2)
	fetch("ada", "2", "second")

	i = idle(t, s, "ben", "INBOX")
	p.Send(t, "ben", letter("third"))
	i.wantExists(t, 1)
	fetch("ben", "1", "third")
}
