package maildir

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/emersion/go-imap/v2"
)

// apartAccount opens an account whose control files are apart.
func apartAccount(t *testing.T, l Layout) *Account {
	t.Helper()
	dir := t.TempDir()
	return reopened(t, filepath.Join(dir, "Maildir"), &Options{Layout: l, Control: filepath.Join(dir, "control")})
}

func reopened(t *testing.T, root string, o *Options) *Account {
	t.Helper()
	a, err := Open(root, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func eachApart(t *testing.T, f func(t *testing.T, a *Account)) {
	for _, l := range []Layout{LayoutMaildirpp, LayoutFS} {
		t.Run(l.String(), func(t *testing.T) { f(t, apartAccount(t, l)) })
	}
}

// controlOf is the control directory of a mailbox.
func controlOf(a *Account, storage string) string {
	return filepath.Join(a.opts.Control, a.opts.controlPath(storage))
}

// wantControl checks which control directories there are, by their files.
func wantControl(t *testing.T, a *Account, want ...string) {
	t.Helper()
	var got []string
	must(t, filepath.WalkDir(a.opts.Control, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Name() == listFile {
			rel, _ := filepath.Rel(a.opts.Control, filepath.Dir(path))
			got = append(got, rel)
		}
		return err
	}))
	var paths []string
	for _, storage := range want {
		paths = append(paths, a.opts.controlPath(storage))
	}
	slices.Sort(got)
	slices.Sort(paths)
	if !slices.Equal(got, paths) {
		t.Errorf("control files are in %q, want %q", got, paths)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Control files go where their mailbox goes: with CREATE, RENAME and DELETE, those of mailboxes below too, and
// none of them lies with the mail.
func TestControlFollows(t *testing.T) {
	eachApart(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		sep := a.opts.storageSeparator()
		validity := map[string]uint32{}
		for _, name := range []string{"A", "A" + sep + "b", "A" + sep + "b" + sep + "c"} {
			must(t, a.Create(ctx, name, nil))
			r := open(t, a, name, RefOptions{})
			appendMail(t, r, "Subject: 1\r\n\r\n", "keyword")
			validity[name] = r.Snapshot().UIDValidity
		}
		appendMail(t, open(t, a, "INBOX", RefOptions{}), "Subject: 1\r\n\r\n")
		must(t, a.Subscribe(ctx, "A", true))
		wantControl(t, a, "INBOX", "A", "A"+sep+"b", "A"+sep+"b"+sep+"c")

		must(t, a.Rename(ctx, "A"+sep+"b", "New"+sep+"place"))
		wantControl(t, a, "INBOX", "A", "New"+sep+"place", "New"+sep+"place"+sep+"c")
		fresh := reopened(t, a.Root(), &a.opts)
		for old, now := range map[string]string{"A" + sep + "b": "New" + sep + "place", "A" + sep + "b" + sep + "c": "New" + sep + "place" + sep + "c"} {
			s := open(t, fresh, now, RefOptions{}).Snapshot()
			wantDump(t, s, "1 keyword")
			if s.UIDValidity != validity[old] {
				t.Errorf("%s has UIDVALIDITY %d, and as %s it had %d", now, s.UIDValidity, old, validity[old])
			}
		}

		must(t, a.Delete(ctx, "New"+sep+"place", false)) // what is below stays
		wantControl(t, a, "INBOX", "A", "New"+sep+"place"+sep+"c")
		must(t, a.Create(ctx, "New"+sep+"place", nil))
		s := open(t, a, "New"+sep+"place", RefOptions{}).Snapshot()
		if s.UIDValidity <= validity["A"+sep+"b"] {
			t.Errorf("made again with UIDVALIDITY %d after %d", s.UIDValidity, validity["A"+sep+"b"])
		}
		must(t, filepath.WalkDir(a.Root(), func(path string, e os.DirEntry, err error) error {
			if err == nil && slices.Contains([]string{listFile, keysFile, subsFile, validityFile}, e.Name()) {
				t.Errorf("%s is with the mail", path)
			}
			return err
		}))
	})
}

// A mailbox that was made anew does not get the UIDs of a deleted one whose control files stayed.
func TestControlLeftBehind(t *testing.T) {
	eachApart(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		must(t, a.Create(ctx, "A", nil))
		r := open(t, a, "A", RefOptions{})
		appendMail(t, r, "Subject: 1\r\n\r\n")
		validity := r.Snapshot().UIDValidity
		must(t, os.RemoveAll(r.d.f.Name()))
		must(t, a.Create(ctx, "A", nil))
		if s := open(t, a, "A", RefOptions{}).Snapshot(); s.UIDValidity <= validity || s.UIDNext != 1 {
			t.Errorf("made again with UIDVALIDITY %d UIDNEXT %d, before that it was %d", s.UIDValidity, s.UIDNext, validity)
		}
	})
}

// Another program moves the mailbox, its control files, or both, one after the other; the session goes on with the
// UIDs that it knows, and so does who opens it anew.
func TestControlMovedOutside(t *testing.T) {
	eachApart(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		must(t, a.Create(ctx, "A", nil))
		r := open(t, a, "A", RefOptions{Selected: true, Follow: true})
		appendMail(t, r, "Subject: 1\r\n\r\n", "keyword")
		validity := r.Snapshot().UIDValidity
		mail := func(name string) string { return filepath.Join(a.Root(), a.opts.path(name)) }
		wantSame := func(when, name string) {
			t.Helper()
			uid := appendMail(t, r, "Subject: more\r\n\r\n")
			s := open(t, reopened(t, a.Root(), &a.opts), name, RefOptions{}).Snapshot()
			if s.UIDValidity != validity || s.Find(uid) == nil || s.Find(1) == nil || r.Name() != name {
				t.Errorf("%s: %s has UIDVALIDITY %d, not %d, and %s", when, r.Name(), s.UIDValidity, validity, dump(s))
			}
			wantControl(t, a, name)
		}
		must(t, os.Rename(mail("A"), mail("B"))) // mv
		wantSame("mail alone", "B")

		must(t, os.Rename(mail("B"), mail("C"))) // Dovecot
		must(t, os.Rename(controlOf(a, "B"), controlOf(a, "C")))
		wantSame("both", "C")

		for os.RemoveAll(controlOf(a, "C")) != nil { // a look may write there meanwhile
		}
		wantSame("control files removed", "C")
	})
}

