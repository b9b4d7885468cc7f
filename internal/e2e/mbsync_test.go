package e2e

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// tree is each file under a directory with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		found[rel] = readFile(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// wantSameTree tells which files differ between two trees.
func wantSameTree(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if got, ok := after[name]; !ok {
			t.Errorf("%s: %s is gone", what, name)
		} else if got != before[name] {
			t.Errorf("%s: %s was\n%s\nand is\n%s", what, name, before[name], got)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[name]; !ok {
			t.Errorf("%s: %s is new", what, name)
		}
	}
}

// tuid is a header field that mbsync adds to what it copies, to find it again.
var tuid = regexp.MustCompile(`(?m)^X-TUID: .*\n`)

// An mbsync is a copy of ada's account that mbsync keeps, in a directory. Its separator in local names
// is "/", and its names are as IMAP spells them.
type mbsync struct {
	dir      string
	expunge  string // where it removes what is deleted on the other side: None or Both
	patterns string // of its mailboxes; "": all
}

// command is mbsync, to be run with a server; more is what else it has to know of that.
func (m *mbsync) command(t *testing.T, addr, more string, flags ...string) *exec.Cmd {
	t.Helper()
	peers.Need(t, "mbsync")
	rc := filepath.Join(m.dir, "mbsyncrc")
	host, port, _ := strings.Cut(addr, ":")
	if more != "" {
		host = "localhost" // as the certificate says
	}
	writeFile(t, rc, fmt.Sprintf(`
FSync no

IMAPAccount server
Host %s
Port %s
User ada
Pass pass
%s

IMAPStore far
Account server

MaildirStore near
Path %s/
Inbox %[4]s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns %s
Create Both
Expunge %s
SyncState *
`, host, port, cmp.Or(more, "SSLType None"), m.dir, cmp.Or(m.patterns, "*"), m.expunge))
	return exec.CommandContext(t.Context(), "mbsync", append(flags, "-c", rc, "-a")...)
}

// count runs mbsync and returns what it says, which ends in how much it did.
func (m *mbsync) count(t *testing.T, addr, more string) string {
	t.Helper()
	cmd := m.command(t, addr, more)
	s := inTerminal(t, cmd) // where it counts
	select {
	case <-s.exited:
	case <-time.After(2 * patience):
		t.Fatal("mbsync does not end")
	}
	if !cmd.ProcessState.Success() {
		t.Fatalf("mbsync: %v\n%s", cmd.ProcessState, s.shown)
	}
	return s.shown
}

