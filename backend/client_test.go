package backend_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// A client is a connection that knows lines and literals and nothing else.
type client struct {
	tb testing.TB
	c  net.Conn
	r  *bufio.Reader
}

func newClient(tb testing.TB, c net.Conn) *client {
	return &client{tb, c, bufio.NewReaderSize(c, 64<<10)}
}

// connect connects. The connection is closed when the test ends.
func connect(tb testing.TB, addr string) *client {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	cl := newClient(tb, c)
	cl.greeted()
	return cl
}

// dial connects and logs in.
func dial(tb testing.TB, addr string) *client {
	tb.Helper()
	c := connect(tb, addr)
	c.do("LOGIN mary pass")
	return c
}

func (c *client) greeted() {
	c.tb.Helper()
	if _, err := c.line(); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *client) login() {
	c.tb.Helper()
	c.greeted()
	c.do("LOGIN mary pass")
}

// do sends a command that must be answered with OK, and counts its responses.
func (c *client) do(command string) int {
	c.tb.Helper()
	if _, err := fmt.Fprintf(c.c, "t %s\r\n", command); err != nil {
		c.tb.Fatal(err)
	}
	for n := 0; ; n++ {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			c.tb.Fatal(err)
		}
		if strings.HasPrefix(string(line), "t OK") {
			return n
		} else if strings.HasPrefix(string(line), "t ") {
			c.tb.Fatalf("%.80s: %s", command, line)
		}
	}
}

// exchange sends a command and returns its responses: the untagged ones whole, with the content of
// literals in braces, and the tagged one without its tag.
func (c *client) exchange(command string) (untagged []string, tagged string, err error) {
	if _, err := fmt.Fprintf(c.c, "t %s\r\n", command); err != nil {
		return nil, "", err
	}
	for {
		line, err := c.line()
		if err != nil {
			return untagged, "", err
		}
		if rest, ok := strings.CutPrefix(line, "t "); ok {
			return untagged, rest, nil
		}
		untagged = append(untagged, line)
	}
}

// line reads a response.
func (c *client) line() (string, error) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimSuffix(line, "\r\n")
		i := strings.LastIndexByte(line, '{')
		n := -1
		if i >= 0 && strings.HasSuffix(line, "}") {
			if n, err = strconv.Atoi(line[i+1 : len(line)-1]); err != nil {
				n = -1
			}
		}
		if n < 0 {
			b.WriteString(line)
			return b.String(), nil
		}
		b.WriteString(line[:i])
		b.WriteByte('{')
		if _, err := io.CopyN(&b, c.r, int64(n)); err != nil {
			return "", err
		}
		b.WriteByte('}')
	}
}
