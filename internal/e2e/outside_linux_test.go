package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// Outside changes that a transcript can't say; the others are transcripts/outside-*.txt. All of them
// are in the table of docs/coexistence.md.

// bye reads up to the BYE of a connection that the server ends.
func (c *conn) bye() {
	c.t.Helper()
	for line := ""; !strings.HasPrefix(line, "* BYE "); line = c.read() {
	}
}

// idle begins IDLE; DONE ends it.
func (c *conn) idle() {
	c.t.Helper()
	c.send("idle IDLE\r\n")
	if line := c.read(); !strings.HasPrefix(line, "+") {
		c.fail("IDLE: %q", line)
	}
}

// until reads in IDLE up to a response.
func (c *conn) until(response string) {
	c.t.Helper()
	for line := ""; line != response; line = c.read() {
	}
}

// count is how many lines of the log match.
func (s *server) count(pattern string) int {
	re := regexp.MustCompile(pattern)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, line := range s.log {
		if re.MatchString(line) {
			n++
		}
	}
	return n
}

// The whole account is moved away and back: sessions go on, in the directory that they have open. Who logs
// in meanwhile is told to come again, and nothing is made where the account was.
func TestOutsideRootAway(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	s.tolerate = "is away"
	root := s.root("ada")
	c, idler := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	c.ok("APPEND INBOX {}", otherMail)
	c.ok("CREATE Box")
	c.ok("SELECT INBOX")
	idler.ok("SELECT INBOX")
	idler.idle()

	must(t, os.Rename(root, root+".away"))
	if got := c.ok("FETCH 1 (UID ENVELOPE BODY.PEEK[])"); find(got, `^\* 1 FETCH \(UID 1 .*hello`) == nil {
		t.Errorf("fetched while the account is away: %q", got)
	}
	c.ok(`STORE 1 +FLAGS (\Flagged)`)
	idler.until(`* 1 FETCH (UID 1 FLAGS (\Flagged))`)
	c.ok("APPEND INBOX {}", otherMail)
	idler.until("* 2 EXISTS")
	c.ok("COPY 1:2 Box")
	c.ok("CREATE New")
	if got := c.ok(`LIST "" *`); len(got) != 3 {
		t.Errorf("listed while the account is away: %q", got)
	}
	late := dial(t, s.imap)
	for range 3 {
		if got := late.refused("LOGIN ada pass"); !strings.HasPrefix(got, "NO [UNAVAILABLE] ") {
			t.Errorf("login while the account is away: %s", got)
		}
	}
	login(t, s.imap, "ben").ok("SELECT INBOX") // other accounts are none the worse
	if _, err := os.Lstat(root); !os.IsNotExist(err) {
		t.Errorf("something was made where the account was: %v", err)
	}

	must(t, os.Rename(root+".away", root))
	late.ok("LOGIN ada pass")
	late.ok("SELECT INBOX")
	if got := late.ok("FETCH 1:* (UID FLAGS)"); len(got) != 2 || find(got, `^\* 1 FETCH \(UID 1 FLAGS \(\\Flagged`) == nil {
		t.Errorf("fetched when the account is back: %q", got)
	}
	late.ok(`STORE 1 +FLAGS (\Answered)`)
	if got := c.ok("NOOP"); find(got, `^\* 1 FETCH .*\\Answered`) == nil {
		t.Errorf("told when the account is back: %q", got)
	}
	idler.send("DONE\r\n")
	idler.answer("idle")
	if got := idler.ok("FETCH 1 FLAGS"); find(got, `^\* 1 FETCH .*\\Answered`) == nil {
		t.Errorf("fetched by who was in IDLE: %q", got)
	}
}

// An account that is removed while nobody is logged in is away as well, until the server forgets it.
func TestOutsideRootRemoved(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	s.tolerate = "is away"
	c := login(t, s.imap, "ada")
	c.ok("LOGOUT")
	must(t, os.RemoveAll(s.root("ada")))
	if got := dial(t, s.imap).refused("LOGIN ada pass"); !strings.HasPrefix(got, "NO [UNAVAILABLE] ") {
		t.Errorf("login after the account was removed: %s", got)
	}
	s.stop(t)
	s = serve(t, location, "")
	login(t, s.imap, "ada").ok("SELECT INBOX")
}

