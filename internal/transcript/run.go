package transcript

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
)

// patience ends a test that waits for what doesn't come.
var patience = 30 * time.Second

// T is what Run needs of a [testing.TB]. Fatalf does not return.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// A Server is what a script is run against.
type Server struct {
	Addr           string      // host and port of IMAP over TCP
	Others         []string    // where client 2, 3, … connect instead, if several programs serve the mail
	TLS            *tls.Config // if set, connections are encrypted from their first byte
	User, Password string      // as which clients log in
	// Root is the user's mail directory, for the ready verbs; "" leaves them out.
	Root string
	// Verbs of "disk:", beside or instead of the ready ones.
	Verbs map[string]Verb
	// Made, if set, is called after each verb: files may be given to the server's user.
	Made func() error
}

// A Verb is something that the world outside does. Run calls it in its turn; an error ends the test.
type Verb func(args ...string) error

// Run plays the script against a server, and calls t.Fatalf with the dialogue so far at the first
// thing that is not as it is written. Connections are closed when it returns. Several may run at
// once, on different accounts.
func (s *Script) Run(t T, server Server) {
	t.Helper()
	r := &run{
		t:      t,
		script: s,
		server: server,
		verbs:  make(map[string]Verb),
		conns:  make(map[int]*conn),
		vars:   make(map[string]node),
	}
	if server.Root != "" {
		r.verbs = diskVerbs(server.Root)
	}
	maps.Copy(r.verbs, server.Verbs)
	defer func() {
		for _, c := range r.conns {
			c.Close()
		}
	}()
	for _, st := range s.steps {
		st.act.run(r, st)
	}
}

// A run is a script being played.
type run struct {
	t      T
	script *Script
	server Server
	verbs  map[string]Verb

	conns    map[int]*conn
	tags     [10]int // how many tags each client used
	vars     map[string]node
	dialogue []string
}

// said notes a line of the dialogue; line is 0 for what isn't in the script.
func (r *run) said(line int, who, text string) {
	number := ""
	if line > 0 {
		number = fmt.Sprint(line)
	}
	r.dialogue = append(r.dialogue, fmt.Sprintf("%5s  %s %s", number, who, text))
}

// fatalf ends the test. Of what the servers sent, the dialogue also shows what wasn't looked at.
func (r *run) fatalf(line int, format string, args ...any) {
	r.t.Helper()
	for _, n := range slices.Sorted(maps.Keys(r.conns)) {
		c := r.conns[n]
		for len(c.lines) > 0 && c.fetch() == nil {
		}
		for _, l := range c.queue {
			r.said(0, fmt.Sprintf("S%d:", n), Show(l)+"    (not looked at)")
		}
	}
	r.t.Fatalf("%v\n\n%s\n", lineError(r.script.Name, line, fmt.Errorf(format, args...)), strings.Join(r.dialogue, "\n"))
}

// A conn is one client's connection.
type conn struct {
	*Conn
	name string // of the server, for the dialogue

	queue   []string    // read, not looked at
	pending []string    // tags of commands without an answer, oldest first
	skip    bool        // others may come until the next tagged response
	forbid  []forbidden // until the next tagged response
}

// forbidden is a response that must not come, and the line that says so.
type forbidden struct {
	words []string
	line  int
}

// fetch waits for one more line and puts it in the queue.
func (c *conn) fetch() error {
	line, err := c.Response(patience)
	if err == nil {
		c.queue = append(c.queue, line)
	}
	return err
}

// next is the next response to look at. Its error is ErrEnded when the server closed
// the connection.
func (c *conn) next() (*response, error) {
	if len(c.queue) == 0 {
		if err := c.fetch(); err != nil {
			return nil, err
		}
	}
	line := c.queue[0]
	c.queue = c.queue[1:]
	return parseResponse(line, false)
}

// dial connects a client.
func (r *run) dial(st step) *conn {
	r.t.Helper()
	addr := r.server.Addr
	if i := st.client - 2; i >= 0 && i < len(r.server.Others) {
		addr = r.server.Others[i]
	}
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		r.fatalf(st.line, "connect: %w", err)
	}
	if r.server.TLS != nil {
		nc = tls.Client(nc, r.server.TLS)
	}
	c := &conn{Conn: NewConn(nc), name: fmt.Sprintf("S%d:", st.client)}
	r.conns[st.client] = c
	r.said(st.line, fmt.Sprintf("C%d", st.client), "connect")
	return c
}

