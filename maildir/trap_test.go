package maildir

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// killed are what a process does that is killed in the middle: with a mailbox of three messages, and another
// one of as many.
var killed = map[string]func(ctx context.Context, box, to *Ref) error{
	"append": func(ctx context.Context, box, _ *Ref) error {
		_, _, err := box.Append(ctx, strings.NewReader("Subject: new\r\n\r\nnew\r\n"), []imap.Flag{"Fresh"}, time.Time{})
		return err
	},
	"copy": func(ctx context.Context, box, to *Ref) error {
		_, err := box.CopyTo(ctx, to.Mailbox, box.Snapshot().Messages)
		return err
	},
	"move": func(ctx context.Context, box, to *Ref) error {
		_, err := box.MoveTo(ctx, to.Mailbox, box.Snapshot(), box.Snapshot().Messages[:2], true)
		return err
	},
	"expunge": func(ctx context.Context, box, _ *Ref) error {
		return box.Expunge(ctx, []imap.UID{1, 2}, 0, true)
	},
	"deliver": func(ctx context.Context, box, _ *Ref) error {
		for _, base := range []string{"1700000010.one", "1700000011.two"} {
			if err := os.WriteFile(filepath.Join(box.acct.Root(), "."+box.Name(), "new", base), []byte("Subject: new\n\nnew\n"), 0o660); err != nil {
				return err
			}
		}
		_, err := box.Sync(ctx)
		return err
	},
}

const killEnv = "MAILDIR_KILL" // what the test's own process is to do, and before which of its changes to end

// Trap 12: a record in dovecot-uidlist whose file is not there (yet, or any more). Dovecot announces it, as soon
// as it appends something itself, and takes it back later. A process is killed before each change that it makes to
// the disk; what Dovecot then finds is all there, and stays.
func TestTrap12KilledBetweenSteps(t *testing.T) {
	if env := os.Getenv(killEnv); env != "" {
		beKilled(t, env)
		return
	}
	d := peers.StartDovecot(t, "")
	root := d.Maildir(t, "ada")
	uid, gid := peers.Owner(t)
	fill := func(t *testing.T, name string) {
		t.Helper()
		dir := filepath.Join(filepath.Dir(root), name) // not among the mailboxes before all of it is there
		list := "3 V1700000000 N4 G" + newGUID() + "\n"
		for i := 1; i <= 3; i++ {
			list += fmt.Sprintf("%d :170000000%[1]d.%s\n", i, name)
		}
		for _, part := range []string{"", "cur", "new", "tmp"} {
			sub := filepath.Join(dir, part)
			must(t, os.Mkdir(sub, 0o770))
			must(t, os.Chown(sub, uid, gid))
			must(t, os.Chmod(sub, 0o770|os.ModeSetgid)) // this process is another user
		}
		write := func(file, text string) {
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o660))
			must(t, os.Chown(filepath.Join(dir, file), uid, gid))
		}
		for i := 1; i <= 3; i++ {
			write(fmt.Sprintf("cur/170000000%d.%s:2,S", i, name), fmt.Sprintf("Subject: %d\n\n", i))
		}
		write(listFile, list)
		must(t, os.Rename(dir, filepath.Join(root, "."+name)))
	}
	t.Run("each", func(t *testing.T) {
		for act := range killed {
			t.Run(act, func(t *testing.T) {
				t.Parallel()
				inBox, inTo := login(t, d, "ada"), login(t, d, "ada")
				n := 1
				for done := false; !done; n++ {
					box, to := fmt.Sprintf("%s-%d", act, n), fmt.Sprintf("%s-%d-to", act, n)
					fill(t, box)
					fill(t, to)
					sees(t, inBox, box)
					sees(t, inTo, to)
					cmd := exec.Command(os.Args[0], "-test.run=^TestTrap12KilledBetweenSteps$")
					cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", killEnv, root, act, n), "GORACE=atexit_sleep_ms=0")
					out, err := cmd.CombinedOutput()
					done = err == nil
					if ee, ok := err.(*exec.ExitError); !done && (!ok || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
						t.Fatalf("%s %d: %v\n%s", act, n, err, out)
					}
					for name, c := range map[string]*imapclient.Client{box: inBox, to: inTo} {
						dir := filepath.Join(root, "."+name)
						timePasses(t, filepath.Join(dir, listLock))
						what := fmt.Sprintf("%s, killed at change %d, in %s", act, n, name)
						appendTo(t, c, name)
						must(t, c.Noop().Wait())
						files, gone := 0, 3
						for _, sub := range []string{"cur", "new"} {
							entries, err := os.ReadDir(filepath.Join(dir, sub))
							must(t, err)
							files += len(entries)
							for _, e := range entries {
								if strings.Contains(e.Name(), "."+name+":") {
									gone--
								}
							}
						}
						if got := int(c.Mailbox().NumMessages); got > files+gone { // it may see later what went, and what came without a record
							t.Errorf("%s: Dovecot announces %d messages, and there are %d files and %d that went", what, got, files, gone)
						}
						shown := sees(t, c, name)
						if again := sees(t, c, name); again != shown || strings.Count(shown, "\n") != files+1 {
							t.Errorf("%s: Dovecot shows %d files as\n%s, and then as\n%s", what, files, shown, again)
						}
					}
				}
				if n < 4 {
					t.Errorf("%s makes only %d changes", act, n)
				}
			})
		}
	})
	for line := range strings.Lines(d.Log(t)) { // a lock that was left behind is no complaint
		if strings.Contains(line, "rror") || strings.Contains(line, "reappeared") || strings.Contains(line, "uplicate") {
			t.Errorf("Dovecot: %s", line)
		}
	}
}

// timePasses makes a lock that a dead process left as old as whoever finds it wants it to be: 2 s with the process's
// number in it, and 2 min without, where nobody knows whose it is.
func timePasses(t *testing.T, lock string) {
	t.Helper()
	b, err := os.ReadFile(lock)
	switch {
	case notExist(err):
		return
	case err == nil && len(b) == 0:
		err = os.Remove(lock)
	case err == nil:
		old := time.Now().Add(-3 * time.Second)
		err = os.Chtimes(lock, old, old)
	}
	must(t, err)
}

// appendTo makes Dovecot add a message, and with it all records that are new to it.
func appendTo(t *testing.T, c *imapclient.Client, name string) {
	t.Helper()
	const text = "Subject: dovecot's\r\n\r\n"
	app := c.Append(name, int64(len(text)), nil)
	app.Write([]byte(text))
	must(t, app.Close())
	_, err := app.Wait()
	must(t, err)
}

// beKilled does something in a process of its own, which kills itself before one of the changes that it makes.
func beKilled(t *testing.T, env string) {
	var root, act string
	var n int
	if _, err := fmt.Sscan(env, &root, &act, &n); err != nil {
		t.Fatal(err)
	}
	syscall.Umask(0o007)
	a, err := Open(root, nil)
	must(t, err)
	defer a.Close()
	box := open(t, a, fmt.Sprintf("%s-%d", act, n), RefOptions{Selected: true})
	to := open(t, a, fmt.Sprintf("%s-%d-to", act, n), RefOptions{})
	resync(t, box)
	resync(t, to)
	fault := func(op string, paths ...string) error {
		if op == "sync" || op == "fsync" {
			return nil // for who still runs they change nothing
		}
		if n--; n == 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	a.mail.root.fault = fault
	setFault(box, fault)
	setFault(to, fault)
	must(t, killed[act](context.Background(), box, to))
	a.mail.root.fault = nil
	setFault(box, nil)
	setFault(to, nil)
}
