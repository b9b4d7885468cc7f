package practice

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// memory starts go-imap with mailboxes in memory, one server more than ours to ask.
func memory(t *testing.T) string {
	t.Helper()
	user := imapmemserver.NewUser("alice", `sec"rät`)
	mem := imapmemserver.New()
	mem.AddUser(user)
	srv := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return idling{mem.NewSession()}, nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}},
		Logger:       log.New(io.Discard, "", 0),
		InsecureAuth: true,
	})
	return listen(t, func(ln net.Listener) { srv.Serve(ln) }, func() { srv.Close() })
}

// An idling is a session of go-imap's server in memory whose Idle forgets nothing: its own does not tell
// what happens between "+ idling" and its beginning.
type idling struct{ imapserver.Session }

func (s idling) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if err := s.Poll(w, true); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stop:
			return nil
		}
	}
}

// listen runs serve on a loopback listener that ends with the test.
func listen(t *testing.T, serve func(net.Listener), stop func()) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { serve(ln) })
	t.Cleanup(func() {
		ln.Close()
		stop()
		wg.Wait()
	})
	return ln.Addr().String()
}

// between stands between the clients and a server. answer is given each line of a client; what it
// returns is answered in the server's place, with the line's tag for T, unless it is "".
func between(t *testing.T, server string, answer func(line string) string) string {
	t.Helper()
	var wg sync.WaitGroup
	serve := func(client net.Conn) {
		defer client.Close()
		upstream, err := net.Dial("tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() {
			io.Copy(client, upstream)
			client.Close()
		})
		defer upstream.Close()
		for in := bufio.NewReader(client); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
			to, text := io.Writer(upstream), line
			if a := answer(command); a != "" {
				to, text = client, ourTag.ReplaceAllString(a, tag+" ")
			}
			if _, err := io.WriteString(to, text); err != nil {
				return
			}
		}
	}
	return listen(t, func(ln net.Listener) {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	}, wg.Wait)
}

var ourTag = regexp.MustCompile(`(?m)^T `)

// nothing is an answer that makes a client wait.
const nothing = "* OK wait\r\n"

func server(addr string) *Server {
	return &Server{Addr: addr, User: "alice", Password: `sec"rät`, Timeout: 10 * time.Second}
}

func answers(r *Report) map[string]string {
	m := map[string]string{}
	for _, f := range r.Findings {
		m[f.Scene] = f.Says()
	}
	return m
}

// wantClean fails the test if a mailbox of ours is left.
func wantClean(t *testing.T, addr string) {
	t.Helper()
	c, err := (&run{server: server(addr)}).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	list := c.do(`LIST "" *`)
	if list.status != "OK" || strings.Contains(strings.Join(list.untagged, "\n"), "rfc2180") {
		t.Errorf("left behind: %q", list.untagged)
	}
}

// Another server than ours: it shows other things, is asked all, and left as it was.
func TestAsk(t *testing.T) {
	t.Parallel()
	addr := memory(t)
	r, err := server(addr).Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := answers(r)
	for scene, want := range map[string]string{
		"delete":       "ghost: but STATUS fails",
		"delete-name":  "free",
		"rename":       "follow",
		"rename-name":  "NO [NONEXISTENT]",
		"fetch":        "not allowed: OK, and they are left out",
		"fetch-told":   "not allowed: OK",
		"store-silent": "OK",
		"store":        "not allowed: OK, and they are left out",
		"search":       "left out",
		"move":         "not offered",
		"uid-fetch":    "left out",
		"idle-expunge": "told",
	} {
		if got[scene] != want {
			t.Errorf("%s: %s, want %s", scene, got[scene], want)
		}
	}
	if len(r.Findings) != len(scenes) || len(got) != len(scenes) {
		t.Errorf("%d findings of %d scenes", len(got), len(scenes))
	}
	want := []string{
		`C1: A001 SELECT "ID-14-FOO"`,
		"S1: A001 OK [READ-WRITE] SELECT completed",
		`C1: A002 STORE 4:7 +FLAGS.SILENT (\Deleted)`,
		"S1: A002 OK STORE completed",
		`C2: B001 SELECT "ID-14-FOO"`,
		"S2: B001 OK [READ-WRITE] SELECT completed",
		"C1: A003 EXPUNGE",
		"S1: * 7 EXPUNGE", "S1: * 6 EXPUNGE", "S1: * 5 EXPUNGE", "S1: * 4 EXPUNGE",
		"S1: A003 OK EXPUNGE completed",
		"C2: B002 SEARCH ALL",
		"S2: * SEARCH 1 2 3",
		"S2: B002 OK SEARCH completed",
	}
	proof := r.Findings[13].Proof
	for i := range proof {
		proof[i] = regexp.MustCompile("rfc2180-[0-9a-f]{8}").ReplaceAllString(proof[i], "ID")
	}
	if !slices.Equal(proof, want) {
		t.Errorf("the proof is\n%s", strings.Join(proof, "\n"))
	}
	wantClean(t, addr)
}