// Roots that are symlinks, that appear after the start with their first delivery, and accounts that are
// added while the server runs: who idles there hears of mail at once, by whatever path it came. Polling
// would take five seconds.
func TestOutsideRoots(t *testing.T) {
	dir, location := mailDir(t)
	real := filepath.Join(dir, "disk")
	must(t, os.Mkdir(real, 0o700))
	must(t, os.Symlink("disk", filepath.Join(dir, "ada"))) // ada/Maildir is disk/Maildir
	own(t, dir)
	s := serveUsers(t, []string{"ada", "ben"}, location, "")

	ben := filepath.Dir(s.root("ben"))
	must(t, os.Mkdir(ben, 0o700))
	for _, part := range []string{"", "new", "cur", "tmp"} {
		must(t, os.Mkdir(filepath.Join(s.root("ben"), part), 0o700))
	}
	must(t, deliver(s.root("ben"), otherMail))
	own(t, ben)

	passwd := filepath.Join(filepath.Dir(s.cert), "users")
	writeFile(t, passwd+".new", readFile(t, passwd)+"eve:{PLAIN}pass\n")
	own(t, passwd+".new")
	must(t, os.Rename(passwd+".new", passwd))
	must(t, s.cmd.Process.Signal(syscall.SIGHUP))
	s.waitLog(t, "reloaded files=.*users")

	for _, user := range []string{"ada", "ben", "eve"} {
		c := login(t, s.imap, user)
		c.ok("CREATE Box")
		in, box := login(t, s.imap, user), login(t, s.imap, user)
		in.ok("SELECT INBOX")
		box.ok("SELECT Box")
		in.idle()
		box.idle()
		root := s.root(user)
		if user == "ada" {
			root = filepath.Join(real, "Maildir")
		}
		for _, mailbox := range []string{root, filepath.Join(root, ".Box")} {
			must(t, deliver(mailbox, otherMail))
		}
		begin := time.Now()
		if user == "ben" {
			in.until("* 2 EXISTS")
		} else {
			in.until("* 1 EXISTS")
		}
		box.until("* 1 EXISTS")
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("%s heard of a delivery after %v", user, took)
		}
	}
	if n := s.count("polled"); n > 0 {
		t.Errorf("the log says %d times that something is polled", n)
	}
}

// Another directory takes the place of the account's: who is logged in gets a BYE at the next command, who
// logs in then the new one.
func TestOutsideRootReplaced(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	root := s.root("ada")
	c, idler, unselected := login(t, s.imap, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada")
	c.ok("APPEND INBOX {}", otherMail)
	c.ok("SELECT INBOX")
	idler.ok("SELECT INBOX")
	idler.idle()
	must(t, os.Rename(root, root+".old"))
	for _, sub := range []string{"cur", "new", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(root, sub), 0o700))
	}
	own(t, root)
	late := login(t, s.imap, "ada")
	late.ok("SELECT INBOX")
	late.wantUIDsAre("")
	c.send("x NOOP\r\n")
	c.bye()
	idler.bye()
	unselected.ok("NOOP") // or a BYE: it has nothing that is gone
	late.ok("APPEND INBOX {}", otherMail)
	if names := readDir(t, filepath.Join(root+".old", "new")); len(names) != 0 {
		t.Errorf("in the old one: %q", names)
	}
}

