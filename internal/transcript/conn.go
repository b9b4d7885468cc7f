package transcript

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How [Conn.Response] fails where the server is to blame, or nobody.
var (
	ErrSilent = errors.New("sends nothing")
	ErrEnded  = errors.New("closed the connection")
)

// A Conn is a client's end of a connection to an IMAP server, which is read response by response.
// What the server sends is read as it comes, so that the server never waits for this client.
// Responses are taken by one goroutine at a time; Write and the deadlines are those of the
// connection below.
type Conn struct {
	net.Conn
	lines chan string
	err   error         // why lines was closed
	done  chan struct{} // closed when nobody takes lines any more
}

// NewConn makes a Conn of a connection that nobody else reads from. It has to be closed.
func NewConn(nc net.Conn) *Conn {
	c := &Conn{Conn: nc, lines: make(chan string, 1000), done: make(chan struct{})}
	go c.read()
	return c
}

// Close closes the connection, once.
func (c *Conn) Close() error {
	close(c.done)
	err := c.Conn.Close()
	for range c.lines { // until the reader has ended
	}
	return err
}

// read hands over responses until the connection ends.
func (c *Conn) read() {
	defer close(c.lines)
	for in := newReader(c.Conn); ; {
		line, err := in.line()
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
			err = ErrEnded
		}
		if err != nil {
			c.err = err
			return
		}
		select {
		case c.lines <- line:
		case <-c.done:
			return
		}
	}
}

// Response returns the next response as it was sent, with the bytes of its literals but without its
// CRLF. It fails with ErrSilent if none comes in time, with ErrEnded where the server closed the
// connection between two responses, and else with what is wrong with the connection or with how
// the response is put together.
func (c *Conn) Response(wait time.Duration) (string, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case line, ok := <-c.lines:
		if !ok {
			return "", c.err
		}
		return line, nil
	case <-timer.C:
		return "", ErrSilent
	}
}

// StartTLS goes through STARTTLS (RFC 9051 section 6.2.1), from the greeting to the end of the
// handshake, on a connection that was not read from. Its errors say what the server answered; the
// connection is then of no use.
func StartTLS(nc net.Conn, config *tls.Config) (*tls.Conn, error) {
	in := newReader(nc)
	greeting, err := in.line()
	if err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	if !strings.HasPrefix(strings.ToUpper(greeting), "* OK") {
		return nil, fmt.Errorf("greeting: server says %q", greeting)
	}
	if _, err := io.WriteString(nc, "S001 STARTTLS\r\n"); err != nil {
		return nil, fmt.Errorf("STARTTLS: %w", err)
	}
	for {
		line, err := in.line()
		if err != nil {
			return nil, fmt.Errorf("STARTTLS: %w", err)
		}
		answer, tagged := strings.CutPrefix(line, "S001 ")
		switch {
		case !tagged:
		case !strings.HasPrefix(strings.ToUpper(answer), "OK"):
			return nil, fmt.Errorf("STARTTLS: server says %q", answer)
		case in.r.Buffered() > 0: // anybody may have put it there
			return nil, errors.New("STARTTLS: server goes on without encryption")
		default:
			c := tls.Client(nc, config)
			if err := c.Handshake(); err != nil {
				return nil, fmt.Errorf("STARTTLS: %w", err)
			}
			return c, nil
		}
	}
}

// maxResponse is the size in bytes of the largest response that is read.
const maxResponse = 64 << 20

// A reader reads responses as they are sent, so that their order and their bytes can be judged.
type reader struct{ r *bufio.Reader }

func newReader(r io.Reader) *reader { return &reader{bufio.NewReader(r)} }

var endsInLiteral = regexp.MustCompile(`\{([0-9]{1,9})\}\r\n$`)

// line reads a response with its literals, and cuts its CRLF off.
func (r *reader) line() (string, error) {
	var b strings.Builder
	for {
		s, err := r.r.ReadString('\n')
		if err == io.EOF && (s != "" || b.Len() > 0) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", err
		}
		if !strings.HasSuffix(s, "\r\n") {
			return "", errors.New("a line ends without CR")
		}
		m := endsInLiteral.FindStringSubmatch(s)
		if m == nil {
			b.WriteString(s[:len(s)-2])
			return b.String(), nil
		}
		b.WriteString(s)
		size, _ := strconv.ParseInt(m[1], 10, 64)
		if int64(b.Len())+size > maxResponse {
			return "", errors.New("response is too large")
		}
		if _, err := io.CopyN(&b, r.r, size); err == io.EOF {
			return "", io.ErrUnexpectedEOF
		} else if err != nil {
			return "", err
		}
	}
}
