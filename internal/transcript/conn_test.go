package transcript

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// serveOne starts a server of one connection and connects to it.
func serveOne(t *testing.T, serve func(net.Conn)) net.Conn {
	t.Helper()
	addr := listen(t, func(ln net.Listener) {
		if c, err := ln.Accept(); err == nil {
			serve(c)
			c.Close()
		}
	}, func() {})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestConn(t *testing.T) {
	for _, c := range []struct{ sent, want, err string }{
		{"* OK hi\r\n", "* OK hi", "closed the connection"},
		{"* 1 FETCH (BODY[] {6}\r\na\r\n)\r\n)\r\n", "* 1 FETCH (BODY[] {6}\r\na\r\n)\r\n)", "closed the connection"},
		{"* OK hi\n", "", "a line ends without CR"},
		{"* OK", "", "unexpected EOF"},
		{"* 1 FETCH (BODY[] {40}\r\na", "", "unexpected EOF"},
	} {
		conn := NewConn(serveOne(t, func(nc net.Conn) { io.WriteString(nc, c.sent) }))
		got, err := conn.Response(patience)
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.sent, got, c.want)
		}
		if err == nil {
			_, err = conn.Response(patience)
		}
		if err == nil || err.Error() != c.err {
			t.Errorf("%q: error %v, want %s", c.sent, err, c.err)
		}
		conn.Close()
	}
}

// Who closes a connection is not kept waiting by a server that has much to say.
func TestConnClose(t *testing.T) {
	conn := NewConn(serveOne(t, func(nc net.Conn) {
		for {
			if _, err := io.WriteString(nc, strings.Repeat("* OK more\r\n", 1000)); err != nil {
				return
			}
		}
	}))
	if _, err := conn.Response(patience); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestConnSilent(t *testing.T) {
	conn := NewConn(serveOne(t, func(nc net.Conn) { nc.Read(make([]byte, 1)) }))
	defer conn.Close()
	if _, err := conn.Response(time.Millisecond); err != ErrSilent {
		t.Errorf("got %v", err)
	}
}

func TestStartTLS(t *testing.T) {
	certificate := selfSigned(t)
	for _, c := range []struct{ greeting, answer, want string }{
		{"* OK hi\r\n", "* OK wait\r\nS001 OK begin\r\n", ""},
		{"* BYE too many\r\n", "", `greeting: server says "* BYE too many"`},
		{"* OK hi\r\n", "S001 BAD what\r\n", `STARTTLS: server says "BAD what"`},
		{"* OK hi\r\n", "S001 OK begin\r\n* CAPABILITY IMAP4rev1\r\n", "STARTTLS: server goes on without encryption"},
		{"* OK hi\r\n", "", "STARTTLS: EOF"},
	} {
		nc := serveOne(t, func(nc net.Conn) {
			io.WriteString(nc, c.greeting)
			if line, err := newReader(nc).line(); err != nil || line != "S001 STARTTLS" {
				return
			}
			io.WriteString(nc, c.answer)
			if c.want == "" { // it ends without an end of TLS, as servers do
				io.WriteString(tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{certificate}}), "* OK secret\r\n")
			}
		})
		encrypted, err := StartTLS(nc, &tls.Config{InsecureSkipVerify: true})
		if c.want != "" {
			if err == nil || err.Error() != c.want {
				t.Errorf("%q: error %v, want %s", c.answer, err, c.want)
			}
			if encrypted != nil {
				t.Errorf("%q: there is a connection", c.answer)
			}
			nc.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		conn := NewConn(encrypted)
		if got, err := conn.Response(patience); got != "* OK secret" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := conn.Response(patience); err != ErrEnded {
			t.Errorf("the end is %v", err)
		}
		conn.Close()
	}
}
