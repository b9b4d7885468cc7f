package maildir

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Another program may lock the file as a whole, or a part of it: it counts as a holder, and hides only
// those whose bytes it has.
func TestForeignUseLock(t *testing.T) {
	root := fill(t, 1)
	one, two := openAccount(t, root), openAccount(t, root)
	defer one.Close()
	defer two.Close()
	a, b := selectAll(t, one, 1), selectAll(t, two, 1)
	defer a.Close()
	defer b.Close()
	for _, l := range []unix.Flock_t{
		{Start: 0},
		{Start: b.use.id + 1},
		{Start: 0, Len: b.use.id},
		{Start: b.use.id + 1, Len: 10},
	} {
		f, err := os.Open(filepath.Join(root, useLock))
		if err != nil {
			t.Fatal(err)
		}
		l.Type, l.Whence = unix.F_RDLCK, io.SeekStart
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
			t.Fatal(err)
		}
		others, err := a.others()
		hides := l.Start+l.Len == 0 // it has all bytes
		if err != nil || !slices.Contains(others, l.Start) || !hides && !slices.Contains(others, b.use.id) {
			t.Errorf("under a lock of %d bytes from %d, the others are %x (%v)", l.Len, l.Start, others, err)
		}
		f.Close()
	}
}