// conn is a client's connection, made and logged in if there is none.
func (r *run) conn(st step) *conn {
	r.t.Helper()
	if c := r.conns[st.client]; c != nil {
		return c
	}
	c := r.dial(st)
	user, password := node{kind: str, text: r.server.User}, node{kind: str, text: r.server.Password}
	login := &command{parts: []part{{text: fmt.Sprintf("LOGIN %v %v", user, password)}}}
	login.send(r, st, c)
	(&skip{}).run(r, st)
	(&tagged{&response{status: "OK", source: "OK"}}).run(r, st)
	return c
}

func (r *run) drop(client int) {
	r.conns[client].Close()
	delete(r.conns, client)
}

// write sends. That a connection has ended is seen where an answer is expected.
func (r *run) write(c *conn, data string) {
	c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, data); err != nil {
		r.said(0, c.name, "("+err.Error()+")")
	}
}

func (a *command) run(r *run, st step) {
	r.t.Helper()
	a.send(r, st, r.conn(st))
}

func (a *command) send(r *run, st step, c *conn) {
	r.t.Helper()
	r.tags[st.client]++
	// As in the draft, A001 is the first of C1 and B001 that of C2.
	tag := fmt.Sprintf("%c%03d", 'A'+st.client-1, r.tags[st.client])
	c.pending = append(c.pending, tag)
	text := tag + " "
	parts := slices.Clone(a.parts)
	for i := range parts {
		parts[i].text = replace(parts[i].text, r.vars)
	}
	r.said(st.line, fmt.Sprintf("C%d:", st.client), text+showParts(parts))
	for _, pt := range parts {
		text += pt.text
		l := pt.literal
		if l == nil {
			continue
		}
		if l.nonSync {
			text += fmt.Sprintf("{%d+}\r\n%s", len(l.content), l.content)
			continue
		}
		r.write(c, fmt.Sprintf("%s{%d}\r\n", text, len(l.content)))
		if !r.continued(st, c) {
			return
		}
		text = l.content
	}
	r.write(c, text+"\r\n")
	if a.isIdle() {
		r.continued(st, c)
	}
}

// continued waits for a continuation request, and reports whether it came: the command may be
// answered instead. Other responses stay to be looked at.
func (r *run) continued(st step, c *conn) bool {
	r.t.Helper()
	for {
		if err := c.fetch(); err != nil {
			r.fatalf(st.line, "want a continuation request: %w", err)
		}
		last := len(c.queue) - 1
		tag, _, _ := strings.Cut(c.queue[last], " ")
		switch {
		case tag == "+":
			r.said(0, c.name, c.queue[last])
			c.queue = c.queue[:last]
			return true
		case tag == c.pending[len(c.pending)-1]:
			return false
		}
	}
}

func (a *raw) run(r *run, st step) {
	r.t.Helper()
	c := r.conn(st)
	text := a.text
	if a.vars {
		text = replace(text, r.vars)
	}
	r.said(st.line, fmt.Sprintf("C%d>", st.client), fmt.Sprintf("%q", text))
	r.write(c, text)
}

func (*connect) run(r *run, st step) {
	r.t.Helper()
	if r.conns[st.client] != nil {
		r.fatalf(st.line, "C%d is connected", st.client)
	}
	r.dial(st)
}

func (*disconnect) run(r *run, st step) {
	r.t.Helper()
	if r.conns[st.client] == nil {
		r.fatalf(st.line, "C%d is not connected", st.client)
	}
	r.said(st.line, fmt.Sprintf("C%d", st.client), "disconnect")
	r.drop(st.client)
}

// look reads the next response and notes it. Forbidden ones, malformed ones and the end of the
// connection end the test.
func (r *run) look(st step, c *conn, want string) *response {
	r.t.Helper()
	got, err := c.next()
	if err != nil {
		r.fatalf(st.line, "%s %w\n\twant %s", c.name, err, want)
	}
	r.vars["$tag"] = node{kind: str}
	if len(c.pending) > 0 {
		r.vars["$tag"] = node{kind: str, text: c.pending[0]}
	}
	for _, f := range c.forbid {
		if got.tag == "*" && begins(got, f.words) {
			r.said(0, c.name, got.source+"    <-- this")
			r.fatalf(f.line, "%s must not send %s\n\tgot  %s", c.name, strings.Join(f.words, " "), got.source)
		}
	}
	return got
}