// A deleted mailbox that is kept for its session has its control files with it until that leaves; after a crash
// they are swept.
func TestControlKept(t *testing.T) {
	eachApart(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		must(t, a.Create(ctx, "A", nil))
		r := open(t, a, "A", RefOptions{Selected: true})
		uid := appendMail(t, r, "Subject: 1\r\n\r\n")
		must(t, a.Delete(ctx, "A", true))
		if _, err := r.Store(ctx, []imap.UID{uid}, imap.StoreFlagsAdd, []imap.Flag{"kept"}); err != nil {
			t.Error(err)
		}
		left := func() []string {
			names, err := filepath.Glob(filepath.Join(a.opts.Control, "imapmaildir.*"))
			must(t, err)
			return names
		}
		if len(left()) != 1 {
			t.Errorf("control files that are set aside: %q, want one", left())
		}
		r.Close()
		if len(left()) != 0 {
			t.Errorf("left behind: %q", left())
		}
		must(t, os.MkdirAll(filepath.Join(a.opts.Control, controlAside("tmp/1.x"+asideSuffix)), 0o700)) // a crash
		reopened(t, a.Root(), &a.opts)
		if len(left()) != 0 {
			t.Errorf("not swept: %q", left())
		}
	})
}

// INBOX has a place of its own, in the root or elsewhere, and is listed once.
func TestOwnInbox(t *testing.T) {
	for _, place := range []string{"spool/ada", "Maildir/INBOX", "Maildir/Inbox", "Maildir/.Inbox"} {
		for _, l := range []Layout{LayoutMaildirpp, LayoutFS} {
			t.Run(l.String()+"/"+place, func(t *testing.T) {
				dir := t.TempDir()
				a := reopened(t, filepath.Join(dir, "Maildir"), &Options{Layout: l, Inbox: filepath.Join(dir, place)})
				appendMail(t, open(t, a, "INBOX", RefOptions{}), "Subject: 1\r\n\r\n")
				must(t, a.Create(context.Background(), "Other", nil))
				entries, err := a.List()
				must(t, err)
				if len(entries) != 2 || entries[0].Name != "INBOX" || entries[1].Name != "Other" {
					t.Errorf("listed: %+v", entries)
				}
				for _, name := range []string{listFile, "cur", "new"} {
					if _, err := os.Stat(filepath.Join(dir, place, name)); err != nil {
						t.Error(err)
					}
				}
				must(t, a.Delete(context.Background(), "Other", false))
				for _, name := range []string{listFile, "cur", "new"} {
					if _, err := os.Stat(filepath.Join(a.Root(), name)); err == nil {
						t.Errorf("there is a %s in the root", name)
					}
				}
				must(t, os.Symlink("Maildir", filepath.Join(dir, "link"))) // the root by another path
				linked := reopened(t, filepath.Join(dir, "link"), &a.opts)
				if entries, err := linked.List(); err != nil || len(entries) != 1 {
					t.Errorf("listed by another path: %+v, %v", entries, err)
				}
				wantSound(t, a)
			})
		}
	}
}

