package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// An inotify is the source of events.
//
// inotify knows directories by their inode, fsnotify by the path that it first heard of. So they are
// counted by inode here, and everybody who watches one under whatever path shares its watch.
type inotify struct {
	fs       *fsnotify.Watcher
	limit    int // of directories; 0: none
	counts   *counts
	log      *slog.Logger
	queue    *queue
	done     chan struct{} // closed when run has ended
	sentinel *sentinel     // nil: none could be had

	mu     sync.Mutex // guards the fields below and those of watched; fsnotify is called with it held
	byID   map[fileID]*watched
	byPath map[string]*watched
}

// A fileID says which directory it is, whatever it is called.
type fileID struct{ dev, ino uint64 }

// A watched is a directory that fsnotify watches for us.
type watched struct {
	id   fileID
	path string      // for fsnotify
	subs []*listener // what it holds is not changed: run reads it without mu
}

// A listener is an entry: a call of watch.
type listener struct {
	in   *inotify
	d    *watched
	hint func(Hint)
	lost func()
}

func newInotify(limit int, log *slog.Logger, n *counts) (source, error) {
	// The buffer spares fsnotify and receive from waking each other for each event: a sixth of the time
	// (BenchmarkBacklog). Errors have none, and may be heard of before the events in it.
	fs, err := fsnotify.NewBufferedWatcher(64)
	if err != nil {
		return nil, err
	}
	in := &inotify{
		fs:     fs,
		limit:  limit,
		counts: n,
		log:    log,
		queue:  newQueue(),
		done:   make(chan struct{}),
		byID:   make(map[fileID]*watched),
		byPath: make(map[string]*watched),
	}
	in.sentinel, err = newSentinel(fs)
	go in.receive()
	go in.run()
	if err == nil && !in.sentinel.settle() {
		in.sentinel.fail()
		err = errors.New("no event of a change of mode")
	}
	if err != nil {
		log.Debug("it is not known when all events were told", "err", err)
	}
	return in, nil
}

func (in *inotify) watch(dir string, hint func(Hint), lost func()) (entry, error) {
	// A mount that hangs is one without events: it keeps its own callers waiting, and nobody for the lock.
	if _, err := identify(dir); err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	id, err := identify(dir)
	if err != nil {
		return nil, err
	}
	d := in.byID[id]
	if d == nil {
		path := filepath.Clean(dir)
		if old := in.byPath[path]; old != nil {
			// Another directory has taken the name, and the event that tells so is to come. fsnotify
			// would drop that one, as it knows one directory for a path.
			in.forgetLocked(old)
			in.queue.put(notice{gone: old})
		}
		if in.limit > 0 && len(in.byID) >= in.limit {
			return nil, fmt.Errorf("watch %s: %w: %d", path, errLimit, in.limit)
		}
		if err := in.fs.Add(path); err != nil {
			return nil, fmt.Errorf("watch %s: %w", path, err)
		}
		d = &watched{id: id, path: path}
		in.byID[id], in.byPath[path] = d, d
		if now, err := identify(path); err != nil || now != id {
			in.forgetLocked(d)
			return nil, fmt.Errorf("watch %s: replaced meanwhile: %w", path, unix.ENOENT)
		}
	}
	l := &listener{in, d, hint, lost}
	d.subs = append(d.subs, l)
	return l, nil
}

func (l *listener) stop() {
	in, d := l.in, l.d
	in.mu.Lock()
	defer in.mu.Unlock()
	var subs []*listener
	for _, other := range d.subs {
		if other != l {
			subs = append(subs, other)
		}
	}
	d.subs = subs
	if len(subs) == 0 && in.byID[d.id] == d {
		in.forgetLocked(d)
	}
}

// settle is true if the directory was watched all the time: check has told of events that were lost
// in a move away and back before the sentinel's event came.
func (l *listener) settle() bool {
	s := l.in.sentinel
	return s != nil && l.in.watches(l.d) && s.settle() && l.in.watches(l.d)
}

// watches reports whether d is still watched.
func (in *inotify) watches(d *watched) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.byID[d.id] == d
}

// forgetLocked ends the watch of d.
func (in *inotify) forgetLocked(d *watched) {
	delete(in.byID, d.id)
	delete(in.byPath, d.path)
	in.fs.Remove(d.path) // fails if the directory is gone: so is the watch then
}

// close must not be called by a hint.
func (in *inotify) close() error {
	err := in.fs.Close()
	<-in.done
	if in.sentinel != nil {
		in.sentinel.fail()
	}
	return err
}

// receive puts into the queue what fsnotify sends, until close. Nobody whom this waits for may call
// fsnotify: that sends some errors with its own lock held, as for a directory that was moved and is
// removed by now, and whoever calls it waits for that lock.
func (in *inotify) receive() {
	defer in.queue.close()
	for {
		select {
		case ev, ok := <-in.fs.Events:
			if !ok {
				return
			}
			in.queue.put(notice{event: ev})
		case err, ok := <-in.fs.Errors:
			if !ok {
				return
			}
			in.queue.put(notice{err: err})
		}
	}
}

