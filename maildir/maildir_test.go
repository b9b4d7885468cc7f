package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gomaildir "github.com/emersion/go-maildir"

	"github.com/emersion/go-imap/v2"
)

// eachLayout runs a test on an empty account of each layout, with control files beside the mail and apart.
func eachLayout(t *testing.T, f func(t *testing.T, a *Account)) {
	for _, l := range []struct {
		Layout
		control string
	}{{LayoutMaildirpp, ""}, {LayoutMaildirpp, "control"}, {LayoutFS, ""}, {LayoutFS, "control"}} {
		t.Run(l.String()+l.control, func(t *testing.T) {
			dir := t.TempDir()
			o := &Options{Layout: l.Layout}
			if l.control != "" {
				o.Control = filepath.Join(dir, l.control)
			}
			a, err := Open(filepath.Join(dir, "Maildir"), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if n := a.OpenMailboxes(); n > 0 {
					t.Errorf("%d mailboxes are in use at the end", n)
				}
				a.Close()
				wantSound(t, a)
			})
			f(t, a)
		})
	}
}

// unsound are the tests that leave on purpose what Check tells of, and what it says then.
var unsound = map[string][]string{
	"TestOddFiles":             {"a symlink", "a directory", "line break", "keyword", "no name for the letter", "out of the root"},
	"TestNothingIsOverwritten": {"has the base name of"},
	"TestSizes":                {"is named for 9 bytes"},
	"TestOutsideChanges":       {"has 1", "left out"},
	"TestCompressedSizeByName": {"can't be read"},
	"TestCompressedUnreadable": {"can't be read"},
	"TestSymlinkOut":           {"out of the root", "is not a directory"},
	"TestSymlinkInstead":       {"out of the root"},
	"TestSymlinkLoop":          {"leads nowhere"},
}

