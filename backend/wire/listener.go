package wire

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Options are the options of a Listener. The zero value is ready to use.
type Options struct {
	// TLSConfig is what a client gets that asks for STARTTLS. If nil, the command goes to the server,
	// which must not have a TLSConfig either: it would speak TLS through a Conn that expects lines.
	TLSConfig *tls.Config
	// HandshakeTimeout limits a TLS handshake; 0 is 30 seconds. The server's read deadline holds as
	// well.
	HandshakeTimeout time.Duration
	// WriteTimeout limits how long a client may take for what is written to it at a time, 256 KiB at
	// most; its connection is closed then. It replaces the write deadlines that the server sets. 0 is
	// 5 minutes.
	WriteTimeout time.Duration
	// MaxConns limits the open connections of the listener, those after STARTTLS included. Who comes
	// when there are as many gets a BYE. 0 is no limit.
	MaxConns int
	// MaxConnsPerIP limits them for one IPv4 address or one /64 network of IPv6. 0 is no limit.
	MaxConnsPerIP int
	// Logger hears of connections that are refused; nil is slog.Default().
	Logger *slog.Logger
}

// A Listener accepts connections as a Conn each. Its methods may be called by several goroutines
// at once.
type Listener struct {
	ln   net.Listener
	opts Options // immutable; defaults are filled in

	upgraded chan *Conn    // connections after STARTTLS, for Encrypted
	done     chan struct{} // closed when Encrypted is
	stop     sync.Once     // closes done
	refusals chan struct{} // a token for each refusal that is being said over TLS

	mu    sync.Mutex // guards the fields below
	conns int
	perIP map[netip.Prefix]int // only what is above 0
}

// maxRefusals limits how many refused clients are told so over TLS at once: a handshake costs more
// than the limit on connections is meant to allow. The others are just closed.
const maxRefusals = 8

// Wrap returns a listener that accepts from ln; o may be nil.
//
// For a port where TLS is spoken from the start ln is a listener made by [tls.NewListener]. The
// handshake takes place when the server waits for the first command, not in Accept.
func Wrap(ln net.Listener, o *Options) *Listener {
	l := &Listener{
		ln:       ln,
		upgraded: make(chan *Conn),
		done:     make(chan struct{}),
		refusals: make(chan struct{}, maxRefusals),
		perIP:    make(map[netip.Prefix]int),
	}
	if o != nil {
		l.opts = *o
	}
	if l.opts.HandshakeTimeout == 0 {
		l.opts.HandshakeTimeout = 30 * time.Second
	}
	if l.opts.WriteTimeout == 0 {
		l.opts.WriteTimeout = 5 * time.Minute
	}
	if l.opts.Logger == nil {
		l.opts.Logger = slog.Default()
	}
	return l
}

// Accept waits for the next connection within the limits and returns it; it is a *Conn. Errors are
// those of the listener below.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.ln.Accept()
		if err != nil {
			return nil, err
		}
		if release, ok := l.admit(conn.RemoteAddr()); ok {
			return newConn(l, conn, release), nil
		}
		l.refuse(conn)
	}
}

// Close closes the listener below, and the one that Encrypted returns. Connections stay open.
func (l *Listener) Close() error {
	l.stop.Do(func() { close(l.done) })
	return l.ln.Close()
}

// Addr returns the address of the listener below.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Encrypted returns the listener of the connections on which STARTTLS was spoken. The first line
// that a server writes to one of them is not sent, unless it is a BYE: there is no greeting after STARTTLS
// (RFC 9051 6.2.1). Closing it ends STARTTLS: a client that asks for it then is disconnected.
func (l *Listener) Encrypted() net.Listener { return encrypted{l} }

type encrypted struct{ l *Listener }

func (e encrypted) Accept() (net.Conn, error) {
	select {
	case c := <-e.l.upgraded:
		return c, nil
	case <-e.l.done:
		return nil, net.ErrClosed
	}
}

func (e encrypted) Close() error {
	e.l.stop.Do(func() { close(e.l.done) })
	return nil
}

func (e encrypted) Addr() net.Addr { return e.l.Addr() }

// admit counts a connection from addr, unless that is one too many. The connection calls release
// once, when it is closed.
func (l *Listener) admit(addr net.Addr) (release func(), ok bool) {
	from, hasIP := network(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.MaxConns > 0 && l.conns >= l.opts.MaxConns {
		return nil, false
	}
	if hasIP && l.opts.MaxConnsPerIP > 0 && l.perIP[from] >= l.opts.MaxConnsPerIP {
		return nil, false
	}
	l.conns++
	if hasIP {
		l.perIP[from]++
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns--
		if l.perIP[from]--; l.perIP[from] <= 0 {
			delete(l.perIP, from)
		}
	}, true
}

// network returns what MaxConnsPerIP counts addr under, and whether addr has an IP address.
func network(addr net.Addr) (netip.Prefix, bool) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits)
	return prefix, prefix.IsValid()
}

// refuse tells a client that it is one too many, and closes its connection.
func (l *Listener) refuse(conn net.Conn) {
	l.opts.Logger.Info("connection refused: too many connections", "remote", conn.RemoteAddr())
	bye := func() {
		conn.SetDeadline(time.Now().Add(closeTimeout))
		conn.Write([]byte("* BYE Too many connections\r\n"))
		conn.Close()
	}
	if _, ok := conn.(*tls.Conn); !ok {
		bye() // fits into the empty send buffer
		return
	}
	select {
	case l.refusals <- struct{}{}:
		go func() {
			bye()
			<-l.refusals
		}()
	default:
		conn.Close()
	}
}
