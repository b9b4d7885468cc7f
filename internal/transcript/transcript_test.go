package transcript

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// memory starts go-imap with mailboxes in memory.
func memory(t *testing.T) Server {
	t.Helper()
	user := imapmemserver.NewUser("alice", `se"cret`)
	if err := user.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	mem := imapmemserver.New()
	mem.AddUser(user)
	srv := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return mem.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}, imap.CapLiteralPlus: {}},
		Logger:       log.New(io.Discard, "", 0),
		InsecureAuth: true,
	})
	return Server{Addr: listen(t, func(ln net.Listener) {
		srv.Serve(ln)
	}, func() { srv.Close() }), User: "alice", Password: `se"cret`}
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

// canned starts a server that sends lines to each client after it has read one line from it, the
// n-th after the n-th. T in lines is the tag of the client's line. It closes the connection at the end.
func canned(t *testing.T, lines ...string) Server {
	t.Helper()
	var wg sync.WaitGroup
	addr := listen(t, func(ln net.Listener) {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				in := newReader(c)
				io.WriteString(c, "* OK hi\r\n")
				login, err := in.line()
				if err != nil {
					return
				}
				tag, _, _ := strings.Cut(login, " ")
				io.WriteString(c, tag+" OK in\r\n")
				for _, l := range lines {
					cmd, err := in.line()
					if err != nil {
						return
					}
					tag, _, _ := strings.Cut(cmd, " ")
					io.WriteString(c, strings.ReplaceAll(l, "T ", tag+" "))
				}
			})
		}
	}, wg.Wait)
	return Server{Addr: addr}
}

// A recorder takes the place of the test of a script that must fail.
type recorder struct{ text string }

func (r *recorder) Helper()                      {}
func (r *recorder) Logf(format string, a ...any) {}
func (r *recorder) Fatalf(format string, a ...any) {
	r.text = fmt.Sprintf(format, a...)
	runtime.Goexit()
}

// outcome plays a script, and returns what Fatalf was told.
func outcome(t *testing.T, server Server, text string) string {
	t.Helper()
	s, err := Parse("x.txt", "# Test.\n"+text)
	if err != nil {
		t.Fatal(err)
	}
	var r recorder
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(&r, server) })
	wg.Wait()
	return r.text
}

func TestMemoryServer(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Parse(file, string(text))
			if err != nil {
				t.Fatal(err)
			}
			s.Run(t, memory(t))
		})
	}
}

// short makes patience short for a test that waits in vain.
func short(t *testing.T) {
	before := patience
	patience = 50 * time.Millisecond
	t.Cleanup(func() { patience = before })
}

