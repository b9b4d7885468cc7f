package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// A tree is a directory with all that is below it, by paths from it ("." is the directory itself). It is
// the one that was opened, whatever it is called now, and no symlink leads out of it. Its methods may be called
// by several goroutines.
type tree struct {
	where string              // immutable; its path, for logs and watches
	real  string              // immutable; the same without symlinks, as it was opened
	fsys  *os.Root            // immutable
	root  *dir                // immutable
	id    fileID              // immutable; of the root
	log   func() *slog.Logger // immutable

	mu     sync.Mutex
	warned map[string]struct{} // what was complained about
}

// openTree opens a directory that exists.
func openTree(where string, log func() *slog.Logger) (*tree, error) {
	where, err := filepath.Abs(where)
	if err != nil {
		return nil, err
	}
	t := &tree{where: where, log: log, warned: map[string]struct{}{}}
	if t.fsys, err = os.OpenRoot(where); err != nil {
		return nil, err
	}
	if t.root, err = openDir(t.fsys, "."); err != nil {
		t.fsys.Close()
		return nil, err
	}
	t.root.noGroup = t.noGroup
	st, err := t.root.stat("")
	if err != nil {
		t.close()
		return nil, err
	}
	t.id = st.id
	if t.real, err = filepath.EvalSymlinks(where); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// makeTree opens a directory. One that does not exist is made for its owner alone, with those above it.
func makeTree(where string, log func() *slog.Logger) (t *tree, fresh bool, err error) {
	if where, err = filepath.Abs(where); err != nil {
		return nil, false, err
	}
	if fresh, err = makeRoot(where); err != nil {
		return nil, false, err
	}
	t, err = openTree(where, log)
	return t, fresh, err
}

// makeRoot makes a directory and those above it where they are missing, and their entries durable: mail
// is acknowledged in them. fresh is whether it was missing.
func makeRoot(where string) (fresh bool, err error) {
	made := where
	for {
		if _, err := os.Stat(made); !notExist(err) {
			break
		}
		fresh = true
		made = filepath.Dir(made)
	}
	if err := os.MkdirAll(where, 0o700); err != nil {
		return false, err
	}
	for p := where; p != made; {
		p = filepath.Dir(p)
		f, err := os.Open(p)
		if err != nil {
			return false, err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return false, err
		}
	}
	return fresh, nil
}

func (t *tree) close() error { return errors.Join(t.root.close(), t.fsys.Close()) }

// stands reports whether the tree is still what its path leads to.
func (t *tree) stands() bool {
	id, err := identify(t.where)
	return err == nil && id == t.id
}

// replaced reports whether its path leads to another directory. One that was only moved away may come back.
func (t *tree) replaced() bool {
	id, err := identify(t.where)
	return err == nil && id != t.id
}

// holds tells where another tree is in this one.
func (t *tree) holds(other *tree) (rel string, ok bool) {
	return strings.CutPrefix(other.real, t.real+"/")
}

// join is the path of what is in the tree, for watches.
func (t *tree) join(rel string) string { return filepath.Join(t.where, rel) }

// access is that of what is made in the tree.
func (t *tree) access() (access, error) {
	st, err := t.root.stat("")
	return st.access(), err
}

// isDir reports whether an entry is a directory, or a symlink to one in the tree.
func (t *tree) isDir(rel string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	fi, err := t.fsys.Stat(rel)
	return err == nil && fi.IsDir()
}

// readDir lists a directory.
func (t *tree) readDir(rel string) ([]fs.DirEntry, error) { return fs.ReadDir(t.fsys.FS(), rel) }

// openDir opens a directory. Where a symlink on the way leads out or in a circle, the error is ErrBadPlace.
func (t *tree) openDir(rel string) (*dir, error) {
	d, err := openDir(t.fsys, rel)
	if err == nil {
		d.fault, d.noGroup = t.root.fault, t.noGroup
		return d, nil
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok && !errors.Is(err, syscall.ELOOP) {
		return nil, err
	}
	return nil, t.badPlace(rel, err) // os.Root's own refusal has no name
}

// parent opens the directory that the last name of a path is in.
func (t *tree) parent(rel string) (d *dir, name string, err error) {
	d, err = t.openDir(path.Dir(rel))
	if errors.Is(err, syscall.ENOTDIR) {
		err = t.badPlace(path.Dir(rel), err)
	}
	return d, path.Base(rel), err
}

// stat looks at a path without following a symlink in the last place.
func (t *tree) stat(rel string) (fileStat, error) {
	d, name, err := t.parent(rel)
	if err != nil {
		return fileStat{}, err
	}
	defer d.close()
	return d.stat(name)
}

// statDir looks at a directory, also where there is a symlink to one.
func (t *tree) statDir(rel string) (fileStat, error) {
	st, err := t.root.stat(rel)
	if err != nil || st.mode&fs.ModeSymlink == 0 {
		return st, err
	}
	d, err := t.openDir(rel)
	if err != nil {
		return fileStat{}, err
	}
	defer d.close()
	return d.stat("")
}

// badPlace tells once why no mailbox can be at a path.
func (t *tree) badPlace(rel string, reason error) error {
	if t.first("path " + rel) {
		t.log().Warn(ErrBadPlace.Error(), "path", rel, "err", reason)
	}
	return fmt.Errorf("%w: %s: %w", ErrBadPlace, rel, reason)
}

// noGroup tells once that something has not the group of its folder.
func (t *tree) noGroup(path string, err error) {
	if t.first("group") {
		t.log().Warn("files don't get the group of their folder, whose members can't use them: the server is not in that group",
			"path", path, "err", err)
	}
}

// first reports whether something is to be complained of that was not before.
func (t *tree) first(what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, told := t.warned[what]; told || len(t.warned) > 1000 {
		return false
	}
	t.warned[what] = struct{}{}
	return true
}

// makeParts makes cur, new and tmp of the directory at rel where they are missing, and them durable. Never
// through a symlink.
func (t *tree) makeParts(d *dir, rel string, acc access) error {
	made := false
	for _, part := range []string{"cur", "new", "tmp"} {
		st, err := d.stat(part)
		switch {
		case notExist(err):
			if err := d.mkdir(part, acc); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			made = true
		case err != nil:
			return err
		case !st.mode.IsDir():
			return t.badPlace(path.Join(rel, part), errors.New("not a directory"))
		}
	}
	if made {
		return d.fsync("")
	}
	return nil
}

// makeParents makes the directories above one.
func (t *tree) makeParents(rel string, acc access) error {
	if rel = path.Dir(rel); rel == "." {
		return nil
	}
	return t.makeDir(rel, acc)
}

// makeDir makes a directory and those above it, where they are missing.
func (t *tree) makeDir(rel string, acc access) error {
	if err := t.makeParents(rel, acc); err != nil {
		return err
	}
	d, name, err := t.parent(rel)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.mkdir(name, acc); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// rename gives a directory another path. No symlink on the way leads out.
func (t *tree) rename(from, to string) error {
	source, name, err := t.parent(from)
	if err != nil {
		return err
	}
	defer source.close()
	dest, newName, err := t.parent(to)
	if err != nil {
		return err
	}
	defer dest.close()
	return source.renameTo(name, dest, newName)
}

// removeLink removes what is at a path if it is a symlink.
func (t *tree) removeLink(rel string) (removed bool, err error) {
	d, name, err := t.parent(rel)
	if err != nil {
		return false, err
	}
	defer d.close()
	if st, err := d.stat(name); err != nil || st.mode&fs.ModeSymlink == 0 {
		return false, err
	}
	if err := d.remove(name); err != nil {
		return false, err
	}
	return true, d.fsync("")
}

// removeAll removes what is at a path and below it.
func (t *tree) removeAll(rel string) error {
	if err := t.root.before("removeall", rel); err != nil {
		return err
	}
	return t.fsys.RemoveAll(rel)
}

// fsync makes the entries of a directory durable.
func (t *tree) fsync(rel string) error {
	d, err := t.openDir(rel)
	if err != nil {
		return err
	}
	defer d.close()
	return d.fsync("")
}

// fsyncAbove makes the entries of directories durable, and those of the directories above them, so that a
// message that is acknowledged later is not lost with one of them.
func (t *tree) fsyncAbove(rels ...string) error {
	done := map[string]bool{}
	for _, rel := range rels {
		for rel != "." {
			rel = path.Dir(rel)
			if done[rel] {
				continue
			}
			done[rel] = true
			if err := t.fsync(rel); err != nil {
				return err
			}
		}
	}
	return nil
}