// begins reports whether a response begins with words, with or without its number.
func begins(got *response, words []string) bool {
	line := strings.Fields(strings.ToUpper(strings.TrimPrefix(got.source, "* ")))
	if _, num := got.kind(); num != "" && num != words[0] {
		line = line[1:]
	}
	return len(line) >= len(words) && slices.Equal(line[:len(words)], words)
}

// wrong ends the test because of a response.
func (r *run) wrong(st step, c *conn, want string, got *response) {
	r.t.Helper()
	r.said(0, c.name, got.source+"    <-- this")
	r.fatalf(st.line, "%s answers otherwise\n\twant %s\n\tgot  %s", c.name, want, got.source)
}

func (r *run) ignored(got *response) bool {
	name, _ := got.kind()
	return got.tag == "*" && r.script.ignore[name]
}

func (a *expect) run(r *run, st step) {
	r.t.Helper()
	c := r.conn(st)
	for left := slices.Clone(a.want); len(left) > 0; {
		sources := make([]string, len(left))
		for i, w := range left {
			sources[i] = w.source
		}
		want := strings.Join(sources, "\n\tand  ")
		got := r.look(st, c, want)
		i := slices.IndexFunc(left, func(w *response) bool {
			vars, ok := matches(w, got, r.vars, r.script.ignore)
			if ok {
				r.vars = vars
			}
			return ok
		})
		switch {
		case i >= 0:
			r.said(st.line, c.name, got.source)
			left = slices.Delete(left, i, i+1)
		case got.tag == "*" && (c.skip || r.ignored(got)):
			r.said(0, c.name, got.source)
		default:
			r.wrong(st, c, want, got)
		}
	}
}

func (*skip) run(r *run, st step) {
	r.t.Helper()
	r.conn(st).skip = true
}

func (a *forbid) run(r *run, st step) {
	r.t.Helper()
	c := r.conn(st)
	c.forbid = append(c.forbid, forbidden{a.words, st.line})
}

func (a *tagged) run(r *run, st step) {
	r.t.Helper()
	c := r.conn(st)
	if len(c.pending) == 0 {
		r.fatalf(st.line, "C%d has sent no command on this connection", st.client)
	}
	for {
		got := r.look(st, c, a.want.source)
		if got.tag == c.pending[0] {
			want := *a.want
			want.tag = got.tag
			vars, ok := matches(&want, got, r.vars, r.script.ignore)
			if !ok {
				r.wrong(st, c, want.source, got)
			}
			r.vars = vars
			r.said(st.line, c.name, got.source)
			break
		}
		if got.tag != "*" || !c.skip && !r.ignored(got) {
			r.wrong(st, c, a.want.source, got)
		}
		r.said(0, c.name, got.source)
	}
	c.pending = c.pending[1:]
	c.skip = false
	c.forbid = nil
}

func (*closed) run(r *run, st step) {
	r.t.Helper()
	c := r.conn(st)
	for {
		got, err := c.next()
		if err == ErrEnded {
			break
		}
		if err != nil {
			r.fatalf(st.line, "%s %w\n\twant closed", c.name, err)
		}
		if got.tag != "*" || !c.skip && !r.ignored(got) {
			r.wrong(st, c, "closed", got)
		}
		r.said(0, c.name, got.source)
	}
	r.said(st.line, c.name, "closed")
	r.drop(st.client)
}

func (a *disk) run(r *run, st step) {
	r.t.Helper()
	r.said(st.line, "disk:", a.text)
	verb := r.verbs[a.verb]
	if verb == nil {
		r.fatalf(st.line, "disk: unknown verb %q; there are %s", a.verb, strings.Join(slices.Sorted(maps.Keys(r.verbs)), ", "))
	}
	args := make([]string, len(a.args))
	for i, arg := range a.args {
		args[i] = replace(arg, r.vars)
	}
	err := verb(args...)
	if err == nil && r.server.Made != nil {
		err = r.server.Made()
	}
	if err != nil {
		r.fatalf(st.line, "disk: %s: %w", a.verb, err)
	}
}
