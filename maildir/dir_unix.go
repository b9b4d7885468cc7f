//go:build unix

package maildir

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// A dir is an open directory. Names are relative to it and may have one directory in front
// ("cur/x"); the directory is the one that was opened, whatever it is called now, so that nothing
// is ever made in a place that took over its name.
//
// It is the only way by which this package changes what is on disk: a test that sets fault sees
// every change before it happens, with the paths it is about, and may let it fail.
//
// A dir may be used by several goroutines.
type dir struct {
	f       *os.File
	fault   func(op string, paths ...string) error // nil outside tests
	noGroup func(path string, err error)           // is told of what could not get its folder's group; may be nil
	tally   *tally                                 // immutable; nil: not the directory of an open mailbox
}

// A file is open for writing. Its changes are seen by the dir's fault, too.
type file struct {
	*os.File
	d    *dir
	name string // when it was opened
}

func (f *file) Write(b []byte) (int, error) {
	if err := f.d.before("write", f.name); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *file) ReadFrom(r io.Reader) (int64, error) {
	if err := f.d.before("write", f.name); err != nil {
		return 0, err
	}
	return f.File.ReadFrom(r)
}

func (f *file) Truncate(size int64) error {
	if err := f.d.before("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// touch sets the modification time to now. It may be called beside Close.
func (f *file) touch() error {
	if err := f.d.before("touch", f.name); err != nil {
		return err
	}
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) {
		now := unix.NsecToTimeval(time.Now().UnixNano())
		err = unix.Futimes(int(fd), []unix.Timeval{now, now})
	})
	return cmp.Or(cerr, err)
}

// Sync makes the content durable.
func (f *file) Sync() error {
	if err := f.d.before("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

// A fileID tells a file or a directory from every other one that exists now.
type fileID struct{ dev, ino uint64 }

// A fileStat is the part of stat(2) that this package asks for.
type fileStat struct {
	id    fileID
	mode  fs.FileMode // permissions and type
	gid   int
	nlink uint64
	size  int64
	mtime unix.Timespec
	ctime unix.Timespec
}

func openDir(root *os.Root, name string) (*dir, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &dir{f: f}, nil
}

func (d *dir) close() error { return d.f.Close() }

// before reports the error that a test wants an operation to fail with.
func (d *dir) before(op, name string, more ...string) error {
	if d.fault == nil {
		return nil
	}
	return d.wrap(op, name, d.fault(op, append([]string{d.path(name)}, more...)...))
}

// path is for messages and tests: the directory may have another name by now.
func (d *dir) path(name string) string { return path.Join(d.f.Name(), name) }

func (d *dir) wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: d.path(name), Err: err}
}

