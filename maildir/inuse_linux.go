package maildir

import (
	"io"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Locks of open file descriptions (fcntl(2), F_OFD_SETLK): they belong to the open file and not to the
// process, so that a file that is opened twice is two holders, and closing the one leaves the other's.

// lockByte takes a shared lock on one byte, until f is closed.
func lockByte(f *os.File, at int64) error {
	l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: at, Len: 1}
	return retry(func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l) })
}

// lockedBytes are the bytes that others have locked.
func lockedBytes(f *os.File) ([]int64, error) {
	found, err := lockedBetween(f, 0, math.MaxInt64)
	slices.Sort(found)
	return slices.Compact(found), err
}

// lockedBetween are those from one byte to before another. The kernel tells of one lock at a time, of
// no particular one. One of more than one byte is another program's (a backup's, or a flock over NFS):
// its start counts, since it may hide others.
func lockedBetween(f *os.File, from, to int64) ([]int64, error) {
	if from >= to {
		return nil, nil
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: from, Len: to - from}
	if err := retry(func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) }); err != nil {
		return nil, err
	}
	if l.Type == unix.F_UNLCK {
		return nil, nil
	}
	end := to // of the lock; Len 0 reaches to the end of all files
	if l.Len > 0 {
		end = l.Start + l.Len
	}
	found, err := lockedBetween(f, from, l.Start)
	if err != nil {
		return nil, err
	}
	after, err := lockedBetween(f, end, to)
	return append(append(found, l.Start), after...), err
}
