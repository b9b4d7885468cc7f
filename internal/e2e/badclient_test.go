package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A thousand wrong passwords hurt nobody else, and each leaves its line in the log, but not itself.
func TestWrongPasswords(t *testing.T) {
	const conns, each = 250, 4
	const secret = "not-the-password"
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	guess := func(i int) {
		// Who is wrong waits longer each time; all guessing from one address would take hours.
		from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(i%250+1))}
		nc, err := (&net.Dialer{LocalAddr: from}).Dial("tcp", s.imap)
		if err != nil {
			t.Error(err)
			return
		}
		c := greet(t, nc)
		c.quit = runtime.Goexit // FailNow is for the test's goroutine
		defer c.Close()
		for n := range each {
			user := []string{"ada", "nobody"}[n%2]
			command := fmt.Sprintf("LOGIN %s %s-%d-%d", user, secret, i, n)
			if n >= 2 {
				command = "AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "\x00%s\x00%s-%d-%d", user, secret, i, n))
			}
			if got := c.do(command).tagged; !strings.HasPrefix(got, "NO [AUTHENTICATIONFAILED] ") {
				c.fail("%s: %s", command, got)
			}
		}
	}
	other.during(t, func() {
		var guessing sync.WaitGroup
		for i := range conns {
			guessing.Go(func() { guess(i) })
		}
		for range 10 { // who knows the password is not kept waiting
			login(t, s.imap, "ada").ok("SELECT INBOX")
		}
		guessing.Wait()
	})
	s.stop(t)
	line := regexp.MustCompile(`level=WARN msg="login failed" .*remote=127\.1\.\d+\.\d+:\d+ user=(ada|nobody) `)
	count := map[string]int{}
	for _, l := range s.log {
		if m := line.FindStringSubmatch(l); m != nil {
			count[m[1]]++
		}
		if strings.Contains(l, secret) {
			t.Errorf("the log has a password: %s", l)
		}
	}
	if want := conns * each / 2; count["ada"] != want || count["nobody"] != want {
		t.Errorf("the log has %v failed logins, not %d of each", count, want)
	}
}

// Empty lines mean nothing, wherever a command may begin.
func TestEmptyLines(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	other.during(t, func() {
		c := dial(t, s.imap)
		for i, command := range []string{"NOOP", "LOGIN ada pass", "SELECT INBOX", "FETCH 1 UID", "IDLE\r\nDONE", "UNSELECT"} {
			c.send(strings.Repeat("\r\n", i) + "\n\r\n")
			c.ok(command)
		}
	})
}

// Many commands in one write are answered one after the other.
func TestPipelined(t *testing.T) {
	const mails = 20
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	c := login(t, s.imap, "ada")
	c.ok("CREATE Box")
	for range mails {
		c.ok("APPEND Box {}", otherMail)
	}
	c.ok("SELECT Box")
	c.ok("UNSELECT")
	other.during(t, func() {
		var b strings.Builder
		type wanted struct{ tag, untagged string }
		var want []wanted
		add := func(command, untagged string) {
			tag := fmt.Sprintf("p%d", len(want))
			b.WriteString(tag + " " + command + "\r\n")
			want = append(want, wanted{tag, untagged})
		}
		add("SELECT Box", fmt.Sprintf(`^\* %d EXISTS$`, mails))
		for range 10 {
			for n := 1; n <= mails; n++ {
				switch n % 4 {
				case 0:
					add(fmt.Sprintf("STORE %d +FLAGS (k%d)", n, n), fmt.Sprintf(`^\* %d FETCH .*k%d\b`, n, n))
				case 1:
					add(fmt.Sprintf("FETCH %d (UID BODY.PEEK[])", n), fmt.Sprintf(`^\* %d FETCH \(UID %d BODY\[\] \{%d\}\r\n`, n, n, len(otherMail)))
				case 2:
					add(fmt.Sprintf("UID SEARCH UID %d", n), fmt.Sprintf(`^\* SEARCH %d$`, n))
				case 3:
					add(fmt.Sprintf("APPEND Box {%d+}\r\n%s", len(otherMail), otherMail), `^\* \d+ EXISTS$`)
				}
			}
		}
		add("UNSELECT", "")
		go c.Write([]byte(b.String())) // not before the answers are read
		for _, w := range want {
			a := c.answer(w.tag)
			if !strings.HasPrefix(a.tagged, "OK ") || w.untagged != "" && find(a.untagged, w.untagged) == nil {
				t.Fatalf("%s: %q %s, not %s", w.tag, a.untagged, a.tagged, w.untagged)
			}
		}
	})
}

