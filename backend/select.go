package backend

import (
	"context"
	"sync/atomic"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// selected is the mailbox that a session has selected.
type selected struct {
	*maildir.Ref
	readOnly bool
	view     *view
	saved    imap.UIDSet // the result that "$" stands for (RFC 5182)
	own      atomic.Bool // this session deleted it
	pieces   *piecewise  // nil: no message is got in pieces
}

// snapshot is the current state of the mailbox; of one that this session deleted, an empty one.
func (sel *selected) snapshot() *maildir.Snapshot {
	s := sel.Snapshot()
	if sel.own.Load() {
		empty := *s
		empty.Messages = nil
		empty.Number++
		return &empty
	}
	return s
}

// systemFlags are those that a Maildir can hold.
var systemFlags = []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft}

func mailboxFlags(keywords []imap.Flag) []imap.Flag {
	return append(systemFlags[:len(systemFlags):len(systemFlags)], keywords...)
}

// Select opens a mailbox (SELECT and EXAMINE).
func (s *Session) Select(name string, options *imap.SelectOptions) (data *imap.SelectData, err error) {
	command := "SELECT"
	if options.ReadOnly {
		command = "EXAMINE"
	}
	defer s.begin(command)(&err)
	s.unselect()
	sel := &selected{}
	gone := func(reason error) {
		if !sel.own.Load() {
			s.gone(reason)
		}
	}
	rules := s.policyFor(name)
	follow := rules.Rename != policy.RenameDisconnect // draft 3.3, 3.4
	stay := rules.Delete == policy.DeleteGhost        // draft 3.2
	ref, err := s.mailbox(name, maildir.RefOptions{Selected: true, ReadOnly: options.ReadOnly, Gone: gone, Follow: follow, Stay: stay})
	if err != nil {
		return nil, err
	}
	if _, err := ref.Sync(s.ctx); err != nil {
		ref.Close()
		return nil, err
	}
	recent := ref.Recent() // before the snapshot, which has all of them then
	snap := ref.Snapshot()
	v := newView(snap, recent)
	sel.Ref, sel.view, sel.readOnly = ref, v, ref.ReadOnly()
	s.sel = sel
	data = &imap.SelectData{
		Flags:          mailboxFlags(v.keywords),
		PermanentFlags: []imap.Flag{},
		NumMessages:    uint32(len(v.msgs)),
		NumRecent:      v.numRecent(),
		UIDNext:        snap.UIDNext,
		UIDValidity:    snap.UIDValidity,
	}
	if !sel.readOnly { // else wire answers READ-ONLY
		data.PermanentFlags = data.Flags
		if snap.HasKeywordRoom() {
			data.PermanentFlags = append(data.PermanentFlags[:len(data.Flags):len(data.Flags)], imap.FlagWildcard)
		}
	}
	for i, msg := range v.msgs {
		if msg.Flags&maildir.FlagSeen == 0 {
			data.FirstUnseenSeqNum = uint32(i + 1)
			break
		}
	}
	if s.conn.EnabledCaps().Has(imap.CapIMAP4rev2) { // RFC 9051 6.3.2
		data.List = &imap.ListData{Mailbox: ref.Name(), Delim: s.acct.Separator()}
	}
	return data, nil
}

// Unselect closes the mailbox and expunges nothing.
func (s *Session) Unselect() (err error) {
	defer s.begin("UNSELECT")(&err)
	s.unselect()
	return nil
}

func (s *Session) unselect() {
	if s.sel != nil {
		s.sel.closePieces()
		s.sel.Close()
		s.sel = nil
	}
}

// gone ends the session because its mailbox was deleted or replaced, by another session or another
// program.
func (s *Session) gone(reason error) {
	s.log.Info("mailbox gone", "reason", reason)
	s.bye(reason.Error())
}

// Poll tells what is untold, after a command and before its tagged response.
func (s *Session) Poll(w *imapserver.UpdateWriter, allowExpunge bool) (err error) {
	s.take(context.Background())
	defer s.give()
	return s.lookAndTell(w, allowExpunge)
}

// lookAndTell looks at the disk and tells what is untold.
func (s *Session) lookAndTell(w *imapserver.UpdateWriter, allowExpunge bool) error {
	s.look()
	return s.tell(w, allowExpunge)
}

// tell tells what is untold. An error is the connection's.
func (s *Session) tell(w *imapserver.UpdateWriter, allowExpunge bool) error {
	sel := s.sel
	if sel == nil {
		return nil
	}
	var recent []imap.UID
	snap := sel.snapshot()
	if snap.Number != sel.view.number {
		recent = sel.Recent() // before the snapshot, which has all of them then
		snap = sel.snapshot()
	}
	if err := sel.view.tell(w, snap, recent, allowExpunge); err != nil {
		return err
	}
	if sel.view.gone == 0 {
		sel.Told(snap.Number)
	}
	return nil
}

// look looks at the disk for what happened to the selected mailbox. What is wrong there the mailbox has
// logged, and the session goes on with what it knows.
func (s *Session) look() {
	if s.sel != nil {
		s.sel.Sync(s.ctx)
	}
}
