package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// Trap 2: a program that renames without any lock hides files from single scans: nothing may be expunged,
// and nothing get another UID.
func TestUnlockedRenames(t *testing.T) {
	const n = 3000
	eachLayout(t, func(t *testing.T, a *Account) {
		cur := filepath.Join(a.Root(), "cur")
		if err := os.MkdirAll(cur, 0o700); err != nil {
			t.Fatal(err)
		}
		name := func(i int, flags string) string {
			return filepath.Join(cur, fmt.Sprintf("%d.churn:2,%s", 1000+i, flags))
		}
		for i := range n {
			if err := os.WriteFile(name(i, ""), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := open(t, a, "INBOX", RefOptions{})
		done := make(chan error, 1)
		go func() {
			var err error
			for round := 0; round < 6 && err == nil; round++ {
				from, to := "", "S"
				if round%2 == 1 {
					from, to = to, from
				}
				for i := 0; i < n && err == nil; i++ {
					err = os.Rename(name(i, from), name(i, to))
				}
			}
			done <- err
		}()
		for running := true; running; {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				running = false
			default:
			}
			if s := resync(t, r); len(s.Messages) != n || s.UIDNext != n+1 {
				t.Fatalf("%d messages and UIDNEXT %d; want %d and %d", len(s.Messages), s.UIDNext, n, n+1)
			}
		}
	})
}

// Trap 3: UIDs are given without the lock, to a list that was replaced, or from the header's next UID alone. Two
// sessions of Dovecot and this package append at the same time, a program delivers, and this one numbers that too:
// no message ever has two UIDs, no UID two messages, and the list says so.
func TestDovecotAppendsToo(t *testing.T) {
	ctx := context.Background()
	d := peers.StartDovecot(t, "")
	root := d.Maildir(t, "both")
	var sessions []*imapclient.Client
	for range 2 {
		c := login(t, d, "both")
		_, err := c.Select("INBOX", nil).Wait()
		must(t, err)
		sessions = append(sessions, c)
	}
	a, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	r := open(t, a, "INBOX", RefOptions{Selected: true})

	const each, writers = 100, 4
	done := make(chan error, writers)
	write := func(f func(i int) error) {
		var err error
		for i := 0; i < each && err == nil; i++ {
			err = f(i)
		}
		done <- err
	}
	for n, c := range sessions {
		go write(func(i int) error {
			text := fmt.Sprintf("Subject: dovecot %d %d\r\n\r\n", n, i)
			app := c.Append("INBOX", int64(len(text)), nil)
			io.WriteString(app, text)
			if err := app.Close(); err != nil {
				return err
			}
			_, err := app.Wait()
			return err
		})
	}
	go write(func(i int) error {
		_, _, err := r.Append(ctx, strings.NewReader(fmt.Sprintf("Subject: ours %d\r\n\r\n", i)), nil, time.Time{})
		return err
	})
	go write(func(i int) error {
		name := fmt.Sprintf("%d.M%dP1.delivered", time.Now().Unix(), i)
		if err := os.WriteFile(filepath.Join(root, "tmp", name), []byte("Subject: delivered\n\n"), 0o660); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(root, "tmp", name), 0o660); err != nil {
			return err
		}
		return os.Rename(filepath.Join(root, "tmp", name), filepath.Join(root, "new", name))
	})
	uids := map[string]imap.UID{}
	bases := map[imap.UID]string{}
	for running := writers; running > 0; {
		select {
		case err := <-done:
			must(t, err)
			running--
		default:
		}
		for _, msg := range resync(t, r).Messages {
			base := msg.Key()
			if uid, ok := uids[base]; ok && uid != msg.UID {
				t.Fatalf("%s had UID %d and has %d", base, uid, msg.UID)
			}
			if b, ok := bases[msg.UID]; ok && b != base {
				t.Fatalf("UID %d was %s and is %s", msg.UID, b, base)
			}
			uids[base], bases[msg.UID] = msg.UID, base
		}
	}
	if s := resync(t, r); len(s.Messages) != writers*each || s.UIDNext != writers*each+1 {
		t.Errorf("%d messages, UIDNEXT %d; want %d, %d", len(s.Messages), s.UIDNext, writers*each, writers*each+1)
	}
	wantSame(t, "INBOX", holds(t, r), sees(t, sessions[0], "INBOX"))
	b, err := os.ReadFile(filepath.Join(root, listFile))
	must(t, err)
	last := imap.UID(0)
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		var uid imap.UID
		_, err := fmt.Sscan(line, &uid)
		must(t, err)
		_, base, _ := strings.Cut(line, " :")
		if uid <= last || uids[base] != uid {
			t.Errorf("line %d is %q after UID %d; the file has UID %d", i+2, line, last, uids[base])
		}
		last = uid
		delete(uids, base)
	}
	if len(uids) > 0 {
		t.Errorf("without a record are %v", uids)
	}
	d.WantNoComplaint(t)
}