// wantSound checks what a test leaves on disk.
func wantSound(t *testing.T, a *Account) {
	t.Helper()
	problems, err := Check(a.Root(), &a.opts)
	if err != nil {
		t.Error(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	for _, p := range problems {
		if !slices.ContainsFunc(unsound[name], func(s string) bool { return strings.Contains(p.Text, s) }) {
			t.Errorf("left behind: %s", p)
		}
	}
}

// An accountLog is what an account logs, also from goroutines of its own.
type accountLog struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *accountLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *accountLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func open(t *testing.T, a *Account, name string, o RefOptions) *Ref {
	t.Helper()
	r, err := a.Mailbox(name, o)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	t.Cleanup(r.Close)
	resync(t, r)
	return r
}

func resync(t *testing.T, r *Ref) *Snapshot {
	t.Helper()
	r.disk.Lock()
	defer r.disk.Unlock()
	s, err := r.syncLocked(context.Background(), true)
	if err != nil {
		t.Fatalf("sync: %v", err)
	}
	return s
}

func appendMail(t *testing.T, r *Ref, text string, flags ...imap.Flag) imap.UID {
	t.Helper()
	uid, _, err := r.Append(context.Background(), strings.NewReader(text), flags, time.Time{})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return uid
}

// dump shows a snapshot: "1 \Seen work; 2".
func dump(s *Snapshot) string {
	var b []string
	for _, msg := range s.Messages {
		b = append(b, strings.TrimSpace(fmt.Sprintf("%d %s", msg.UID, strings.Trim(fmt.Sprint(s.IMAPFlags(msg.Flags)), "[]"))))
	}
	return strings.Join(b, "; ")
}

func wantDump(t *testing.T, s *Snapshot, want string) {
	t.Helper()
	if got := dump(s); got != want {
		t.Fatalf("mailbox holds %q, want %q", got, want)
	}
}

func TestLife(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		inbox := open(t, a, "inbox", RefOptions{Selected: true})
		appendMail(t, inbox, "Subject: one\r\n\r\nhello\r\n")
		appendMail(t, inbox, "Subject: two\n\nhello\r\n", imap.FlagSeen, "Work")
		wantDump(t, inbox.Snapshot(), `1; 2 \Seen Work`)
		if n := len(inbox.Recent()); n != 2 {
			t.Errorf("%d recent messages, want 2", n)
		}
		if n := len(inbox.Recent()); n != 0 {
			t.Errorf("%d recent messages for the second who asks, want 0", n)
		}

		msgs, err := inbox.Store(ctx, []imap.UID{1, 2}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagFlagged, "$later"})
		if err != nil || len(msgs) != 2 {
			t.Fatalf("store: %d messages, %v", len(msgs), err)
		}
		wantDump(t, inbox.Snapshot(), `1 \Flagged $later; 2 \Flagged \Seen Work $later`)
		if _, err := inbox.Store(ctx, []imap.UID{2}, imap.StoreFlagsSet, []imap.Flag{"work"}); err != nil {
			t.Fatal(err)
		}
		wantDump(t, inbox.Snapshot(), `1 \Flagged $later; 2 Work`)

		sep := string(a.Separator())
		name := "Lists" + sep + "Entwürfe"
		if err := a.Create(ctx, name, []imap.MailboxAttr{imap.MailboxAttrDrafts}); err != nil {
			t.Fatal(err)
		}
		if err := a.Create(ctx, name, nil); !errors.Is(err, ErrMailboxExists) {
			t.Errorf("creating it again: %v", err)
		}
		dest := open(t, a, name, RefOptions{})
		appendMail(t, dest, "Subject: first\r\n\r\n", "other") // letter a has another name here
		c, err := inbox.CopyTo(ctx, dest.Mailbox, inbox.Snapshot().Messages)
		if err != nil || !slices.Equal(c.Dest, []imap.UID{2, 3}) {
			t.Fatalf("copy: %+v, %v", c, err)
		}
		wantDump(t, dest.Snapshot(), `1 other; 2 \Flagged $later; 3 Work`)
		if c, err = inbox.CopyTo(ctx, inbox.Mailbox, inbox.Snapshot().Messages[:1]); err != nil || !slices.Equal(c.Dest, []imap.UID{3}) {
			t.Fatalf("copy into the same mailbox: %+v, %v", c, err)
		}
		if c, err = inbox.MoveTo(ctx, dest.Mailbox, inbox.Snapshot(), inbox.Snapshot().Messages[1:2], false); err != nil || !slices.Equal(c.Dest, []imap.UID{4}) {
			t.Fatalf("move: %+v, %v", c, err)
		}
		wantDump(t, inbox.Snapshot(), `1 \Flagged $later; 3 \Flagged $later`)
		wantDump(t, dest.Snapshot(), `1 other; 2 \Flagged $later; 3 Work; 4 Work`)
		if got := read(t, dest, 4); got != "Subject: two\r\n\r\nhello\r\n" {
			t.Errorf("moved message reads %q", got)
		}

		if err := inbox.Expunge(ctx, []imap.UID{1}, 0, false); err != nil {
			t.Fatal(err)
		}
		wantDump(t, inbox.Snapshot(), `3 \Flagged $later`)

		if err := a.Subscribe(ctx, name, true); err != nil {
			t.Fatal(err)
		}
		now := "New" + sep + "Entwürfe"
		if err := a.Rename(ctx, "Lists", "New"); err != nil {
			t.Fatal(err)
		}
		if got, _ := a.Subscriptions(); !slices.Equal(got, []string{now}) {
			t.Errorf("subscriptions %q after the renaming", got)
		}
		if dest.Name() != now || resync(t, dest).Find(4) == nil {
			t.Errorf("the open mailbox did not follow: %s", dest.Name())
		}
		var names []string
		entries, err := a.List()
		for _, e := range entries {
			names = append(names, fmt.Sprintf("%s %v %v", e.Name, e.Selectable, e.SpecialUse))
		}
		if want := []string{"INBOX true []", "New false []", now + ` true [\Drafts]`}; err != nil || !slices.Equal(names, want) {
			t.Errorf("list %q, want %q (%v)", names, want, err)
		}

		if err := a.Delete(ctx, now, false); err != nil {
			t.Fatal(err)
		}
		if _, err := dest.Sync(ctx); !errors.Is(err, ErrGone) {
			t.Errorf("the deleted mailbox syncs with %v", err)
		}
		if _, _, err := dest.Append(ctx, strings.NewReader("x"), nil, time.Time{}); err == nil {
			t.Error("APPEND into a deleted mailbox succeeds")
		}
		if _, err := a.Mailbox(now, RefOptions{}); !errors.Is(err, ErrNoMailbox) {
			t.Errorf("opening it: %v", err)
		}
		before := dest.Snapshot().UIDValidity
		if err := a.Create(ctx, now, nil); err != nil {
			t.Fatal(err)
		}
		if s := resync(t, open(t, a, now, RefOptions{})); s.UIDValidity <= before || len(s.Messages) > 0 {
			t.Errorf("made again: UIDVALIDITY %d after %d, %d messages", s.UIDValidity, before, len(s.Messages))
		}
	})
}

