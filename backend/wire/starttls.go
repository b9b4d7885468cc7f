package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
)

// ErrPipelinedSTARTTLS is returned by Read when a client, or someone between, sent more behind
// STARTTLS without waiting for the answer. It would be taken as if it had come encrypted
// (CVE-2011-0411); the connection has to be closed.
var ErrPipelinedSTARTTLS = errors.New("wire: plaintext behind STARTTLS")

// offersTLS reports whether STARTTLS may be spoken on the connection.
func (c *Conn) offersTLS() bool { return c.ln.opts.TLSConfig != nil && !c.IsTLS() }

// intercept looks at the first line of a command, and takes note whether it is one. For STARTTLS that wire has to answer it returns
// the tag. That of a client who is logged in is for the server, which answers BAD; so it takes note of
// commands that log in and out, whose answer seeLocked looks for.
func (c *Conn) intercept(line []byte) (tag string, ok bool) {
	tag, name, args, ok := command(line)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nonsense = !ok || !beginsAtom(name) || name == "UID" && !beginsAtom(string(args))
	if !c.offersTLS() {
		return "", false
	}
	switch name {
	case "LOGIN", "AUTHENTICATE":
		c.authTag, c.authOK = tag, true
	case "UNAUTHENTICATE":
		c.authTag, c.authOK = tag, false
	case "STARTTLS":
		return tag, len(args) == 0 && !c.authed
	}
	return "", false
}

// startTLS answers STARTTLS, shakes hands and gives the connection to the listener of the
// encrypted ones. It returns what Read has to return: io.EOF if all went well.
func (c *Conn) startTLS(tag string) error {
	pipelined := len(c.in.buf) > c.in.ready
	c.in = input{} // a server that reads on after an error gets nothing
	if pipelined {
		return ErrPipelinedSTARTTLS
	}

	c.mu.Lock()
	c.away = true // what another goroutine writes, a BYE at shutdown, may not get into the handshake
	c.flushLocked([]byte(tag + " OK Begin TLS negotiation now\r\n"))
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}

	next := newConn(c.ln, tls.Server(c.conn, c.ln.opts.TLSConfig), c.release)
	next.mute = true
	if err := next.handshake(); err != nil {
		return err
	}
	c.mu.Lock()
	closed := c.closed
	c.gone = !closed
	c.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	select {
	case c.ln.upgraded <- next:
		return io.EOF
	case <-c.ln.done:
		next.Close()
		return net.ErrClosed
	}
}
