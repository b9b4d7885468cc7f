package backend

import (
	"context"
	"sync"

	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/watch"
)

// A guard watches the directory of a selected mailbox, so that its session hears at once that another
// program moved or removed it, whatever the session does or doesn't do (draft 3.3).
type guard struct {
	watcher *watch.Watcher
	ref     *maildir.Ref

	mu      sync.Mutex // guards what follows; held while it is looked at the disk
	watched string
	unwatch func()
	ended   bool
}

func newGuard(w *watch.Watcher, ref *maildir.Ref) *guard {
	g := &guard{watcher: w, ref: ref, unwatch: func() {}}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watch()
	return g
}

// watch watches the directory under the name that it has by now. The caller holds mu.
func (g *guard) watch() {
	own, _ := g.ref.Dirs()
	if own == g.watched {
		return
	}
	g.unwatch()
	g.watched = own
	g.unwatch = g.watcher.Watch(own, func(h watch.Hint) {
		if h.Name == "" { // the directory itself; locks and lists come and go in it
			go g.look()
		}
	}).Stop
}

// look lets the mailbox find out what became of it, which tells its sessions.
func (g *guard) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.ref.Sync(context.Background()) // an error shows at the next command
	g.watch()
}

func (g *guard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.unwatch()
}
