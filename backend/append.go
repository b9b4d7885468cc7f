package backend

import (
	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// Append puts a message into a mailbox.
func (s *Session) Append(name string, r imap.LiteralReader, options *imap.AppendOptions) (data *imap.AppendData, err error) {
	defer s.begin("APPEND")(&err)
	ref, err := s.mailbox(name, maildir.RefOptions{})
	if err != nil {
		return nil, tryCreate(err)
	}
	defer ref.Close()
	uid, validity, err := ref.Append(s.ctx, r, options.Flags, options.Time)
	if err != nil {
		return nil, tryCreate(err)
	}
	return &imap.AppendData{UID: uid, UIDValidity: validity}, nil
}