func read(t *testing.T, r *Ref, uid imap.UID) string {
	t.Helper()
	msg := r.Snapshot().Find(uid)
	if msg == nil {
		t.Fatalf("no message %d", uid)
	}
	return readMessage(t, r, msg)
}

func readMessage(t *testing.T, r *Ref, msg *Message) string {
	t.Helper()
	c, err := r.Content(context.Background(), msg)
	if err != nil {
		t.Fatalf("open message %d: %v", msg.UID, err)
	}
	defer c.Close()
	b, err := io.ReadAll(io.NewSectionReader(c, 0, math.MaxInt64))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A mailbox is opened again by a process that knows nothing: all comes back from Dovecot's files.
func TestReopen(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		for i := range 5 {
			appendMail(t, r, fmt.Sprintf("Subject: %d\r\n\r\n", i), imap.Flag(fmt.Sprintf("kw%d", i)))
		}
		if err := r.Expunge(context.Background(), []imap.UID{2, 5}, 0, false); err != nil {
			t.Fatal(err)
		}
		was := r.Snapshot()
		b, err := Open(a.Root(), &a.opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		s := open(t, b, "INBOX", RefOptions{Selected: true}).Snapshot()
		wantDump(t, s, `1 kw0; 3 kw2; 4 kw3`)
		if s.UIDValidity != was.UIDValidity || s.UIDNext != 6 {
			t.Errorf("UIDVALIDITY %d, UIDNEXT %d; want %d, 6", s.UIDValidity, s.UIDNext, was.UIDValidity)
		}
	})
}

// Mail that a delivery agent puts into new/ is numbered in Dovecot's order, and moved to cur/ by a
// read-write session only.
func TestDeliveries(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{Selected: true, ReadOnly: true})
		for range 3 {
			d, err := gomaildir.NewDelivery(a.Root())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(d, "Subject: hello\n\n")
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s := resync(t, r)
		if len(s.Messages) != 3 || !s.Messages[0].InNew || len(r.Recent()) != 3 {
			t.Fatalf("read-only: %s, recent %v", dump(s), r.Recent())
		}
		if !slices.IsSortedFunc(s.Messages, func(x, y *Message) int { return orderOf(x.name).compare(orderOf(y.name)) }) {
			t.Error("UIDs are not in the order of the names")
		}
		rw := open(t, a, "INBOX", RefOptions{Selected: true})
		s = resync(t, rw)
		if s.inNew != 0 || len(rw.Recent()) != 3 || len(r.Recent()) != 0 {
			t.Errorf("read-write: %d in new, recent %v and %v", s.inNew, rw.Recent(), r.Recent())
		}
		if left, _ := os.ReadDir(filepath.Join(a.Root(), "new")); len(left) > 0 {
			t.Errorf("%d files are left in new", len(left))
		}
	})
}

// Other programs rename, unlink and add files, and rewrite or lose the list.
func TestOutsideChanges(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{Selected: true})
		for i := range 4 {
			appendMail(t, r, fmt.Sprintf("Subject: %d\r\n\r\n", i+1))
		}
		s := resync(t, r)
		path := func(uid imap.UID) string { return filepath.Join(a.Root(), s.Find(uid).path()) }
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(os.Rename(path(1), filepath.Join(a.Root(), "cur", s.Find(1).Key()+":2,FSX")))
		must(os.Remove(path(2)))
		stale := s.Find(1)
		wantDump(t, resync(t, r), `1 \Flagged \Seen; 3; 4`)
		if got := readMessage(t, r, stale); !strings.Contains(got, "Subject: 1") {
			t.Errorf("renamed message reads %q", got)
		}
		if _, err := r.Content(context.Background(), s.Find(2)); err != ErrExpunged {
			t.Errorf("removed message: %v", err)
		}
		if _, err := r.Store(context.Background(), []imap.UID{1}, imap.StoreFlagsDel, []imap.Flag{imap.FlagSeen}); err != nil {
			t.Fatal(err)
		}
		if name := r.Snapshot().Find(1).name; !strings.HasSuffix(name, ":2,FX") {
			t.Errorf("a letter of another program is lost: %s", name)
		}

		validity := r.Snapshot().UIDValidity
		must(os.Remove(r.control.path(listFile)))
		s = resync(t, r)
		wantDump(t, s, `1 \Flagged; 3; 4`)
		if s.UIDValidity != validity || s.UIDNext != 5 {
			t.Errorf("list lost: UIDVALIDITY %d UIDNEXT %d", s.UIDValidity, s.UIDNext)
		}
		// A record dropped by another program's rewriting comes back; a name that was expunged
		// and appears again is another message.
		list, err := os.ReadFile(r.control.path(listFile))
		must(err)
		lines := strings.SplitAfter(string(list), "\n")
		must(os.WriteFile(r.control.path(listFile), []byte(lines[0]+lines[1]+lines[3]), 0o600))
		old := s.Find(4)
		must(os.Remove(filepath.Join(a.Root(), old.path())))
		wantDump(t, resync(t, r), `1 \Flagged; 3`)
		must(os.WriteFile(filepath.Join(a.Root(), "cur", old.name), []byte("x"), 0o600))
		wantDump(t, resync(t, r), `1 \Flagged; 3; 5`)
	})
}

