package backend

import (
	"context"

	"github.com/imapmaildir/imapmaildir/maildir"
)

// Accounts tells who a user is and where the mail lives. A host program brings its own.
//
// It is called by many sessions at once.
type Accounts interface {
	// Login checks a user name and a password. For a wrong one it returns
	// [imapserver.ErrAuthFailed]; another *imap.Error is sent to the client as it is, any other
	// error is logged and answered with NO [UNAVAILABLE].
	Login(ctx context.Context, username, password string) (*Account, error)
}

// An Account is where one user's mail lives. Two logins with an equal Root share their mailboxes.
type Account struct {
	// Name is the user in logs and metrics.
	Name string
	// Root is the directory of INBOX. It is made, with new, cur and tmp, if it does not exist.
	Root string
	// Mail says how the mailboxes are laid out in Root; the zero value is Dovecot's default.
	Mail maildir.Options
	// CacheDir holds the metadata cache; empty: Root.
	CacheDir string
}