// Moves in both directions at once, by two processes' worth of accounts, neither wait for each other nor
// lose or double a message.
func TestOpposingMoves(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		if err := a.Create(ctx, "other", nil); err != nil {
			t.Fatal(err)
		}
		b, err := Open(a.Root(), &a.opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		pairs := [][2]*Ref{
			{open(t, a, "INBOX", RefOptions{}), open(t, a, "other", RefOptions{})},
			{open(t, b, "other", RefOptions{}), open(t, b, "INBOX", RefOptions{})},
		}
		const n = 40
		for i := range n {
			appendMail(t, pairs[i%2][0], fmt.Sprintf("Subject: %d\r\n\r\n", i))
		}
		done := make(chan error, len(pairs))
		for _, p := range pairs {
			go func() {
				var err error
				for i := 0; i < 20 && err == nil; i++ {
					var s *Snapshot
					if s, err = p[0].Sync(ctx); err == nil && len(s.Messages) > 0 {
						_, err = p[0].MoveTo(ctx, p[1].Mailbox, s, s.Messages[:1], false)
					}
				}
				done <- err
			}()
		}
		for range pairs {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		seen := map[string]int{}
		for _, r := range pairs[0] {
			for _, msg := range resync(t, r).Messages {
				seen[readMessage(t, r, msg)]++
			}
		}
		for text, times := range seen {
			if times != 1 {
				t.Errorf("%q is there %d times", text, times)
			}
		}
		if len(seen) != n {
			t.Errorf("%d of %d messages are left", len(seen), n)
		}
	})
}

