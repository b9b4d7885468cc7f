package backend

import (
	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// A piecewise is a message that a client gets in pieces (BODY[]<n.m>), open between the commands. Otherwise each piece
// would count the message, and unpack a compressed one from its start. It is closed with the next command that is no
// FETCH, or a FETCH that opens another message.
type piecewise struct {
	uid     imap.UID
	content *maildir.Content
}

// open opens a message's content, or takes what is open if it is the file that is there now.
func (sel *selected) open(s *Session, msg *maildir.Message) (*maildir.Content, error) {
	if p := sel.pieces; p != nil && p.uid == msg.UID {
		if stamp, err := sel.Stamp(msg); err == nil && stamp == p.content.Stamp() {
			sel.pieces = nil
			return p.content, nil
		}
	}
	sel.closePieces()
	return sel.Content(s.ctx, msg)
}

// keepOpen keeps a message open for its next piece.
func (sel *selected) keepOpen(msg *maildir.Message, content *maildir.Content) {
	sel.closePieces()
	sel.pieces = &piecewise{msg.UID, content}
}

func (sel *selected) closePieces() {
	if sel.pieces != nil {
		sel.pieces.content.Close()
		sel.pieces = nil
	}
}

// inPieces reports whether a FETCH asks for a part of something.
func inPieces(o *imap.FetchOptions) bool {
	for _, section := range o.BodySection {
		if section.Partial != nil {
			return true
		}
	}
	for _, section := range o.BinarySection {
		if section.Partial != nil {
			return true
		}
	}
	return false
}
