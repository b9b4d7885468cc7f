package maildir

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
)

// apart makes two mailboxes of an account behave as if they were on different file systems, and notes
// what is done while a lock is held.
type apart struct {
	locks     int      // that are held
	underLock []string // what was done then
}

func (p *apart) fault(op string, paths ...string) error {
	lock := path.Base(paths[0]) == listLock
	switch {
	case lock && op == "create":
		p.locks++
	case lock && op == "remove":
		p.locks--
	case !lock && p.locks > 0:
		p.underLock = append(p.underLock, op+" "+path.Join(path.Base(path.Dir(paths[0])), path.Base(paths[0])))
	}
	mailbox := func(file string) string { return path.Dir(path.Dir(file)) }
	if (op == "rename" || op == "link") && isMaildirPart(path.Base(path.Dir(paths[0]))) && mailbox(paths[0]) != mailbox(paths[1]) {
		return unix.EXDEV
	}
	return nil
}

// Where a file can't be linked into the other mailbox, its bytes are copied, before any lock is taken.
func TestOtherFileSystem(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		if err := a.Create(ctx, "other", nil); err != nil {
			t.Fatal(err)
		}
		inbox, other := open(t, a, "INBOX", RefOptions{Selected: true}), open(t, a, "other", RefOptions{})
		date := time.Unix(1e9, 0)
		for _, text := range []string{"Subject: 1\r\n\r\n", "Subject: 2\r\n\r\n", "Subject: 3\r\n\r\n"} {
			if _, _, err := inbox.Append(ctx, strings.NewReader(text), []imap.Flag{"Work"}, date); err != nil {
				t.Fatal(err)
			}
		}
		var p apart
		for _, r := range []*Ref{inbox, other} {
			setFault(r, p.fault)
		}
		msgs := inbox.Snapshot().Messages
		c, err := inbox.CopyTo(ctx, other.Mailbox, msgs[:2])
		if err != nil || !slices.Equal(c.Dest, []imap.UID{1, 2}) {
			t.Fatalf("copy: %+v, %v", c, err)
		}
		c, err = inbox.MoveTo(ctx, other.Mailbox, inbox.Snapshot(), msgs[1:], true)
		if err != nil || !slices.Equal(c.Source, []imap.UID{2, 3}) || !slices.Equal(c.Dest, []imap.UID{3, 4}) {
			t.Fatalf("move: %+v, %v", c, err)
		}
		for _, r := range []*Ref{inbox, other} {
			setFault(r, nil)
		}
		wantDump(t, resync(t, inbox), "1 Work")
		wantDump(t, resync(t, other), "1 Work; 2 Work; 3 Work; 4 Work")
		for uid, want := range map[imap.UID]string{1: "1", 2: "2", 3: "2", 4: "3"} {
			if got := read(t, other, uid); got != "Subject: "+want+"\r\n\r\n" {
				t.Errorf("message %d reads %q", uid, got)
			}
			if got, err := other.Date(ctx, other.Snapshot().Find(uid)); err != nil || !got.Equal(date) {
				t.Errorf("message %d is of %v (%v)", uid, got, err)
			}
		}
		if got := readMessage(t, inbox, msgs[2]); got != "Subject: 3\r\n\r\n" {
			t.Errorf("who was not told reads %q", got)
		}
		for _, what := range p.underLock {
			op, file, _ := strings.Cut(what, " ")
			if (op == "write" || op == "sync") && path.Dir(file) == "tmp" {
				t.Errorf("%s while a lock is held", what)
			}
		}
		for _, name := range []string{"INBOX", "other"} {
			left, err := os.ReadDir(filepath.Join(a.Root(), a.opts.path(name), "tmp"))
			for _, e := range left {
				if !strings.HasSuffix(e.Name(), ghostSuffix) {
					t.Errorf("%s is left in tmp of %s", e.Name(), name)
				}
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// A MOVE whose second half fails leaves the message where it was, and only there.
func TestOtherFileSystemFails(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		if err := a.Create(ctx, "other", nil); err != nil {
			t.Fatal(err)
		}
		inbox, other := open(t, a, "INBOX", RefOptions{Selected: true}), open(t, a, "other", RefOptions{})
		appendMail(t, inbox, "Subject: 1\r\n\r\n")
		var p apart
		fault := func(op string, paths ...string) error {
			if dir := path.Dir(paths[0]); op == "remove" && dir == filepath.Join(a.Root(), "cur") {
				return unix.EIO
			}
			return p.fault(op, paths...)
		}
		setFault(inbox, fault)
		setFault(other, fault)
		_, err := inbox.MoveTo(ctx, other.Mailbox, inbox.Snapshot(), inbox.Snapshot().Messages, true)
		setFault(inbox, nil)
		setFault(other, nil)
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("move: %v", err)
		}
		wantDump(t, resync(t, inbox), "1")
		wantDump(t, resync(t, other), "")
	})
}

// A flag that was set after the one who moves had looked goes with the message.
func TestMoveTakesFlagsAlong(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		if err := a.Create(ctx, "other", nil); err != nil {
			t.Fatal(err)
		}
		inbox, other := open(t, a, "INBOX", RefOptions{Selected: true}), open(t, a, "other", RefOptions{})
		appendMail(t, inbox, "Subject: 1\r\n\r\n")
		seen := inbox.Snapshot()
		if _, err := inbox.Store(ctx, []imap.UID{1}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagFlagged, "Work"}); err != nil {
			t.Fatal(err)
		}
		if _, err := inbox.MoveTo(ctx, other.Mailbox, seen, seen.Messages, false); err != nil {
			t.Fatal(err)
		}
		wantDump(t, resync(t, other), `1 \Flagged Work`)
		if seen.Messages[0].Flags != 0 {
			t.Error("the caller's messages were changed")
		}
	})
}

// COPY finds a message that another program has just renamed, and copies none where one is gone.
func TestCopyLooksAgain(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		if err := a.Create(ctx, "other", nil); err != nil {
			t.Fatal(err)
		}
		inbox, other := open(t, a, "INBOX", RefOptions{Selected: true}), open(t, a, "other", RefOptions{})
		appendMail(t, inbox, "Subject: 1\r\n\r\n")
		appendMail(t, inbox, "Subject: 2\r\n\r\n")
		msgs := inbox.Snapshot().Messages
		file := func(i int) string { return filepath.Join(a.Root(), msgs[i].path()) }
		if err := os.Rename(file(0), filepath.Join(a.Root(), "cur", withFlags(msgs[0].name, FlagSeen))); err != nil {
			t.Fatal(err)
		}
		if _, err := inbox.CopyTo(ctx, other.Mailbox, msgs); err != nil {
			t.Fatal(err)
		}
		if n := len(resync(t, other).Messages); n != 2 {
			t.Fatalf("%d messages are copied, want 2", n)
		}
		if err := os.Remove(file(1)); err != nil {
			t.Fatal(err)
		}
		if _, err := inbox.CopyTo(ctx, other.Mailbox, msgs); !errors.Is(err, ErrExpunged) {
			t.Errorf("copy of what is gone: %v", err)
		}
		if n := len(resync(t, other).Messages); n != 2 {
			t.Errorf("%d messages, want the 2 from before", n)
		}
	})
}