func TestMismatches(t *testing.T) {
	for _, c := range []struct {
		name, server, script, want string
	}{
		{"another response", "* 1 EXPUNGE\r\nT OK\r\n", "C1: NOOP\nS1: * 2 EXPUNGE", "x.txt:3: S1: answers otherwise\n\twant * 2 EXPUNGE\n\tgot  * 1 EXPUNGE"},
		{"one too many", "* 1 EXPUNGE\r\n* 2 EXISTS\r\nT OK\r\n", "C1: NOOP\nS1: * 1 EXPUNGE", "x.txt:2: S1: answers otherwise\n\twant OK\n\tgot  * 2 EXISTS"},
		{"one too few", "* 1 EXPUNGE\r\nT OK done\r\n", "C1: NOOP\nS1: * 1 EXPUNGE\nS1: * 1 EXPUNGE", "x.txt:4: S1: answers otherwise\n\twant * 1 EXPUNGE\n\tgot  A002 OK done"},
		{"order", "* 1 EXPUNGE\r\n* 2 EXISTS\r\nT OK\r\n", "C1: NOOP\nS1: * 2 EXISTS\nS1: * 1 EXPUNGE", "x.txt:3: S1: answers otherwise"},
		{"any order, but all", "* 1 EXPUNGE\r\nT OK\r\n", "C1: NOOP\nS1: ~ * 2 EXISTS\nS1: ~ * 1 EXPUNGE", "x.txt:3: S1: answers otherwise\n\twant * 2 EXISTS\n\tgot  A002 OK"},
		{"not OK", "T NO [INUSE] no\r\n", "C1: NOOP", "x.txt:2: S1: answers otherwise\n\twant OK\n\tgot  A002 NO [INUSE] no"},
		{"code", "T NO [INUSE] no\r\n", "C1: NOOP\nS1: NO [CANNOT]", "want NO [CANNOT]\n\tgot  A002 NO [INUSE] no"},
		{"no code", "T NO [INUSE] no\r\n", "C1: NOOP\nS1: NO []", "want NO []"},
		{"a code", "T NO no\r\n", "C1: NOOP\nS1: NO [INUSE]", "want NO [INUSE]"},
		{"text", "T NO [INUSE] no\r\n", "C1: NOOP\nS1: NO [INUSE] yes", "want NO [INUSE] yes"},
		{"forbidden", "* 1 EXPUNGE\r\nT OK\r\n", "C1: NOOP\nS1: ...\nS1: ! EXPUNGE", "x.txt:4: S1: must not send EXPUNGE\n\tgot  * 1 EXPUNGE"},
		{"forbidden without a look at the rest", "* 1 EXPUNGE\r\nT OK\r\n", "C1: NOOP\nS1: ! EXPUNGE", "x.txt:3: S1: must not send EXPUNGE"},
		{"forbidden with its number", "* 1 FETCH (UID 1)\r\nT OK\r\n", "C1: NOOP\nS1: ...\nS1: ! 1 FETCH", "must not send 1 FETCH"},
		{"not ignored", "* 1 RECENT\r\n* 1 EXISTS\r\nT OK\r\n", "C1: NOOP\nS1: OK", "got  * 1 RECENT"},
		{"ignored, but another", "* 1 RECENT\r\n* 1 EXISTS\r\nT OK\r\n", "ignore RECENT\nC1: NOOP\nS1: OK", "got  * 1 EXISTS"},
		{"variable", "* 1 FETCH (UID 3)\r\n* 2 FETCH (UID 4)\r\nT OK\r\n", "C1: NOOP\nS1: * 1 FETCH (UID $u)\nS1: * 2 FETCH (UID $u)", "x.txt:4: S1: answers otherwise"},
		{"tag", "* ESEARCH (TAG \"A001\") ALL 1\r\nT OK\r\n", "C1: NOOP\nS1: * ESEARCH (TAG $tag) ALL 1", "answers otherwise"},
		{"closed", "* BYE\r\n", "C1: NOOP\nS1: * BYE", "x.txt:2: S1: closed the connection\n\twant OK"},
		{"not closed", "T OK\r\n|", "C1: LOGOUT\nS1: OK\nS1: closed", "x.txt:4: S1: sends nothing\n\twant closed"},
		{"more before the end", "T OK\r\n* 1 EXISTS\r\n", "C1: LOGOUT\nS1: OK\nS1: closed", "want closed\n\tgot  * 1 EXISTS"},
		{"nothing", "|", "C1: NOOP", "x.txt:2: S1: sends nothing\n\twant OK"},
		{"no continuation", "|", "C1: IDLE\nC1: DONE", "x.txt:2: want a continuation request: sends nothing"},
		{"a continuation request", "+ more\r\n|", "C1: NOOP", "got  + more"},
		{"two blanks", "* 1  EXISTS\r\nT OK\r\n", "C1: NOOP", `"* 1  EXISTS": a blank too many`},
		{"no CR", "* 1 EXISTS\nT OK\r\n", "C1: NOOP", "a line ends without CR"},
		{"a cut literal", "* 1 FETCH (BODY[] {10}\r\nabc", "C1: NOOP", "unexpected EOF"},
		{"a huge literal", "* 1 FETCH (BODY[] {999999999}\r\nabc", "C1: NOOP", "response is too large"},
		{"disk", "T OK\r\n", "C1: NOOP\ndisk: explode", `x.txt:3: disk: unknown verb "explode"; there are fail`},
		{"a verb's error", "T OK\r\n", "C1: NOOP\ndisk: fail 1 2", "x.txt:3: disk: fail: [1 2]"},
		{"connected twice", "T OK\r\n|", "C1: NOOP\nC1 connect", "x.txt:3: C1 is connected"},
		{"not connected", "", "C1 disconnect", "x.txt:2: C1 is not connected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := strings.SplitAfter(c.server, "|")
			for i, l := range lines {
				lines[i] = strings.TrimSuffix(l, "|")
			}
			if strings.Contains(c.server, "|") {
				short(t)
			}
			server := canned(t, lines...)
			server.Verbs = map[string]Verb{"fail": func(args ...string) error { return fmt.Errorf("%v", args) }}
			if got := outcome(t, server, c.script); !strings.Contains(got, c.want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// What holds, beside what the scripts in testdata show.
func TestHolds(t *testing.T) {
	for _, c := range []struct{ name, server, script string }{
		{"others before the expected one", "* 2 EXISTS\r\n* 1 EXPUNGE\r\nT OK\r\n", "C1: NOOP\nS1: ...\nS1: * 1 EXPUNGE"},
		{"others behind it", "* 1 EXPUNGE\r\n* 2 EXISTS\r\nT OK\r\n", "C1: NOOP\nS1: ...\nS1: * 1 EXPUNGE\nS1: OK"},
		{"ignored", "* 1 RECENT\r\n* 1 FETCH (FLAGS (\\Recent \\Seen))\r\nT OK\r\n", "ignore RECENT\nC1: NOOP\nS1: * 1 FETCH (FLAGS (\\Seen))"},
		{"ignored, but expected", "* 1 RECENT\r\nT OK\r\n", "ignore RECENT\nC1: NOOP\nS1: * 1 RECENT"},
		{"not forbidden any more", "T OK\r\n|* 1 EXPUNGE\r\nT OK\r\n", "C1: NOOP\nS1: ! EXPUNGE\nC1: NOOP\nS1: * 1 EXPUNGE"},
		{"not skipped any more", "T OK\r\n|* 1 EXPUNGE\r\nT OK\r\n", "C1: NOOP\nS1: ...\nS1: OK\nC1: NOOP\nS1: * 1 EXPUNGE"},
		{"a variable for another program", "* 1 FETCH (UID 3)\r\nT OK\r\n", "C1: NOOP\nS1: * 1 FETCH (UID $u)\ndisk: want-3 cur/$u"},
		{"a verb and a literal", "T OK\r\n", "C1: NOOP\ndisk: want-lines a {{{\nb\n}}}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := canned(t, strings.Split(c.server, "|")...)
			server.Verbs = map[string]Verb{
				"want-3":     func(args ...string) error { return wantArgs(args, "cur/3") },
				"want-lines": func(args ...string) error { return wantArgs(args, "a", "b\r\n") },
			}
			if got := outcome(t, server, c.script); got != "" {
				t.Error(got)
			}
		})
	}
}

func wantArgs(args []string, want ...string) error {
	if !slices.Equal(args, want) {
		return fmt.Errorf("got %q", args)
	}
	return nil
}

// What clients send is what is written, byte by byte, and after TLS if there is any.
func TestSent(t *testing.T) {
	certificate := selfSigned(t)
	for _, encrypted := range []bool{false, true} {
		received := make(chan string, 1)
		addr := listen(t, func(ln net.Listener) {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			if encrypted {
				c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})
			}
			// Nothing that the client says matters to the answers.
			io.WriteString(c, "* OK hi\r\nA001 OK in\r\n* 1 FETCH (UID 7)\r\nA002 OK\r\n+ go\r\nA003 OK\r\nA004 OK\r\n+ more\r\nA005 OK\r\n")
			all, _ := io.ReadAll(c)
			received <- string(all)
		}, func() {})
		server := Server{Addr: addr, User: "a", Password: `b"\`}
		if encrypted {
			server.TLS = &tls.Config{InsecureSkipVerify: true}
		}
		if got := outcome(t, server, `C1: FETCH 1 UID
S1: * 1 FETCH (UID $u)
C1: A {"b\r\nc"} "d  # e" #f  # comment
C1: B {+"b"}c #  # comment
C1: X
S1: + more
C1> $u  # no comment
C1> "$u\x00"
S1: OK
C1 disconnect
`); got != "" {
			t.Fatal(got)
		}
		want := "A001 LOGIN \"a\" \"b\\\"\\\\\"\r\nA002 FETCH 1 UID\r\nA003 A {4}\r\nb\r\nc \"d  # e\" #f\r\nA004 B {1+}\r\nbc #\r\n" +
			"A005 X\r\n7  # no comment\r\n$u\x00"
		if got := <-received; got != want {
			t.Errorf("encrypted %v: got\n%q, want\n%q", encrypted, got, want)
		}
	}
}

// selfSigned is a certificate for tests.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// What a failure shows is the way there, with the lines of the script, and what else was sent.
func TestDialogue(t *testing.T) {
	server := canned(t, "* 1 FETCH (BODY[] {3}\r\na\r\n)\r\n* 3 EXISTS\r\n", "")
	got := outcome(t, server, `C1: FETCH 1 BODY[]
S1: * 1 FETCH (BODY[] {"a\r\n"})
S1: * 2 EXISTS
`)
	want := `x.txt:4: S1: answers otherwise
	want * 2 EXISTS
	got  * 3 EXISTS

    2  C1 connect
    2  C1: A001 LOGIN "" ""
       S1: * OK hi
    2  S1: A001 OK in
    2  C1: A002 FETCH 1 BODY[]
    3  S1: * 1 FETCH (BODY[] {"a\r\n"})
       S1: * 3 EXISTS    <-- this
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"C1: NOOP", "x:1: begin with a comment"},
		{"# A\n  C1: NOOP", "x:2: an indented line"},
		{"# A\nS1: OK", "x:2: no command is waiting"},
		{"# A\nC1: NOOP\nS1: OK\nS1: OK", "x:4: no command is waiting"},
		{"# A\nC1: & NOOP", "x:2: no command is running"},
		{"# A\nC1: NOOP\nC1: & NOOP", "x:3: commands that are sent at once"},
		{"# A\nC1:", "x:2: there is no command"},
		{"# A\nC1: & ", "x:2: there is no command"},
		{"# A\nC1: NOOP\npeer", "x:3: a directive stands before"},
		{"# A\nD1: NOOP", `x:2: "D1:" is nobody here`},
		{"# A\nignore FETCH", `x:2: ignore: unknown name "FETCH"; allowed: CAPABILITY, FLAGS, OK, RECENT`},
		{"# A\nC1: IDLE", "x:2: IDLE has no DONE"},
		{"# A\nC1: IDLE\nC1: NOOP", `x:3: "NOOP" while client 1 is in IDLE`},
		{"# A\nC1: NOOP\nS1: A002 OK", "x:3: the tag A002 is left out"},
		{"# A\nC1: UID FETCH $u UID", "x:2: variable $u is not bound"},
		{"# A\nC1: NOOP\nS1: * 1 FETCH (UID 1:$u)", "x:3: variable $u is not bound"},
		{"# A\ndisk: rm cur/$u", "x:2: variable $u is not bound"},
		{"# A\ndisk:", "x:2: disk: has no verb"},
		{"# A\ndisk: rm \"a", "x:2: \"a is not a Go string"},
		{"# A\ndisk: rm \"a\"b", "x:2: a blank must follow \"a\""},
		{"# A\nC1: APPEND INBOX {{{\nabc\n", "x:2: a literal has no end"},
		{"# A\nC1: APPEND INBOX {{{ abc", "x:2: a literal's first line"},
		{"# A\nC1: APPEND INBOX {\"abc", "x:2: a literal is a Go string"},
		{"# A\nC1: APPEND INBOX {\"abc\"", "x:2: a literal ends with }"},
		{"# A\nC1> \"abc", "x:2: \"abc is not a Go string"},
		{"# A\nC1 NOOP", `x:2: "NOOP" is neither connect nor`},
		{"# A\nC1: NOOP\nS1: ~ OK", "x:3: a tagged response is the last"},
		{"# A\nC1: NOOP\nS1: * 1 FETCH (UID 1", `x:3: response "* 1 FETCH (UID 1": no )`},
		{"# A\nC1: NOOP\nS1: * 1 FETCH UID 1)", `x:3: response "* 1 FETCH UID 1)": unexpected )`},
		{"# A\nC1: NOOP\nS1: * OK [UIDNEXT", `x:3: response "* OK [UIDNEXT": its code has no ]`},
		{"# A\nC1: NOOP\nS1: *", `x:3: response "*": it is empty`},
		{"# A\nC1: NOOP\nS1: x FETCH", `x:3: "x FETCH" is neither`},
	} {
		_, err := Parse("x", c.text)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %s", c.text, err, c.want)
		}
	}
}

