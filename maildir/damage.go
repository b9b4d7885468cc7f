package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile is how large a file of Dovecot's may be: a dovecot-uidlist of 12 million messages.
const maxFile = 1 << 30

// openFile opens a file of Dovecot's for reading. The error is a *FormatError where something else is in its
// place, which can be kept under another name.
func (d *dir) openFile(name string) (*os.File, error) {
	f, err := d.open(name)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		if st, serr := d.stat(name); serr == nil {
			err = &FormatError{name, 0, "is " + kind(st.mode)}
		}
	}
	if err != nil {
		return nil, err
	}
	st, err := statFile(f)
	switch {
	case err != nil:
	case !st.mode.IsRegular():
		err = &FormatError{name, 0, "is " + kind(st.mode)}
	case st.size > maxFile:
		err = &FormatError{name, 0, fmt.Sprintf("has %d bytes; the most is %d", st.size, maxFile)}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// keepBroken keeps what is under a name under another one too, and returns that: the caller, who holds the lock, is about
// to replace it. What can't be replaced, since it is no file, is only there then. Nothing is lost if that
// fails, nor if the caller does, and what he tries again is kept once.
func (d *dir) keepBroken(name string) (kept string, err error) {
	st, err := d.stat(name)
	if err != nil {
		return "", err
	}
	if st.nlink > 1 {
		if kept, err := d.keptBroken(name, st.id); kept != "" || err != nil {
			return kept, err
		}
	}
	at := name + brokenSuffix + time.Now().UTC().Format("20060102T150405")
	for n := 1; ; n++ {
		kept = at
		if n > 1 {
			kept = fmt.Sprintf("%s-%d", at, n)
		}
		if st.mode.IsRegular() {
			err = d.linkTo(name, d, kept)
			if cannotLink(err) {
				err = d.copyTo(name, kept, st)
			}
		} else {
			err = d.renameFresh(name, d, kept)
		}
		if !errors.Is(err, fs.ErrExist) {
			return kept, err
		}
	}
}

// brokenSuffix is before the time at which a file was kept.
const brokenSuffix = ".broken-"

// keptBroken finds the name under which a file is kept already.
func (d *dir) keptBroken(name string, id fileID) (kept string, err error) {
	err = eachName(d, ".", func(other string) {
		if strings.HasPrefix(other, name+brokenSuffix) {
			if st, err := d.stat(other); err == nil && st.id == id {
				kept = other
			}
		}
	})
	return kept, err
}

// copyTo copies a file, where there are no links.
func (d *dir) copyTo(name, to string, st fileStat) error {
	f, err := d.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := d.createAs(to, st.mode.Perm(), st.gid)
	if err != nil {
		return err
	}
	_, err = w.ReadFrom(io.Reader(f))
	if err == nil {
		err = w.Sync()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		d.remove(to)
	}
	return err
}

// mend is before a file is written anew without what is wrong with it: it logs what that is, keeps the file
// as it was, and logs where. It runs under the lock.
func mend(log *slog.Logger, d *dir, name string, problems []*FormatError) error {
	logProblems(log, problems)
	kept, err := d.keepBroken(name)
	if err == nil {
		log.Warn("mended", "file", name, "before", kept)
	}
	return err
}

func logProblems(log *slog.Logger, problems []*FormatError) {
	for i, p := range problems {
		if i == 10 {
			log.Warn("more of the same", "file", p.File, "problems", len(problems))
			break
		}
		log.Warn("damage", "err", p)
	}
}