// A question that is not answered leaves the others as they are.
func TestSilence(t *testing.T) {
	t.Parallel()
	addr := memory(t)
	s := server(between(t, addr, func(command string) string {
		if strings.HasPrefix(command, "SEARCH BODY") {
			return nothing
		}
		return ""
	}))
	s.Timeout = 2 * time.Second
	r, err := s.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := answers(r)
	if got["search"] != "left out" || got["search-body"] != "no answer: the server says nothing for 2s" || got["copy"] == "" {
		t.Errorf("got %q", got)
	}
	wantClean(t, addr)
}

// A session that ends in the midst of a command, a command that fails, and answers that are none.
func TestTrouble(t *testing.T) {
	t.Parallel()
	addr := memory(t)
	r, err := server(between(t, addr, func(command string) string {
		switch {
		case strings.HasPrefix(command, "SEARCH ALL"):
			return "* BYE enough\r\nT OK really\r\n* BYE enough\r\n"
		case strings.HasPrefix(command, "SEARCH BODY"):
			return "* SEARCH 1 2 3\nT OK\n"
		case strings.HasPrefix(command, "SEARCH FLAGGED"):
			return "T BAD no such thing\r\n"
		case strings.HasPrefix(command, "FETCH 4:7"):
			return "* 4 EXPUNGE\r\nT NO gone\r\n"
		case strings.HasPrefix(command, "IDLE"):
			return "T NO [LIMIT] not now\r\n"
		}
		return ""
	})).Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := answers(r)
	for scene, want := range map[string]string{
		"search":       "not allowed: finds []",
		"search-body":  "not found out: a line ends without CR",
		"rename":       "not allowed: the session goes on, but what it changes is lost",
		"store-silent": "not allowed: OK, and flags are set of []",
		"fetch-gone":   "not allowed: EXPUNGE is sent during FETCH",
		"idle-new":     "not found out: IDLE: NO [LIMIT] not now",
		"idle-expunge": "not found out: IDLE: NO [LIMIT] not now",
	} {
		if got[scene] != want {
			t.Errorf("%s: %s, want %s", scene, got[scene], want)
		}
	}
	wantClean(t, addr)
}

