package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

var longLocks = flag.Bool("longlocks", false, "whether TestTrap05ForeignLocks waits for locks that take two minutes")

// leaveLock puts another program's dovecot-uidlist.lock into a mailbox, whole from the first moment, as soon as nobody
// else has it there. age is since when it is there.
func leaveLock(t testing.TB, root, content string, age time.Duration) {
	t.Helper()
	tmp := filepath.Join(peers.Dir(t), "lock")
	writeFile(t, tmp, content)
	then := time.Now().Add(-age)
	must(t, os.Chtimes(tmp, then, then))
	for deadline := time.Now().Add(patience); ; {
		err := os.Link(tmp, lockIn(root))
		if err == nil {
			return
		} else if !errors.Is(err, fs.ErrExist) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func lockIn(root string) string { return filepath.Join(root, "dovecot-uidlist.lock") }

// holder is what the lock file of a process of this host says.
func holder(t testing.TB, pid int) string {
	t.Helper()
	host, err := os.Hostname()
	must(t, err)
	return fmt.Sprintf("%d:%s", pid, host)
}

// deadPID is the number of a process that has ended.
func deadPID(t testing.TB) int {
	t.Helper()
	cmd := exec.Command("true")
	must(t, cmd.Run())
	return cmd.Process.Pid
}

// livePID is the number of a process that runs as long as the test, as the user with this number.
func livePID(t testing.TB, uid int) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid)}}
	}
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// told reads up to a response that matches.
func (c *conn) told(pattern string) string {
	c.t.Helper()
	for re := regexp.MustCompile(pattern); ; {
		if line := c.read(); re.MatchString(line) {
			return line
		}
	}
}

// Trap 5: the lock file of somebody else. That of a process that has died is taken over, any other is waited for as
// Dovecot waits for it. Meanwhile the client is told why, and the other sessions go on.
func TestTrap05ForeignLocks(t *testing.T) {
	t.Run("dead", testLockOfTheDead)
	t.Run("alive", testLockOfTheLiving)
	t.Run("client-leaves", testLockClientLeaves)
	t.Run("unknown", testLockOfUnknown)
	t.Run("race", testLockRace)
	t.Run("long", testLockLong)
}

// both starts Dovecot, where ada's mail is, and a maildird on the same mail, and puts mail into the INBOXes.
func both(t *testing.T, mails int) (d *peers.Dovecot, s *server) {
	t.Helper()
	d = peers.StartDovecot(t, "")
	for _, user := range users {
		d.Maildir(t, user)
	}
	s = serve(t, d.Location(), "")
	for _, user := range users {
		c := login(t, d.Addr, user)
		c.ok("SELECT INBOX")
		for range mails {
			c.ok("APPEND INBOX {}", otherMail)
		}
		c.ok("LOGOUT")
	}
	return d, s
}

func testLockOfTheDead(t *testing.T) {
	t.Parallel()
	d, s := both(t, 1)
	var all sync.WaitGroup
	for i, server := range []struct{ name, addr string }{{"maildird", s.imap}, {"Dovecot", d.Addr}} {
		c := login(t, server.addr, users[i])
		c.ok("SELECT INBOX")
		leaveLock(t, s.root(users[i]), holder(t, deadPID(t)), 0)
		c.quit = runtime.Goexit
		all.Go(func() {
			begin := time.Now()
			told := c.ok(`STORE 1 +FLAGS (\Flagged)`)
			t.Logf("%s took the lock of a dead process over after %v", server.name, time.Since(begin).Round(time.Millisecond))
			if find(told, `^\* NO`) != nil {
				t.Errorf("%s: %q", server.name, told)
			}
		})
	}
	all.Wait()
	d.WantNoComplaint(t)
}

