package maildir

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// Another program takes \Deleted away between Expunge's own look and the lock: the message stays.
func TestExpungeLooksUnderTheLock(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		r := open(t, a, "INBOX", RefOptions{Selected: true})
		appendMail(t, r, "Subject: 1\r\n\r\n", imap.FlagDeleted)
		appendMail(t, r, "Subject: 2\r\n\r\n", imap.FlagDeleted)
		var late error
		setFault(r, func(op string, paths ...string) error {
			if op == "create" && filepath.Base(paths[0]) == listLock {
				msg := r.Snapshot().Find(2)
				late = os.Rename(filepath.Join(a.Root(), msg.path()), filepath.Join(a.Root(), "cur", withFlags(msg.name, FlagSeen)))
			}
			return nil
		})
		err := r.Expunge(ctx, []imap.UID{1, 2}, FlagDeleted, false)
		setFault(r, nil)
		if err != nil || late != nil {
			t.Fatal(err, late)
		}
		wantDump(t, resync(t, r), `2 \Seen`)
	})
}

// setFault sees the changes of a mailbox, between two looks at it.
func setFault(r *Ref, f func(op string, paths ...string) error) {
	r.disk.Lock()
	defer r.disk.Unlock()
	r.d.fault = f
	r.control.fault = f
}