func TestDirectives(t *testing.T) {
	s, err := Parse("x", "# First\n# second.\n\npolicy delete=ghost  # more\nmailbox \"a b\" `c`\npeer\n# C\nC1: NOOP\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.About != "First\nsecond." {
		t.Errorf("about %q", s.About)
	}
	if got, want := fmt.Sprintf("%v", s.Directives), `[{4 policy [delete=ghost]} {5 mailbox [a b c]} {6 peer []}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !s.Has("peer") || s.Has("layout") {
		t.Error("Has is wrong")
	}
	if got := s.Errorf(s.Directives[1], "no %d", 1).Error(); got != "x:5: no 1" {
		t.Error(got)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"* 1 FETCH (UID 1 FLAGS (a \\Seen))", "* 1 FETCH (FLAGS (\\seen A) UID 1)", true},
		{"* 1 FETCH (UID 1)", "* 1 FETCH (UID 1 FLAGS ())", false},
		{"* 1 FETCH (UID 1 FLAGS ())", "* 1 FETCH (UID 1)", false},
		{"* 1 FETCH (UID 1 ...)", "* 1 FETCH (FLAGS () UID 1)", true},
		{"* 1 FETCH (UID 1 ...)", "* 1 FETCH (FLAGS ())", false},
		{"* 1 FETCH (FLAGS (\\Seen ...))", "* 1 FETCH (FLAGS (\\Recent \\Seen))", true},
		{"* 1 FETCH (FLAGS (\\Seen))", "* 1 FETCH (FLAGS (\\Recent \\Seen))", false},
		{"* 1 FETCH (FLAGS (\\Seen \\Seen))", "* 1 FETCH (FLAGS (\\Seen))", false},
		{"* 1 FETCH (FLAGS (\\Seen))", "* 1 FETCH (FLAGS (\\Seen \\Seen))", false},
		{"* 1 FETCH (FLAGS $_)", "* 1 FETCH (FLAGS (\\Seen))", true},
		{"* 1 FETCH $_", "* 1 FETCH (FLAGS (\\Seen))", true},
		{"* 1 FETCH (BODY[] {3}\r\na\r\n)", "* 1 FETCH (BODY[] {3}\r\nb\r\n)", false},
		{"* 1 FETCH (BODY[] {1}\r\na)", "* 1 FETCH (BODY[] \"a\")", true},
		{"* 1 FETCH (BODY[] \"a\")", "* 1 FETCH (BODY[] \"A\")", false},
		{"* 1 FETCH (BODY[] NIL)", "* 1 FETCH (BODY[] \"NIL\")", false},
		{"* 1 FETCH (BODY[] \"NIL\")", "* 1 FETCH (BODY[] NIL)", false},
		{"* 1 FETCH (BODY[HEADER.FIELDS (From To)] \"\")", "* 1 FETCH (BODY[HEADER.FIELDS (\"FROM\" \"TO\")] \"\")", true},
		{"* 1 FETCH (BODY[HEADER.FIELDS (From To)] \"\")", "* 1 FETCH (BODY[HEADER.FIELDS (To From)] \"\")", false},
		{"* 1 FETCH (BINARY[1] \"a\")", "* 1 FETCH (BINARY[1] ~{1}\r\na)", true},
		{"* 1 FETCH (INTERNALDATE \" 2-Feb-2026 10:00:00 +0000\")", "* 1 FETCH (INTERNALDATE \"02-Feb-2026 11:00:00 +0100\")", true},
		{"* 1 FETCH (INTERNALDATE \" 2-Feb-2026 10:00:00 +0000\")", "* 1 FETCH (INTERNALDATE \"02-Feb-2026 10:00:00 +0100\")", false},
		{"* 1 FETCH (BODY (\"TEXT\" \"PLAIN\"))", "* 1 FETCH (BODY (TEXT PLAIN))", false},
		{"* 1 FETCH (ENVELOPE (NIL ...))", "* 1 FETCH (ENVELOPE (NIL ((NIL NIL \"a\" \"b\"))))", true},
		{"* 1 FETCH (ENVELOPE (NIL NIL))", "* 1 FETCH (ENVELOPE (NIL))", false},
		{"* 1 EXPUNGE", "* 2 EXPUNGE", false},
		{"* 1 EXPUNGE", "* 1 EXISTS", false},
		{"* LIST (\\A \\B) \"/\" inbox", "* LIST (\\b \\a) \"/\" \"INBOX\"", true},
		{"* LIST () \"/\" work", "* LIST () \"/\" Work", false},
		{"* LIST () \"/\" Work", "* LIST () NIL Work", false},
		{"* LIST () NIL Work", "* LIST () \"NIL\" Work", false},
		{"* LIST () \"/\" a (\"CHILDINFO\" (\"SUBSCRIBED\"))", "* LIST () \"/\" a (CHILDINFO (\"SUBSCRIBED\"))", true},
		{"* LIST () \"/\" a", "* LIST () \"/\" a (CHILDINFO (\"SUBSCRIBED\"))", false},
		{"* LSUB () $_ \"a b\"", "* LSUB () \".\" {3}\r\na b", true},
		{"* STATUS a (MESSAGES 1 UIDNEXT 2)", "* STATUS \"a\" (UIDNEXT 2 MESSAGES 1)", true},
		{"* STATUS a (MESSAGES 1 UIDNEXT 2)", "* STATUS \"a\" (UIDNEXT 2)", false},
		{"* SEARCH 1 2", "* SEARCH 2 1", true},
		{"* SEARCH 1 2", "* SEARCH 1", false},
		{"* SEARCH", "* SEARCH 1", false},
		{"* ESEARCH (TAG \"a\") UID COUNT 3 ALL 1,2,3,7", "* ESEARCH (TAG \"a\") UID ALL 1:3,7 COUNT 3", true},
		{"* ESEARCH (TAG \"a\") UID ALL 1", "* ESEARCH (TAG \"a\") ALL 1", false},
		{"* ESEARCH (TAG \"a\") ALL 1", "* ESEARCH ALL 1", false},
		{"* ESEARCH ALL 1:3", "* ESEARCH ALL 1,3", false},
		{"* ESEARCH ALL 1", "* ESEARCH UID ALL 1", false},
		{"* ESEARCH ALL 1", "* ESEARCH (TAG \"a\") ALL 1", false},
		{"* CAPABILITY IDLE ...", "* CAPABILITY IMAP4rev1 IDLE", true},
		{"* FLAGS (\\Seen a)", "* FLAGS (a \\Seen)", true},
		{"* OK [PERMANENTFLAGS (a \\*)]", "* OK [PERMANENTFLAGS (\\* a)] yes", true},
		{"* OK [PERMANENTFLAGS (a \\*)]", "* OK [PERMANENTFLAGS (a)] yes", false},
		{"* OK [UIDNEXT 3]", "* OK [UIDNEXT 4]", false},
		{"* OK [UIDNEXT $_]", "* OK [UIDNEXT 4]", true},
		{"* OK []", "* OK [UIDNEXT 4]", false},
		{"* OK", "* BYE", false},
		{"NO [NEWNAME a \"b c\"]", "A NO [NEWNAME \"a\" \"b c\"] x", true},
		{"OK [COPYUID 1 1:2 5:6]", "A OK [COPYUID 1 1,2 5:6]", true},
		{"OK [COPYUID 1 1:2 5:6]", "A OK [COPYUID 1 2,1 5:6]", false},
		{"+", "+ idling", true},
		{"+ a", "+ b", false},
	} {
		want, err := parseResponse(c.want, true)
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := parseResponse(c.got, false)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, ok := matches(want, got, nil, nil); ok != c.ok {
			t.Errorf("want %s, got %s: %v", c.want, c.got, ok)
		}
	}
}

func TestMalformedResponses(t *testing.T) {
	for _, line := range []string{
		"", "*", "* ", "A", "A FETCH", "* 1 FETCH (", "* 1 FETCH )", "* 1 FETCH ( UID 1)", "* 1 FETCH (UID 1 )", "* 1 FETCH (UID(1))",
		"* 1 FETCH (UID 1)(UID 2) ", `* LIST () "/ a`, `* LIST () "\a" a`, "* LIST () \"a\nb\" a", "* OK [UIDNEXT 1", "* OK [UIDNEXT  1] a", "* 1 FETCH (BODY[ {1}\r\na)",
		"* 1 FETCH (BODY[] {5}\r\na)", "* " + strings.Repeat("(", 200) + strings.Repeat(")", 200), "* OK [)] a", "A BYE",
	} {
		if r, err := parseResponse(line, false); err == nil {
			t.Errorf("%q is read as %+v", line, r)
		}
	}
}

