package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// A mailbox that nobody uses any more is opened again without reading it; what changed meanwhile
// is seen, and nothing is kept of what was expunged.
func TestKept(t *testing.T) {
	const n = 20
	ctx := context.Background()
	root := fill(t, n)
	a := openAccount(t, root)
	defer a.Close()
	selectAll(t, a, n).Close()
	if got := a.OpenMailboxes(); got != 0 {
		t.Errorf("%d mailboxes are in use, want 0", got)
	}
	before := a.Scans()
	r := selectAll(t, a, n)
	if got := a.Scans() - before; got != 0 {
		t.Errorf("opening it again reads %d directories", got)
	}

	// The last one who leaves takes the ghosts with it.
	if err := r.Expunge(ctx, []imap.UID{3}, 0, true); err != nil {
		t.Fatal(err)
	}
	msgs, err := os.ReadDir(filepath.Join(root, "tmp"))
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d ghosts, %v", len(msgs), err)
	}
	r.Close()
	if msgs, _ := os.ReadDir(filepath.Join(root, "tmp")); len(msgs) != 0 {
		t.Errorf("%d ghosts are left", len(msgs))
	}

	// Mail that came while nobody looked is \Recent for the first who selects the mailbox.
	if err := os.WriteFile(filepath.Join(root, "new", "1.late"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, err := a.Mailbox("INBOX", RefOptions{})
	if err != nil {
		t.Fatal(err)
	}
	resync(t, status)
	status.Close()
	r = selectAll(t, a, n)
	defer r.Close()
	if got := r.Recent(); len(got) != 1 || got[0] != n+1 {
		t.Errorf("recent %v, want [%d]", got, n+1)
	}
}

// A kept mailbox is told from another one that took its name, and followed to its new name.
func TestKeptUnderAnotherName(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		dirOf := func(name string) string { return filepath.Join(a.Root(), a.opts.path(name)) }
		for i, name := range []string{"one", "two"} {
			if err := a.Create(ctx, name, nil); err != nil {
				t.Fatal(err)
			}
			r := open(t, a, name, RefOptions{})
			for range i + 1 {
				appendMail(t, r, "Subject: "+name+"\r\n\r\n")
			}
			r.Close()
		}
		for _, m := range [][2]string{{"one", "three"}, {"two", "one"}} {
			if err := os.Rename(dirOf(m[0]), dirOf(m[1])); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]int{"three": 1, "one": 2} {
			r := open(t, a, name, RefOptions{})
			if got := len(r.Snapshot().Messages); got != want || r.Name() != name {
				t.Errorf("%s has %d messages and is called %s, want %d", name, got, r.Name(), want)
			}
		}
		if _, err := a.Mailbox("two", RefOptions{}); !errors.Is(err, ErrNoMailbox) {
			t.Errorf("opening what was renamed: %v", err)
		}
		if err := os.RemoveAll(dirOf("one")); err != nil {
			t.Fatal(err)
		}
		if err := a.Create(ctx, "one", nil); err != nil {
			t.Fatal(err)
		}
		wantDump(t, open(t, a, "one", RefOptions{}).Snapshot(), "")
	})
}

// What is kept stays under its limits, and the mailbox that was left longest ago goes first.
func TestKeptLimits(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		o    Options
		want string // the names that are kept at the end, the oldest first
	}{
		{Options{}, "[b0 b1 b2 b3]"},
		{Options{KeepMailboxes: 2}, "[b2 b3]"},
		{Options{KeepMessages: 5}, "[b3]"},
		{Options{KeepMessages: 7}, "[b2 b3]"},
		{Options{KeepMessages: 3}, "[b2]"},
		{Options{KeepMailboxes: -1}, "[]"},
	} {
		root := filepath.Join(t.TempDir(), "Maildir")
		a, err := Open(root, &c.o)
		if err != nil {
			t.Fatal(err)
		}
		var dirs []*dir
		for i := range 4 { // b0 has one message, b3 has four
			name := fmt.Sprintf("b%d", i)
			if err := a.Create(ctx, name, nil); err != nil {
				t.Fatal(err)
			}
			r, err := a.Mailbox(name, RefOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for range i + 1 {
				appendMail(t, r, "x")
			}
			dirs = append(dirs, r.d)
			r.Close()
		}
		names := []string{}
		for _, m := range a.kept {
			names = append(names, m.Name())
		}
		if got := fmt.Sprint(names); got != c.want {
			t.Errorf("%+v keeps %s, want %s", c.o, got, c.want)
		}
		opened := 0
		for _, d := range dirs {
			if _, err := d.f.Stat(); err == nil {
				opened++
			}
		}
		if opened != len(a.kept) || len(a.known) != len(a.kept) {
			t.Errorf("%+v: %d directories are open for %d mailboxes that are kept, %d are known", c.o, opened, len(a.kept), len(a.known))
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			if _, err := d.f.Stat(); err == nil {
				t.Errorf("%+v: Close leaves a directory open", c.o)
			}
		}
	}
}

// Sessions that come and go at once, under limits that drop what they leave.
func TestKeptAtOnce(t *testing.T) {
	ctx := context.Background()
	root := fill(t, 5)
	a, err := Open(root, &Options{KeepMailboxes: -1})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for range 4 {
		go func() {
			var err error
			for i := 0; i < 50 && err == nil; i++ {
				var r *Ref
				if r, err = a.Mailbox("INBOX", RefOptions{Selected: true}); err != nil {
					break
				}
				var s *Snapshot
				if s, err = r.Sync(ctx); err == nil && len(s.Messages) != 5 {
					err = fmt.Errorf("%d messages", len(s.Messages))
				}
				if i%10 == 0 && err == nil {
					_, err = r.Store(ctx, []imap.UID{1}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagSeen})
				}
				r.Close()
			}
			done <- err
		}()
	}
	deadline := time.After(time.Minute)
	for range 4 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-deadline:
			t.Fatal("they wait for each other")
		}
	}
	if a.OpenMailboxes() != 0 || len(a.known) != 0 {
		t.Errorf("%d in use, %d known", a.OpenMailboxes(), len(a.known))
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// When very many messages are expunged nothing is looked for one by one, which would take half a minute
// here, with every session of the mailbox waiting.
func TestManyGhosts(t *testing.T) {
	const n = 100_000
	root := fill(t, 0)
	a := openAccount(t, root)
	defer a.Close()
	r := selectAll(t, a, 0)
	defer r.Close()
	gone := &reading{prev: &Snapshot{UIDNext: n + 1}, list: &uidlist{}}
	for i := range n {
		msg := &Message{UID: imap.UID(i + 1), name: fmt.Sprintf("1795424725.M%dP14033.mail", i)}
		gone.prev.Messages = append(gone.prev.Messages, msg)
	}
	gone.lost = gone.prev.Messages

	if gone.dropped() {
		t.Error("records of what is gone are missed")
	}
	told := r.Snapshot().Number
	for i, msg := range gone.lost {
		r.keep(msg)
		if i == n/2 { // the others are not told yet
			r.publish(&Snapshot{Number: told + 1})
		}
	}
	r.publish(&Snapshot{Number: told + 2})
	for _, msg := range gone.lost {
		if _, ok := r.ghostOf(msg.UID); !ok {
			t.Fatalf("UID %d isn't kept", msg.UID)
		}
	}
	r.Told(told + 1)
	if _, ok := r.ghostOf(1); ok {
		t.Error("UID 1 is kept although all were told")
	}
	if _, ok := r.ghostOf(n); !ok {
		t.Error("the last one isn't kept any more")
	}
}