// Where two files have one base name, a change of flags never puts one in the other's place.
func TestNothingIsOverwritten(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		cur := filepath.Join(a.Root(), "cur")
		for _, name := range []string{"1.twin:2,", "1.twin:2,S"} {
			if err := os.WriteFile(filepath.Join(cur, name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, msg := range resync(t, r).Messages {
			for _, op := range []imap.StoreFlagsOp{imap.StoreFlagsAdd, imap.StoreFlagsDel} {
				r.Store(context.Background(), []imap.UID{msg.UID}, op, []imap.Flag{imap.FlagSeen})
			}
		}
		if files, _ := os.ReadDir(cur); len(files) != 2 {
			t.Errorf("%d files are left of 2", len(files))
		}
	})
}

// A look that fails half way is made again, and what it would have shown is shown then.
func TestFailedLook(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		if err := os.WriteFile(filepath.Join(a.Root(), "new", "1.x"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		full := errors.New("no space left")
		setFault(r, func(op string, paths ...string) error {
			if op == "write" && strings.HasSuffix(paths[0], listFile) {
				return full
			}
			return nil
		})
		if s := resync(t, r); len(s.Messages) != 0 {
			t.Fatalf("shown without a UID: %s", dump(s))
		}
		setFault(r, nil)
		s, err := r.Sync(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		wantDump(t, s, "1")
	})
}

// A last line without its end is no record, however long, and the next one starts on a line of its own.
func TestUnfinishedRecord(t *testing.T) {
	for _, size := range []int{10, 10000} {
		eachLayout(t, func(t *testing.T, a *Account) {
			r := open(t, a, "INBOX", RefOptions{})
			appendMail(t, r, "Subject: 1\r\n\r\n")
			f, err := os.OpenFile(r.control.path(listFile), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString("2 :" + strings.Repeat("x", size))
			f.Close()
			appendMail(t, r, "Subject: 2\r\n\r\n")
			b, err := os.ReadFile(r.control.path(listFile))
			if err != nil {
				t.Fatal(err)
			}
			l, problems, err := parseUIDList(string(b))
			if err != nil || len(problems) > 0 || len(l.records) != 2 || strings.Contains(l.records[1].base, "xx") {
				t.Errorf("the list holds %d records, %v, %v", len(l.records), problems, err)
			}
		})
	}
}

// In the fs layout, what has mailboxes below it is deleted alone, and its name stays above them.
func TestDeleteParent(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		child := "up" + string(a.Separator()) + "below"
		for _, name := range []string{"up", child} {
			if err := a.Create(ctx, name, nil); err != nil {
				t.Fatal(err)
			}
			appendMail(t, open(t, a, name, RefOptions{}), "Subject: "+name+"\r\n\r\n")
		}
		elsewhere, err := Open(a.Root(), &a.opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { elsewhere.Close() })
		other := open(t, elsewhere, "up", RefOptions{Selected: true})
		if err := a.Delete(ctx, "up", false); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Sync(ctx); !errors.Is(err, ErrGone) {
			t.Errorf("another process that has it open: %v", err)
		}
		if _, err := a.Mailbox("up", RefOptions{}); !errors.Is(err, ErrNoMailbox) {
			t.Errorf("opening what was deleted: %v", err)
		}
		if s := open(t, a, child, RefOptions{}).Snapshot(); len(s.Messages) != 1 {
			t.Errorf("%d messages are left below", len(s.Messages))
		}
		entries, err := a.List()
		if err != nil || len(entries) != 3 || entries[1].Name != "up" || entries[1].Selectable {
			t.Errorf("list %+v, %v", entries, err)
		}
		if left, _ := os.ReadDir(filepath.Join(a.Root(), "tmp")); len(left) > 0 {
			t.Errorf("%s is left of it", left[0].Name())
		}
		if err := a.Create(ctx, "up", nil); err != nil {
			t.Errorf("making it again: %v", err)
		}
		if s := open(t, a, "up", RefOptions{}).Snapshot(); len(s.Messages) != 0 {
			t.Errorf("made again, it has %d messages", len(s.Messages))
		}
	})
}

// RENAME INBOX moves its mail and leaves INBOX empty (RFC 9051 section 6.3.6).
func TestRenameINBOX(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		inbox := open(t, a, "INBOX", RefOptions{})
		appendMail(t, inbox, "Subject: 1\r\n\r\n", imap.FlagSeen, "Work")
		appendMail(t, inbox, "Subject: 2\r\n\r\n")
		if err := a.Rename(context.Background(), "INBOX", "Old"); err != nil {
			t.Fatal(err)
		}
		wantDump(t, resync(t, inbox), "")
		wantDump(t, open(t, a, "Old", RefOptions{}).Snapshot(), `1 \Seen Work; 2`)
		if err := a.Delete(context.Background(), "INBOX", false); !errors.Is(err, ErrBadName) {
			t.Errorf("deleting INBOX: %v", err)
		}
	})
}