// mbsync pulls an account, pushes what changed, and finds nothing to do after that.
func TestMbsync(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	c := s.client(t, "ada", nil)
	const perFolder = 100
	text := func(folder string, i int) string {
		return fmt.Sprintf("From: a@test.example\r\nSubject: %s %d\r\nMessage-ID: <%d.%s@test.example>\r\n\r\nBody %d\r\n", folder, i, i, folder, i)
	}
	folders := []string{"INBOX", "Work", "Work.Grüße"}
	for _, folder := range folders {
		if folder != "INBOX" {
			if err := c.Create(folder, nil).Wait(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range perFolder {
			o := &imap.AppendOptions{}
			if i%10 == 0 {
				o.Flags = []imap.Flag{imap.FlagSeen, imap.FlagAnswered}
			}
			appendMail(t, c, folder, text(folder, i), o)
		}
	}

	local := t.TempDir()
	dirs := map[string]string{"INBOX": local + "/INBOX", "Work": local + "/Work", "Work.Grüße": local + "/Work/Gr&APwA3w-e"}
	copied := &mbsync{dir: local, expunge: "Both"}
	tls := fmt.Sprintf("SSLType STARTTLS\nCertificateFile %s", s.cert)
	sync := func() string {
		t.Helper()
		return copied.count(t, s.imap, tls)
	}

	pulled := func(name string) string {
		t.Helper()
		return crlf(tuid.ReplaceAllString(readFile(t, name), ""))
	}

	sync()
	for _, folder := range folders {
		got := files(t, dirs[folder])
		if len(got) != perFolder {
			t.Fatalf("mbsync pulled %d messages of %s, not %d", len(got), folder, perFolder)
		}
		seen := 0
		texts := map[string]bool{}
		for _, name := range got {
			texts[pulled(name)] = true
			if strings.HasSuffix(name, ":2,RS") {
				seen++
			}
		}
		if seen != perFolder/10 {
			t.Errorf("mbsync pulled %d messages of %s with flags RS, not %d", seen, folder, perFolder/10)
		}
		for i := range perFolder {
			if !texts[text(folder, i)] {
				t.Fatalf("mbsync did not pull %q from %s as it is, but\n%.2000q", text(folder, i), folder, slices.Sorted(maps.Keys(texts)))
			}
		}
	}

	// Here: a flag, a new message, a deletion, in each folder.
	for _, folder := range folders {
		for _, name := range files(t, dirs[folder]) {
			base, _, _ := strings.Cut(filepath.Base(name), ":")
			flags := ""
			switch pulled(name) {
			case text(folder, 3):
				flags = "FS"
			case text(folder, 4):
				flags = "T"
			default:
				continue
			}
			if err := os.Rename(name, filepath.Join(dirs[folder], "cur", base+":2,"+flags)); err != nil {
				t.Fatal(err)
			}
		}
		writeFile(t, filepath.Join(dirs[folder], "cur", "1700000000.local.host:2,FS"), strings.ReplaceAll(text(folder, 1000), "\r\n", "\n"))
	}
	said := sync()
	if counts := "F: +3/3 *6/6 #0/0  N: +0/0 *0/0 #0/0"; !strings.Contains(said, counts) {
		t.Errorf("the push does not say %q:\n%s", counts, said)
	}
	for _, folder := range folders {
		got := messages(t, c, folder)
		if len(got) != perFolder {
			t.Errorf("%s has %d messages after the push, not %d\n%s", folder, len(got), perFolder, said)
			continue
		}
		want := func(uid imap.UID, text, flags string) {
			t.Helper()
			i := slices.IndexFunc(got, func(m message) bool { return m.uid == uid })
			if i < 0 {
				t.Errorf("%s: no UID %d", folder, uid)
			} else if tuid.ReplaceAllString(got[i].text, "") != text || got[i].flags != flags {
				t.Errorf("%s: UID %d is %q %s, not %q %s", folder, uid, got[i].text, got[i].flags, text, flags)
			}
		}
		want(1, text(folder, 0), `[\Answered \Seen]`)
		want(4, text(folder, 3), `[\Flagged \Seen]`)
		want(perFolder, text(folder, perFolder-1), `[]`)
		want(perFolder+1, text(folder, 1000), `[\Flagged \Seen]`)
		if slices.ContainsFunc(got, func(m message) bool { return m.uid == 5 }) {
			t.Errorf("%s: UID 5 was deleted and is there", folder)
		}
	}

	near, far := tree(t, local), tree(t, s.root("ada"))
	said = sync()
	wantSameTree(t, "second run, here", near, tree(t, local))
	wantSameTree(t, "second run, on the server", far, tree(t, s.root("ada")))
	if total := "C: 1/1  B: 3/3  F: +0/0 *0/0 #0/0  N: +0/0 *0/0 #0/0"; !strings.HasSuffix(strings.TrimSpace(said), total) {
		t.Errorf("the second run does not say %q:\n%s", total, said)
	}
}

func appendMail(t *testing.T, c *imapclient.Client, mailbox, text string, o *imap.AppendOptions) *imap.AppendData {
	t.Helper()
	cmd := c.Append(mailbox, int64(len(text)), o)
	cmd.Write([]byte(text))
	cmd.Close()
	data, err := cmd.Wait()
	if err != nil {
		t.Fatalf("append to %s: %v", mailbox, err)
	}
	return data
}
