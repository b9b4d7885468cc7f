package backend

import (
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// Copy copies messages to a mailbox, which may be the selected one.
func (s *Session) Copy(set imap.NumSet, dest string) (data *imap.CopyData, err error) {
	defer s.begin("COPY")(&err)
	sel, err := s.named(policy.Copy, set)
	if err != nil {
		return nil, err
	}
	to, err := s.mailbox(dest, maildir.RefOptions{})
	if err != nil {
		return nil, tryCreate(err)
	}
	defer to.Close()
	if len(sel.entries) == 0 {
		return nil, nil
	}
	c, err := s.sel.CopyTo(s.ctx, to.Mailbox, sel.messages())
	if err != nil {
		return nil, copyError(to, err)
	}
	return copyData(c), nil
}

// Move moves messages to a mailbox, which may be the selected one. Poll tells the client that they
// are gone here (RFC 6851).
func (s *Session) Move(w *imapserver.MoveWriter, set imap.NumSet, dest string) (err error) {
	defer s.begin("MOVE")(&err)
	if err := s.mayExpunge(); err != nil {
		return err
	}
	sel, err := s.named(policy.Move, set)
	if err != nil {
		return err
	}
	to, err := s.mailbox(dest, maildir.RefOptions{})
	if err != nil {
		return tryCreate(err)
	}
	defer to.Close()
	if len(sel.entries) == 0 {
		return nil
	}
	c, err := s.sel.MoveTo(s.ctx, to.Mailbox, sel.snap, sel.messages(), s.keepGhosts())
	if err != nil {
		return copyError(to, err)
	}
	if len(c.Dest) > 0 {
		if err := w.WriteCopyData(copyData(c)); err != nil {
			return err
		}
	}
	return sel.done(len(c.Dest) < len(sel.entries))
}

// copyError is the answer to a COPY or MOVE that failed half way. The mailbox that is gone may be the selected one,
// which it would be no use to create.
func copyError(to *maildir.Ref, err error) error {
	if to.Err() == nil {
		return answer(err)
	}
	return tryCreate(err)
}

func copyData(c maildir.Copied) *imap.CopyData {
	return &imap.CopyData{
		UIDValidity: c.UIDValidity,
		SourceUIDs:  imap.UIDSetNum(c.Source...),
		DestUIDs:    imap.UIDSetNum(c.Dest...),
	}
}
