package watch

import (
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"
)

// A queue has what run is to handle, in the order it came. When it is full it does as the kernel's does:
// it drops events, and says so behind the last that it kept.
type queue struct {
	closed atomic.Bool // set with mu held

	mu    sync.Mutex // guards the fields below; no other lock is taken with it held
	some  *sync.Cond // items are there, or closed
	items []notice
	limit int  // of items
	full  bool // events were dropped: the overflow among items stands for them
}

// A notice is one of the three.
type notice struct {
	event fsnotify.Event
	err   error
	gone  *watched // forgotten, and those who watched do not know
}

// queueLimit is 4 MB and the names.
const queueLimit = 1 << 16

func newQueue() *queue {
	q := &queue{limit: queueLimit}
	q.some = sync.NewCond(&q.mu)
	return q
}

// put does not wait for whoever handles what is in q.
func (q *queue) put(n notice) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n.gone == nil {
		if q.full {
			return
		}
		if len(q.items) >= q.limit {
			q.full = true
			n = notice{err: fsnotify.ErrEventOverflow}
		}
	}
	q.items = append(q.items, n)
	if len(q.items) == 1 {
		q.some.Signal()
	}
}

// all yields notices as they come, until close. One goroutine may use it.
func (q *queue) all(yield func(notice) bool) {
	for {
		for _, n := range q.take() {
			if q.closed.Load() || !yield(n) {
				return
			}
		}
		if q.closed.Load() {
			return
		}
	}
}

// take waits until there are notices, or close, and empties the queue.
func (q *queue) take() []notice {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed.Load() {
		q.some.Wait()
	}
	items := q.items
	q.items, q.full = nil, false
	return items
}

// close drops what is left.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed.Store(true)
	q.some.Signal()
}