func TestDisk(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"new", "cur", "tmp", ".Work/new", ".Work/cur", ".Work/tmp", "Nested/new", "Nested/cur", "Nested/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "dovecot-uidlist"), []byte("3 V1 N9\n4 W5 :b:2,\n5 :a\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	server := Server{Root: root}
	got := outcome(t, server, `
disk: touch cur/a:2,F cur/b:2,S cur/c
disk: flags cur/5 SX
disk: rm cur/4
disk: mv cur/c Work/new/
disk: mv Work/new/c INBOX/new/d
disk: touch new/d
disk: deliver Work "One line"
disk: deliver Nested {"A: b\r\n\r\nc\r\n"}
disk: shell "mv new/d e; cat .Work/new/* Nested/new/* > f"
`)
	if got != "" {
		t.Error(got)
	}
	for name, want := range map[string]string{"cur/a:2,SX": "", "e": "", "f": "From: Ann <ann@example.org>\nTo: bob@example.org\nSubject: One line\n\nHello\nA: b\n\nc\n"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, "cur/*")); len(left) != 1 {
		t.Errorf("cur has %v", left)
	}
	for script, want := range map[string]string{
		"disk: rm cur/4":         "x.txt:2: disk: rm: cur/4: the message is not there",
		"disk: rm cur/7":         "x.txt:2: disk: rm: UID 7 is not in dovecot-uidlist",
		"disk: rm cur/x*":        "x.txt:2: disk: rm: cur/x*: no such file",
		"disk: rm":               "x.txt:2: disk: rm: want arguments PATH ...",
		"disk: mv a":             "x.txt:2: disk: mv: want arguments PATH NEWPATH",
		"disk: flags a":          "x.txt:2: disk: flags: want arguments PATH LETTERS",
		"disk: touch":            "x.txt:2: disk: touch: want arguments PATH ...",
		"disk: deliver a b c":    "x.txt:2: disk: deliver: want arguments [MAILBOX [SUBJECT]]",
		"disk: deliver None":     "x.txt:2: disk: deliver: open ",
		"disk: shell a b":        "x.txt:2: disk: shell: want arguments COMMAND",
		`disk: shell "false; a"`: "x.txt:2: disk: shell: exit status 1",
	} {
		if got := outcome(t, server, script); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", script, got)
		}
	}
}