// A size that had to be counted is counted once, and in the list for the next process; a wrong one in a name
// is not believed where the bytes are read.
func TestSizes(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		for _, name := range []string{"1.plain", "2.wrong,S=9,W=5000"} {
			if err := os.WriteFile(filepath.Join(a.Root(), "new", name), []byte("a\nb\r\nc\nd"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, msg := range resync(t, r).Messages {
			if got := readMessage(t, r, msg); got != "a\r\nb\r\nc\r\nd" {
				t.Errorf("%d reads %q", msg.UID, got)
			}
			if n, err := r.Size(context.Background(), msg); err != nil || n != 10 {
				t.Errorf("size of %d: %d, %v", msg.UID, n, err)
			}
		}
		r.saveSizes(context.Background())
		l, _, err := r.readList(false)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range l.records {
			if w, _ := rec.field('W'); w != "10" {
				t.Errorf("record of %s has W %q", rec.base, w)
			}
		}
	})
}

// A mailbox that another program removes while a message is on its way there is gone.
func TestAppendBesideRemove(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		if err := a.Create(context.Background(), "box", nil); err != nil {
			t.Fatal(err)
		}
		r := open(t, a, "box", RefOptions{})
		dir := r.d.f.Name()
		if err := os.WriteFile(filepath.Join(dir, "new", "1.x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(r.control.path(listFile)); err != nil {
			t.Fatal(err)
		}
		setFault(r, func(op string, paths ...string) error {
			if strings.HasSuffix(paths[0], listFile+".tmp") {
				return os.RemoveAll(dir)
			}
			return nil
		})
		_, _, err := r.Append(context.Background(), strings.NewReader("x"), nil, time.Time{})
		if !errors.Is(err, ErrGone) {
			t.Errorf("append: %v", err)
		}
	})
}

// A message of a mailbox that another program has removed is expunged, for who has not heard of it yet as well.
func TestContentBesideRemove(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		if err := a.Create(context.Background(), "box", nil); err != nil {
			t.Fatal(err)
		}
		r := open(t, a, "box", RefOptions{})
		appendMail(t, r, "Subject: 1\r\n\r\n")
		msg := r.Snapshot().Messages[0]
		if err := os.RemoveAll(r.d.f.Name()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := r.Content(context.Background(), msg); err != ErrExpunged {
				t.Errorf("content: %v", err)
			}
		}
	})
}

// Sizes are written to a list in which another process has numbered mail that this one doesn't know yet: its UIDs
// are not given again.
func TestSizesBesideAppend(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		b, err := Open(a.Root(), &a.opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		ours, theirs := open(t, a, "INBOX", RefOptions{}), open(t, b, "INBOX", RefOptions{})
		if err := os.WriteFile(filepath.Join(a.Root(), "new", "1.plain"), []byte("a\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Size(context.Background(), resync(t, ours).Messages[0]); err != nil {
			t.Fatal(err)
		}
		appendMail(t, theirs, "Subject: 2\r\n\r\n", imap.FlagSeen)
		ours.saveSizes(context.Background())
		if uid := appendMail(t, ours, "Subject: 3\r\n\r\n"); uid != 3 {
			t.Errorf("appended with UID %d, not 3", uid)
		}
		wantDump(t, resync(t, ours), `1; 2 \Seen; 3`)
	})
}

// Each writing of dovecot-keywords is later by a whole second at least: Dovecot looks at nothing else.
func TestKeywordsGetLater(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		var last int64
		for _, name := range []imap.Flag{"one", "two", "three"} {
			appendMail(t, r, "x", name)
			st, err := r.control.stat(keysFile)
			if err != nil {
				t.Fatal(err)
			}
			if st.mtime.Sec <= last {
				t.Errorf("written at %d after %d", st.mtime.Sec, last)
			}
			last = st.mtime.Sec
		}
	})
}

