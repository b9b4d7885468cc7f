package backend_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/backend/wire"
)

// A server is a go-imap server with our backend, on loopback. Every user logs in with the password
// "pass" and shares the account; "%u" in the place of INBOX is the user.
type server struct {
	addr    string
	root    string
	backend *backend.Backend
}

type accounts backend.Account

func (a *accounts) Authenticate(_ context.Context, c *backend.Credentials) (*backend.Account, error) {
	if c.Password != "pass" {
		return nil, backend.ErrAuthFailed
	}
	acct := backend.Account(*a)
	acct.User = c.Username
	acct.Maildir.Inbox = strings.ReplaceAll(acct.Maildir.Inbox, "%u", c.Username)
	return &acct, nil
}

// serve starts a server. acct may be nil; its Root is made where it is empty. The server ends with
// the test.
func serve(t testing.TB, acct *backend.Account) *server {
	t.Helper()
	s, stop := start(t, acct)
	t.Cleanup(stop)
	return s
}

// start is serve for a server that is stopped before the test is over.
func start(t testing.TB, acct *backend.Account) (s *server, stop func()) {
	t.Helper()
	if acct == nil {
		acct = &backend.Account{}
	}
	if acct.Root == "" {
		acct.Root = filepath.Join(t.TempDir(), "Maildir")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	b := backend.New(&backend.Options{Accounts: (*accounts)(acct), Logger: log})
	imap := imapserver.New(&imapserver.Options{
		NewSession:   b.NewSession,
		Caps:         b.Caps(),
		InsecureAuth: true,
		Logger:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := imap.Serve(wire.Wrap(ln, nil)); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		ln.Close()
		<-done
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := b.Shutdown(ctx, "The test is over"); err != nil {
			t.Error("sessions don't end:", err)
		}
		imap.Close()
	}
	return &server{addr: ln.Addr().String(), root: acct.Root, backend: b}, stop
}
