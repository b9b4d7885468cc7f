package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// neomutt opens a folder, shows its index, opens a message and flags it.
func TestNeomutt(t *testing.T) {
	peers.Need(t, "neomutt")
	_, location := mailDir(t)
	s := serve(t, location, "")
	c := s.client(t, "ada", nil)
	if err := c.Create("Lists.Zürich", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"Breakfast", "Lunch", "Dinner"} {
		appendMail(t, c, "Lists.Zürich", "From: Cook <cook@test.example>\r\nDate: Mon, 2 Jan 2006 15:04:05 +0000\r\n"+
			"Subject: "+subject+" today\r\n\r\nWe serve "+strings.ToUpper(subject)+".\r\n", nil)
	}
	home := t.TempDir()
	rc := filepath.Join(home, "neomuttrc")
	writeFile(t, rc, fmt.Sprintf(`
set folder = %q
set imap_user = ada
set imap_pass = pass
set certificate_file = %q
set sort = mailbox-order
set wait_key = no
set pager_index_lines = 0
set quit = yes
set delete = no
set mark_old = no
`, home, s.cert))
	cmd := exec.Command("neomutt", "-n", "-F", rc, "-f", "imaps://"+s.imaps+"/Lists.Zürich")
	cmd.Env = []string{"HOME=" + home, "TERM=xterm", "LANG=C.UTF-8", "PATH=/usr/bin:/bin"}
	mutt := inTerminal(t, cmd)
	for _, subject := range []string{"Breakfast today", "Lunch today", "Dinner today"} {
		mutt.wait(t, subject)
	}
	mutt.press(t, "2\n")            // jumps to it
	mutt.press(t, "\n")             // opens it
	mutt.wait(t, "We serve LUNCH.") // in the pager
	mutt.press(t, "i")              // back to the index
	mutt.press(t, "F$q")            // flags it, writes the mailbox, quits
	select {
	case <-mutt.exited:
	case <-time.After(patience):
		t.Fatalf("neomutt does not quit:\n%s", mutt.shown)
	}
	for _, m := range messages(t, c, "Lists.Zürich") {
		want := "[]"
		if m.uid == 2 {
			want = fmt.Sprint([]imap.Flag{imap.FlagFlagged, imap.FlagSeen})
		}
		if m.flags != want {
			t.Errorf("UID %d has flags %s, not %s", m.uid, m.flags, want)
		}
	}
}
