package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

const (
	// maxFailures is how many wrong passwords a connection has.
	maxFailures = 10
	// byeTimeout is how long a client may take to read its BYE.
	byeTimeout = 5 * time.Second
)

// A Session is one connection. go-imap calls one method at a time, but for Poll and Close, which
// come beside an Idle whose connection was lost.
type Session struct {
	b     *Backend
	conn  *imapserver.Conn
	log   *slog.Logger // with the session's id and address, and the user after login
	since time.Time

	// ctx is done when the session is closed. It is a field because go-imap gives methods none.
	ctx    context.Context
	cancel context.CancelFunc

	// turn holds a token while nobody works on what follows.
	turn     chan struct{}
	warned   time.Duration // how long a lock was waited for when the client was last told
	user     *Account      // nil: not logged in
	acct     *account      // nil: not logged in
	sel      *selected
	failures int

	idling sync.RWMutex // read-locked by calls of Idle that are running, locked for ever by Close
}

var (
	_ imapserver.SessionIMAP4rev2      = (*Session)(nil)
	_ imapserver.SessionUnauthenticate = (*Session)(nil)
	_ imapserver.SessionAppendLimit    = (*Session)(nil)
)

func newSession(b *Backend, c *imapserver.Conn) *Session {
	s := &Session{
		b:     b,
		conn:  c,
		log:   b.opts.Logger.With("session", fmt.Sprintf("%x", b.ids.Add(1)), "remote", c.NetConn().RemoteAddr().String()),
		since: time.Now(),
		turn:  make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancel(maildir.WithLockWait(context.Background(), s.waits))
	s.turn <- struct{}{}
	return s
}

// take waits for the turn and reports whether it was had before ctx was done.
func (s *Session) take(ctx context.Context) bool {
	select {
	case <-s.turn:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Session) give() { s.turn <- struct{}{} }

// begin starts a command. What it returns is deferred: it turns the command's error into the
// answer and tells of the command.
//
//	defer s.begin("STORE")(&err)
func (s *Session) begin(name string) func(*error) {
	started := time.Now()
	s.take(context.Background())
	if name != "FETCH" && s.sel != nil {
		s.sel.closePieces()
	}
	return func(err *error) {
		s.give()
		cause := *err
		*err = answer(cause)
		var known *imap.Error
		switch {
		case *err == nil:
		case errors.As(*err, &known):
			if errors.Is(cause, fs.ErrNotExist) {
				s.log.Warn("a part of a mailbox is missing", "command", name, "err", cause)
			}
		case lostConnection(*err):
			s.log.Debug("connection lost", "command", name, "err", *err)
		default:
			s.log.Error("command failed", "command", name, "err", *err)
		}
		if s.b.opts.Observe != nil {
			s.b.opts.Observe(Command{Name: name, Err: *err, Took: time.Since(started)})
		}
	}
}

// lostConnection reports whether an error says that the client went away.
func lostConnection(err error) bool {
	_, network := errors.AsType[*net.OpError](err)
	return network || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// bye ends the connection with a BYE. It waits for the client no longer than byeTimeout, and may
// be called beside a command.
func (s *Session) bye(text string) {
	cut := time.AfterFunc(byeTimeout, func() { s.conn.NetConn().Close() })
	defer cut.Stop()
	s.conn.Bye(text) // an error says that the client is gone, which is what is wanted
}

// policy is what holds for the selected mailbox.
func (s *Session) policy() policy.Policy { return s.policyFor(s.sel.Name()) }

func (s *Session) policyFor(mailbox string) policy.Policy {
	rules := s.user.Policy
	if rules == nil {
		rules = s.b.opts.Policy
	}
	return rules.For(mailbox, s.acct.Separator())
}

// Login checks a password and opens the user's account.
func (s *Session) Login(username, password string) (err error) {
	defer s.begin("LOGIN")(&err)
	user, err := s.b.opts.Accounts.Authenticate(s.ctx, &Credentials{
		Username: username,
		Password: password,
		Remote:   s.conn.NetConn().RemoteAddr(),
	})
	switch {
	case errors.Is(err, ErrAuthFailed):
		s.failures++
		s.log.Warn("login failed", "user", username, "err", err)
		if s.failures == maxFailures {
			go s.bye("Too many wrong passwords")
		}
		return imapserver.ErrAuthFailed
	case err != nil:
		s.log.Error("login failed", "user", username, "err", err)
		return no(imap.ResponseCodeUnavailable, "Accounts can't be read now")
	}
	log := s.log.With("user", user.User)
	acct, err := s.b.open(user)
	if err == nil {
		if err = acct.makeFolders(s.ctx, user.Folders); err != nil {
			log.Error("make folders", "err", err) // the mail that is there is worth more
		}
		err = nil
	}
	if err != nil {
		log.Error("open account", "root", user.Root, "err", err)
		return no(imap.ResponseCodeUnavailable, "Mail can't be read now")
	}
	s.user, s.acct, s.log = user, acct, log
	s.log.Info("logged in")
	return nil
}

// Unauthenticate goes back to the state before the login (RFC 8437).
func (s *Session) Unauthenticate() (err error) {
	defer s.begin("UNAUTHENTICATE")(&err)
	s.logOut()
	return nil
}

func (s *Session) logOut() {
	s.unselect()
	if s.acct != nil {
		s.b.release(s.acct)
		s.user, s.acct = nil, nil
	}
}

// Close ends the session. It waits for an Idle whose connection was lost.
func (s *Session) Close() error {
	s.cancel()
	s.idling.Lock()
	s.take(context.Background())
	s.logOut()
	s.log.Info("disconnected", "after", time.Since(s.since).Round(time.Millisecond))
	s.b.remove(s)
	return nil
}

// AppendLimit is the size of the largest message that APPEND takes (RFC 7889).
func (s *Session) AppendLimit() uint32 { return s.b.opts.AppendLimit }

// Namespace tells that all mailboxes are the user's own (RFC 2342).
func (s *Session) Namespace() (data *imap.NamespaceData, err error) {
	defer s.begin("NAMESPACE")(&err)
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Prefix: s.acct.Prefix(), Delim: s.acct.Separator()}}}, nil
}

// mailbox opens a mailbox.
func (s *Session) mailbox(name string, o maildir.RefOptions) (*maildir.Ref, error) {
	r, err := s.acct.Mailbox(name, o)
	if errors.Is(err, maildir.ErrNoMailbox) {
		return nil, s.missing(name)
	}
	return r, err
}

// missing is the answer where there is no mailbox of a name. One that was renamed is told under
// its new name (draft 3.4).
func (s *Session) missing(name string) error {
	s.look() // another process may have renamed or deleted the mailbox that is selected here
	now, ok := s.acct.NewName(name)
	if !ok {
		return maildir.ErrNoMailbox
	}
	code := fmt.Sprintf("%s %s %s", responseCodeNewName, codeName(name), codeName(now))
	return no(imap.ResponseCode(code), "Mailbox has been renamed")
}

// codeName spells a mailbox name for a response code: an atom where it can be one.
func codeName(name string) string {
	name = maildir.EncodeUTF7(name)
	if name != "" && !strings.ContainsAny(name, "(){ %*\"\\]") {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
