package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A conn is a connection to an IMAP server, spoken line by line. A failure shows its dialogue.
type conn struct {
	net.Conn
	t    testing.TB
	quit func() // ends the goroutine after a failure
	r    *bufio.Reader
	tags int

	mu   sync.Mutex // guards what follows: one goroutine may send while another reads
	said []string   // the last lines of the dialogue
}

// An answer is what came for a command: untagged responses, each with its literals in it as they
// came, then the tagged one without its tag.
type answer struct {
	untagged []string
	tagged   string
}

// dial connects and reads the greeting.
func dial(t testing.TB, addr string) *conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return greet(t, nc)
}

// greet reads the greeting on a new connection, which it closes with the test.
func greet(t testing.TB, nc net.Conn) *conn {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	c := &conn{Conn: nc, t: t, quit: t.FailNow, r: bufio.NewReader(nc)}
	if line := c.read(); !strings.HasPrefix(line, "* OK") {
		c.fail("greeting %q", line)
	}
	return c
}

// login connects and logs in.
func login(t testing.TB, addr, user string) *conn {
	t.Helper()
	c := dial(t, addr)
	c.ok("LOGIN " + user + " pass")
	return c
}

func (c *conn) fail(format string, args ...any) {
	c.t.Helper()
	c.mu.Lock()
	said := strings.Join(c.said, "\n")
	c.mu.Unlock()
	c.t.Errorf("%s\nthe dialogue:\n%s", fmt.Sprintf(format, args...), said)
	c.quit()
}

func (c *conn) note(who, line string) {
	if len(line) > 300 {
		line = fmt.Sprintf("%.300q... (%d bytes)", line, len(line))
	} else {
		line = fmt.Sprintf("%q", line)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said[max(0, len(c.said)-50):], who+line)
}

// send writes bytes as they are.
func (c *conn) send(s string) {
	c.t.Helper()
	c.note("C: ", s)
	c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, s); err != nil {
		c.fail("write: %v", err)
	}
}

var literal = regexp.MustCompile(`\{(\d+)\}\r\n$`)

// read returns the next response, with the bytes of its literals, without its CRLF.
func (c *conn) read() string {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	s, err := c.next()
	if err != nil {
		c.fail("read: %v after %q", err, s)
	}
	return s
}

// next is read where the connection may end, and where nothing may come for long.
func (c *conn) next() (string, error) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		m := literal.FindStringSubmatch(line)
		if m == nil {
			break
		}
		n, _ := strconv.ParseInt(m[1], 10, 64) // digits
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			return b.String(), fmt.Errorf("a literal of %d bytes: %w", n, err)
		}
	}
	s := strings.TrimSuffix(b.String(), "\r\n")
	c.note("S: ", s)
	return s, nil
}

// do sends a command without its tag and reads the answer. "{}" stands for a literal: the number of
// bytes of the next of literals, which is sent when the server asks for it.
func (c *conn) do(command string, literals ...string) answer {
	c.t.Helper()
	c.tags++
	tag := fmt.Sprintf("a%d", c.tags)
	command = tag + " " + command + "\r\n"
	var a answer
	for _, l := range literals {
		before, after, _ := strings.Cut(command, "{}")
		c.send(fmt.Sprintf("%s{%d}\r\n", before, len(l)))
		for {
			line := c.read()
			if strings.HasPrefix(line, "+") {
				break
			}
			if tagged, ok := strings.CutPrefix(line, tag+" "); ok { // refused
				a.tagged = tagged
				return a
			}
			a.untagged = append(a.untagged, line)
		}
		c.send(l)
		command = after
	}
	c.send(command)
	rest := c.answer(tag)
	return answer{append(a.untagged, rest.untagged...), rest.tagged}
}

// answer reads up to the tagged response of a command that was sent.
func (c *conn) answer(tag string) answer {
	c.t.Helper()
	var a answer
	for {
		line := c.read()
		if tagged, ok := strings.CutPrefix(line, tag+" "); ok {
			a.tagged = tagged
			return a
		}
		a.untagged = append(a.untagged, line)
	}
}

// ok is do for a command that has to succeed; it returns the untagged responses.
func (c *conn) ok(command string, literals ...string) []string {
	c.t.Helper()
	a := c.do(command, literals...)
	if !strings.HasPrefix(a.tagged, "OK") {
		c.fail("%.200q: %s", command, a.tagged)
	}
	return a.untagged
}

var refusal = regexp.MustCompile(`^(NO|BAD) \[[A-Z]+[^]]*\] .`)

// refused is do for a command that has to be answered with NO or BAD, a response code, and a text.
func (c *conn) refused(command string, literals ...string) string {
	c.t.Helper()
	a := c.do(command, literals...)
	if !refusal.MatchString(a.tagged) || strings.Contains(a.tagged, "SERVERBUG") {
		c.fail("%.200q is not refused with a response code: %s", command, a.tagged)
	}
	return a.tagged
}

// find returns the submatches of the first response that matches, or nil.
func find(responses []string, pattern string) []string {
	re := regexp.MustCompile(pattern)
	for _, r := range responses {
		if m := re.FindStringSubmatch(r); m != nil {
			return m
		}
	}
	return nil
}

// An other is a session that other sessions must not hurt: it has INBOX selected, which has one
// message.
type other struct{ *conn }

const otherMail = "Subject: hello\r\n\r\nI am here.\r\n"

// newOther puts a message into the user's INBOX, which is empty.
func newOther(t *testing.T, addr, user string) *other {
	t.Helper()
	o := &other{conn: login(t, addr, user)}
	o.ok("APPEND INBOX {}", otherMail)
	o.ok("SELECT INBOX")
	o.ok("NOOP")
	return o
}

// round is what the session does all the time. Nothing is told to it that it did not ask for.
func (o *other) round() {
	o.t.Helper()
	if told := o.ok("NOOP"); len(told) > 0 {
		o.fail("the other session was told %q", told)
	}
	got := o.ok("FETCH 1 (UID BODY.PEEK[])")
	if want := fmt.Sprintf("* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)", len(otherMail), otherMail); len(got) != 1 || got[0] != want {
		o.fail("the other session got %q, not %q", got, want)
	}
}

// during does something while the other session goes on working; t is the test, or the subtest,
// that this is a part of.
func (o *other) during(t testing.TB, f func()) {
	t.Helper()
	outer := o.t
	stop, stopped := make(chan struct{}), make(chan struct{})
	o.t, o.quit = t, runtime.Goexit // FailNow is for the test's goroutine
	go func() {
		defer close(stopped)
		for {
			o.round()
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
		o.quit = t.FailNow
		o.round()
		o.t, o.quit = outer, outer.FailNow
	}()
	f()
}
