package backend

import (
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// Store changes flags.
func (s *Session) Store(w *imapserver.FetchWriter, set imap.NumSet, flags *imap.StoreFlags, _ *imap.StoreOptions) (err error) {
	defer s.begin("STORE")(&err)
	if s.sel.readOnly {
		return errReadOnly
	}
	command := policy.Store
	if flags.Silent {
		command = policy.StoreSilent
	}
	sel, err := s.named(command, set)
	if err != nil {
		return err
	}
	if len(sel.entries) == 0 {
		return sel.done(false)
	}
	uids := make([]imap.UID, len(sel.entries))
	for i, e := range sel.entries {
		uids[i] = e.msg.UID
	}
	stored, err := s.sel.Store(s.ctx, uids, flags.Op, flags.Flags)
	if err != nil {
		return err
	}
	lost := len(stored) < len(uids) && !flags.Silent
	v, snap := s.sel.view, s.sel.snapshot()
	change := snap.FlagsNamed(flags.Flags)
	for _, msg := range stored {
		i, _ := v.index(msg.UID)
		switch {
		case !v.knows(snap, msg):
			// Poll tells of the new keyword first, then of the message.
		case !flags.Silent:
			if err := s.writeFlags(w, i, snap, msg); err != nil {
				return err
			}
		case msg.Flags == apply(flags.Op, v.msgs[i].Flags, change):
			v.set(i, msg) // as the client expects it, so it need not be told
		}
	}
	return sel.done(lost)
}

// writeFlags tells of message i as it is now.
func (s *Session) writeFlags(w *imapserver.FetchWriter, i int, snap *maildir.Snapshot, msg *maildir.Message) error {
	r := w.CreateMessage(uint32(i + 1))
	r.WriteUID(msg.UID)
	r.WriteFlags(s.sel.view.flags(snap, msg))
	s.sel.view.set(i, msg)
	return r.Close()
}

// apply is what a STORE makes of flags.
func apply(op imap.StoreFlagsOp, flags, change maildir.Flags) maildir.Flags {
	switch op {
	case imap.StoreFlagsAdd:
		return flags | change
	case imap.StoreFlagsDel:
		return flags &^ change
	}
	return change
}
