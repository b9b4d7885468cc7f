package wire_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"github.com/imapmaildir/imapmaildir/backend/wire"
)

// A server is go-imap with its in-memory mailboxes behind a wire.Listener, as a host program sets
// them up: one imapserver.Server for plaintext and one for what STARTTLS encrypted.
type server struct {
	addr  string
	ln    *wire.Listener
	user  *imapmemserver.User
	conns chan *imapserver.Conn // those that began, oldest first
	full  atomic.Bool           // sessions are refused
	idle  chan uint32           // numbers of messages that sessions are told in IDLE
	*counter
}

type counter struct{ writes atomic.Int64 }

// A countingListener counts the writes to its connections, each a system call.
type countingListener struct {
	net.Listener
	*counter
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return countingConn{conn, l.counter}, err
}

type countingConn struct {
	net.Conn
	*counter
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

const login = "l LOGIN alice secret\r\n"

// start starts a server. With plain set users may log in without TLS; with o nil nothing is between
// go-imap and TCP.
func start(tb testing.TB, plain bool, o *wire.Options) *server {
	tb.Helper()
	s := &server{
		user:    imapmemserver.NewUser("alice", "secret"),
		conns:   make(chan *imapserver.Conn, 1000),
		idle:    make(chan uint32),
		counter: new(counter),
	}
	if err := s.user.Create("INBOX", nil); err != nil {
		tb.Fatal(err)
	}
	mem := imapmemserver.New()
	mem.AddUser(s.user)
	opts := imapserver.Options{
		NewSession: func(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			s.conns <- c
			if s.full.Load() {
				return nil, nil, &imap.Error{Type: imap.StatusResponseTypeBye, Text: "Full"}
			}
			return session{mem.NewSession().(imapserver.SessionIMAP4rev2), s}, nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		Logger:       quiet{},
		InsecureAuth: plain,
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.addr = tcp.Addr().String()
	var ln net.Listener = countingListener{tcp, s.counter}
	if o != nil {
		opts.TLSConfig = o.TLSConfig
		s.ln = wire.Wrap(ln, o)
		ln = s.ln

		encrypted := opts
		encrypted.InsecureAuth = true
		encrypted.TLSConfig = nil
		serve(tb, imapserver.New(&encrypted), s.ln.Encrypted())
	}
	serve(tb, imapserver.New(&opts), ln)
	return s
}

// An announcing listener tells of the first Accept.
type announcing struct {
	net.Listener
	once    sync.Once
	accepts chan struct{}
}

func (l *announcing) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.accepts) })
	return l.Listener.Accept()
}

// A session has its own Idle: that of the in-memory server may miss what comes while it begins.
type session struct {
	imapserver.SessionIMAP4rev2
	server *server
}

func (s session) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	for {
		select {
		case n := <-s.server.idle:
			if err := w.WriteNumMessages(n); err != nil {
				return err
			}
		case <-stop:
			return nil
		}
	}
}

func serve(tb testing.TB, s *imapserver.Server, ln net.Listener) {
	served := make(chan error)
	accepts := make(chan struct{})
	go func() { served <- s.Serve(&announcing{Listener: ln, accepts: accepts}) }()
	tb.Cleanup(func() {
		<-accepts // a Close before Serve has begun is a race in go-imap
		s.Close()
		if err := <-served; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// fill puts n messages into INBOX.
func (s *server) fill(tb testing.TB, n int) {
	tb.Helper()
	const mail = "Subject: hello\r\n\r\nHello.\r\n"
	for range n {
		if _, err := s.user.Append("INBOX", literal{strings.NewReader(mail), int64(len(mail))}, &imap.AppendOptions{}); err != nil {
			tb.Fatal(err)
		}
	}
}

type literal struct {
	io.Reader
	size int64
}

func (l literal) Size() int64 { return l.size }

// serverTLS and clientTLS are made once: a key takes a while.
var serverTLS, clientTLS = sync.OnceValues(func() (*tls.Config, *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
})()

// A client speaks to the server line by line. Whatever takes longer than ten seconds fails.
type client struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
}

func (s *server) dial(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, format, args...); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.br.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", line, err)
	}
	return line
}