// Sets of 40 KB are answered; what is longer than a command may be is refused, and its end is not run
// as another command.
func TestLongCommands(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	c := login(t, s.imap, "ada")
	c.ok("SELECT INBOX")
	set := func(size int) string { // of odd numbers
		var b strings.Builder
		for n := 1; b.Len() < size; n += 2 {
			fmt.Fprintf(&b, "%d,", n)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	other.during(t, func() {
		long := set(40 << 10)
		for command, want := range map[string]string{
			"UID FETCH %s FLAGS":           "OK ",
			"UID SEARCH UID %s":            "OK ",
			"FETCH %s FLAGS":               "BAD ",
			"UID STORE %s FLAGS.SILENT ()": "OK ",
			"UID COPY %s None":             "NO [TRYCREATE] ",
			"UID EXPUNGE %s":               "OK ",
		} {
			if a := c.do(fmt.Sprintf(command, long)); !strings.HasPrefix(a.tagged, want) {
				t.Errorf("%s: %s, not %s", command, a.tagged, want)
			}
		}
		for _, size := range []int{51 << 10, 60 << 10, 70 << 10, 5 << 20} {
			if got := c.refused("SEARCH TEXT \"" + strings.Repeat("x", size) + " x CREATE Evil"); !strings.HasPrefix(got, "BAD ") {
				t.Errorf("a command of %d bytes: %s", size, got)
			}
		}
		for _, line := range c.ok(`LIST "" *`) {
			if strings.Contains(line, "Evil") {
				t.Errorf("what was refused was run: %s", line)
			}
		}
	})
}

// A message that is larger than allowed is refused before it is sent, or dropped if it was.
func TestTooBig(t *testing.T) {
	const limit = 1 << 20
	_, location := mailDir(t)
	s := serve(t, location, fmt.Sprintf("[limits]\nmessage_bytes = %d\n", limit))
	other := newOther(t, s.imap, "ada")
	c := login(t, s.imap, "ada")
	c.ok("CREATE Box")
	big := strings.Repeat("x NOOP\r\n", limit/8) + "x"
	other.during(t, func() {
		if got := c.refused("APPEND Box {}", big); !strings.HasPrefix(got, "NO [TOOBIG]") {
			t.Errorf("more than the limit: %s", got)
		}
		if got := c.refused(fmt.Sprintf("APPEND Box {%d+}\r\n%s", len(big), big)); !strings.HasPrefix(got, "NO [TOOBIG]") {
			t.Errorf("more than the limit, sent at once: %s", got)
		}
		c.refused("APPEND Box {9223372036854775807}")
		c.do("APPEND Box {9223372036854775808}")
		c.ok("APPEND Box {}", big[:limit])
		if got := c.ok("STATUS Box (MESSAGES)"); find(got, `MESSAGES 1\b`) == nil {
			t.Errorf("after one message: %q", got)
		}
	})
}

// Who speaks something else than IMAP is told so at once, and heard no further.
func TestNoIMAP(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	other.during(t, func() {
		for what, bytes := range map[string]string{
			"TLS":   "\x16\x03\x01\x00\xc5\x01\x00\x00\xc1\x03\x03",
			"HTTP":  "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"POST":  "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\na LOGIN ada pass\r\nb NOOP\r\n",
			"noise": strings.Repeat("\x00\xff\x80\x1b", 1000) + "\r\n",
			"SMTP":  "EHLO localhost\r\n",
		} {
			c := dial(t, s.imap)
			c.send(bytes)
			var said []string
			for {
				c.SetReadDeadline(time.Now().Add(patience))
				line, err := c.r.ReadString('\n')
				if err != nil {
					if e, ok := err.(net.Error); ok && e.Timeout() {
						t.Errorf("%s: the connection stays open", what)
					}
					break
				}
				said = append(said, line)
			}
			if find(said, `^\* BYE `) == nil || find(said, `^\w+ OK `) != nil {
				t.Errorf("%s: %q", what, said)
			}
		}
		// TLS where it is expected, but broken, or never begun.
		for _, bytes := range []string{"a LOGIN ada pass\r\n", ""} {
			nc, err := net.Dial("tcp", s.imaps)
			must(t, err)
			io.WriteString(nc, bytes)
			nc.(*net.TCPConn).CloseWrite()
			nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, nc); err != nil {
				t.Errorf("after %q instead of TLS: %v", bytes, err)
			}
			nc.Close()
		}
	})
}

// waitGone waits until the server knows that a connection is gone.
func (s *server) waitGone(t *testing.T, c *conn) {
	t.Helper()
	s.waitLog(t, fmt.Sprintf(`msg=disconnected .*remote=%s `, regexp.QuoteMeta(c.LocalAddr().String())))
}

// A client that vanishes while it sends a message leaves nothing behind.
func TestVanishes(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	other.during(t, func() {
		for _, announce := range []string{"x APPEND INBOX {1000000}\r\n", "x APPEND INBOX {1000000+}\r\n", "x CREATE {1000}\r\n"} {
			for _, reset := range []bool{false, true} {
				c := login(t, s.imap, "ada")
				c.send(announce)
				if !strings.Contains(announce, "+") {
					c.read()
				}
				c.send(strings.Repeat("x", 900))
				if reset {
					c.Conn.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
				s.waitGone(t, c)
			}
		}
	})
	for _, sub := range []string{"tmp", "new"} {
		if files, err := os.ReadDir(filepath.Join(s.root("ada"), sub)); err != nil || len(files) > 0 {
			t.Errorf("%s has %v, %v", sub, files, err)
		}
	}
}

// A client that asks for much and reads nothing holds up nobody, and is dropped when its mailbox is
// deleted.
func TestReadsNothing(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	other.during(t, func() {
		stuck := login(t, s.imap, "ada")
		stuck.ok("CREATE Box")
		writeFile(t, filepath.Join(s.root("ada"), ".Box", "new", "1700000000.big.host"), strings.Repeat(strings.Repeat("x", 70)+"\n", 300_000))
		stuck.ok("SELECT Box")
		stuck.send("x FETCH 1 BODY.PEEK[]\r\n")
		if _, err := stuck.r.Peek(1); err != nil { // it has begun
			t.Fatal(err)
		}
		c := login(t, s.imap, "ada")
		c.ok("SELECT Box")
		c.ok("STORE 1 +FLAGS (\\Deleted)")
		c.ok("EXPUNGE")
		c.ok("CLOSE")
		c.ok("DELETE Box")
		s.waitGone(t, stuck)
	})
}
