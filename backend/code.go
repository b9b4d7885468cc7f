package backend

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// Response codes that go-imap has no names for.
const (
	responseCodeExpungeIssued imap.ResponseCode = "EXPUNGEISSUED" // RFC 9051 7.1
	responseCodeUseAttr       imap.ResponseCode = "USEATTR"       // RFC 6154 6
	responseCodeNewName                         = "NEWNAME"       // RFC 2180 3.4; the names follow
)

func no(code imap.ResponseCode, format string, args ...any) error {
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: fmt.Sprintf(format, args...)}
}

func bad(format string, args ...any) error {
	return &imap.Error{
		Type: imap.StatusResponseTypeBad,
		Code: imap.ResponseCodeClientBug,
		Text: fmt.Sprintf(format, args...),
	}
}

var errReadOnly = no(imap.ResponseCodeNoPerm, "Mailbox was opened read-only")

// answer turns an error of maildir into a tagged response. What it doesn't know it leaves as it
// is: go-imap answers NO [SERVERBUG]. No path leaves the server here.
func answer(err error) error {
	var name *maildir.NameError
	var lock *maildir.LockError
	var format *maildir.FormatError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, maildir.ErrNoMailbox):
		return no(imap.ResponseCodeNonExistent, "No such mailbox")
	case errors.Is(err, maildir.ErrBadPlace): // not NONEXISTENT: the client could not create it either
		return no(imap.ResponseCodeCannot, "What is on disk under that name can't be served as a mailbox")
	case errors.Is(err, maildir.ErrMailboxExists):
		return no(imap.ResponseCodeAlreadyExists, "Mailbox exists already")
	case errors.Is(err, maildir.ErrNameInUse):
		return no(imap.ResponseCodeInUse, "Mailbox of that name is deleted and still in use. Try again later")
	case errors.As(err, &name):
		return no(imap.ResponseCodeCannot, "Mailbox name %s", name.Reason)
	case errors.As(err, &format):
		return no(imap.ResponseCodeCorruption, "The file %s is not of a form that is known here", format.File)
	case errors.Is(err, maildir.ErrTooManyKeywords):
		return no(imap.ResponseCodeLimit, "The mailbox has 26 keywords and can take no other")
	case errors.Is(err, maildir.ErrCompressed):
		return no(imap.ResponseCodeCannot, "Messages that are compressed can't be appended")
	case errors.Is(err, maildir.ErrExpunged):
		return errExpunged
	case errors.Is(err, maildir.ErrGone):
		return no(imap.ResponseCodeNonExistent, "Mailbox is not there any more")
	case errors.As(err, &lock):
		return no(imap.ResponseCodeInUse, "Mailbox is locked by %s: given up after %d seconds", lock.Holder, int(lock.Waited.Seconds()))
	case errors.Is(err, syscall.EDQUOT):
		return no(imap.ResponseCodeOverQuota, "Disk quota is used up")
	case errors.Is(err, syscall.ENOSPC):
		return no(imap.ResponseCodeOverQuota, "Disk is full")
	case errors.Is(err, syscall.EROFS):
		return no(imap.ResponseCodeUnavailable, "Mail is on a read-only disk")
	case errors.Is(err, fs.ErrNotExist): // in the middle of its rm -r
		return no(imap.ResponseCodeUnavailable, "Another program is taking the mailbox away")
	case errors.Is(err, fs.ErrPermission):
		return no(imap.ResponseCodeNoPerm, "The server may not do that to this mailbox")
	}
	return err
}

// tryCreate is answer for the mailbox that APPEND, COPY and MOVE put messages into: one that isn't
// there may be created (RFC 9051 6.3.12, 6.4.7).
func tryCreate(err error) error {
	if errors.Is(err, maildir.ErrNoMailbox) || errors.Is(err, maildir.ErrGone) {
		return no(imap.ResponseCodeTryCreate, "No such mailbox")
	}
	return answer(err)
}