// A mailbox that another program is changing gets its other name when that has released the lock: it would look for its
// lock under the old name, and the lock would stay for as long as it lives.
func TestRenameLocks(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		if err := a.Create(ctx, "Box", nil); err != nil {
			t.Fatal(err)
		}
		lockOf := func(name string) string {
			d, err := a.openList(name)
			if err != nil {
				t.Fatal(err)
			}
			defer d.close()
			return d.path(listLock)
		}
		box, lock := filepath.Join(a.Root(), a.opts.path("Box")), lockOf("Box")
		if err := os.WriteFile(lock, []byte("1:elsewhere"), 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, a.Subscribe(ctx, "Box", true))
		tries, renamed, subscribed := 0, false, false
		fault := func(op string, paths ...string) error {
			switch {
			case op == "create" && strings.HasSuffix(paths[0], subsFile+".lock"):
				subscribed = true
				if _, err := os.Stat(lockOf("Other")); err == nil {
					t.Error("the mailbox is locked while subscriptions.lock is waited for")
				}
			case op == "create" && strings.HasSuffix(paths[0], listLock):
				if tries++; tries == 2 {
					os.Remove(lock)
				}
			case op == "rename" && paths[0] == box:
				renamed = true
				if b, _ := os.ReadFile(lock); string(b) != fmt.Sprintf("%d:%s", os.Getpid(), hostName) {
					t.Errorf("it is renamed while the lock holds %q", b)
				}
			}
			return nil
		}
		a.mail.root.fault, a.control.root.fault = fault, fault
		if err := a.Rename(ctx, "Box", "Other"); err != nil {
			t.Fatal(err)
		}
		a.mail.root.fault, a.control.root.fault = nil, nil
		if !renamed || !subscribed || tries != 2 {
			t.Errorf("renamed: %v, subscribed: %v, after %d tries", renamed, subscribed, tries)
		}
		if _, err := os.Stat(lockOf("Other")); err == nil {
			t.Error("the lock is there still")
		}
	})
}

// A session looks in the middle of a RENAME and brings the control files along by itself: they are not taken for
// those of a mailbox that is gone.
func TestControlBroughtMeanwhile(t *testing.T) {
	eachApart(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		must(t, a.Create(ctx, "A", nil))
		r := open(t, a, "A", RefOptions{Selected: true, Follow: true})
		appendMail(t, r, "Subject: 1\r\n\r\n", "keyword")
		looked := false
		a.control.root.fault = func(op string, paths ...string) error {
			if now := controlOf(a, "B"); !looked && paths[len(paths)-1] == now {
				looked = true
				_, err := r.Sync(ctx)
				return err
			}
			return nil
		}
		must(t, a.Rename(ctx, "A", "B"))
		a.control.root.fault = nil
		if !looked {
			t.Fatal("nobody looked")
		}
		wantControl(t, a, "B")
		wantDump(t, open(t, reopened(t, a.Root(), &a.opts), "B", RefOptions{}).Snapshot(), "1 keyword")
	})
}

// Another program puts another control directory in the place of one whose lock is waited for: the lock that is had
// then does not stay there.
func TestControlReplacedMeanwhile(t *testing.T) {
	eachApart(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		must(t, a.Create(ctx, "A", nil))
		r := open(t, a, "A", RefOptions{})
		appendMail(t, r, "Subject: 1\r\n\r\n")
		control := controlOf(a, "A")
		setFault(r, func(op string, paths ...string) error {
			if op != "create" || filepath.Base(paths[0]) != listLock {
				return nil
			}
			r.control.fault, r.d.fault = nil, nil
			return cmp.Or(os.Rename(control, control+".before"), os.CopyFS(control, os.DirFS(control+".before")))
		})
		_, err := r.Store(ctx, []imap.UID{1}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagSeen})
		must(t, err)
		wantDump(t, r.Snapshot(), `1 \Seen`)
		for _, dir := range []string{control, control + ".before"} {
			if _, err := os.Stat(filepath.Join(dir, listLock)); err == nil {
				t.Errorf("the lock in %s is there still", dir)
			}
		}
	})
}

