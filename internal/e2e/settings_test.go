package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// With control files apart, the lock is the one that Dovecot takes: all messages are marked read and unread while
// a Dovecot session polls, and it is told of no EXPUNGE. None of the files is with the mail.
func TestTrap20ControlDirectory(t *testing.T) {
	t.Parallel()
	const n = 1000
	d := peers.StartDovecot(t, ":CONTROL=~/control:INDEX=~/index")
	root := d.Maildir(t, "ada")
	home := filepath.Dir(d.Location())
	s := serve(t, d.Location(), fmt.Sprintf("control = %q\n", filepath.Join(home, "control")))
	must(t, os.Mkdir(filepath.Join(root, "new"), 0o770))
	own(t, filepath.Join(root, "new"))
	for i := range n {
		writeFile(t, filepath.Join(root, "new", fmt.Sprintf("%d.x.host", 1700000000+i)), "Subject: x\n\nx\n")
	}
	theirs := login(t, d.Addr, "ada")
	theirs.ok("SELECT INBOX")
	ours := login(t, s.imap, "ada")
	if got := ours.ok("SELECT INBOX"); find(got, fmt.Sprintf(`^\* %d EXISTS`, n)) == nil {
		t.Fatalf("selected: %q", got)
	}

	done := make(chan struct{})
	ours.quit = runtime.Goexit // FailNow is for the test's goroutine
	go func() {
		defer close(done)
		for i := range 6 { // ends with all read
			ours.ok("STORE 1:* " + []string{"-", "+"}[i%2] + `FLAGS.SILENT (\Seen)`)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if gone := find(theirs.ok("NOOP"), `^\* \d+ EXPUNGE`); gone != nil {
			t.Errorf("Dovecot tells %q", gone)
		}
	}
	if got := theirs.ok("SEARCH UNSEEN"); find(got, `\d`) != nil {
		t.Errorf("unread for Dovecot: %q", got)
	}
	want := find(theirs.ok("STATUS INBOX (UIDNEXT UIDVALIDITY)"), `UIDNEXT (\d+)`)[1]
	if want != fmt.Sprint(n+1) {
		t.Errorf("Dovecot: UIDNEXT is %s: a message got another UID", want)
	}

	control := filepath.Join(filepath.Dir(root), "control")
	for _, name := range []string{".INBOX/dovecot-uidlist", "dovecot-uidvalidity"} {
		if _, err := os.Stat(filepath.Join(control, name)); err != nil {
			t.Error(err)
		}
	}
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(e.Name(), "dovecot-") {
			t.Errorf("%s is with the mail", path)
		}
		return err
	}))
	d.WantNoComplaint(t)
}

// Under a prefix names mean what they mean to Dovecot: each command is answered alike, but for the text.
func TestPrefixAsDovecot(t *testing.T) {
	t.Parallel()
	d := peers.StartDovecot(t, "", "namespace inbox {\n prefix = INBOX.\n separator = .\n}")
	d.Maildir(t, "ada")
	d.Maildir(t, "ben")
	s := serve(t, d.Location(), "prefix = \"INBOX.\"\n")
	ours, theirs := login(t, s.imap, "ada"), login(t, d.Addr, "ben")
	listed := regexp.MustCompile(`^\* (LIST|LSUB) \(([^)]*)\) "?(.)"? "?(.*?)"?$`)
	plain := func(a answer) (lines []string) {
		for _, l := range a.untagged {
			if m := listed.FindStringSubmatch(l); m != nil {
				attrs := strings.Fields(m[2])
				slices.Sort(attrs)
				l = fmt.Sprint(m[1], attrs, m[3], m[4])
			}
			lines = append(lines, strings.ReplaceAll(l, `"`, ""))
		}
		slices.Sort(lines)
		return append(lines, a.tagged[:2])
	}
	for _, command := range []string{
		`NAMESPACE`,
		`LIST "" "*"`,
		`CREATE Work`,
		`CREATE INBOX.Work`,
		`CREATE INBOX.Work.x`,
		`CREATE INBOX.Work`,
		`CREATE INBOX.INBOX`,
		`CREATE INBOX.INBOX.y`,
		`CREATE INBOX.inbox`,
		`STATUS INBOX.INBOX (MESSAGES)`,
		`STATUS Work (MESSAGES)`,
		`SUBSCRIBE INBOX.Work`,
		`SUBSCRIBE INBOX`,
		`SUBSCRIBE Work`,
		`LSUB "" "*"`,
		`LIST "" "*"`,
		`LIST "" "%"`,
		`LIST "" "INBOX.%"`,
		`LIST "INBOX." "%"`,
		`LIST "" "INBOX*"`,
		`RENAME INBOX.Work INBOX.Play`,
		`RENAME INBOX.Play Foo`,
		`SELECT Work`,
		`DELETE Work`,
		`DELETE INBOX`,
		`DELETE INBOX.inbox`,
		`LIST "" "*"`,
	} {
		got, want := ours.do(command), theirs.do(command)
		if !slices.Equal(plain(got), plain(want)) {
			t.Errorf("%s:\nmaildird %q %q\nDovecot  %q %q", command, got.untagged, got.tagged, want.untagged, want.tagged)
		}
	}
	if got := ours.refused("CREATE Work"); !strings.Contains(got, `"INBOX."`) {
		t.Errorf("the client is not told the prefix: %s", got)
	}
}
