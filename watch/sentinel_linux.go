package watch

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// A sentinel finds out when all events that there are so far have been handled. An inotify instance
// has one queue, and so have we (type queue), so its own event, made by a change of a file that nobody
// else knows of, comes out when all earlier ones have.
//
// That it is its own event must be certain: one of an earlier round says nothing. So rounds follow each
// other, never two at a time, and take turns with two files. An event is taken for the round at hand
// if it is about that round's file, and a round on one file ends with an event that was made after all
// those of the other: these have come out by then, or were lost, and the next round begins with none of
// its file's in the queue. This holds because a round goes on until its event comes, however long those
// who wait for it do.
//
// It does come. When its queue is full the kernel drops events, and says so behind the last that it
// kept; it drops none after that was read without saying so again. Nor do we with ours. So whoever hears of an overflow
// changes the file once more. One round may then have several events, of which the first ends it,
// and the others come before that of the next round. fsnotify has another channel for overflows, so one
// may be heard of before the events ahead of it, never after those behind it.
type sentinel struct {
	files [2]*os.File // in memory
	names [2]string   // of events

	mu     sync.Mutex // guards the fields below and those of rounds
	failed bool       // there are no rounds any more
	turn   int        // index of the file of the round at hand
	now    *round     // at hand; nil: none
	next   *round     // of those who came during that one: its event may have come out before they did; nil: nobody has
}

// A round is one use of the sentinel, by all who wait for it.
type round struct {
	over chan struct{} // closed at the end
	lost bool          // events were lost meanwhile, or the sentinel failed
}

// settleLimit is how long a caller of settle waits at most. Tests change it.
var settleLimit = 2 * time.Second

// memoryFile returns a new file that is nowhere. Tests change it.
var memoryFile = func() (*os.File, error) {
	fd, err := unix.MemfdCreate("watch", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), "memfd"), nil
}

func newSentinel(fs *fsnotify.Watcher) (*sentinel, error) {
	s := &sentinel{}
	for i := range s.files {
		f, err := memoryFile()
		if err != nil {
			s.fail()
			return nil, err
		}
		s.files[i] = f
		s.names[i] = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		if err := fs.Add(s.names[i]); err != nil {
			s.fail()
			return nil, fmt.Errorf("watch %s: %w", s.names[i], err)
		}
	}
	return s, nil
}

// settle waits until all events of changes made before the call have been handled. It reports whether
// that is so and none was lost.
func (s *sentinel) settle() bool {
	s.mu.Lock()
	if s.failed {
		s.mu.Unlock()
		return false
	}
	if s.next == nil {
		s.next = &round{over: make(chan struct{})}
	}
	r := s.next
	if s.now == nil {
		s.beginLocked()
	}
	s.mu.Unlock()

	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
	select {
	case <-r.over:
		return !r.lost
	case <-limit.C:
		return false
	}
}

func (s *sentinel) beginLocked() {
	s.now, s.next = s.next, nil
	s.turn = 1 - s.turn
	s.touchLocked()
}

// touchLocked makes an event. Writing would not: the kernel tells nothing of writes to such files.
func (s *sentinel) touchLocked() {
	if err := s.files[s.turn].Chmod(0o600); err != nil {
		s.failLocked()
	}
}

// event ends the round if name is what it waits for. It reports whether name is the sentinel's.
func (s *sentinel) event(name string) bool {
	if name != s.names[0] && name != s.names[1] {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil && name == s.names[s.turn] {
		close(s.now.over)
		s.now = nil
		if s.next != nil {
			s.beginLocked()
		}
	}
	return true
}

// lost tells those who wait that events were lost, maybe the sentinel's own.
func (s *sentinel) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		s.next.lost = true
	}
	if s.now != nil {
		s.now.lost = true
		s.touchLocked()
	}
}

// fail ends the use of the sentinel.
func (s *sentinel) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked()
}

func (s *sentinel) failLocked() {
	s.failed = true
	for _, r := range []*round{s.now, s.next} {
		if r != nil {
			r.lost = true
			close(r.over)
		}
	}
	s.now, s.next = nil, nil
	for _, f := range s.files {
		if f != nil {
			f.Close()
		}
	}
}
