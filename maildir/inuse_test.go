package maildir

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
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