func TestKeywordLimit(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		uid := appendMail(t, r, "x")
		for i := range 26 {
			if _, err := r.Store(context.Background(), []imap.UID{uid}, imap.StoreFlagsAdd, []imap.Flag{imap.Flag(fmt.Sprintf("kw%d", i))}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.Store(context.Background(), []imap.UID{uid}, imap.StoreFlagsAdd, []imap.Flag{"kw26"}); !errors.Is(err, ErrTooManyKeywords) {
			t.Errorf("the 27th keyword: %v", err)
		}
		if n := len(r.Snapshot().IMAPFlags(r.Snapshot().Find(uid).Flags)); n != 26 {
			t.Errorf("%d keywords are kept", n)
		}
	})
}

// What is no message neither shows nor stops anything.
func TestOddFiles(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{Selected: true})
		cur := filepath.Join(a.Root(), "cur")
		os.Mkdir(filepath.Join(cur, "directory"), 0o700)
		os.Symlink("nowhere", filepath.Join(cur, "dangling"))
		os.Symlink("/etc/passwd", filepath.Join(cur, "outside"))
		os.WriteFile(filepath.Join(cur, "line\nbreak"), nil, 0o600)
		os.WriteFile(filepath.Join(cur, ".hidden"), nil, 0o600)
		for _, name := range []string{"1.a:2,FS", "2.b", "3.c:1,x", "4.d:2,S:2,F", "5.e ü:2,TSFx"} {
			os.WriteFile(filepath.Join(cur, name), []byte("x"), 0o600)
		}
		wantDump(t, resync(t, r), `1 \Flagged \Seen; 2; 3; 4 \Flagged; 5 \Flagged \Deleted \Seen`)
		if err := os.Symlink("/etc", filepath.Join(a.Root(), ".out")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Mailbox("out", RefOptions{}); err == nil {
			t.Error("a symlink leads out of the root")
		}
		if _, err := a.Mailbox(".out", RefOptions{}); err == nil {
			t.Error("a symlink leads out of the root")
		}
	})
}

// An expunged message stays readable for who was not told, and goes with the last one.
func TestGhosts(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		one := open(t, a, "INBOX", RefOptions{Selected: true})
		two := open(t, a, "INBOX", RefOptions{Selected: true})
		uid := appendMail(t, one, "Subject: kept\r\n\r\n")
		n := resync(t, one).Number
		one.Told(n)
		two.Told(n)
		msg := one.Snapshot().Find(uid)
		if err := one.Expunge(context.Background(), []imap.UID{uid}, 0, one.Holders() > 0); err != nil {
			t.Fatal(err)
		}
		one.Told(one.Snapshot().Number)
		if got := readMessage(t, two, msg); got != "Subject: kept\r\n\r\n" {
			t.Errorf("ghost reads %q", got)
		}
		two.Told(two.Snapshot().Number)
		if _, err := two.Content(context.Background(), msg); err != ErrExpunged {
			t.Errorf("after all were told: %v", err)
		}
		if left, _ := os.ReadDir(filepath.Join(a.Root(), "tmp")); len(left) > 0 {
			t.Errorf("%d files are left in tmp", len(left))
		}
	})
}