// retry calls f again for as long as a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// open opens a file for reading. It never follows a symlink in the last place and never waits for
// the other end of a FIFO.
func (d *dir) open(name string) (*os.File, error) {
	return d.openat(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// create makes a file that does not exist yet, for writing.
func (d *dir) create(name string, a access) (*file, error) {
	return d.createAs(name, a.mode&0o666|0o600, a.gid)
}

// replace makes a file anew, for writing. The caller holds the lock that guards the name.
func (d *dir) replace(name string, a access) (*file, error) {
	f, err := d.create(name, a)
	if errors.Is(err, fs.ErrExist) { // left behind, perhaps by another user, whose mode can't be changed
		if err := d.remove(name); err != nil {
			return nil, err
		}
		f, err = d.create(name, a)
	}
	return f, err
}

// createAs makes a file with exactly the given permissions, whatever the umask.
func (d *dir) createAs(name string, perm fs.FileMode, gid int) (*file, error) {
	if err := d.before("create", name); err != nil {
		return nil, err
	}
	f, err := d.openat(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	st, err := statFile(f)
	if err == nil && gid >= 0 && st.gid != gid {
		perm, err = d.chgrp(name, perm, retry(func() error { return unix.Fchown(int(f.Fd()), -1, gid) }))
	}
	if err == nil && st.mode.Perm() != perm {
		err = f.Chmod(perm)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{File: f, d: d, name: name}, nil
}

// chgrp is given how it went to give a group to what was made, and returns the mode that this may have. Only
// root and members may give a group away: for another group than the folder's there is no more than for
// everybody.
func (d *dir) chgrp(name string, perm fs.FileMode, err error) (fs.FileMode, error) {
	if err != unix.EPERM {
		return perm, d.wrap("chown", name, err)
	}
	if d.noGroup != nil {
		d.noGroup(d.path(name), err)
	}
	return perm&^0o070 | perm&0o007<<3, nil
}

// appendTo opens an existing file for appending.
func (d *dir) appendTo(name string) (*file, error) {
	f, err := d.openat(name, unix.O_RDWR|unix.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	return &file{File: f, d: d, name: name}, nil
}

func (d *dir) openat(name string, flags int, perm fs.FileMode) (*os.File, error) {
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(int(d.f.Fd()), name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, uint32(perm.Perm()))
		return err
	})
	if err != nil {
		return nil, d.wrap("open", name, err)
	}
	return os.NewFile(uintptr(fd), d.path(name)), nil
}

// rename renames a file, over an existing one.
func (d *dir) rename(from, to string) error { return d.renameTo(from, d, to) }

// renameTo renames a file into another directory of the same file system.
func (d *dir) renameTo(from string, other *dir, to string) error {
	if err := d.before("rename", from, other.path(to)); err != nil {
		return err
	}
	left, came := d.weighRename(from, other, to)
	err := retry(func() error {
		return unix.Renameat(int(d.f.Fd()), from, int(other.f.Fd()), to)
	})
	if err == nil {
		left.add(-1)
		came.add(1)
	}
	return d.wrap("rename", from, err)
}

// renameFresh renames a file to a name that is free; where it isn't, it fails with fs.ErrExist and
// nothing is lost. The caller holds the lock that keeps others from taking the name meanwhile.
func (d *dir) renameFresh(from string, other *dir, to string) error {
	if _, err := other.stat(to); err == nil {
		return other.wrap("rename", to, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.renameTo(from, other, to)
}

// exchange gives each of two files the name of the other, at one moment; not every file system can.
func (d *dir) exchange(a, b string) error {
	if err := d.before("exchange", a, d.path(b)); err != nil {
		return err
	}
	err := retry(func() error { return exchangeAt(int(d.f.Fd()), a, b) })
	return d.wrap("exchange", a, err)
}

// cannotExchange reports whether exchange failed since there is no such thing.
func cannotExchange(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

// linkTo makes a hard link in another directory; it fails where the name is taken.
func (d *dir) linkTo(from string, other *dir, to string) error {
	if err := d.before("link", from, other.path(to)); err != nil {
		return err
	}
	came := other.weigh(to, d, from)
	err := retry(func() error {
		return unix.Linkat(int(d.f.Fd()), from, int(other.f.Fd()), to, 0)
	})
	if err == nil {
		came.add(1)
	}
	return other.wrap("link", to, err)
}

// remove unlinks a file.
func (d *dir) remove(name string) error {
	if err := d.before("remove", name); err != nil {
		return err
	}
	left := d.weigh(name, d, name)
	err := retry(func() error { return unix.Unlinkat(int(d.f.Fd()), name, 0) })
	if err == nil {
		left.add(-1)
	}
	return d.wrap("remove", name, err)
}

// rmdir removes a directory that is empty.
func (d *dir) rmdir(name string) error {
	if err := d.before("rmdir", name); err != nil {
		return err
	}
	err := retry(func() error { return unix.Unlinkat(int(d.f.Fd()), name, unix.AT_REMOVEDIR) })
	return d.wrap("rmdir", name, err)
}

// mkdir makes a directory.
func (d *dir) mkdir(name string, a access) error {
	if err := d.before("mkdir", name); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Mkdirat(int(d.f.Fd()), name, uint32(a.mode.Perm()|0o700)) }); err != nil {
		return d.wrap("mkdir", name, err)
	}
	return d.giveAccess(name, a)
}

// giveAccess gives a directory that was just made its mode and group; "." is the directory itself.
func (d *dir) giveAccess(name string, a access) error {
	perm := a.mode.Perm() | 0o700
	st, err := d.stat(name)
	if err != nil {
		return err
	}
	if a.gid >= 0 && st.gid != a.gid {
		err := retry(func() error { return unix.Fchownat(int(d.f.Fd()), name, -1, a.gid, unix.AT_SYMLINK_NOFOLLOW) })
		if perm, err = d.chgrp(name, perm, err); err != nil {
			return err
		}
	}
	mode := perm | a.mode&fs.ModeSetgid | st.mode&fs.ModeSetgid
	if st.mode&(fs.ModePerm|fs.ModeSetgid) == mode { // to set it once more would take setgid away from who is not in the group
		return nil
	}
	bits := uint32(mode.Perm())
	if mode&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	return d.wrap("chmod", name, retry(func() error { return unix.Fchmodat(int(d.f.Fd()), name, bits, 0) }))
}

// stat looks at a file without following a symlink; "" and "." are the directory itself.
func (d *dir) stat(name string) (fileStat, error) {
	var st unix.Stat_t
	err := retry(func() error {
		if name == "" || name == "." {
			return unix.Fstat(int(d.f.Fd()), &st)
		}
		return unix.Fstatat(int(d.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return fileStat{}, d.wrap("stat", name, err)
	}
	return newFileStat(&st), nil
}

// mayChange reports whether this process may make, rename and remove files in a directory.
func (d *dir) mayChange(name string) bool {
	err := retry(func() error { return unix.Faccessat(int(d.f.Fd()), name, unix.W_OK|unix.X_OK, unix.AT_EACCESS) })
	return err == nil || err == unix.EINVAL || err == unix.ENOSYS // who can't tell finds out when he tries
}

// readOne reads an entry of a directory, whichever comes first.
func (d *dir) readOne(name string) error {
	f, err := d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err != nil && err != io.EOF {
		return err
	}
	return nil
}

// identify says which file is at a path.
func identify(path string) (fileID, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(path, &st) }); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return newFileStat(&st).id, nil
}

// statFile looks at an open file.
func statFile(f *os.File) (fileStat, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return fileStat{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return newFileStat(&st), nil
}

func newFileStat(st *unix.Stat_t) fileStat {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	default:
		mode |= fs.ModeIrregular
	}
	if st.Mode&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	return fileStat{
		id:    fileID{uint64(st.Dev), uint64(st.Ino)},
		mode:  mode,
		gid:   int(st.Gid),
		nlink: uint64(st.Nlink),
		size:  st.Size,
		mtime: st.Mtim,
		ctime: st.Ctim,
	}
}

// writeFile makes or replaces a file as a whole: it is written under a temporary name, made
// durable and renamed into place, and the name is made durable: what it tells (a UID, the name of a
// keyword's letter, a number that was handed out) is used at once, and must not be told to anybody and
// then lost. The caller holds the lock that guards both names.
func (d *dir) writeFile(name, tmp string, content []byte, a access) error {
	f, err := d.replace(tmp, a)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.rename(tmp, name)
	}
	if err != nil {
		d.remove(tmp)
		return err
	}
	return d.fsync(path.Dir(name))
}

// setTimes sets a file's modification time, which is a message's internal date.
func (d *dir) setTimes(name string, mtime unix.Timespec) error {
	if err := d.before("utimes", name); err != nil {
		return err
	}
	ts := []unix.Timespec{mtime, mtime}
	err := retry(func() error { return unix.UtimesNanoAt(int(d.f.Fd()), name, ts, unix.AT_SYMLINK_NOFOLLOW) })
	return d.wrap("utimes", name, err)
}

// fsync makes the entries of a directory durable; "" and "." are the directory itself.
func (d *dir) fsync(name string) error {
	if err := d.before("fsync", name); err != nil {
		return err
	}
	f := d.f
	if name != "" && name != "." {
		var err error
		if f, err = d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
			return err
		}
		defer f.Close()
	}
	return f.Sync()
}

// An access is the mode and the group of what is made in a folder: the folder's own, whatever the umask and the
// groups of the process, so that all who use the folder can use it. Nothing is without the permissions of
// its owner (Dovecot mailbox-list.c, mailbox_list_get_permissions).
type access struct {
	mode fs.FileMode // the folder's, with its setgid bit
	gid  int         // -1: any, since the group may do what everybody may
}

// access is that of what is made in a folder.
func (st fileStat) access() access {
	a := access{st.mode & (fs.ModePerm | fs.ModeSetgid), st.gid}
	if a.mode>>3&7 == a.mode&7 {
		a.gid = -1
	}
	return a
}
