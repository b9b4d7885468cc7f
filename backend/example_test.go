package backend_test

import (
	"context"
	"log"
	"net"

	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/backend/wire"
)

// family is who may log in, with their passwords. Each has a Maildir.
type family map[string]string

func (f family) Authenticate(_ context.Context, c *backend.Credentials) (*backend.Account, error) {
	if password, ok := f[c.Username]; !ok || c.Password != password {
		return nil, backend.ErrAuthFailed
	}
	return &backend.Account{User: c.Username, Root: "/srv/mail/" + c.Username}, nil
}

// A go-imap server with Maildirs behind it.
func Example() {
	b := backend.New(&backend.Options{Accounts: family{"mary": "lamb", "jack": "beanstalk"}})
	server := imapserver.New(&imapserver.Options{
		NewSession:   b.NewSession,
		Caps:         b.Caps(),
		InsecureAuth: true, // on loopback only
	})
	ln, err := net.Listen("tcp", "127.0.0.1:1143")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(wire.Wrap(ln, nil)))
}