// Trap 14: a folder that was deleted is made again by mail that is put there. DELETE and RENAME by Dovecot: it
// moves a mailbox that it deletes to ..DOVECOT-TRASHED, and removes it there. Whatever our strategy is, that can't be refused, and nothing is kept.
func TestOutsideDovecotDeletes(t *testing.T) {
	for _, strategy := range []string{"disconnect", "ghost", "refuse"} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			d := peers.StartDovecot(t, "")
			root := d.Maildir(t, "ada")
			s := serve(t, d.Location(), fmt.Sprintf("\n[policy]\ndelete = %q\nrename = \"follow\"\n", strategy))
			theirs := login(t, d.Addr, "ada")
			theirs.ok("CREATE FOO")
			theirs.ok("APPEND FOO {}", otherMail)
			idler, silent, elsewhere := login(t, s.imap, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada")
			elsewhere.ok("APPEND INBOX {}", otherMail)
			elsewhere.ok("SELECT INBOX")
			idler.ok("SELECT FOO")
			idler.idle()
			silent.ok("EXAMINE FOO")

			theirs.ok("RENAME FOO BAR")
			if got := silent.ok("STATUS BAR (MESSAGES)"); find(got, `MESSAGES 1`) == nil {
				t.Errorf("status of what Dovecot renamed: %q", got)
			}
			if got := silent.refused("STATUS FOO (MESSAGES)"); !strings.HasPrefix(got, "NO [NEWNAME FOO BAR]") {
				t.Errorf("status of the old name: %s", got)
			}
			theirs.ok("APPEND BAR {}", otherMail)
			idler.until("* 2 EXISTS")

			theirs.ok("DELETE BAR")
			if strategy == "ghost" { // less what Dovecot was seen removing
				idler.send("DONE\r\n")
				idler.answer("idle")
				for _, c := range []*conn{idler, silent} {
					c.ok("NOOP")
					c.ok("STATUS BAR (MESSAGES)")
					c.ok("UID FETCH 1:* FLAGS")
					c.ok("UNSELECT")
				}
			} else {
				idler.bye()
				silent.bye()
			}
			for command, want := range map[string]string{
				"APPEND BAR {}":         "NO [TRYCREATE]",
				"COPY 1 BAR":            "NO [TRYCREATE]",
				"MOVE 1 BAR":            "NO [TRYCREATE]",
				"STATUS BAR (MESSAGES)": "NO [NONEXISTENT]",
				"SELECT BAR":            "NO [NONEXISTENT]",
			} {
				literals := []string{otherMail}[:strings.Count(command, "{}")]
				elsewhere.ok("SELECT INBOX")
				if got := elsewhere.refused(command, literals...); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %s, not %s", command, got, want)
				}
			}
			if got := elsewhere.ok(`LIST "" *`); len(got) != 1 {
				t.Errorf("listed after Dovecot deleted: %q", got)
			}
			if left, _ := filepath.Glob(filepath.Join(root, ".[BF]*")); len(left) > 0 {
				t.Errorf("made again: %q", left)
			}
			if got := theirs.ok(`LIST "" *`); len(got) != 1 {
				t.Errorf("listed by Dovecot: %q", got)
			}
			d.WantNoComplaint(t)
		})
	}
}

// Two directories change their names at one moment, so that there is always one of the name.
func TestOutsideExchanged(t *testing.T) {
	dir, location := mailDir(t)
	s := serve(t, location, "")
	c, holder := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	for _, name := range []string{"FOO", "BAR"} {
		c.ok("CREATE " + name)
		c.ok("APPEND "+name+" {}", "Subject: of "+name+"\r\n\r\n")
	}
	exchange := func(one, other string) {
		t.Helper()
		must(t, unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE))
	}
	foo, bar, outside := filepath.Join(s.root("ada"), ".FOO"), filepath.Join(s.root("ada"), ".BAR"), filepath.Join(dir, "outside")
	subject := func(c *conn, want string) {
		t.Helper()
		if got := c.ok("FETCH 1 BODY.PEEK[]"); len(got) != 1 || !strings.Contains(got[0], "Subject: of "+want) {
			t.Errorf("fetched: %q, not the message of %s", got, want)
		}
	}
	c.ok("SELECT FOO")
	holder.ok("SELECT BAR")
	exchange(foo, bar)
	c.ok(`STORE 1 +FLAGS (\Flagged)`) // each goes on with its mailbox
	subject(c, "FOO")
	subject(holder, "BAR")
	again := login(t, s.imap, "ada")
	again.ok("SELECT BAR")
	subject(again, "FOO")
	again.ok("SELECT FOO")
	subject(again, "BAR")

	must(t, os.CopyFS(outside, os.DirFS(foo)))
	must(t, os.Remove(filepath.Join(outside, "dovecot-uidlist")))
	own(t, outside)
	old := find(again.ok("STATUS FOO (UIDVALIDITY)"), `UIDVALIDITY (\d+)`)[1]
	exchange(foo, outside)
	holder.bye()
	again.bye()
	again = login(t, s.imap, "ada")
	if now := find(again.ok("STATUS FOO (UIDVALIDITY)"), `UIDVALIDITY (\d+)`)[1]; now == old {
		t.Errorf("another directory of the name has UIDVALIDITY %s, too", now)
	}
	subject(c, "FOO")
}