// Our own changes are published without reading the directories back; one reading follows in a
// moment for all of them, and finds what another program did at the same time.
func TestOwnChanges(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		r := open(t, a, "INBOX", RefOptions{Selected: true})
		uid := appendMail(t, r, "Subject: 1\r\n\r\n", "Work")
		resync(t, r)
		before, start := a.Scans(), time.Now()
		for i := range 50 {
			op := []imap.StoreFlagsOp{imap.StoreFlagsAdd, imap.StoreFlagsDel}[i%2]
			if _, err := r.Store(ctx, []imap.UID{uid}, op, []imap.Flag{imap.FlagSeen}); err != nil {
				t.Fatal(err)
			}
		}
		allowed := 2 * (2 + uint64(time.Since(start)/(2*coarse))) // new/ and cur/
		if got := a.Scans() - before; got > allowed {
			t.Errorf("50 changes read %d directories, at most %d are needed", got, allowed)
		}
		wantDump(t, r.Snapshot(), "1 Work")

		// Another program's file in the same tick of the clock as ours.
		if _, err := r.Store(ctx, []imap.UID{uid}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagSeen}); err != nil {
			t.Fatal(err)
		}
		r.disk.Lock()
		changed := r.Changed()
		cur := filepath.Join(a.Root(), "cur")
		err := os.WriteFile(filepath.Join(cur, "9.other:2,"), []byte("x"), 0o600)
		at := time.Unix(r.scanned.cur.Unix())
		if err == nil {
			err = os.Chtimes(cur, at, at)
		}
		r.disk.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if s, err := r.Sync(ctx); err != nil || s.Find(2) == nil {
			<-changed
		}
		wantDump(t, r.Snapshot(), `1 \Seen Work; 2`)
	})
}

// A delivery is found by reading new/ alone; who moved to cur/ meanwhile is not taken for gone.
func TestDeliveryReadsNewOnly(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		r := open(t, a, "INBOX", RefOptions{Selected: true, ReadOnly: true})
		file := func(name string) string { return filepath.Join(a.Root(), filepath.FromSlash(name)) }
		write := func(name string) {
			t.Helper()
			if err := os.WriteFile(file(name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("cur/1.a:2,S")
		write("new/2.b")
		resync(t, r)
		look := func() uint64 {
			t.Helper()
			before := a.Scans()
			if _, err := r.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			return a.Scans() - before
		}
		past := time.Now().Add(-time.Hour)
		for _, part := range []string{"cur", "new"} {
			if err := os.Chtimes(file(part), past, past); err != nil {
				t.Fatal(err)
			}
		}
		look()
		r.mu.Lock()
		if r.recheck != nil { // the look that follows the files that were just written
			r.recheck.Stop()
		}
		r.mu.Unlock()
		write("new/3.c")
		if got := look(); got != 1 {
			t.Errorf("a delivery reads %d directories, want 1", got)
		}
		wantDump(t, r.Snapshot(), `1 \Seen; 2; 3`)
		if err := os.Rename(file("new/2.b"), file("cur/2.b:2,F")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file("cur"), past, past); err != nil {
			t.Fatal(err)
		}
		look()
		wantDump(t, r.Snapshot(), `1 \Seen; 2 \Flagged; 3`)
	})
}

// Another program gives a message's file other names while flags are stored: the change is made all the same,
// to the flags that the file has by then.
func TestStoreBesideRenames(t *testing.T) {
	for _, c := range []struct {
		name  string
		op    string   // before which the file is renamed
		names []string // one after the other
		want  string
	}{
		{"to the name that it is to get", "create", []string{"1.x:2,S"}, `1 \Seen`},
		{"again and again", "rename", []string{"1.x:2,F", "1.x:2,DF", "1.x:2,D"}, `1 \Seen \Draft`},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, a *Account) {
				r := open(t, a, "INBOX", RefOptions{})
				cur := filepath.Join(a.Root(), "cur")
				name := "1.x:2,"
				if err := os.WriteFile(filepath.Join(cur, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				resync(t, r)
				left := c.names
				setFault(r, func(op string, paths ...string) error {
					if op != c.op || len(left) == 0 {
						return nil
					}
					err := os.Rename(filepath.Join(cur, name), filepath.Join(cur, left[0]))
					name, left = left[0], left[1:]
					return err
				})
				if _, err := r.Store(context.Background(), []imap.UID{1}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagSeen}); err != nil {
					t.Fatal(err)
				}
				if len(left) > 0 {
					t.Errorf("there was no occasion for %q", left)
				}
				wantDump(t, resync(t, r), c.want)
			})
		})
	}
}