func testLockOfTheLiving(t *testing.T) {
	for _, owner := range []string{"same-user", "other-user"} {
		t.Run(owner, func(t *testing.T) {
			t.Parallel()
			d, s := both(t, 3)
			root := s.root("ada")
			uid, _ := peers.Owner(t)
			if owner == "other-user" {
				uid = 65534 // may not be signalled by maildird
			}
			waiting, behind, idler, other := login(t, s.imap, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada")
			for _, c := range []*conn{waiting, behind, idler, other} {
				c.ok("SELECT INBOX")
			}
			idler.idle()
			pid := livePID(t, uid)
			leaveLock(t, root, holder(t, pid), time.Hour)
			waiting.send("w STORE 1 +FLAGS (\\Flagged)\r\n")
			waiting.told(fmt.Sprintf(`^\* NO \[INUSE\] .*\b%d\b.* seconds`, pid))
			behind.send("b APPEND INBOX (\\Draft) {10+}\r\nSubject: x\r\n")
			behind.told(fmt.Sprintf(`^\* NO \[INUSE\] .*\b%d\b.* seconds`, pid))
			s.waitLog(t, fmt.Sprintf(`level=WARN msg="waiting for a lock" .*mailbox=INBOX file=\S*dovecot-uidlist.lock holder="process %d on `, pid))

			// Who needs no lock goes on.
			if got := other.ok("FETCH 1:3 (FLAGS BODY.PEEK[])"); len(got) != 3 {
				t.Errorf("FETCH: %q", got)
			}
			if got := other.ok("FETCH 2 BODY[]"); find(got, `(?s)^\* 2 FETCH .*I am here`) == nil {
				t.Errorf("FETCH that sets \\Seen: %q", got)
			}
			other.ok("NOOP")
			idler.send("DONE\r\n")
			idler.answer("idle")
			if got := idler.ok("SEARCH UNFLAGGED"); find(got, `^\* SEARCH 1 2 3$`) == nil {
				t.Errorf("SEARCH: %q", got)
			}
			late := login(t, s.imap, "ada")
			if got := late.ok("SELECT INBOX"); find(got, `^\* 3 EXISTS`) == nil {
				t.Errorf("SELECT: %q", got)
			}
			late.ok("STATUS INBOX (MESSAGES UNSEEN)")
			if text := readFile(t, lockIn(root)); text != holder(t, pid) {
				t.Fatalf("the lock is %q", text)
			}

			must(t, os.Remove(lockIn(root)))
			for tag, c := range map[string]*conn{"w": waiting, "b": behind} {
				if a := c.answer(tag); !strings.HasPrefix(a.tagged, "OK") {
					t.Errorf("when the lock is free: %s", a.tagged)
				}
			}
			other.ok("NOOP")
			if got := other.ok("FETCH 1:* FLAGS"); len(got) != 4 || find(got, `^\* 1 FETCH .*\\Flagged`) == nil {
				t.Errorf("in the end: %q", got)
			}
			d.WantNoComplaint(t)
		})
	}
}

// A client that goes away while its command waits takes the command with it.
func testLockClientLeaves(t *testing.T) {
	t.Parallel()
	_, s := both(t, 1)
	root := s.root("ada")
	c := login(t, s.imap, "ada")
	c.ok("SELECT INBOX")
	before := s.count("msg=disconnected")
	leaveLock(t, root, holder(t, livePID(t, 0)), 0)
	c.send("w STORE 1 +FLAGS (\\Deleted)\r\n")
	s.waitLog(t, "waiting for a lock")
	c.Close()
	s.waitLog(t, "lock was not had")
	for s.count("msg=disconnected") == before {
		s.waitMore(t)
	}
	must(t, os.Remove(lockIn(root)))
	late := login(t, s.imap, "ada")
	late.ok("SELECT INBOX")
	if got := late.ok("FETCH 1 FLAGS"); find(got, `\\Deleted`) != nil {
		t.Errorf("done for a client that is not there: %q", got)
	}
}

// waitMore returns when there is another line in the log.
func (s *server) waitMore(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	more := s.logged
	s.mu.Unlock()
	select {
	case <-more:
	case <-time.After(patience):
		t.Fatal("maildird logs nothing")
	}
}

// What a lock file says that is none of Dovecot's may be anything, and goes to no client.
func testLockOfUnknown(t *testing.T) {
	t.Parallel()
	d, s := both(t, 1)
	root := s.root("ada")
	for name, content := range map[string]string{
		"empty":      "",
		"garbage":    "1:x\r\n* BYE \xff\r\n* 1 EXPUNGE",
		"no-number":  "hello:" + holder(t, 1),
		"other-host": fmt.Sprintf("%d:elsewhere.example.org", deadPID(t)),
	} {
		c := login(t, s.imap, "ada")
		c.ok("SELECT INBOX")
		leaveLock(t, root, content, time.Hour) // by its time it is old, but nobody saw that it did not change
		c.send("w STORE 1 -FLAGS (\\Seen)\r\nx STORE 1 +FLAGS (\\Seen)\r\n")
		line := c.told(`^\* `)
		if want := `^\* NO \[INUSE\] Mailbox is locked by (another program|process \d+ on elsewhere.example.org): waiting, at most \d+ seconds more$`; !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("%s: told %q", name, line)
		}
		must(t, os.Remove(lockIn(root)))
		for _, tag := range []string{"w", "x"} {
			if a := c.answer(tag); !strings.HasPrefix(a.tagged, "OK") {
				t.Errorf("%s: %s", name, a.tagged)
			}
		}
		c.ok("LOGOUT")
	}
	d.WantNoComplaint(t)
}

