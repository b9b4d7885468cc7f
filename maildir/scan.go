package maildir

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A found is a file that a scan met. Its name is cut from what eachEntry read.
type found struct {
	name  string
	inNew bool
	file  fileTag
}

func (f found) sameName(g found) bool { return f.name == g.name && f.inNew == g.inNew }

func (f found) path() string { return (&Message{name: f.name, InNew: f.inNew}).path() }

// A fileTag is enough of an inode to tell a file from another one that takes its place, which shares its
// tag once in 16 million times. Zero: not known.
type fileTag [3]byte

func tagOf(ino uint64) fileTag { return fileTag{byte(ino >> 16), byte(ino >> 8), byte(ino)} }

// A scanState says when a directory was read and what it looked like then.
type scanState struct {
	new, cur unix.Timespec // when they were changed last (st_ctime, which nobody can set), just before they were read
	at       time.Time     // when that was
}

// coarse is how long a directory may go on changing without another time: kernels
// stamp files with the time of the last tick, 10 ms apart at most.
const coarse = 20 * time.Millisecond

// statDirs looks at new/ and cur/.
func (m *Mailbox) statDirs() (scanState, error) {
	st := scanState{at: time.Now()}
	for sub, t := range map[string]*unix.Timespec{"new": &st.new, "cur": &st.cur} {
		fi, err := m.d.stat(sub)
		if err != nil {
			return st, err
		}
		*t = fi.ctime
	}
	return st, nil
}

// sameTimes reports whether the directories have the times they had then.
func (s scanState) sameTimes(then scanState) bool { return s.new == then.new && s.cur == then.cur }

// racy reports whether a directory was changed so shortly before it was read that a change after
// the reading may have left the same time.
func (s scanState) racy() bool {
	for _, t := range []unix.Timespec{s.new, s.cur} {
		d := s.at.Sub(time.Unix(t.Unix()))
		window := coarse
		if t.Nsec == 0 {
			window = 2 * time.Second // a file system that counts seconds
		}
		if -window <= d && d <= window {
			return true
		}
	}
	return false
}

// scan reads new/, then cur/, as far as r asks for them. What it meets replaces what r knows, so a
// second scan completes a first one: one reading alone may miss a file
// that another program renames meanwhile (docs/coexistence.md). new/ comes first, since mail moves
// from there to cur/.
func (m *Mailbox) scan(r *reading) error {
	r.reopen()
	if r.readNew {
		if err := m.scanDir("new", r); err != nil {
			return err
		}
	}
	if r.readCur {
		start := time.Now()
		if err := m.scanDir("cur", r); err != nil {
			return err
		}
		m.scanTook = time.Since(start)
	}
	return nil
}

func (m *Mailbox) scanDir(sub string, r *reading) error {
	f, err := m.d.openat(sub, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m.acct.scans.Add(1)
	return eachEntry(f, func(name string, regular bool, ino uint64) {
		if m.isMessage(sub, name, regular) {
			r.meet(found{name, sub == "new", tagOf(ino)})
		}
	})
}

// isMessage reports whether a file is a message, and tells once of one that looks like it and is none.
func (m *Mailbox) isMessage(sub, name string, regular bool) bool {
	switch {
	case !listedName(name):
		if strings.ContainsAny(name, "\r\n") {
			m.warn("a line break in a file name: not a message", sub, name)
		}
	case !regular:
		m.warn("not a regular file: not a message", sub, name)
	default:
		return true
	}
	return false
}

// warn tells once about a file that is no message.
func (m *Mailbox) warn(what, sub, name string) {
	key := sub + "/" + name // a copy: see eachEntry
	if _, told := m.warned[key]; told || len(m.warned) > 1000 {
		return
	}
	m.warned[key] = struct{}{}
	m.acct.log().Warn(what, "mailbox", m.Name(), "file", key)
}

// notExist reports whether a file is not there, which is news and not an error.
func notExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrNotExist)
}