// run calls the hints, until close.
func (in *inotify) run() {
	defer close(in.done)
	for n := range in.queue.all {
		switch {
		case n.err != nil:
			in.failed(n.err)
		case n.gone != nil:
			in.lose(n.gone)
		default:
			in.event(n.event)
		}
	}
}

// failed takes an error to mean that events may be missing; but for one, of a directory that was removed
// after it was moved, whose watch the kernel has taken away before fsnotify did. The event of its move follows.
func (in *inotify) failed(err error) {
	if errors.Is(err, unix.EINVAL) {
		return
	}
	if errors.Is(err, fsnotify.ErrEventOverflow) && in.counts.overflows.Add(1) == 1 {
		in.log.Warn("events came faster than they were read: all directories are looked at; fs.inotify.max_queued_events may be too small", "err", err)
	}
	in.mu.Lock()
	all := make([]*watched, 0, len(in.byID))
	for _, d := range in.byID {
		all = append(all, d)
	}
	in.mu.Unlock()
	for _, d := range all {
		in.check(d)
	}
	if in.sentinel != nil {
		in.sentinel.lost()
	}
}

// event hands an event to those who watch the directory that it happened in. An event whose name is a
// watched directory is about that one: it, or the one above it, tells so.
func (in *inotify) event(ev fsnotify.Event) {
	if in.sentinel != nil && in.sentinel.event(ev.Name) {
		return
	}
	slash := strings.LastIndexByte(ev.Name, '/')
	in.mu.Lock()
	d := in.byPath[ev.Name]
	above := in.byPath[ev.Name[:max(slash, 0)]]
	in.mu.Unlock()

	// A file's mode and times say nothing about mail.
	if above != nil && ev.Op != fsnotify.Chmod {
		in.give(above, Hint{Name: ev.Name[slash+1:]})
	}
	switch {
	case d == nil:
	case ev.Op == fsnotify.Chmod:
		in.give(d, Hint{})
	default:
		in.check(d)
	}
}

// check finds out whether d is still watched under its path, and makes it so. There is a hint if it
// is.
func (in *inotify) check(d *watched) {
	in.mu.Lock()
	if in.byID[d.id] != d {
		in.mu.Unlock()
		return
	}
	id, err := identify(d.path)
	if err == nil && id == d.id {
		err = in.fs.Add(d.path) // moved away and back: fsnotify has removed it
		if err == nil {
			id, err = identify(d.path) // fsnotify was given a path: it may have another directory
		}
	}
	if err != nil || id != d.id {
		in.forgetLocked(d)
		in.mu.Unlock()
		in.lose(d)
		return
	}
	in.mu.Unlock()
	in.give(d, Hint{})
}

// lose tells those who watch d that it is not watched any longer.
func (in *inotify) lose(d *watched) {
	in.counts.lost.Add(1)
	for _, l := range in.listeners(d) {
		l.lost()
	}
}

// give gives those who watch d a hint.
func (in *inotify) give(d *watched, h Hint) {
	for _, l := range in.listeners(d) {
		l.hint(h)
	}
}

func (in *inotify) listeners(d *watched) []*listener {
	in.mu.Lock()
	defer in.mu.Unlock()
	return d.subs
}

// identify says which directory dir is. It fails with errNoEvents if events would not tell all that
// happens there.
func identify(dir string) (fileID, error) {
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err != nil {
		return fileID{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	if remote[uint32(fsys.Type)] {
		return fileID{}, fmt.Errorf("%s: %w", dir, errNoEvents)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fileID{}, fmt.Errorf("stat %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fileID{}, fmt.Errorf("watch %s: %w", dir, unix.ENOTDIR)
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// remote has the file systems on which others make changes that the kernel here does not hear of, by
// the numbers of statfs(2); those without a name are from the sources of the file systems.
var remote = map[uint32]bool{
	unix.AFS_SUPER_MAGIC:   true,
	unix.AFS_FS_MAGIC:      true,
	unix.CEPH_SUPER_MAGIC:  true,
	unix.CIFS_SUPER_MAGIC:  true,
	unix.CODA_SUPER_MAGIC:  true,
	unix.FUSE_SUPER_MAGIC:  true,
	unix.NCP_SUPER_MAGIC:   true,
	unix.NFS_SUPER_MAGIC:   true,
	unix.OCFS2_SUPER_MAGIC: true,
	unix.SMB_SUPER_MAGIC:   true,
	unix.SMB2_SUPER_MAGIC:  true,
	unix.V9FS_MAGIC:        true,
	0x01161970:             true, // GFS2
	0x0BD00BD0:             true, // Lustre
	0x19830326:             true, // BeeGFS
	0x47504653:             true, // GPFS
}