// A mailbox that can't be given its UIDVALIDITY is not made: the next CREATE finds the name free.
func TestCreateTakenBack(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		full := errors.New("no space left")
		a.control.root.fault = func(op string, paths ...string) error {
			if op == "write" && strings.Contains(paths[0], listFile) {
				return full
			}
			return nil
		}
		if err := a.Create(context.Background(), "box", []imap.MailboxAttr{imap.MailboxAttrSent}); !errors.Is(err, full) {
			t.Fatalf("create: %v", err)
		}
		a.control.root.fault = nil
		if _, err := os.Lstat(filepath.Join(a.Root(), a.opts.path("box"))); !os.IsNotExist(err) {
			t.Errorf("the directory is there: %v", err)
		}
		if err := a.Create(context.Background(), "box", nil); err != nil {
			t.Error(err)
		}
	})
}

// Two mailboxes get a UIDVALIDITY at one moment: one is handed out while the other is written down.
func TestUIDValiditiesAtOnce(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		var second uint32
		var err2 error
		a.control.root.fault = func(op string, paths ...string) error {
			if op == "rename" && filepath.Base(paths[1]) == validityFile {
				a.control.root.fault = nil
				second, err2 = a.nextUIDValidity()
			}
			return nil
		}
		first, err := a.nextUIDValidity()
		if err != nil || err2 != nil || first == 0 || second == 0 || first == second {
			t.Errorf("%d, %v and %d, %v", first, err, second, err2)
		}
	})
}

// Two files of one name that can't be given names of their own keep nobody from the mailbox.
func TestTwinsStay(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		cur := filepath.Join(a.Root(), "cur")
		appendMail(t, r, "Subject: 1\r\n\r\n")
		for _, name := range []string{"1.twin:2,", "1.twin:2,S"} {
			must(t, os.WriteFile(filepath.Join(cur, name), []byte(name), 0o600))
		}
		setFault(r, func(op string, paths ...string) error { return syscall.EROFS })
		wantDump(t, resync(t, r), "1")
		setFault(r, nil)
		if n := len(resync(t, r).Messages); n != 3 {
			t.Errorf("%d messages are shown of 3", n)
		}
	})
}

// Another program delivers mail with its records between a look and the lock that it needs: no directory is read again
// for that.
func TestLateRecords(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		put := func(name string) {
			must(t, os.WriteFile(filepath.Join(a.Root(), filepath.FromSlash(name)), nil, 0o600))
		}
		look := func() uint64 {
			before := a.Scans()
			if _, err := r.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			return a.Scans() - before
		}
		put("new/1.x")
		want := look()
		put("new/2.x")
		put("cur/3.x:2,")
		once := true
		setFault(r, func(op string, paths ...string) error {
			if op == "create" && strings.HasSuffix(paths[0], listLock) && once {
				once = false
				put("new/4.x")
				put("cur/5.x:2,")
				put("cur/6.x")
				f, err := os.OpenFile(r.control.path(listFile), os.O_APPEND|os.O_WRONLY, 0)
				if err == nil {
					_, err = f.WriteString("2 :4.x\n3 :5.x\n4 :6.x\n")
					f.Close()
				}
				return err
			}
			return nil
		})
		got := look()
		setFault(r, nil)
		if got > want+1 { // cur/ has changed, too
			t.Errorf("%d directories were read, and %d where nothing came between", got, want)
		}
		wantDump(t, r.Snapshot(), "1; 2; 3; 4; 5; 6")
		for uid, key := range map[imap.UID]string{2: "4.x", 3: "5.x", 4: "6.x"} {
			if msg := r.Snapshot().Find(uid); msg.Key() != key {
				t.Errorf("UID %d is %s, not %s", uid, msg.Key(), key)
			}
		}
	})
}