// Dovecot's MOVE keeps base names: a message that went to another folder and came back has a record of
// old beside the one of now, and the one of now holds.
func TestBaseNameAgain(t *testing.T) {
	const n = 3
	root := fill(t, n)
	a := openAccount(t, root)
	defer a.Close()
	r := selectAll(t, a, n)
	defer r.Close()
	key := r.Snapshot().Messages[0].Key()
	list, err := os.OpenFile(filepath.Join(root, listFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(list, "%d :%s\n", n+1, key)
	if cerr := list.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	b := openAccount(t, root)
	defer b.Close()
	again := selectAll(t, b, n)
	defer again.Close()
	for what, s := range map[string]*Snapshot{"open": resync(t, r), "opened afterwards": again.Snapshot()} {
		var uids []imap.UID
		for _, msg := range s.Messages {
			uids = append(uids, msg.UID)
		}
		if want := []imap.UID{2, 3, 4}; !slices.Equal(uids, want) {
			t.Errorf("%s it has UIDs %d, want %d", what, uids, want)
		}
	}
}

// Who looks at a mailbox while this process renames it follows, and doesn't take that for another
// program's doing.
func TestRenameWhileLooking(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		name := func(i int) string { return fmt.Sprintf("Box%d", i) }
		if err := a.Create(ctx, name(0), nil); err != nil {
			t.Fatal(err)
		}
		moved := make(chan struct{}, 1)
		r := open(t, a, name(0), RefOptions{Selected: true, Gone: func(error) {
			select {
			case moved <- struct{}{}:
			default:
			}
		}})
		done := make(chan struct{})
		var looks sync.WaitGroup
		looks.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := r.Sync(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for i := range 200 {
			if err := a.Rename(ctx, name(i), name(i+1)); err != nil {
				t.Fatal(err)
			}
		}
		close(done)
		looks.Wait()
		select {
		case <-moved:
			t.Error("the mailbox was taken for renamed by another program")
		default:
		}
	})
}

// Of two sessions that move a message at the same time to two mailboxes, one gets it, although it is kept
// for the other one. What was gone before is copied from what is kept.
func TestMoveTwice(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		for _, name := range []string{"A", "B"} {
			if err := a.Create(ctx, name, nil); err != nil {
				t.Fatal(err)
			}
		}
		inbox := open(t, a, "INBOX", RefOptions{Selected: true})
		toA, toB := open(t, a, "A", RefOptions{}), open(t, a, "B", RefOptions{})
		appendMail(t, inbox, "Subject: one\n\n")
		s := inbox.Snapshot()
		for _, move := range []struct {
			dest *Ref
			look *Snapshot
			want int
		}{{toA, s, 1}, {toB, s, 0}} {
			c, err := inbox.MoveTo(ctx, move.dest.Mailbox, move.look, s.Messages, true)
			if err != nil || len(c.Dest) != move.want {
				t.Fatalf("moved to %s: %d (%v), want %d", move.dest.Name(), len(c.Dest), err, move.want)
			}
		}
		c, err := inbox.MoveTo(ctx, toB.Mailbox, inbox.Snapshot(), s.Messages, true)
		if err != nil || len(c.Dest) != 1 {
			t.Fatalf("copied from what is kept: %d (%v)", len(c.Dest), err)
		}
	})
}

// A message whose flags another program changed after the last look is not gone: COPY and MOVE find it.
func TestMoveRenamed(t *testing.T) {
	ctx := context.Background()
	root := fill(t, 5)
	a := openAccount(t, root)
	defer a.Close()
	if err := a.Create(ctx, "Other", nil); err != nil {
		t.Fatal(err)
	}
	r := selectAll(t, a, 5)
	defer r.Close()
	other, err := a.Mailbox("Other", RefOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := r.Snapshot()
	flag := func(msgs ...*Message) {
		for _, msg := range msgs {
			path := filepath.Join(root, msg.path())
			if err := os.Rename(path, strings.TrimSuffix(path, "S")+"FS"); err != nil {
				t.Fatal(err)
			}
		}
	}
	flag(s.Messages[0])
	if c, err := r.CopyTo(ctx, other.Mailbox, s.Messages[:2]); err != nil || len(c.Dest) != 2 {
		t.Errorf("copied %d messages: %v", len(c.Dest), err)
	}
	if n := len(resync(t, other).Messages); n != 2 {
		t.Errorf("%d messages in the destination", n)
	}
	// As if it happened after MOVE has looked: the times of the directories tell nothing.
	resync(t, r)
	flag(s.Messages[2:4]...)
	dirs, err := r.statDirs()
	if err != nil {
		t.Fatal(err)
	}
	r.disk.Lock()
	r.scanned = dirs
	r.disk.Unlock()
	if c, err := r.MoveTo(ctx, other.Mailbox, s, s.Messages[2:], false); err != nil || len(c.Dest) != 3 {
		t.Errorf("moved %d messages: %v", len(c.Dest), err)
	}
	if left := resync(t, r); len(left.Messages) != 2 {
		t.Errorf("%d messages are left", len(left.Messages))
	}
}