// A directory that is made again may get the inode that the removed one had, which is how open mailboxes
// are known. It is another mailbox all the same: an inode is free only when the server has let it go.
func TestOutsideSameInode(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	dir := filepath.Join(s.root("ada"), ".FOO")
	again := func(old uint64) uint64 { // makes it anew, and in that very inode if it can be had
		t.Helper()
		must(t, os.RemoveAll(dir))
		var others []string
		for i := 0; ; i++ {
			must(t, os.Mkdir(dir, 0o755))
			if got := inode(t, dir); got == old || i == 200 {
				for _, o := range others {
					must(t, os.Remove(o))
				}
				for _, sub := range []string{"cur", "new", "tmp"} {
					must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
				}
				writeFile(t, filepath.Join(dir, "new", "1700000000.other.host"), "Subject: other\n\n")
				own(t, dir)
				return got
			}
			others = append(others, fmt.Sprintf("%s.%d", s.root("ada"), i))
			must(t, os.Rename(dir, others[i]))
		}
	}
	c := login(t, s.imap, "ada")
	c.ok("CREATE FOO")
	validity := func(c *conn) string {
		t.Helper()
		return find(c.ok("STATUS FOO (UIDVALIDITY)"), `UIDVALIDITY (\d+)`)[1]
	}
	seen := map[string]bool{validity(c): true}
	for range 3 {
		c.ok("APPEND FOO {}", otherMail)
		c.ok("SELECT FOO")
		again(inode(t, dir))
		c.bye()
		c = login(t, s.imap, "ada")
		v := validity(c)
		if seen[v] {
			t.Errorf("UIDVALIDITY %s for the second time", v)
		}
		seen[v] = true
	}

	// A client knows it from before; the server was started anew, and so nobody has the directory open.
	old := inode(t, dir)
	s.stop(t)
	got := again(old)
	s = serve(t, location, "")
	c = login(t, s.imap, "ada")
	if v := validity(c); seen[v] {
		t.Errorf("UIDVALIDITY %s again, for a directory with inode %d in the place of %d", v, got, old)
	}
	c.ok("SELECT FOO")
	if got := c.ok("UID FETCH 1:* BODY.PEEK[]"); len(got) != 1 || !strings.Contains(got[0], "Subject: other") {
		t.Errorf("fetched: %q", got)
	}
	if got != old {
		t.Skipf("this file system did not use inode %d again", old)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	return fi.Sys().(*syscall.Stat_t).Ino
}

// A smallDisk is a file system of its own, for an account that has it all.
type smallDisk struct {
	dir string
	t   *testing.T
}

// newSmallDisk mounts one of a megabyte.
func newSmallDisk(t *testing.T) (d smallDisk, location string) {
	t.Helper()
	dir, location := mount(t, "tmpfs", "size=1m,mode=755")
	return smallDisk{dir, t}, location
}

// mount mounts a file system that is in memory, and unmounts it with the test.
func mount(t *testing.T, kind, options string) (dir, location string) {
	t.Helper()
	dir = peers.Dir(t)
	if out, err := exec.Command("mount", "-t", kind, "-o", options, kind, dir).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	own(t, dir)
	return dir, filepath.Join(dir, "%u", "Maildir")
}

// fill takes the last byte of it, while the server holds no lock, whose byte it would get back. free gives
// all back.
func (d smallDisk) fill(s *server) (free func()) {
	d.t.Helper()
	defer s.pause(d.t, lockIn(s.root("ada")))()
	name := filepath.Join(d.dir, "filler")
	f, err := os.Create(name)
	must(d.t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatal(err)
	}
	return func() { must(d.t, os.Remove(name)) }
}

func (d smallDisk) remount(how string) {
	d.t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,"+how, d.dir).CombinedOutput(); err != nil {
		d.t.Fatalf("remount: %v: %s", err, out)
	}
}

// With the cache elsewhere nothing on the disk is open for writing.
func cacheElsewhere(t *testing.T) string {
	dir := peers.Dir(t)
	own(t, dir)
	return fmt.Sprintf("\n[cache]\ndir = %q\n", dir)
}

// wantRefused sends commands that have to be answered with NO, the code and a text.
func (c *conn) wantRefused(code string, commands ...string) {
	c.t.Helper()
	for _, command := range commands {
		literals := []string{otherMail}[:strings.Count(command, "{}")]
		if got := c.refused(command, literals...); !strings.HasPrefix(got, "NO ["+code+"] ") {
			c.t.Errorf("%s: %s, not NO [%s]", command, got, code)
		}
	}
}

// wantUIDsAre looks at the UIDs of the selected mailbox.
func (c *conn) wantUIDsAre(uids string) {
	c.t.Helper()
	c.ok("NOOP")
	if got := c.ok("UID SEARCH ALL"); len(got) != 1 || strings.TrimSpace(got[0]) != strings.TrimSpace("* SEARCH "+uids) {
		c.t.Errorf("UIDs are %q, not %s", got, uids)
	}
}

