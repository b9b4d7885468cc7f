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
	var watched string
	var watches []*watch.Watch
	unwatch := func() {
		for _, x := range watches {
			x.Stop()
		}
		watches = nil
	}
	defer unwatch()
	for {
		changed := sel.Changed()                     // before the look: what comes after it is heard of
		if own, mail := sel.Dirs(); own != watched { // a RENAME gives them other paths
			unwatch()
			watched = own
			for _, dir := range mail {
				watches = append(watches, s.b.watcher.Watch(dir, hint))
			}
		}
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
