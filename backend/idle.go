package backend

import (
	"context"

	"github.com/emersion/go-imap/v2/imapserver"
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
	defer sel.Listen()()
	changed := sel.Changed() // before the look: what comes after it is heard of
	tell := s.lookAndTell
	for {
		if err := s.idleTell(stop, func() error { return tell(w, true) }); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stop:
			return nil
		}
		changed = sel.Changed()
		tell = s.tell // the mailbox has looked
	}
}

// idleTell calls tell, unless IDLE has ended meanwhile.
func (s *Session) idleTell(stop <-chan struct{}, tell func() error) error {
	s.take(context.Background())
	defer s.give()
	select {
	case <-stop:
		return nil
	default:
		return tell()
	}
}
