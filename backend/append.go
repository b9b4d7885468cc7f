package backend

import (
	"io"

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
	uid, validity, err := ref.Append(s.ctx, &literal{r, r.Size()}, options.Flags, options.Time)
	if err != nil {
		return nil, tryCreate(err)
	}
	return &imap.AppendData{UID: uid, UIDValidity: validity}, nil
}

// A literal is one that fails when it ends early, as go-imap's does not: what came of a message before
// the connection was lost is no message.
type literal struct {
	r    io.Reader
	left int64
}

// errCutOff answers where a literal ends early. The client does not hear it.
var errCutOff = no(imap.ResponseCodeClientBug, "Message was cut off")

func (l *literal) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if err != nil && l.left > 0 {
		err = errCutOff
	}
	return n, err
}