// expect reads one line for each prefix, and it must have that.
func (c *client) expect(prefixes ...string) {
	c.t.Helper()
	for _, prefix := range prefixes {
		if line := c.line(); !strings.HasPrefix(line, prefix) {
			c.t.Fatalf("got %q, want %q", line, prefix)
		}
	}
}

// until reads up to a line with the prefix and returns all before it.
func (c *client) until(prefix string) string {
	c.t.Helper()
	var before strings.Builder
	for {
		line := c.line()
		if strings.HasPrefix(line, prefix) {
			return before.String()
		}
		before.WriteString(line)
	}
}

// closed reads the end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.br.ReadByte(); err == nil {
		c.br.UnreadByte()
		c.t.Fatalf("got %q, want the end", c.line())
	} else if errors.Is(err, net.ErrClosed) || isTimeout(err) {
		c.t.Fatalf("waiting for the end: %v (%q)", err, b)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestEmptyLines(t *testing.T) {
	s := start(t, true, &wire.Options{})
	c := s.dial(t)
	c.expect("* OK ")
	c.send("\r\n" + login)
	c.expect("l OK ")
	c.send("\r\n\n\r\na NOOP\r\n\n\r\nb NOOP\n\r\n")
	c.expect("a OK ", "b OK ")

	// An empty line is dropped also when it comes in pieces.
	c.send("\r")
	c.send("\n")
	c.send("c NO")
	c.send("OP\r")
	c.send("\n\r")
	c.expect("c OK ")
	c.send("\nd NOOP\r\n")
	c.expect("d OK ")
}

// TestEmptyLinesThatCount has empty lines that belong to a literal or to a SASL exchange.
func TestEmptyLinesThatCount(t *testing.T) {
	s := start(t, true, &wire.Options{})
	c := s.dial(t)
	c.expect("* OK ")
	c.send("a AUTHENTICATE PLAIN\r\n")
	c.expect("+ ")
	c.send("\r\n")
	c.expect("a NO ")
	c.send(login)
	c.expect("l OK ")

	const mail = "\r\n\r\n\n\r\nb\r\n\r\n"
	c.send("b APPEND INBOX {%d}\r\n", len(mail))
	c.expect("+ ")
	c.send(mail)
	c.send("\r\n\r\nc APPEND {5+}\r\nINBOX {%d+}\r\n%s\r\n\r\n", len(mail), mail)
	c.expect("b OK ", "c OK ")
	c.send("d SELECT INBOX\r\n")
	c.until("d OK ")
	for _, n := range []string{"1", "2"} {
		c.send("e FETCH %s BODY.PEEK[]\r\n", n)
		want := fmt.Sprintf("* %s FETCH (UID %[1]s BODY[] {%d}\r\n%s)\r\n", n, len(mail), mail)
		if got := c.until("e OK "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestRefusedLiteral sends a literal that go-imap refuses, after which it takes what it is sent for
// commands.
func TestRefusedLiteral(t *testing.T) {
	s := start(t, true, &wire.Options{})
	c := s.dial(t)
	c.expect("* OK ")
	c.send(login)
	c.expect("l OK ")

	mail := strings.Repeat("evil CREATE Evil\r\n", 1000)
	c.send("a APPEND INBOX {%d+}\r\n%s {3+}\r\nx\r\n)\r\nb NOOP\r\n", len(mail), mail)
	c.expect("a BAD ", "b OK ")

	// A literal that the client is not asked for is not sent.
	c.send("c APPEND INBOX {200000000}\r\n")
	c.expect("c NO [TOOBIG] ")
	c.send("\r\nd LIST \"\" Evil\r\n")
	c.expect("d OK ")
}

// What is too long is answered and never run; after it the connection goes on where that is possible.
func TestCommandTooLong(t *testing.T) {
	s := start(t, true, &wire.Options{})
	s.fill(t, 1)
	const most = 50 << 10
	// fetch is a line of n bytes without its end.
	fetch := func(n int, end string) string {
		begin := "b UID FETCH "
		return begin + strings.Repeat("1,", n/2)[:n-len(begin)-len(end)-1] + "1" + end
	}
	evil := " evil CREATE Evil"
	for _, tt := range []struct{ name, sent, want string }{
		{"longest", fetch(most-2, " UID") + "\r\n", "* 1 FETCH "},
		{"a byte more", fetch(most-1, " UID") + "\r\n", "b BAD [CLIENTBUG] "},
		{"a command in it", fetch(most+1, "") + evil + "\r\n", "b BAD [CLIENTBUG] "},
		{"long", fetch(1<<20, "") + evil + "\r\n", "b BAD [CLIENTBUG] "},
		{"literal", fetch(1<<20, "") + " {5}\r\n", "b BAD [CLIENTBUG] "},
		{"literal+", fetch(1<<20, "") + " {18+}\r\n" + evil[1:] + "\r\n {3+}\r\nx\r\n\r\n", "b BAD [CLIENTBUG] "},
		{"rewritten", "b SEARCH" + strings.Repeat(" SMALLER 9", (most-10)/10) + "\r\n", "b BAD [CLIENTBUG] "},
		{"second line", "b LIST \"\" {1+}\r\nx" + strings.Repeat(" ", most) + "\r\n", "* BYE "},
		{"two lines", strings.Replace(fetch(most-50, " SUBJECT {1+}"), "FETCH", "SEARCH UID", 1) + "\r\nx SUBJECT " + strings.Repeat("x", 50) + "\r\n", "* BYE "},
		{"no tag", strings.Repeat("x", 1<<20), "* BYE "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := s.dial(t)
			c.expect("* OK ")
			c.send(login)
			c.expect("l OK ")
			c.send("a SELECT INBOX\r\n")
			c.until("a OK ")
			go io.WriteString(c.conn, tt.sent) // the server may be gone before the end
			switch c.expect(tt.want); tt.want[0] {
			case '*':
				if tt.want == "* BYE " {
					return
				}
				c.expect("b OK ")
			}
			c.send("c LIST \"\" Evil\r\n")
			c.expect("c OK ")
		})
	}
}

// Who speaks something else is told so, and need not end a line to be told.
func TestNoCommand(t *testing.T) {
	s := start(t, true, &wire.Options{})
	for name, sent := range map[string]string{
		"TLS":      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"garbage":  "\x00\xff\x80\r\n",
		"no tag":   " NOOP\r\n",
		"only tag": "a\r\n",
		"no name":  "a (x)\r\n",
		"UID":      "a UID\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := s.dial(t)
			c.expect("* OK ")
			c.send("b NOOP\r\n%s", sent)
			c.expect("b OK ", "* BYE ")
			c.closed()
		})
	}
}

// writesOf returns how many writes answer a command: the least of some tries, since on a busy machine a
// command may take longer than its lines are held.
func (s *server) writesOf(c *client, command string) int64 {
	c.t.Helper()
	var least int64
	for i := range 10 {
		before := s.writes.Load()
		c.send("w %s\r\n", command)
		c.until("w OK ")
		if n := s.writes.Load() - before; i == 0 || n < least {
			least = n
		}
	}
	return least
}

// TestGathered counts the writes that answers need.
func TestGathered(t *testing.T) {
	s := start(t, true, &wire.Options{})
	s.fill(t, 1000)
	c := s.dial(t)
	c.expect("* OK ")
	c.send(login)
	c.expect("l OK ")
	c.send("a SELECT INBOX\r\n")
	c.until("a OK ")

	before := s.writes.Load()
	c.send("b FETCH 1:* (UID FLAGS)\r\n")
	answer := c.until("b OK ")
	if lines := strings.Count(answer, "\n"); lines != 1000 {
		t.Errorf("FETCH: got %d lines", lines)
	}
	// At 32 KiB or 10 ms each.
	if n := s.writes.Load() - before; n > 50 {
		t.Errorf("FETCH: %d bytes in %d writes", len(answer), n)
	}

	before = s.writes.Load()
	c.send("%s", strings.Repeat("c NOOP\r\n", 100)+"d NOOP\r\n")
	c.until("d OK ")
	if n := s.writes.Load() - before; n > 10 {
		t.Errorf("101 pipelined commands: %d writes", n)
	}

	if n := s.writesOf(c, "FETCH 1:10 FLAGS"); n != 1 {
		t.Errorf("one command: %d writes", n)
	}
}

// TestIdle has updates while a client waits in IDLE and says nothing.
func TestIdle(t *testing.T) {
	s := start(t, true, &wire.Options{})
	c := s.dial(t)
	c.expect("* OK ")
	c.send(login)
	c.expect("l OK ")
	c.send("a SELECT INBOX\r\n")
	c.until("a OK ")
	c.send("b IDLE\r\n")
	c.expect("+ ")
	for n := range uint32(20) {
		s.idle <- n
		c.expect(fmt.Sprintf("* %d EXISTS", n))
	}
	c.send("DONE\r\n\r\nc NOOP\r\n")
	c.expect("b OK ", "c OK ")
}

// TestBye says goodbye to a client that is idle, as at shutdown.
func TestBye(t *testing.T) {
	s := start(t, true, &wire.Options{})
	c := s.dial(t)
	c.expect("* OK ")
	conn := <-s.conns
	c.send(login)
	c.expect("l OK ")
	if err := conn.Bye("Shutting down"); err != nil {
		t.Errorf("Bye: %v", err)
	}
	c.expect("* BYE Shutting down")
	c.closed()
}

func TestSTARTTLS(t *testing.T) {
	s := start(t, false, &wire.Options{TLSConfig: serverTLS})
	s.fill(t, 3)
	c := s.dial(t)
	if greeting := c.line(); !strings.Contains(greeting, " STARTTLS") || !strings.Contains(greeting, " LOGINDISABLED") {
		t.Errorf("greeting %q", greeting)
	}
	c.send(login)
	c.expect("l NO [PRIVACYREQUIRED]")
	c.send("\r\na NOOP\r\n\r\nb StartTLS\r\n")
	c.expect("a OK ", "b OK Begin TLS")

	tc := tls.Client(c.conn, clientTLS)
	c = newClient(t, tc)
	c.send("\r\nc CAPABILITY\r\n")
	line := c.line() // no second greeting
	if !strings.HasPrefix(line, "* CAPABILITY ") || !strings.Contains(line, " AUTH=PLAIN") || strings.Contains(line, "STARTTLS") {
		t.Errorf("after STARTTLS: %q", line)
	}
	c.expect("c OK ")
	c.send("d STARTTLS\r\n")
	c.expect("d NO ")
	c.send(login)
	c.expect("l OK ")
	c.send("e SELECT INBOX\r\n")
	c.until("e OK ")
	if n := s.writesOf(c, "FETCH 1:* FLAGS"); n != 1 {
		t.Errorf("FETCH over TLS: %d writes", n)
	}

	<-s.conns
	if conn := (<-s.conns).NetConn().(*wire.Conn); !conn.IsTLS() {
		t.Error("IsTLS() = false after STARTTLS")
	} else if conn.RemoteAddr().String() != c.conn.LocalAddr().String() {
		t.Errorf("RemoteAddr() = %v, want %v", conn.RemoteAddr(), c.conn.LocalAddr())
	}
	c.send("g LOGOUT\r\n")
	c.expect("* BYE ", "g OK ")
	c.closed()
}

// TestSTARTTLSClient uses go-imap's own client.
func TestSTARTTLSClient(t *testing.T) {
	s := start(t, false, &wire.Options{TLSConfig: serverTLS})
	s.fill(t, 3)
	c, err := imapclient.DialStartTLS(s.addr, &imapclient.Options{TLSConfig: clientTLS})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("alice", "secret").Wait(); err != nil {
		t.Fatal(err)
	}
	data, err := c.Select("INBOX", nil).Wait()
	if err != nil || data.NumMessages != 3 {
		t.Fatalf("Select: %+v, %v", data, err)
	}
	if err := c.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestSTARTTLSInjection sends commands behind STARTTLS that a server may not carry over into the encrypted
// session.
func TestSTARTTLSInjection(t *testing.T) {
	s := start(t, false, &wire.Options{TLSConfig: serverTLS})
	c := s.dial(t)
	c.expect("* OK ")
	c.send("a NOOP\r\nb STARTTLS\r\nc NOOP\r\n")
	c.expect("a OK ")
	c.closed()
}

// TestSTARTTLSRefused has forms of STARTTLS that are the server's to answer.
func TestSTARTTLSRefused(t *testing.T) {
	s := start(t, true, &wire.Options{TLSConfig: serverTLS})
	c := s.dial(t)
	c.expect("* OK ")
	c.send("a STARTTLS now\r\n")
	c.expect("a BAD ")
	c.send("b LOGIN {8}\r\n")
	c.expect("+ ")
	c.send("STARTTLS {1+}\r\nx\r\n")
	c.expect("b NO ")
	c.send(login)
	c.expect("l OK ")
	c.send("c STARTTLS\r\n")
	c.expect("c BAD ")
	c.send("d NOOP\r\n")
	c.expect("d OK ")
}

// TestSTARTTLSAfterFailedLogin makes sure that only a login that succeeds ends STARTTLS.
func TestSTARTTLSAfterFailedLogin(t *testing.T) {
	s := start(t, true, &wire.Options{TLSConfig: serverTLS})
	c := s.dial(t)
	c.expect("* OK ")
	c.send("a LOGIN alice wrong\r\n")
	c.expect("a NO ")
	c.send("a AUTHENTICATE PLAIN\r\n")
	c.expect("+ ")
	c.send("*\r\n")
	c.expect("a BAD ")
	c.send("a STARTTLS\r\n")
	c.expect("a OK Begin TLS")
	c = newClient(t, tls.Client(c.conn, clientTLS))
	c.send(login)
	c.expect("l OK ")
}

// TestSTARTTLSWhen has what may come before STARTTLS, and whether wire answers it or the server is to.
func TestSTARTTLSWhen(t *testing.T) {
	long := strings.Repeat("x", 4096)
	for _, tt := range []struct {
		name    string
		dialog  []string // what the server writes, and after "C: " what it reads
		answers bool
	}{
		{"greeting", []string{"* OK hello\r\n"}, true},
		{"already logged in", []string{"* PREAUTH hello\r\n"}, false},
		{"login", []string{"* OK hello\r\n", "C: a LOGIN x y\r\n", "a OK done\r\n"}, false},
		{"authenticate", []string{"C: a authenticate PLAIN\r\n", "+ \r\n", "C: AHgAeQ==\r\n", "a OK done\r\n"}, false},
		{"failed login", []string{"C: a LOGIN x y\r\n", "a NO no\r\n"}, true},
		{"failed login, then OK to another command",
			[]string{"C: a LOGIN x y\r\n", "a NO no\r\n", "C: a NOOP\r\n", "a OK done\r\n"}, true},
		{"failed login with a line in two writes",
			[]string{"C: a LOGIN x y\r\n", "* OK " + long, "a OK fooled\r\n", "a NO no\r\n"}, true},
		{"tag that begins another", []string{"C: a LOGIN x y\r\n", "aa OK done\r\n"}, true},
		{"logged out", []string{"C: a LOGIN x y\r\n", "a OK done\r\n", "C: b UNAUTHENTICATE\r\n", "b OK done\r\n"}, true},
		{"failed to log out", []string{"C: a LOGIN x y\r\n", "a OK done\r\n", "C: b UNAUTHENTICATE\r\n", "b BAD no\r\n"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, client := pipe(t, &wire.Options{TLSConfig: serverTLS})
			answers := make(chan bool, 1)
			go func() {
				sc := bufio.NewScanner(client)
				for sc.Scan() && !strings.HasPrefix(sc.Text(), "s OK Begin TLS") {
				}
				answers <- strings.HasPrefix(sc.Text(), "s OK")
				client.Close()
			}()
			go func() {
				for _, step := range tt.dialog {
					if line, ok := strings.CutPrefix(step, "C: "); ok {
						io.WriteString(client, line)
					}
				}
				io.WriteString(client, "s STARTTLS\r\n")
			}()
			for _, step := range tt.dialog {
				if line, ok := strings.CutPrefix(step, "C: "); !ok {
					io.WriteString(server, step)
				} else if got := read(t, server, len(line)); got != line {
					t.Fatalf("got %q, want %q", got, line)
				}
			}
			_, err := server.Read(make([]byte, 1))
			client.Close()
			if answered := <-answers; answered != tt.answers || answered == (err == nil) {
				t.Errorf("STARTTLS answered by wire: %v, want %v (Read: %v)", answered, tt.answers, err)
			}
		})
	}
}

// TestGreetingBye has a second server that sends the client away.
func TestGreetingBye(t *testing.T) {
	s := start(t, false, &wire.Options{TLSConfig: serverTLS})
	c := s.dial(t)
	c.expect("* OK ")
	s.full.Store(true)
	c.send("a STARTTLS\r\n")
	c.expect("a OK ")
	c = newClient(t, tls.Client(c.conn, clientTLS))
	c.expect("* BYE Full")
	c.closed()
}

// TestByeDuringHandshake says goodbye while the client and the server are between two protocols.
func TestByeDuringHandshake(t *testing.T) {
	s := start(t, false, &wire.Options{TLSConfig: serverTLS})
	c := s.dial(t)
	c.expect("* OK ")
	c.send("a STARTTLS\r\n")
	c.expect("a OK ")
	(<-s.conns).Bye("Shutting down")
	c.closed() // and nothing in plaintext
}

func TestHandshakeTimeout(t *testing.T) {
	s := start(t, false, &wire.Options{TLSConfig: serverTLS, HandshakeTimeout: time.Millisecond})
	c := s.dial(t)
	c.expect("* OK ")
	c.send("a STARTTLS\r\n")
	c.expect("a OK ")
	c.closed()
}

// TestEncryptedClosed asks for TLS when its listener is gone.
func TestEncryptedClosed(t *testing.T) {
	s := start(t, false, &wire.Options{TLSConfig: serverTLS})
	c := s.dial(t)
	c.expect("* OK ")
	if err := s.ln.Close(); err != nil {
		t.Fatal(err)
	}
	c.send("a STARTTLS\r\n")
	c.expect("a OK ")
	tc := tls.Client(c.conn, clientTLS)
	newClient(t, tc).closed()
}

// TestImaps speaks TLS from the start, as on port 993.
func TestImaps(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mem := imapmemserver.New()
	user := imapmemserver.NewUser("alice", "secret")
	user.Create("INBOX", nil)
	mem.AddUser(user)
	isTLS := make(chan bool, 1)
	serve(t, imapserver.New(&imapserver.Options{
		NewSession: func(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			isTLS <- c.NetConn().(*wire.Conn).IsTLS()
			return mem.NewSession(), nil, nil
		},
		Logger:       quiet{},
		InsecureAuth: true,
	}), wire.Wrap(tls.NewListener(tcp, serverTLS), nil))

	// A client that never shakes hands keeps nobody waiting.
	silent, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if !<-isTLS {
		t.Error("IsTLS() = false")
	}

	c, err := imapclient.DialTLS(tcp.Addr().String(), &imapclient.Options{TLSConfig: clientTLS})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("alice", "secret").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    wire.Options
	}{
		{"conns", wire.Options{MaxConns: 2}},
		{"per IP", wire.Options{MaxConnsPerIP: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.TLSConfig = serverTLS
			tt.o.Logger = slog.New(slog.DiscardHandler)
			s := start(t, true, &tt.o)
			a, b := s.dial(t), s.dial(t)
			a.expect("* OK ")
			b.expect("* OK ")
			c := s.dial(t)
			c.expect("* BYE Too many connections")
			c.closed()

			// The place is kept through STARTTLS, and given back when the connection ends.
			a.send("a STARTTLS\r\n")
			a.expect("a OK ")
			a = newClient(t, tls.Client(a.conn, clientTLS))
			a.send("b NOOP\r\n")
			a.expect("b OK ")
			c = s.dial(t)
			c.expect("* BYE Too many connections")
			c.closed()
			a.send("c LOGOUT\r\n")
			a.expect("* BYE ", "c OK ")
			a.closed()
			for { // the server may take a moment to notice
				c = s.dial(t)
				if strings.HasPrefix(c.line(), "* OK ") {
					break
				}
			}
			c = s.dial(t)
			c.expect("* BYE Too many connections")
		})
	}
}