// The places of INBOX and of control files may be in the root. They are no mailboxes besides, whatever a client calls
// them.
func TestPlacesInRoot(t *testing.T) {
	for _, l := range []Layout{LayoutMaildirpp, LayoutFS} {
		t.Run(l.String(), func(t *testing.T) {
			ctx := context.Background()
			root := t.TempDir()
			o := &Options{Layout: l}
			o.Inbox, o.Control = filepath.Join(root, o.path("first")), filepath.Join(root, o.path("control"))
			a := reopened(t, root, o)
			must(t, a.Create(ctx, "A", nil))
			appendMail(t, open(t, a, "INBOX", RefOptions{}), "Subject: 1\r\n\r\n")
			for _, name := range []string{"first", "control", "control/A"} {
				_, serr := a.Mailbox(name, RefOptions{})
				for what, err := range map[string]error{
					"open":      serr,
					"create":    a.Create(ctx, name, nil),
					"rename":    a.Rename(ctx, name, "B"),
					"rename to": a.Rename(ctx, "A", name),
					"delete":    a.Delete(ctx, name, false),
				} {
					if err == nil {
						t.Errorf("%s %s", what, name)
					}
				}
			}
			entries, err := a.List()
			must(t, err)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name)
			}
			if want := []string{"INBOX", "A"}; !slices.Equal(names, want) {
				t.Errorf("listed are %q, want %q", names, want)
			}
			wantControl(t, a, "INBOX", "A")
		})
	}
}

// RENAME waits for the lock of one mailbox without holding those of the others.
func TestRenameWaits(t *testing.T) {
	a := reopened(t, t.TempDir(), nil)
	ctx := context.Background()
	locks := map[string]bool{}
	for _, name := range []string{"A", "A.b", "A.c"} {
		must(t, a.Create(ctx, name, nil))
		locks[filepath.Join(a.Root(), "."+name, listLock)] = true
	}
	for lock := range locks {
		must(t, os.WriteFile(lock, []byte("1:elsewhere"), 0o600))
		told := false
		ctx := WithLockWait(ctx, func(w LockWait) error {
			told = true
			for other := range locks {
				if _, err := os.Stat(other); err == nil && other != lock {
					t.Errorf("%s is held while %s is waited for", other, w.Path)
				}
			}
			os.Remove(lock)
			return nil
		})
		must(t, a.Rename(ctx, "A", "B"))
		must(t, a.Rename(ctx, "B", "A"))
		if !told {
			t.Errorf("%s was not waited for", lock)
		}
	}
}

// INBOX in the directory of a mailbox, where a configuration may put it, does not go with that.
func TestInboxInMailbox(t *testing.T) {
	for _, l := range []Layout{LayoutMaildirpp, LayoutFS} {
		t.Run(l.String(), func(t *testing.T) {
			ctx := context.Background()
			root := t.TempDir()
			o := &Options{Layout: l}
			o.Inbox = filepath.Join(root, o.path("x"), "inbox")
			a := reopened(t, root, o)
			appendMail(t, open(t, a, "INBOX", RefOptions{}), "Subject: 1\r\n\r\n")
			a.Create(ctx, "x", nil) // in Maildir++ it is there
			if err := a.Rename(ctx, "x", "y"); err == nil {
				t.Error("renamed")
			}
			a.Delete(ctx, "x", false) // in the fs layout what is below stays
			if !a.Stands() {
				t.Error("INBOX went with a mailbox")
			}
		})
	}
}

// Who opened a mailbox just before it was deleted makes what is missing in it while it is removed: it is removed all the
// same, and nothing of it stays.
func TestDeleteBesideOpen(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		must(t, a.Create(ctx, "Box", nil))
		done := make(chan struct{})
		var aside string
		a.mail.root.fault = func(op string, paths ...string) error {
			if op == "removeall" && aside == "" {
				aside = paths[0]
				d, err := os.Open(aside)
				must(t, err)
				go func() { // as a slow makeParts does
					defer close(done)
					defer d.Close()
					for made := 0; made < 5; {
						switch unix.Mkdirat(int(d.Fd()), "late", 0o700) {
						case nil:
							made++
						case unix.ENOENT:
							return
						}
					}
				}()
			}
			return nil
		}
		err := a.Delete(ctx, "Box", false)
		a.mail.root.fault = nil
		if err != nil {
			t.Errorf("delete: %v", err)
			os.RemoveAll(aside)
		}
		<-done
	})
}
