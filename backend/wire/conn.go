package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	gatherSize = 32 << 10  // bytes that are gathered before they are written
	chunkSize  = 256 << 10 // bytes written under one write timeout
	maxCommand = 50 << 10  // bytes of a command without literals; of a longer one go-imap runs the rest as commands
)

// Times that bound what the package comment promises.
const (
	holdTime     = 10 * time.Millisecond
	closeTimeout = time.Second
)

// ErrCommandTooLong is returned by Read when the client sends a command of more than 50 KiB, literals
// not counted, of which the server has read a part. The client has been told with a BYE.
var ErrCommandTooLong = errors.New("wire: command longer than 51200 bytes")

// A Conn is a connection to a client: what a [Listener] accepts.
//
// One goroutine at a time may read. Everything else may be called by several at once.
type Conn struct {
	conn    net.Conn // TCP, or TLS over it
	ln      *Listener
	release func() // gives back the place that limits gave; called once

	// Input belongs to the goroutine that reads.
	in      input
	readErr error // what ended the input
	shaken  bool  // the TLS handshake is done

	mu       sync.Mutex // guards the fields below; not held during I/O
	idle     sync.Cond  // flushing has become false
	buf      []byte     // gathered; nil or from bufs
	flushing bool       // a goroutine is in flushLocked and goes on until buf is empty
	waiting  bool       // the server waits for the client: what is written goes out at once
	kicked   bool       // a goroutine was started for that
	hold     *time.Timer
	held     bool  // hold runs
	err      error // the first write error; the connection below is closed then
	closed   bool

	midLine  bool   // the last Write did not end with a line
	answered bool   // a tagged line was written since the reader asked last
	mute     bool   // the next line is a greeting that nobody may see
	readOnly bool   // the mailbox that is being selected was said to have no permanent flags
	authTag  string // tag of the LOGIN, AUTHENTICATE or UNAUTHENTICATE that is being answered
	authOK   bool   // what an OK to it sets authed to
	authed   bool   // a user is logged in
	nonsense bool   // the server was given a line that is no command
	away     bool   // STARTTLS was answered: nothing may be written any more
	gone     bool   // the connection below is another Conn's
}

// bufs holds the buffers of connections that have nothing gathered, which is nearly all of them.
var bufs = sync.Pool{New: func() any { return new([gatherSize]byte) }}

func newConn(ln *Listener, conn net.Conn, release func()) *Conn {
	c := &Conn{conn: conn, ln: ln, release: release}
	c.idle.L = &c.mu
	return c
}

// IsTLS reports whether the connection is encrypted, be it from the start or since STARTTLS.
func (c *Conn) IsTLS() bool {
	_, ok := c.conn.(*tls.Conn)
	return ok
}

// NetConn returns the connection below, a *tls.Conn if it is encrypted. Reading from it or writing
// to it breaks the session.
func (c *Conn) NetConn() net.Conn { return c.conn }

// LocalAddr returns the address of the connection below.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline is SetReadDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetReadDeadline sets the deadline of Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing: a Write may be long over when its bytes leave, so that
// Options.WriteTimeout rules.
func (c *Conn) SetWriteDeadline(t time.Time) error { return nil }

// Read returns the next bytes of a line or a literal that the client sent, as the package comment
// tells. Before it waits for the client it writes out what was gathered. After STARTTLS it returns
// io.EOF; a write error is returned here as well.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	defer c.in.own()
	for {
		if c.in.ready > 0 {
			return c.in.read(p), nil
		}
		if c.takeAnswered() {
			c.in.answered()
		}
		if line := c.in.next(); line != nil {
			if tag, ok := c.intercept(line); ok {
				c.readErr = c.startTLS(tag)
				return 0, c.readErr
			}
		}
		if tag, ok := c.in.tooLong(); ok {
			c.Write([]byte(tag + " BAD [CLIENTBUG] Command longer than 51200 bytes\r\n"))
			continue
		}
		switch {
		case c.in.ready > 0:
		case c.readErr == io.EOF && c.in.rest():
		case c.readErr != nil:
			return 0, c.readErr
		case c.in.stuck:
			c.Write([]byte("* BYE Command longer than 51200 bytes\r\n"))
			c.readErr = ErrCommandTooLong
		default:
			c.in.own()
			n, err := c.fill(p)
			c.in.add(p[:n])
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() {
				c.readErr = err
			} else if n == 0 {
				return 0, err // a later deadline may be set, and Read called again
			}
		}
	}
}

// fill waits for the client and reads what it sends, after everything gathered was written.
func (c *Conn) fill(p []byte) (int, error) {
	if err := c.handshake(); err != nil {
		return 0, err
	}

	c.mu.Lock()
	c.flushLocked(nil)
	if c.err != nil {
		defer c.mu.Unlock()
		return 0, c.err
	}
	c.waiting = true
	c.mu.Unlock()

	n, err := c.conn.Read(p)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
	if err != nil && c.err != nil {
		err = c.err // the cause: it closed the connection
	}
	return n, err
}

// handshake does the TLS handshake, should there be one and should it not be done.
func (c *Conn) handshake() error {
	tc, ok := c.conn.(*tls.Conn)
	if !ok || c.shaken {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.ln.opts.HandshakeTimeout)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.shaken = true
	return nil
}

