package backend

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
	"github.com/imapmaildir/imapmaildir/watch"
)

// ErrAuthFailed is what Accounts returns for a user that does not exist or a password that is
// wrong; clients are not told which.
var ErrAuthFailed = errors.New("wrong user name or password")

// Accounts tells who may log in and where the mail is. It is called by several goroutines at once.
type Accounts interface {
	// Authenticate returns the account of a user, or an error that matches ErrAuthFailed. With any
	// other error the client is told that it can't be known now (NO [UNAVAILABLE]).
	Authenticate(ctx context.Context, c *Credentials) (*Account, error)
}

// Credentials are what a client logs in with.
type Credentials struct {
	Username, Password string
	Remote             net.Addr
}

// An Account is one user's mail.
type Account struct {
	// User is the user's name for logs.
	User string
	// Root is the Maildir. It is made, with an INBOX in it, if it does not exist. Users may share one;
	// the options of the first one who comes then hold for all. Those with other places for INBOX or control files can't log
	// in meanwhile.
	Root string
	// Maildir says how mailboxes lie in the root.
	Maildir maildir.Options
	// Cache is the file in which what was made of messages is kept, so that each is parsed once; its
	// directory is made if it does not exist. "" is imapmaildir.cache in Root. To delete it loses
	// nothing.
	Cache string
	// Policy rules what sessions do to each other; nil: the Backend's.
	Policy *policy.Rules
	// Folders are made at login if they don't exist.
	Folders []Folder
}

// A Folder is a mailbox that every account has.
type Folder struct {
	Name string
	// SpecialUse tells clients what it is for (RFC 6154), if it is not empty.
	SpecialUse imap.MailboxAttr
	// Subscribe is whether it is subscribed when it is made.
	Subscribe bool
}

// Options are the options of a Backend. Only Accounts is required.
type Options struct {
	Accounts Accounts
	// Policy holds where an Account has none; nil: the defaults of package policy.
	Policy *policy.Rules
	// Watcher tells of changes on disk; nil: one of the Backend's own. One that is given is not closed.
	Watcher *watch.Watcher
	// AppendLimit is the size in bytes of the largest message that APPEND takes; 0: 100 MiB.
	AppendLimit uint32
	// Logger hears of logins, failures and what is wrong on disk; nil: slog.Default().
	Logger *slog.Logger
	// Observe, if it is set, is called after each command that reached a session. It is called by
	// several goroutines at once and must not block.
	Observe func(Command)
	// Locks, if it is set, hears of each use of a mailbox's lock.
	Locks maildir.LockObserver
}

// A Command is what happened, for metrics.
type Command struct {
	Name string // as clients send it, in capital letters: "FETCH", "UID FETCH" alike "FETCH"
	Err  error  // what was answered; nil: OK
	Took time.Duration
}

// Stats is what a Backend has open and did.
type Stats struct {
	Sessions      int // connections, logged in or not
	LoggedIn      int
	OpenMailboxes int
	Scans         uint64 // readings of mailbox directories
	Watch         watch.Stats
}

// A Backend makes sessions. Its methods may be called by several goroutines.
type Backend struct {
	opts    Options // immutable; defaults are filled in
	watcher *watch.Watcher
	ids     atomic.Uint64 // of sessions

	mu       sync.Mutex // guards what follows
	sessions map[*Session]struct{}
	empty    chan struct{}       // closed when a Backend that closes has no sessions left; nil until then
	accounts map[string]*account // by root
	idle     []*account          // that nobody is logged in to, the one that was left first in front
	scans    uint64              // of accounts that were closed
}

// New returns a Backend. It panics if o has no Accounts.
func New(o *Options) *Backend {
	if o == nil || o.Accounts == nil {
		panic("backend: Options.Accounts is required")
	}
	b := &Backend{
		opts:     *o,
		sessions: map[*Session]struct{}{},
		accounts: map[string]*account{},
	}
	if b.opts.AppendLimit == 0 {
		b.opts.AppendLimit = 100 << 20
	}
	if b.opts.Logger == nil {
		b.opts.Logger = slog.Default()
	}
	if b.watcher = b.opts.Watcher; b.watcher == nil {
		b.watcher = watch.New(watch.Options{Logger: b.opts.Logger})
	}
	return b
}

// Caps are the capabilities that the sessions have, for imapserver.Options.Caps.
func (b *Backend) Caps() imap.CapSet {
	return imap.CapSet{
		imap.CapIMAP4rev1:        {},
		imap.CapIMAP4rev2:        {},
		imap.CapNamespace:        {},
		imap.CapUIDPlus:          {},
		imap.CapMove:             {},
		imap.CapESearch:          {},
		imap.CapSearchRes:        {},
		imap.CapListExtended:     {},
		imap.CapListStatus:       {},
		imap.CapStatusSize:       {},
		imap.CapChildren:         {},
		imap.CapSpecialUse:       {},
		imap.CapCreateSpecialUse: {},
		imap.CapLiteralPlus:      {},
		imap.CapBinary:           {},
		imap.CapUnauthenticate:   {},
	}
}

// NewSession is for imapserver.Options.NewSession.
func (b *Backend) NewSession(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	s := newSession(b, c)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.empty != nil {
		return nil, nil, &imap.Error{Type: imap.StatusResponseTypeBye, Text: "Server is shutting down"}
	}
	b.sessions[s] = struct{}{}
	s.log.Info("connected")
	return s, &imapserver.GreetingData{}, nil
}

// remove takes out a session that is closed.
func (b *Backend) remove(s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sessions, s)
	if b.empty != nil && len(b.sessions) == 0 {
		close(b.empty)
	}
}

// Stats tells what is open now and what was done so far.
func (b *Backend) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := Stats{Sessions: len(b.sessions), Scans: b.scans, Watch: b.watcher.Stats()}
	for _, a := range b.accounts {
		st.LoggedIn += a.sessions
		st.OpenMailboxes += a.OpenMailboxes()
		st.Scans += a.Scans()
	}
	return st
}

// Shutdown ends all sessions: each gets a BYE with text, after the command that is running. It
// returns when all are closed, or when ctx is done, with ctx's error; those that are left are cut
// off. New sessions get a BYE at once. It is called once; close the listeners first.
func (b *Backend) Shutdown(ctx context.Context, text string) error {
	b.mu.Lock()
	b.empty = make(chan struct{})
	if len(b.sessions) == 0 {
		close(b.empty)
	}
	for s := range b.sessions {
		go func() {
			if s.take(ctx) { // or else at once, beside the command
				defer s.give()
			}
			s.bye(text)
		}()
	}
	b.mu.Unlock()
	var err error
	select {
	case <-b.empty:
	case <-ctx.Done():
		err = ctx.Err()
	}
	b.mu.Lock()
	b.closeIdle(0)
	b.mu.Unlock()
	if b.opts.Watcher == nil {
		b.watcher.Close()
	}
	return err
}