// Where the server keeps its mailboxes is found out.
func TestPlace(t *testing.T) {
	t.Parallel()
	addr := memory(t)
	for _, c := range []struct{ name, capabilities, namespace, list, prefix string }{
		{"namespace", "IMAP4rev1 NAMESPACE", `(("My \\ \"Mail\"/" "/")) NIL NIL`, "", `My \ "Mail"/`},
		{"no namespace", "IMAP4rev1", "", `(\Noselect) "/" ""`, "INBOX/"},
		{"namespace of no prefix", "IMAP4rev1 NAMESPACE", `(("" ".")) NIL NIL`, `(\Noselect) "." ""`, "INBOX."},
	} {
		s := server(between(t, addr, func(command string) string {
			switch {
			case command == "CAPABILITY":
				return "* CAPABILITY " + c.capabilities + "\r\nT OK\r\n"
			case command == "NAMESPACE":
				return "* NAMESPACE " + c.namespace + "\r\nT OK\r\n"
			case command == `LIST "" ""`:
				return "* LIST " + c.list + "\r\nT OK\r\n"
			case strings.HasPrefix(command, "CREATE ") && !strings.HasPrefix(command, "CREATE "+strings.TrimSuffix(text(c.prefix), `"`)):
				return "T NO not there\r\n"
			}
			return ""
		}))
		r := &run{server: s, id: "rfc2180-x"}
		var err error
		if r.maker, err = r.connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.caps = r.maker.capabilities()
		if err := r.findPlace(); err != nil || r.prefix != c.prefix {
			t.Errorf("%s: prefix %q, %v; want %q", c.name, r.prefix, err, c.prefix)
		}
		if err := r.end(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	wantClean(t, addr)
}

// What keeps the command from asking is told, with what the server said.
func TestFailures(t *testing.T) {
	t.Parallel()
	addr := memory(t)
	greets := func(greeting string) string {
		return listen(t, func(ln net.Listener) {
			if c, err := ln.Accept(); err == nil {
				io.WriteString(c, greeting)
				c.Read(make([]byte, 1)) // until the client goes
				c.Close()
			}
		}, func() {})
	}
	answers := func(to, answer string) string {
		return between(t, addr, func(command string) string {
			if strings.HasPrefix(command, to) {
				return answer
			}
			return ""
		})
	}
	nobody := listen(t, func(net.Listener) {}, func() {})
	for _, c := range []struct{ addr, want string }{
		{greets("* BYE busy\r\n"), `log in at ADDR: server says "* BYE busy"`},
		{greets("220 ESMTP\r\n"), `log in at ADDR: server says "220 ESMTP"`},
		{greets(""), "log in at ADDR: server sends nothing"},
		{nobody, "log in at ADDR: server sends nothing"},
		{answers("CAPABILITY", "* CAPABILITY IMAP4rev1 LOGINDISABLED\r\nT OK\r\n"), "log in at ADDR: server takes no password on this connection (LOGINDISABLED)"},
		{answers("LOGIN", "T NO [AUTHENTICATIONFAILED] wrong\r\n"), "log in at ADDR: server says NO [AUTHENTICATIONFAILED] wrong"},
		{answers("CREATE", "T NO [OVERQUOTA] full\r\n"), "make a mailbox: server says NO [OVERQUOTA] full"},
	} {
		s := server(c.addr)
		s.Timeout = time.Second
		r, err := s.Ask(t.Context())
		if want := strings.ReplaceAll(c.want, "ADDR", c.addr); r != nil || err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := server("127.0.0.1:1").Ask(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "connect to 127.0.0.1:1: ") {
		t.Errorf("got %v", err)
	}
	wantClean(t, addr)
}

// Mailboxes that can't be deleted are told, beside what was found out.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	s := server(between(t, memory(t), func(command string) string {
		if strings.HasPrefix(command, "DELETE") {
			return "T NO [NOPERM] never\r\n"
		}
		return ""
	}))
	s.Timeout = time.Second
	r, err := s.Ask(t.Context())
	if r == nil || len(r.Findings) != len(scenes) || answers(r)["delete"] != "refuse [NOPERM]" {
		t.Errorf("got %+v", r)
	}
	if err == nil || !regexp.MustCompile(`^delete the mailboxes "rfc2180-[0-9a-f]+\*": server says NO \[NOPERM\] never$`).MatchString(err.Error()) {
		t.Errorf("got %v", err)
	}
}

// Who stops the asking gets what was found out, and the server is left as it was.
func TestCancel(t *testing.T) {
	t.Parallel()
	addr := memory(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped")
	s := server(between(t, addr, func(command string) string {
		if strings.HasPrefix(command, "SEARCH ALL") {
			cancel(stop)
			return nothing
		}
		return ""
	}))
	r, err := s.Ask(ctx)
	if r == nil || len(r.Findings) != 13 {
		t.Errorf("got %+v", r)
	}
	if err == nil || err.Error() != stop.Error() {
		t.Errorf("got %v", err)
	}
	wantClean(t, addr)
}
