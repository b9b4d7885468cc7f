package backend

import (
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/imapmaildir/imapmaildir/maildir"
)

const (
	// warnAfter is how long a command waits for another program's lock before the client is told, and
	// warnEvery how often it is told then. Who is not there any more is found out by that.
	warnAfter = 3 * time.Second
	warnEvery = 5 * time.Second
	// seenWait is how long FETCH waits for a lock that it wants only to set \Seen.
	seenWait = 2 * time.Second
)

// waits tells the client why its command takes so long (RFC 9051 7.1.2). An error ends the wait.
//
// go-imap has no way to say something during a command. What a session does while it waits for a lock
// is between two responses, so a whole line may be written.
func (s *Session) waits(w maildir.LockWait) error {
	if w.Waited < s.warned {
		s.warned = 0 // it is another wait
	}
	if w.Waited < warnAfter || s.warned > 0 && w.Waited < s.warned+warnEvery {
		return nil
	}
	s.warned = w.Waited
	_, err := fmt.Fprintf(s.conn.NetConn(), "* NO [%s] Mailbox is locked by %s: waiting, at most %d seconds more\r\n",
		imap.ResponseCodeInUse, w.Holder, int((w.Limit - w.Waited).Seconds()))
	return err
}