// Two processes of maildird and two of Dovecot want each lock that was left behind: one gets it. A lock that is
// taken away from whoever holds it is complained of in their logs.
func testLockRace(t *testing.T) {
	t.Parallel()
	const rounds = 25
	d, s := both(t, 4)
	root := s.root("ada")
	second := serve(t, d.Location(), "")
	stop := make(chan struct{})
	var all sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(stop)
		all.Wait()
	})
	defer end()
	var stores atomic.Int64
	for i, addr := range []string{s.imap, second.imap, d.Addr, d.Addr} {
		c := login(t, addr, "ada")
		c.ok("SELECT INBOX")
		c.quit = runtime.Goexit
		all.Go(func() {
			for n := 0; !t.Failed(); n++ {
				c.ok(fmt.Sprintf(`STORE %d %sFLAGS.SILENT (\Flagged)`, i+1, "+-"[n%2:n%2+1]))
				stores.Add(1)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	dead := deadPID(t)
	for n := 0; n < rounds && !t.Failed(); n++ {
		leaveLock(t, root, holder(t, dead), time.Hour)
	}
	end()
	t.Logf("%d locks were left behind during %d STOREs", rounds, stores.Load())
	for _, server := range []*server{s, second} {
		if n := server.count("was taken away"); n > 0 {
			t.Errorf("%d locks were taken away from maildird", n)
		}
	}
	d.WantNoComplaint(t)
	if left, err := filepath.Glob(lockIn(root) + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// The locks that are waited for longest, by maildird and Dovecot side by side: with -longlocks, and -v for the times.
func testLockLong(t *testing.T) {
	if !*longLocks {
		t.Skip("takes two minutes: go test ./internal/e2e -run TestTrap05ForeignLocks/long -longlocks -v")
	}
	for _, c := range []struct {
		name, content string
		release       time.Duration
		command       string
		taken         bool
	}{
		{"alive-a-minute", holder(t, livePID(t, 0)), time.Minute, "STORE 1 +FLAGS (\\Flagged)\r\n", true},
		{"alive-append", holder(t, livePID(t, 0)), 0, "APPEND INBOX {10+}\r\nSubject: x\r\n", false},
		{"other-host", "1:elsewhere.example.org", 0, "APPEND INBOX {10+}\r\nSubject: x\r\n", true},
		{"empty", "", 0, "APPEND INBOX {10+}\r\nSubject: x\r\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, s := both(t, 1)
			for i, server := range []struct{ name, addr string }{{"maildird", s.imap}, {"Dovecot", d.Addr}} {
				t.Run(server.name, func(t *testing.T) {
					t.Parallel()
					conn := login(t, server.addr, users[i])
					conn.ok("SELECT INBOX")
					leaveLock(t, s.root(users[i]), c.content, 0)
					begin := time.Now()
					conn.send("long " + c.command)
					if c.release > 0 {
						defer time.AfterFunc(c.release, func() { os.Remove(lockIn(s.root(users[i]))) }).Stop()
					}
					conn.SetReadDeadline(begin.Add(3 * time.Minute))
					for {
						line, err := conn.next()
						must(t, err)
						t.Logf("after %5.1f s: %s", time.Since(begin).Seconds(), line)
						if tagged, ok := strings.CutPrefix(line, "long "); ok {
							// Dovecot looks every three seconds by then, and may come too late for 120 s.
							if strings.HasPrefix(tagged, "OK") != c.taken && (server.name == "maildird" || c.release > 0) {
								t.Error(tagged)
							}
							return
						}
					}
				})
			}
		})
	}
}

// Trap 6: no lock is held while a message comes from its client, however large it is, or however slow. Dovecot's STORE
// and APPEND are answered while half of it is there.
func TestTrap06AppendUnderLoad(t *testing.T) {
	const size = 50 << 20
	d, s := both(t, 1)
	root := s.root("ada")
	half := strings.Repeat(strings.Repeat("x", 78)+"\r\n", size/2/80)
	c := login(t, s.imap, "ada")
	c.ok("SELECT INBOX")
	c.send(fmt.Sprintf("big APPEND INBOX {%d}\r\n", 2*len(half)))
	c.told(`^\+`)
	c.send(half)
	spooled := func() (n int64) { // what has come of it
		for _, name := range readDir(t, filepath.Join(root, "tmp")) {
			if fi, err := os.Stat(filepath.Join(root, "tmp", name)); err == nil {
				n = max(n, fi.Size())
			}
		}
		return n
	}
	for begin := time.Now(); spooled() < size/2/80*78; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("%d bytes have come", spooled())
		}
	}
	if _, err := os.Stat(lockIn(root)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock is held while the message comes: %v", err)
	}
	other := login(t, d.Addr, "ada")
	other.ok("SELECT INBOX")
	other.ok(`STORE 1 +FLAGS (\Flagged)`)
	other.ok("APPEND INBOX {}", otherMail)
	c.send(half + "\r\n")
	if a := c.answer("big"); !strings.HasPrefix(a.tagged, "OK [APPENDUID") {
		t.Errorf("APPEND: %s", a.tagged)
	}
	other.ok("NOOP")
	if got := other.ok("FETCH 3 RFC822.SIZE"); find(got, fmt.Sprintf(`RFC822.SIZE %d\)`, 2*len(half))) == nil {
		t.Errorf("by Dovecot: %q", got)
	}
	d.WantNoComplaint(t)
}
