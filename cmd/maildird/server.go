package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2/imapserver"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/backend/wire"
	"github.com/imapmaildir/imapmaildir/watch"
)

// shutdownTimeout is how long sessions may take to finish what they are doing when the server ends.
const shutdownTimeout = 20 * time.Second

// A server is everything that listens, from newServer to run's return.
type server struct {
	log         *slog.Logger
	backend     *backend.Backend
	metrics     *metrics
	accounts    *accounts                   // nil in the demo
	watcher     *watch.Watcher              // nil in the demo: the backend has its own
	certificate *reloaded[*tls.Certificate] // nil without TLS

	// plain serves connections before STARTTLS, encrypted those after it and those that begin with
	// TLS. go-imap does not see the TLS below package wire, so the second one takes passwords from
	// all.
	plain, encrypted *imapserver.Server

	imap, imaps net.Listener // nil: not configured
	web         net.Listener // for metrics; nil: not configured
}

// newServer makes a server as a configuration says. It listens already when it returns.
func newServer(c *config, log *slog.Logger) (*server, error) {
	s := &server{log: log, metrics: newMetrics()}
	var err error
	if s.accounts, err = newAccounts(c, log, s.metrics.login); err != nil {
		return nil, err
	}
	var tlsConf *tls.Config
	if c.cert != "" {
		if s.certificate, err = newCertificate(c.cert, c.key, log); err != nil {
			return nil, err
		}
		tlsConf = tlsConfig(s.certificate)
		s.metrics.certificate(s.certificate)
	}
	s.watcher = watch.New(c.watch(log))
	s.start(&backend.Options{Accounts: s.accounts, Policy: &c.policy, AppendLimit: c.messageBytes, Watcher: s.watcher}, tlsConf, c.allowInsecure)
	if err := s.listen(c, tlsConf); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// start makes the backend and the go-imap servers.
func (s *server) start(o *backend.Options, tlsConf *tls.Config, insecure bool) {
	o.Logger = s.log
	o.Observe = s.metrics.command
	o.Locks = s.metrics
	s.backend = backend.New(o)
	s.metrics.backend(s.backend)
	options := imapserver.Options{
		NewSession:   s.backend.NewSession,
		Caps:         s.backend.Caps(),
		Logger:       imapLogger{s.log},
		TLSConfig:    tlsConf,
		InsecureAuth: insecure,
	}
	s.plain = imapserver.New(&options)
	options.TLSConfig, options.InsecureAuth = nil, true
	s.encrypted = imapserver.New(&options)
}

// listen opens the listeners; those that are open stay so if one fails.
func (s *server) listen(c *config, tlsConf *tls.Config) error {
	wireOptions := &wire.Options{
		TLSConfig:     tlsConf,
		MaxConns:      int(c.connections),
		MaxConnsPerIP: int(c.connectionsPerAddress),
		Logger:        s.log,
	}
	open := func(key, addr string, wrap func(net.Listener) net.Listener) (net.Listener, error) {
		if addr == "" {
			return nil, nil
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil && c.from != nil {
			return nil, c.from.problem("listen."+key, err)
		} else if err != nil {
			return nil, err
		}
		s.log.Info("listening", "for", key, "address", ln.Addr().String())
		return wrap(ln), nil
	}
	var err error
	if s.imap, err = open("imap", c.imap, func(ln net.Listener) net.Listener { return wire.Wrap(ln, wireOptions) }); err != nil {
		return err
	}
	if s.imaps, err = open("imaps", c.imaps, func(ln net.Listener) net.Listener {
		return wire.Wrap(tls.NewListener(ln, tlsConf), wireOptions)
	}); err != nil {
		return err
	}
	s.web, err = open("metrics", c.metrics, func(ln net.Listener) net.Listener { return ln })
	return err
}

// run serves until ctx is done, or until a listener fails. Then nothing new is accepted, sessions
// finish what they are doing, are told BYE, and are closed.
func (s *server) run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	web := &http.Server{Handler: s.metrics.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	var serving sync.WaitGroup
	serve := func(what string, ln net.Listener, serve func(net.Listener) error) {
		serving.Go(func() {
			if err := serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
				fail(fmt.Errorf("serve %s: %w", what, err))
			}
		})
	}
	if s.imap != nil {
		serve("imap", s.imap, s.plain.Serve)
		serve("imap after STARTTLS", s.imap.(*wire.Listener).Encrypted(), s.encrypted.Serve)
	}
	if s.imaps != nil {
		serve("imaps", s.imaps, s.encrypted.Serve)
	}
	if s.web != nil {
		serve("metrics", s.web, web.Serve)
	}
	go giveBack(ctx)
	<-ctx.Done()

	s.log.Info("shutting down")
	s.metrics.ending.Store(true)
	if s.accounts != nil {
		s.accounts.end()
	}
	for _, ln := range []net.Listener{s.imap, s.imaps} {
		if ln != nil {
			ln.Close()
		}
	}
	// Not ctx, which is done.
	limit, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.backend.Shutdown(limit, "Server is shutting down"); err != nil {
		s.log.Warn("sessions were cut off", "err", err)
	}
	web.Close()
	serving.Wait() // before Close: go-imap's must not meet a Serve that only begins
	s.plain.Close()
	s.encrypted.Close()
	s.closeWatcher()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// close closes the listeners and the watcher of a server that does not run.
func (s *server) close() {
	for _, ln := range []net.Listener{s.imap, s.imaps, s.web} {
		if ln != nil {
			ln.Close()
		}
	}
	s.closeWatcher()
}

func (s *server) closeWatcher() {
	if s.watcher != nil {
		s.watcher.Close()
	}
}

// reload reads the certificate and the passwd-file again.
func (s *server) reload() {
	if s.certificate != nil {
		s.certificate.reload()
	}
	s.accounts.users.reload()
}

// imapLogger passes on what go-imap logs: its panics, and clients that went away or sent nonsense. What
// fails in a session is logged by the backend.
type imapLogger struct{ log *slog.Logger }

func (l imapLogger) Printf(format string, args ...any) {
	level := slog.LevelDebug
	if strings.HasPrefix(format, "panic") {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, fmt.Sprintf(format, args...), "from", "go-imap")
}
