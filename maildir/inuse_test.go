package maildir

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// ghosts are the names in tmp/.
func ghosts(t *testing.T, root string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Each account stands for a process: they share nothing but the disk.
func TestProcesses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes know of each other only on Linux")
	}
	ctx := context.Background()
	const n = 5
	root := fill(t, n)
	one, two, three := openAccount(t, root), openAccount(t, root), openAccount(t, root)
	defer one.Close()
	defer two.Close()
	defer three.Close()

	a := selectAll(t, one, n)
	b, c := selectAll(t, two, n), selectAll(t, three, n)
	others, err := a.others()
	want := []int64{b.use.id, c.use.id}
	slices.Sort(others)
	slices.Sort(want)
	if err != nil || !slices.Equal(others, want) {
		t.Fatalf("the others are %x (%v), want %x", others, err, want)
	}

	msgs := a.Snapshot().Messages
	if err := a.Expunge(ctx, []imap.UID{2, 4}, 0, true); err != nil {
		t.Fatal(err)
	}
	a.Told(a.Snapshot().Number)
	if got := ghosts(t, root); len(got) != 4 {
		t.Fatalf("kept for the others: %q", got)
	}
	for _, r := range []*Ref{b, c} {
		if s := resync(t, r); len(s.Messages) != n-2 {
			t.Fatalf("%d messages", len(s.Messages))
		}
		f, err := r.Content(ctx, msgs[1])
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	b.Told(b.Snapshot().Number)
	if _, err := b.Content(ctx, msgs[1]); err != ErrExpunged {
		t.Errorf("who was told can read it: %v", err)
	}
	f, err := c.Content(ctx, msgs[1])
	if err != nil {
		t.Fatalf("who was not told can't read it: %v", err)
	}
	f.Close()
	c.Close()
	if got := ghosts(t, root); len(got) != 0 {
		t.Errorf("left: %q", got)
	}

	// A process that ended without a word counts no more, and what was kept for it goes.
	b.use.f.Close()
	if used, err := a.InUse(); used || err != nil {
		t.Errorf("in use: %t, %v", used, err)
	}
	left := filepath.Join(root, ghostName("1", b.use.id))
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(root, ghostName("2", a.use.id))
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := selectAll(t, three, n-2)
	if got := ghosts(t, root); len(got) != 1 || got[0] != filepath.Base(other) {
		t.Errorf("what is kept for the living and the dead is now %q", got)
	}
	os.Remove(other)
	d.Close()
	b.use.f = nil
	b.Close()
	a.Close()
}

// What another process kept for sessions that leave without having looked again goes with them.
func TestLeaveWithoutLooking(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes know of each other only on Linux")
	}
	root := fill(t, 2)
	one, two := openAccount(t, root), openAccount(t, root)
	defer one.Close()
	defer two.Close()
	a, b := selectAll(t, one, 2), selectAll(t, two, 2)
	defer a.Close()
	if err := a.Expunge(context.Background(), []imap.UID{1}, 0, true); err != nil {
		t.Fatal(err)
	}
	a.Told(a.Snapshot().Number)
	if got := ghosts(t, root); len(got) != 1 {
		t.Fatalf("kept: %q", got)
	}
	b.Close()
	if got := ghosts(t, root); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// RENAME of INBOX keeps its messages for the sessions of other processes, too.
func TestRenameINBOXProcesses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes know of each other only on Linux")
	}
	ctx := context.Background()
	root := fill(t, 2)
	one, two := openAccount(t, root), openAccount(t, root)
	defer one.Close()
	defer two.Close()
	r := selectAll(t, two, 2)
	defer r.Close()
	msgs := r.Snapshot().Messages
	if err := one.Rename(ctx, "INBOX", "Old"); err != nil {
		t.Fatal(err)
	}
	f, err := r.Content(ctx, msgs[0])
	if err != nil {
		t.Fatalf("who was not told can't read it: %v", err)
	}
	f.Close()
}

// Where a file can't be linked, EXPUNGE and MOVE do without links; EXPUNGE keeps the message for this
// process at least.
func TestExpungeWithoutLinks(t *testing.T) {
	ctx := context.Background()
	root := fill(t, 3)
	a := openAccount(t, root)
	defer a.Close()
	if err := a.Create(ctx, "Other", nil); err != nil {
		t.Fatal(err)
	}
	r := selectAll(t, a, 3)
	defer r.Close()
	other, err := a.Mailbox("Other", RefOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r.d.fault = func(op string, _ ...string) error {
		if op == "link" {
			return syscall.EPERM
		}
		return nil
	}
	defer func() { r.d.fault = nil }()
	s := r.Snapshot()
	if err := r.Expunge(ctx, []imap.UID{1}, 0, true); err != nil {
		t.Fatal(err)
	}
	f, err := r.Content(ctx, s.Messages[0])
	if err != nil {
		t.Fatalf("it isn't kept: %v", err)
	}
	f.Close()
	if c, err := r.MoveTo(ctx, other.Mailbox, s, s.Messages[1:2], true); err != nil || len(c.Dest) != 1 {
		t.Errorf("moved %d messages: %v", len(c.Dest), err)
	}
	if left := resync(t, r); len(left.Messages) != 1 {
		t.Errorf("%d messages are left", len(left.Messages))
	}
}

// EXPUNGE leaves a message alone that is not \Deleted any more when its turn comes.
func TestExpungeOnlyDeleted(t *testing.T) {
	ctx := context.Background()
	root := fill(t, 3)
	a := openAccount(t, root)
	defer a.Close()
	r := selectAll(t, a, 3)
	defer r.Close()
	if _, err := r.Store(ctx, []imap.UID{1, 2, 3}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagDeleted}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Store(ctx, []imap.UID{1}, imap.StoreFlagsDel, []imap.Flag{imap.FlagDeleted}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, r.Snapshot().Find(2).path())
	if err := os.Rename(path, path[:len(path)-1]); err != nil { // another program takes the T away
		t.Fatal(err)
	}
	if err := r.Expunge(ctx, []imap.UID{1, 2, 3}, FlagDeleted, false); err != nil {
		t.Fatal(err)
	}
	if s := resync(t, r); len(s.Messages) != 2 || s.Find(1) == nil || s.Find(2) == nil {
		t.Errorf("%d messages are left", len(s.Messages))
	}
}
