package backend

import (
	"context"

	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/watch"
)

// Idle tells what is untold as it happens, until stop is closed (RFC 2177).
func (s *Session) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) (err error) {
	if !s.idling.TryRLock() {
		return nil // the connection was lost, and the session is being closed
	}
	defer s.idling.RUnlock()
	end := s.begin("IDLE")
	sel := s.sel
	end(&err)
	if sel == nil {
		<-stop
		return nil
	}
	hints := make(chan struct{}, 1)
	hint := func(watch.Hint) {
		select {
		case hints <- struct{}{}:
		default: // one is enough: it makes us look at everything
		}
	}
	watched := dirs{watcher: s.b.watcher, hint: hint}
	defer watched.stop()
	for {
		changed := sel.Changed() // before the look: what comes after it is heard of
		watched.are(sel.Dirs())
		if err := s.idleTell(w, stop); err != nil {
			return err
		}
		select {
		case <-hints:
		case <-changed:
		case <-stop:
			return nil
		}
	}
}

// idleTell is tell, unless IDLE has ended meanwhile.
func (s *Session) idleTell(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	s.take(context.Background())
	defer s.give()
	select {
	case <-stop:
		return nil
	default:
		return s.tell(w, true)
	}
}

// dirs are the directories that a session watches.
type dirs struct {
	watcher *watch.Watcher
	hint    func(watch.Hint)
	own     string
	stops   []func()
}

// are makes them others, if they are others by now: after a RENAME they have other paths.
func (d *dirs) are(own string, mail []string) {
	if own == d.own {
		return
	}
	d.stop()
	d.own = own
	d.stops = append(d.stops, d.watcher.Watch(own, func(h watch.Hint) {
		if h.Name == "" { // the directory itself; locks and lists come and go in it
			d.hint(h)
		}
	}))
	for _, path := range mail {
		d.stops = append(d.stops, d.watcher.Watch(path, d.hint))
	}
}

func (d *dirs) stop() {
	for _, stop := range d.stops {
		stop()
	}
	d.stops = nil
}