// A full disk: what is there can be read, marked and expunged, which makes room; what takes room is
// refused, and leaves nothing behind.
func TestOutsideFullDisk(t *testing.T) {
	disk, location := newSmallDisk(t)
	s := serve(t, location, "")
	s.tolerate = "no space left on device"
	c, idler := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	c.ok("CREATE Box")
	for range 3 {
		c.ok("APPEND INBOX {}", otherMail)
	}
	c.ok("SELECT INBOX")
	idler.ok("SELECT INBOX")
	idler.idle()

	free := disk.fill(s)
	c.wantRefused("OVERQUOTA", "APPEND INBOX {}", "APPEND Box {}", "STORE 1 +FLAGS (new-keyword)", "CREATE More", "SUBSCRIBE Box")
	copies := 0
	for answer := ""; ; copies++ { // which are links; the list of UIDs has room for some
		if answer = c.do("COPY 1 Box").tagged; strings.HasPrefix(answer, "NO [OVERQUOTA] ") {
			break
		} else if !strings.HasPrefix(answer, "OK ") || copies == 1000 {
			t.Fatalf("copy %d: %s", copies, answer)
		}
	}
	c.wantRefused("OVERQUOTA", "COPY 1:3 Box")
	if got := c.ok("STATUS Box (MESSAGES)"); find(got, fmt.Sprintf(`MESSAGES %d\)`, copies)) == nil {
		t.Errorf("%d messages were copied: %q", copies, got)
	}
	for _, command := range []string{"NOOP", `LIST "" *`, "FETCH 1:3 (ENVELOPE BODYSTRUCTURE RFC822.SIZE)", "SEARCH TEXT here"} {
		c.ok(command)
	}
	if got := c.ok("FETCH 1 BODY[]"); find(got, `^\* 1 FETCH .*\\Seen`) == nil {
		t.Errorf("read on a full disk: %q", got)
	}
	c.ok(`STORE 2 +FLAGS (\Deleted)`)
	c.ok("EXPUNGE")
	idler.until("* 2 EXPUNGE")
	late := login(t, s.imap, "ada")
	late.ok("SELECT INBOX")
	late.wantUIDsAre("1 3")

	free()
	c.ok("APPEND INBOX {}", otherMail)
	idler.until("* 3 EXISTS")
	c.wantUIDsAre("1 3 4")
	c.ok("STORE 1 +FLAGS (new-keyword)")
	c.ok("COPY 1:3 Box")
	c.do("CREATE More") // OK, or it was half made before
	c.ok("SELECT More")
	if left, _ := filepath.Glob(filepath.Join(s.root("ada"), "tmp", "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// MOVE where the destination's dovecot-uidlist has no room: refused, and the message is where it was.
func TestOutsideFullDiskMove(t *testing.T) {
	disk, location := newSmallDisk(t)
	s := serve(t, location, cacheElsewhere(t))
	c := login(t, s.imap, "ada")
	c.ok("CREATE Box")
	c.ok("APPEND INBOX {}", otherMail)
	c.ok("SELECT INBOX")
	free := disk.fill(s)
	defer free()
	copies := 0
	for ; find([]string{c.do("COPY 1 Box").tagged}, `^OK`) != nil; copies++ {
	}
	c.wantRefused("OVERQUOTA", "MOVE 1 Box")
	c.wantUIDsAre("1")
	if got := c.ok("STATUS Box (MESSAGES)"); find(got, fmt.Sprintf(`MESSAGES %d\)`, copies)) == nil {
		t.Errorf("%d messages were copied: %q", copies, got)
	}
}

// A disk that becomes read-only under open sessions: they go on with what they have, and writing is
// refused until it can be written to again.
func TestOutsideReadOnlyDisk(t *testing.T) {
	disk, location := newSmallDisk(t)
	s := serve(t, location, cacheElsewhere(t))
	s.tolerate = "read-only file system"
	c, idler := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	c.ok("CREATE Box")
	for range 3 {
		c.ok("APPEND INBOX {}", otherMail)
	}
	c.ok("SELECT INBOX")
	idler.ok("SELECT INBOX")
	c.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	idler.idle()

	disk.remount("ro")
	for range 20 {
		c.ok("NOOP")
		if got := c.ok("FETCH 2 BODY[]"); find(got, `here`) == nil {
			t.Errorf("read on a read-only disk: %q", got)
		}
	}
	c.wantRefused("UNAVAILABLE", "APPEND INBOX {}", "APPEND Box {}", `STORE 2 +FLAGS (\Flagged)`, "EXPUNGE", "COPY 2 Box", "MOVE 2 Box",
		"CREATE More", "DELETE Box", "RENAME Box More", "SUBSCRIBE Box")
	late := login(t, s.imap, "ada")
	for _, command := range []string{`LIST "" *`, "STATUS Box (MESSAGES)", "EXAMINE INBOX", "FETCH 1:3 (ENVELOPE BODY[])", "SELECT INBOX", "SEARCH TEXT here", "UNSELECT"} {
		late.ok(command)
	}
	for _, message := range []string{"mark as seen", "look at mailbox"} {
		if n := s.count("level=ERROR msg=\"" + message); n > 1 {
			t.Errorf("%d lines of the log say %q", n, message)
		}
	}

	disk.remount("rw")
	c.ok(`STORE 2 +FLAGS.SILENT (\Flagged)`)
	c.ok("EXPUNGE")
	idler.until("* 1 EXPUNGE")
	c.ok("APPEND INBOX {}", otherMail)
	c.wantUIDsAre("2 3 4")
	late.ok("SELECT INBOX")
	late.wantUIDsAre("2 3 4")
	if left, _ := filepath.Glob(filepath.Join(s.root("ada"), "tmp", "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Permissions that are taken away: sessions go on with what they know, whatever can't be done is refused,
// and all is there when they are back.
func TestOutsidePermissions(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	s.tolerate = "permission denied"
	c, other := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	c.ok("CREATE Box")
	for range 2 {
		c.ok("APPEND Box {}", otherMail)
	}
	c.ok("APPEND INBOX {}", otherMail)
	other.ok("SELECT INBOX")
	c.ok("SELECT Box")
	box := filepath.Join(s.root("ada"), ".Box")
	chmod := func(mode os.FileMode, subs ...string) {
		t.Helper()
		for _, sub := range subs {
			must(t, os.Chmod(filepath.Join(box, sub), mode))
		}
	}

	// Nothing can be changed.
	chmod(0o500, "", "cur", "new", "tmp")
	for range 10 {
		c.ok("NOOP")
		if got := c.ok("FETCH 1 BODY[]"); find(got, `here`) == nil {
			t.Errorf("read: %q", got)
		}
	}
	c.wantRefused("NOPERM", `STORE 1 +FLAGS (\Flagged)`, "COPY 1 Box", "APPEND Box {}", "MOVE 1 INBOX")
	other.wantRefused("NOPERM", "COPY 1 Box", "MOVE 1 Box", "APPEND Box {}")
	chmod(0o700, "", "cur", "new", "tmp")
	c.ok(`STORE 1 +FLAGS (\Flagged)`)
	if n := s.count("level=ERROR msg=\"mark as seen"); n > 1 {
		t.Errorf("%d lines of the log say that mail can't be marked", n)
	}

	// Nothing can be read, but for what is known.
	chmod(0, "cur")
	for range 10 {
		c.ok("NOOP")
		if got := c.ok("FETCH 1:2 (UID FLAGS)"); len(got) != 2 {
			t.Errorf("fetched from memory: %q", got)
		}
	}
	c.wantRefused("NOPERM", `STORE 1 -FLAGS (\Flagged)`, "COPY 1 INBOX")
	c.wantRefused("UNAVAILABLE", "FETCH 1 BODY.PEEK[TEXT]")
	chmod(0o700, "cur")
	c.ok("FETCH 1 BODY.PEEK[TEXT]")
	c.wantUIDsAre("1 2")

	// The mailbox can't even be found.
	chmod(0, "")
	c.ok("NOOP")
	c.wantRefused("NOPERM", `STORE 1 -FLAGS (\Flagged)`)
	other.wantRefused("NOPERM", "COPY 1 Box", "APPEND Box {}", "STATUS Box (MESSAGES)")
	other.ok(`LIST "" *`)
	chmod(0o700, "")
	c.ok(`STORE 1 -FLAGS (\Flagged)`)
	c.wantUIDsAre("1 2")
	other.ok("COPY 1 Box")
	c.wantUIDsAre("1 2 3")
	if n := s.count("level=ERROR msg=\"look at mailbox"); n != 2 { // each time once
		t.Errorf("%d lines of the log say that the mailbox can't be looked at", n)
	}
}

// Trap 15: a change in the same tick of the clock that stamps directories as the last look leaves them with the
// same time. A message comes right after the mailbox was looked at, a thousand times: each is told, without
// anything else that happens.
func TestTrap15OneTick(t *testing.T) {
	for name, more := range map[string]string{"events": "", "polled": "\n[watch]\npoll = true\ninterval = '1h'\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, location := mount(t, "ramfs", "mode=755") // others may have finer times than the clock's ticks, since Linux 6.13
			s := serve(t, location, more)
			const mailboxes, rounds = 20, 50 // at once, since each may wait for two ticks
			var sessions sync.WaitGroup
			for i := range mailboxes {
				name := fmt.Sprintf("Box%d", i)
				c := login(t, s.imap, "ada")
				c.ok("CREATE " + name)
				c.ok("EXAMINE " + name)
				c.quit = runtime.Goexit
				dir := filepath.Join(s.root("ada"), "."+name)
				sessions.Go(func() {
					for n := 2; n <= 2*rounds; n += 2 {
						var got []string
						for range 2 {
							if err := deliver(dir, otherMail); err != nil {
								c.fail("%v", err)
							}
							got = c.ok("NOOP")
						}
						if find(got, fmt.Sprintf(`^\* %d EXISTS`, n)) == nil {
							c.idle()
							c.until(fmt.Sprintf("* %d EXISTS", n))
							c.send("DONE\r\n")
							c.answer("idle")
						}
					}
				})
			}
			sessions.Wait()
		})
	}
}

// What becomes of dovecot-uidlist while the mailbox is open changes no UID, and a server that knows nothing
// finds the same afterwards.
func TestOutsideUIDList(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, list, older string){
		"deleted": func(t *testing.T, list, _ string) { must(t, os.Remove(list)) },
		"emptied": func(t *testing.T, list, _ string) { must(t, os.Truncate(list, 0)) },
		"older copy": func(t *testing.T, list, older string) {
			writeFile(t, list+".old", older)
			must(t, os.Rename(list+".old", list))
		},
		"older copy in place": func(t *testing.T, list, older string) { writeFile(t, list, older) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, location := mailDir(t)
			s := serve(t, location, "")
			s.tolerate = "set aside and made anew"
			c, idler := login(t, s.imap, "ada"), login(t, s.imap, "ada")
			list := filepath.Join(s.root("ada"), "dovecot-uidlist")
			add := func(n int) {
				t.Helper()
				for range n {
					c.ok("APPEND INBOX {}", otherMail)
				}
			}
			add(3)
			older := readFile(t, list)
			add(2)
			c.ok("SELECT INBOX")
			c.ok(`STORE 4 +FLAGS (\Deleted)`)
			c.ok("EXPUNGE")
			idler.ok("SELECT INBOX")
			idler.idle()
			validity := find(c.ok("STATUS INBOX (UIDVALIDITY)"), `UIDVALIDITY (\d+)`)[1]

			damage(t, list, older)
			if got := c.ok("NOOP"); len(got) > 0 {
				t.Errorf("told: %q", got)
			}
			c.wantUIDsAre("1 2 3 5")
			must(t, deliver(s.root("ada"), otherMail))
			idler.until("* 5 EXISTS")
			c.wantUIDsAre("1 2 3 5 6")
			s.stop(t)

			s = serve(t, location, "")
			c = login(t, s.imap, "ada")
			if got := c.ok("SELECT INBOX"); find(got, `^\* OK \[UIDVALIDITY `+validity+`\]`) == nil {
				t.Errorf("selected later, UIDVALIDITY was %s: %q", validity, got)
			}
			c.wantUIDsAre("1 2 3 5 6")
		})
	}
}

// pause stops maildird amid whatever it does, but not while it holds a lock.
func (s *server) pause(t *testing.T, lock string) (resume func()) {
	t.Helper()
	resume = func() { s.cmd.Process.Signal(syscall.SIGCONT) }
	for {
		s.cmd.Process.Signal(syscall.SIGSTOP)
		for !strings.Contains(readFile(t, fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid)), ") T ") {
		}
		if _, err := os.Stat(lock); os.IsNotExist(err) {
			return resume
		}
		resume()
	}
}

// Two servers, of which one doesn't know what dovecot-uidlist was: UIDs stay if the one that knows it looks
// first. Otherwise UIDVALIDITY changes, and who has the mailbox open is told by a BYE.
func TestOutsideUIDListUnknown(t *testing.T) {
	for _, first := range []string{"known", "unknown"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			_, location := mailDir(t)
			s, stranger := serve(t, location, ""), serve(t, location, "")
			c, idler, other := login(t, s.imap, "ada"), login(t, s.imap, "ada"), login(t, stranger.imap, "ada")
			for range 3 {
				c.ok("APPEND INBOX {}", otherMail)
			}
			c.ok("SELECT INBOX")
			idler.ok("SELECT INBOX")
			idler.idle()
			validity := find(c.ok("STATUS INBOX (UIDVALIDITY)"), `UIDVALIDITY (\d+)`)[1]
			list := filepath.Join(s.root("ada"), "dovecot-uidlist")
			if first == "known" {
				must(t, os.Remove(list))
				c.ok("NOOP")
			} else {
				defer s.pause(t, list+".lock")()
				must(t, os.Remove(list))
			}
			now := find(other.ok("SELECT INBOX"), `UIDVALIDITY (\d+)`)[1]
			other.wantUIDsAre("1 2 3")
			if first == "known" {
				if now != validity {
					t.Errorf("UIDVALIDITY was %s and is %s", validity, now)
				}
				c.wantUIDsAre("1 2 3")
				return
			}
			if now == validity {
				t.Errorf("UIDVALIDITY is %s still", now)
			}
			s.cmd.Process.Signal(syscall.SIGCONT)
			c.send("x NOOP\r\n")
			c.bye()
			idler.bye()
			c = login(t, s.imap, "ada")
			if got := c.ok("SELECT INBOX"); find(got, `UIDVALIDITY (\d+)`)[1] != now {
				t.Errorf("selected again, UIDVALIDITY is %s: %q", now, got)
			}
			c.wantUIDsAre("1 2 3")
		})
	}
}

