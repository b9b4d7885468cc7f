package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Mail that can't be numbered, on a read-only disk, is not shown, and is in nobody's way. Belongs to
// outside_linux_test.go when maildir has it.
func TestOutsideReadOnlyNewMail(t *testing.T) {
	disk, location := newSmallDisk(t)
	s := serve(t, location, cacheElsewhere(t))
	s.tolerate = "read-only file system"
	c := login(t, s.imap, "ada")
	c.ok("CREATE Box")
	for range 3 {
		c.ok("APPEND INBOX {}", otherMail) // stay in new/: nobody has selected it
	}
	c.ok("UNAUTHENTICATE")
	must(t, deliver(s.root("ada"), otherMail))
	own(t, s.root("ada"))
	disk.remount("ro")
	c.ok("LOGIN ada pass")
	if got := c.ok("STATUS INBOX (MESSAGES)"); find(got, `MESSAGES 3\)`) == nil {
		t.Errorf("status: %q", got)
	}
	if got := c.ok("SELECT INBOX"); find(got, `^\* 3 EXISTS`) == nil {
		t.Errorf("selected: %q", got)
	}
	for range 20 {
		c.ok("NOOP")
	}
	c.wantUIDsAre("1 2 3")
	c.ok("FETCH 1:3 BODY[]")
	idler := login(t, s.imap, "ada")
	idler.ok("SELECT INBOX")
	idler.idle()
	if n := s.count("not shown yet|level=ERROR msg=\"look at mailbox"); n != 1 {
		t.Errorf("%d lines of the log tell of it", n)
	}
	disk.remount("rw")
	c.ok("NOOP")
	c.wantUIDsAre("1 2 3 4")
	idler.until("* 4 EXISTS")
}

// The same on a full disk: what others do to the mail that has a UID is told.
func TestOutsideFullDiskNewMail(t *testing.T) {
	disk, location := newSmallDisk(t)
	s := serve(t, location, cacheElsewhere(t))
	s.tolerate = "no space left"
	c, idler := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	for range 3 {
		c.ok("APPEND INBOX {}", otherMail)
	}
	c.ok("SELECT INBOX")
	root := s.root("ada")
	list := filepath.Join(root, "dovecot-uidlist")
	for i := 0; len(readFile(t, list))%4096 < 4060; i++ { // no room for another record
		c.ok("APPEND INBOX {}", otherMail)
		if i == 500 {
			t.Fatal("the list does not fill a page")
		}
	}
	idler.ok("SELECT INBOX")
	idler.idle()
	n := len(readDir(t, filepath.Join(root, "cur")))
	writeFile(t, filepath.Join(root, "tmp", "late"), otherMail)
	names := readDir(t, filepath.Join(root, "cur"))
	must(t, os.Link(filepath.Join(root, "cur", names[1]), filepath.Join(root, "tmp", "kept"))) // to remove it makes no room
	free := disk.fill(s)
	must(t, os.Rename(filepath.Join(root, "tmp", "late"), filepath.Join(root, "new", "1900000000."+strings.Repeat("late", 30)+".host")))
	must(t, os.Remove(filepath.Join(root, "cur", names[1])))
	for line := ""; !strings.HasSuffix(line, " EXPUNGE"); line = idler.read() {
	}
	for range 20 {
		c.ok("NOOP")
	}
	late := login(t, s.imap, "ada")
	if got := late.ok("SELECT INBOX"); find(got, fmt.Sprintf(`^\* %d EXISTS`, n-1)) == nil {
		t.Errorf("selected, with mail that has no UID: %q", got)
	}
	free()
	idler.until(fmt.Sprintf("* %d EXISTS", n))
}
