package maildir

import (
	"errors"
	"fmt"
	"time"
)

// What a caller acts on; matched with errors.Is.
var (
	// ErrNoMailbox: there is no mailbox of that name.
	ErrNoMailbox = errors.New("no such mailbox")
	// ErrMailboxExists: the name is taken.
	ErrMailboxExists = errors.New("mailbox exists already")
	// ErrBadPlace: what stands in the mailbox's place on disk can't be one: a symlink that leads out
	// of the root, or something that is no directory.
	ErrBadPlace = errors.New("no mailbox can be there")
	// ErrNameInUse: the mailbox of that name was deleted, and somebody still has it open.
	ErrNameInUse = errors.New("mailbox is deleted and still in use")
	// ErrTooManyKeywords: all 26 keyword letters of the mailbox have names.
	ErrTooManyKeywords = errors.New("the mailbox has 26 keywords, and file names hold no more")
	// ErrCompressed: a message that is to be added is compressed already.
	ErrCompressed = errors.New("the message is compressed")
	// ErrExpunged: the message is not there any more, and nothing was kept of it.
	ErrExpunged = errors.New("the message was expunged")
	// ErrGone: the open mailbox is no longer what it was.
	ErrGone = errors.New("the mailbox is gone")
	// ErrBadName: see NameError.
	ErrBadName = errors.New("bad mailbox name")
	// ErrLocked: see LockError.
	ErrLocked = errors.New("locked")
)

// A FormatError is a file that does not have Dovecot's form.
type FormatError struct {
	File   string
	Line   int // from 1; 0: the file as a whole
	Reason string
}

func (e *FormatError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s line %d: %s", e.File, e.Line, e.Reason)
}

// A NameError is a name that no mailbox can have here. It matches ErrBadName.
type NameError struct {
	Name   string
	Reason string // what is wrong and what is allowed, to follow the quoted name
}

func (e *NameError) Error() string        { return fmt.Sprintf("mailbox name %q %s", e.Name, e.Reason) }
func (e *NameError) Is(target error) bool { return target == ErrBadName }

// A LockError is a lock that somebody else held for too long. It matches ErrLocked.
type LockError struct {
	Path   string
	Holder LockHolder
	Waited time.Duration
}

func (e *LockError) Error() string {
	return fmt.Sprintf("%s is held by %q and could not be had in %v", e.Path, string(e.Holder), e.Waited.Round(time.Millisecond))
}
func (e *LockError) Is(target error) bool { return target == ErrLocked }

// A goneError is why a mailbox is gone, in words for its users. It matches ErrGone.
type goneError string

func (e goneError) Error() string        { return string(e) }
func (e goneError) Is(target error) bool { return target == ErrGone }