// A server that knows nothing has only the older copy of dovecot-uidlist to go by: what is in it stays, and
// what came later gets UIDs that nothing else has now.
func TestOutsideUIDListOlder(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	c := login(t, s.imap, "ada")
	list := filepath.Join(s.root("ada"), "dovecot-uidlist")
	for range 3 {
		c.ok("APPEND INBOX {}", otherMail)
	}
	older := readFile(t, list)
	for range 2 {
		c.ok("APPEND INBOX {}", "Subject: later\r\n\r\n")
	}
	s.stop(t)
	writeFile(t, list, older)
	s = serve(t, location, "")
	c = login(t, s.imap, "ada")
	c.ok("SELECT INBOX")
	c.wantUIDsAre("1 2 3 4 5")
	for n, got := range c.ok("UID FETCH 1:* BODY.PEEK[]") {
		if strings.Contains(got, "later") != (n >= 3) {
			t.Errorf("message %d: %q", n+1, got)
		}
	}
}

// Dovecot extends dovecot-uidlist by each message that comes, and writes it anew without those that are
// gone.
func TestOutsideUIDListByDovecot(t *testing.T) {
	d := peers.StartDovecot(t, "")
	list := filepath.Join(d.Maildir(t, "ada"), "dovecot-uidlist")
	s := serve(t, d.Location(), "")
	theirs, c, idler := login(t, d.Addr, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada")
	for range 8 {
		theirs.ok("APPEND INBOX {}", otherMail)
	}
	theirs.ok("SELECT INBOX")
	c.ok("SELECT INBOX")
	idler.ok("SELECT INBOX")
	idler.idle()
	c.wantUIDsAre("1 2 3 4 5 6 7 8")
	theirs.ok("APPEND INBOX {}", otherMail)
	idler.until("* 9 EXISTS")

	theirs.ok(`STORE 2:8 +FLAGS (\Deleted)`)
	theirs.ok("EXPUNGE")
	for range 7 {
		idler.until("* 2 EXPUNGE")
	}
	for n := 3; strings.Contains(readFile(t, list), "\n2 "); n++ { // until it is written anew
		if n == 30 {
			t.Fatal("Dovecot does not write the list anew")
		}
		must(t, deliver(filepath.Dir(list), otherMail))
		own(t, filepath.Join(filepath.Dir(list), "new"))
		theirs = login(t, d.Addr, "ada") // one that reads all of the list, and sees that most of it is dead
		theirs.ok("SELECT INBOX")
		idler.until(fmt.Sprintf("* %d EXISTS", n))
	}
	want := find(theirs.ok("UID SEARCH ALL"), `SEARCH (.*)$`)[1]
	c.wantUIDsAre(want)
	login(t, s.imap, "ada").ok("SELECT INBOX")
	c.wantUIDsAre(want)
	d.WantNoComplaint(t)
}

func readDir(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
