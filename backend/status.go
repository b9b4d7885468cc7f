package backend

import (
	"errors"

	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// Status counts what is in a mailbox.
func (s *Session) Status(name string, options *imap.StatusOptions) (data *imap.StatusData, err error) {
	defer s.begin("STATUS")(&err)
	return s.status(name, options)
}

func (s *Session) status(name string, options *imap.StatusOptions) (*imap.StatusData, error) {
	ref, err := s.acct.Mailbox(name, maildir.RefOptions{})
	if errors.Is(err, maildir.ErrNoMailbox) {
		s.look()
		if s.sel == nil || !s.sel.Deleted() || s.sel.Name() != name {
			return nil, s.missing(name)
		}
		ref, err = s.sel.Again(maildir.RefOptions{}), nil // draft 3.2
	}
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	snap, err := ref.Sync(s.ctx)
	if err != nil && !(errors.Is(err, maildir.ErrGone) && ref.Deleted()) {
		return nil, err
	}
	data := &imap.StatusData{
		Mailbox:     name,
		UIDNext:     snap.UIDNext,
		UIDValidity: snap.UIDValidity,
		AppendLimit: &s.b.opts.AppendLimit,
	}
	var messages, unseen, deleted uint32
	var size, deletedSize int64
	for _, msg := range snap.Messages {
		messages++
		if msg.Flags&maildir.FlagSeen == 0 {
			unseen++
		}
		if msg.Flags&maildir.FlagDeleted != 0 {
			deleted++
		}
		if options.Size || options.DeletedStorage && msg.Flags&maildir.FlagDeleted != 0 {
			n, err := ref.Size(s.ctx, msg)
			if err != nil {
				s.unreadable(msg, err)
				continue
			}
			size += n
			if msg.Flags&maildir.FlagDeleted != 0 {
				deletedSize += n
			}
		}
	}
	data.NumMessages, data.NumUnseen, data.NumDeleted = &messages, &unseen, &deleted
	data.Size, data.DeletedStorage = &size, &deletedSize
	recent := uint32(len(ref.Recent()))
	data.NumRecent = &recent
	return data, nil
}