// A script that is read can be played; nothing it says makes reading or comparing panic.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("# A\nC1: A {+\"b\"} \"c\\\"  # d\nS1: ~ * LIST () \"/\" {\"\\x00\"}\nS1: ~ * 1 FETCH $a\nC1> $a\ndisk: a `b` {{{\nc\n}}} d\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("x", text)
		if err != nil {
			return
		}
		for _, st := range s.steps {
			if e, ok := st.act.(*expect); ok {
				for _, r := range e.want {
					matches(r, r, nil, nil)
				}
			}
		}
	})
}

// What a server may send is shown as it would be written, and means the same when it is.
func FuzzResponse(f *testing.F) {
	f.Add("* 1 FETCH (BODY[HEADER.FIELDS (\"a\")] {3}\r\nabc FLAGS (\\Seen) UID 7)")
	f.Add("* OK [UIDNEXT 1] text")
	f.Add("* ESEARCH (TAG \"A1\") UID ALL 1:3,5")
	f.Add("* LIST (\\A) \"/\" \"a\\\"b\" (\"CHILDINFO\" (\"SUBSCRIBED\"))")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseResponse(line, false)
		if err != nil || r.status != "" || r.tag != "*" || len(line) > 1000 {
			return
		}
		words := make([]string, len(r.data))
		for i, n := range r.data {
			words[i] = n.String()
		}
		script := "# A\nC1: NOOP\nS1: * " + strings.Join(words, " ") + "\n"
		if strings.ContainsAny(script, "#$") || strings.Contains(script, "...") || strings.ContainsRune(line, '\r') && !strings.Contains(line, "\r\n") {
			return // means something else in a script
		}
		s, err := Parse("x", script)
		if err != nil {
			t.Fatalf("%q is shown as %q: %v", line, script, err)
		}
		if _, ok := matches(s.steps[1].act.(*expect).want[0], r, nil, nil); !ok && !strings.HasPrefix(strings.ToUpper(line), "* ESEARCH") {
			t.Fatalf("%q is shown as %q, which is another", line, script)
		}
	})
}