// takeAnswered reports whether the server has written a tagged line since it was last called.
func (c *Conn) takeAnswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	answered := c.answered
	c.answered = false
	return answered
}

// Write gathers p, or writes it out with what was gathered before if the server waits for input already or
// the buffer is full. It returns the error of an earlier write, should there have been one.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.away {
		return 0, net.ErrClosed
	}
	n := len(p)
	p = c.seeLocked(p)
	if len(c.buf)+len(p) > gatherSize {
		if len(p) < gatherSize {
			c.flushLocked(nil)
		} else {
			c.flushLocked(p)
			p = nil
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	if len(p) == 0 {
		return n, nil
	}
	if c.buf == nil {
		c.buf = bufs.Get().(*[gatherSize]byte)[:0]
	}
	c.buf = append(c.buf, p...)
	switch {
	case c.flushing: // that goroutine takes it along
	case c.waiting && !c.kicked:
		c.kicked = true
		go c.kick()
	case !c.waiting && c.hold == nil:
		c.hold = time.AfterFunc(holdTime, c.holdOver)
		c.held = true
	case !c.waiting && !c.held:
		c.hold.Reset(holdTime)
		c.held = true
	}
	return n, nil
}

// kick writes out what was gathered while the server waits for input.
func (c *Conn) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kicked = false
	c.flushLocked(nil)
}

// holdOver writes out what was gathered for long enough.
func (c *Conn) holdOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	c.flushLocked(nil)
}

// flushLocked writes out what is gathered, then p, and what other goroutines gather meanwhile: the
// buffer is empty when flushing becomes false. Only one goroutine does it at a time.
func (c *Conn) flushLocked(p []byte) {
	for c.flushing {
		c.idle.Wait()
	}
	c.flushing = true
	for c.err == nil && len(c.buf)+len(p) > 0 {
		if b := c.buf; len(b) > 0 {
			c.buf = nil
			c.writeLocked(b)
			bufs.Put((*[gatherSize]byte)(b[:gatherSize]))
			continue
		}
		c.writeLocked(p)
		p = nil
	}
	c.flushing = false
	c.idle.Broadcast()
}

// writeLocked writes p to the connection below, for flushLocked. An error becomes
// c.err and closes the connection below, which wakes a Read.
func (c *Conn) writeLocked(p []byte) {
	c.mu.Unlock()
	var err error
	for len(p) > 0 && err == nil {
		chunk := p[:min(len(p), chunkSize)]
		p = p[len(chunk):]
		c.conn.SetWriteDeadline(time.Now().Add(c.ln.opts.WriteTimeout))
		_, err = c.conn.Write(chunk)
	}
	c.conn.SetWriteDeadline(time.Time{}) // TLS also writes when it reads: not after an old deadline
	c.mu.Lock()
	if err != nil && c.err == nil {
		c.err = err
		c.hangUp()
	}
}

// seeLocked takes note of what the server writes and returns the part of p that the client is to get.
func (c *Conn) seeLocked(p []byte) []byte {
	if len(p) == 0 {
		return p
	}
	begins := !c.midLine
	c.midLine = p[len(p)-1] != '\n'
	switch {
	case begins && (p[0] == '*' || p[0] == '+'):
		if bytes.HasPrefix(p, []byte("* PREAUTH ")) {
			c.authed = true
		}
		c.readOnly = c.readOnly || bytes.HasPrefix(p, []byte("* OK [PERMANENTFLAGS ()]"))
	case begins:
		c.answered = true
		if status, ok := bytes.CutPrefix(p, []byte(c.authTag)); ok && bytes.HasPrefix(status, []byte(" OK ")) {
			c.authed = c.authOK
		}
		c.authTag = ""
		if c.readOnly {
			p = bytes.Replace(p, []byte(" OK [READ-WRITE] "), []byte(" OK [READ-ONLY] "), 1)
		}
		c.readOnly = false
	}
	if c.mute {
		if begins && bytes.HasPrefix(p, []byte("* BYE ")) {
			c.mute = false
			return p
		}
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			return nil
		}
		c.mute = false
		return p[end:]
	}
	return p
}

// Close writes out what is gathered and closes the connection. It takes no longer than a second,
// whatever the client does. After STARTTLS it does nothing: the connection belongs to another Conn.
// A second Close returns net.ErrClosed.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	if c.gone {
		return nil
	}
	var bye []byte
	if c.nonsense { // go-imap closes the connection without a word
		bye = []byte("* BYE This is no IMAP command\r\n")
		c.ln.opts.Logger.Info("connection ended: no IMAP command", "remote", c.RemoteAddr())
	}

	late := time.AfterFunc(closeTimeout, c.hangUp)
	defer late.Stop()
	c.flushLocked(bye)
	if c.hold != nil {
		c.hold.Stop()
	}
	err := c.err
	c.mu.Unlock()
	closeErr := c.conn.Close() // TLS says goodbye here, which may block
	c.mu.Lock()
	c.release()
	if err != nil {
		return err
	}
	return closeErr
}

// hangUp closes the connection at once, below TLS.
func (c *Conn) hangUp() {
	if tc, ok := c.conn.(*tls.Conn); ok {
		tc.NetConn().Close()
		return
	}
	c.conn.Close()
}
