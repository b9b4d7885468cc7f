package watch

import (
	"io/fs"
	"os"
	"sync"
	"time"
)

// A poller is the source that looks. Each directory has a timer of its own, so that a mount that hangs
// keeps only its own directories waiting.
type poller struct {
	interval time.Duration

	mu     sync.Mutex // guards the fields below and those of polled; not held while looking
	dirs   map[*polled]struct{}
	closed bool
	looks  sync.WaitGroup // looks that are under way; Add only with mu held and not closed
}

// A polled is one directory that is looked at.
type polled struct {
	p     *poller
	dir   string
	hint  func(Hint)
	timer *time.Timer

	// Only look uses these, which does not run twice at a time.
	seen  fs.FileInfo // nil if there was none
	again bool        // the next look gives a hint, whatever it sees
}

func newPoller(interval time.Duration) *poller {
	return &poller{interval: interval, dirs: make(map[*polled]struct{})}
}

// watch looks at dir at every interval; lost is not called, since there need not be a directory.
// The only error is fs.ErrClosed.
func (p *poller) watch(dir string, hint func(Hint), lost func()) (entry, error) {
	d := &polled{p: p, dir: dir, hint: hint, seen: stat(dir)}
	// What happens right after this look may leave the modification time as it is, if that is young.
	d.again = d.seen != nil && time.Since(d.seen.ModTime()).Abs() < time.Minute
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fs.ErrClosed
	}
	p.dirs[d] = struct{}{}
	d.timer = time.AfterFunc(p.interval, d.look)
	return d, nil
}

func (d *polled) stop() {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	d.timer.Stop()
	delete(d.p.dirs, d)
}

func (d *polled) settle() bool { return false }

// look gives a hint if the directory has changed since the last look, and another one at the next
// look: times of file systems are coarse, so what came right after this look may show the same time.
func (d *polled) look() {
	d.p.mu.Lock()
	_, ok := d.p.dirs[d]
	if ok {
		d.p.looks.Add(1)
		defer d.p.looks.Done()
	}
	d.p.mu.Unlock()
	if !ok {
		return
	}

	now := stat(d.dir)
	changed := !same(d.seen, now)
	if changed || d.again {
		d.hint(Hint{})
	}
	d.seen, d.again = now, changed

	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	if _, ok := d.p.dirs[d]; ok {
		d.timer.Reset(d.p.interval)
	}
}

func (p *poller) close() error {
	p.mu.Lock()
	p.closed = true
	for d := range p.dirs {
		d.timer.Stop()
	}
	clear(p.dirs)
	p.mu.Unlock()
	p.looks.Wait()
	return nil
}

// stat returns what is at path, nil if there is nothing to be seen.
func stat(path string) fs.FileInfo {
	fi, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return fi
}

// same reports whether a and b are the same directory in the same state.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime())
}
