package maildir

import (
	"context"
	"errors"
	"os"
	"testing"
)

// Who gives up waiting for the locks of two mailboxes waits for neither of them any more: others don't take them for
// stuck.
func TestHoldBothGivesUp(t *testing.T) {
	a := reopened(t, t.TempDir(), nil)
	must(t, a.Create(context.Background(), "Other", nil))
	inbox, other := open(t, a, "INBOX", RefOptions{}), open(t, a, "Other", RefOptions{})
	lock := inbox.control.path(listLock)
	must(t, os.WriteFile(lock, []byte("1:elsewhere"), 0o600))
	defer os.Remove(lock)
	inbox.disk.Lock()
	defer inbox.disk.Unlock()
	other.disk.Lock()
	defer other.disk.Unlock()
	ctx := WithLockWait(context.Background(), LockWait.GiveUp)
	err := holdBoth(ctx, inbox.Mailbox, other.Mailbox, func() error { return nil })
	if !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	for _, r := range []*Ref{inbox, other} {
		if r.disk.wait != nil {
			t.Errorf("%s is waited for: %+v", r.Name(), *r.disk.wait)
		}
	}
}

// MOVE waits for the lock of where it goes, to name a keyword there: sessions of where it comes from go on, too.
func TestMoveWaits(t *testing.T) {
	a := reopened(t, t.TempDir(), nil)
	must(t, a.Create(context.Background(), "Other", nil))
	inbox, other := open(t, a, "INBOX", RefOptions{}), open(t, a, "Other", RefOptions{})
	appendMail(t, inbox, "Subject: 1\r\n\r\n", "keyword")
	lock := other.control.path(listLock)
	must(t, os.WriteFile(lock, []byte("1:elsewhere"), 0o600))
	defer os.Remove(lock)
	waits := func(r *Ref) bool {
		r.disk.mu.Lock()
		defer r.disk.mu.Unlock()
		return r.disk.wait != nil
	}
	told := false
	ctx := WithLockWait(context.Background(), func(w LockWait) error {
		told = true
		if !waits(inbox) || !waits(other) {
			t.Errorf("INBOX tells of the wait: %v, Other: %v", waits(inbox), waits(other))
		}
		return w.GiveUp()
	})
	_, err := inbox.MoveTo(ctx, other.Mailbox, inbox.Snapshot(), inbox.Snapshot().Messages, false)
	if !errors.Is(err, ErrLocked) || !told {
		t.Error(err, told)
	}
	if waits(inbox) || waits(other) {
		t.Errorf("INBOX tells of a wait that is over: %v, Other: %v", waits(inbox), waits(other))
	}
}
