package practice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/transcript"
)

// A client is one connection, logged in. Once it is over, nothing it is told to do is done.
type client struct {
	conn    *transcript.Conn
	timeout time.Duration
	cut     func() bool // unties the connection from its context

	number int    // as in C1; what 0 says is not noted
	stage  *stage // where it is on; nil: on none
	tags   int
	over   bool  // the server ended the connection, or does not answer
	idling reply // the IDLE that is going on
}

// connect connects and logs in. The connection ends with ctx.
func (r *run) connect(ctx context.Context) (*client, error) {
	c, err := r.server.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", r.server.Addr, err)
	}
	if err := c.login(r.server); err != nil {
		c.close()
		return nil, fmt.Errorf("log in at %s: %w", r.server.Addr, err)
	}
	c.tags = 0
	return c, nil
}

func (s *Server) dial(ctx context.Context) (*client, error) {
	dialer := net.Dialer{Timeout: s.Timeout}
	nc, err := dialer.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, err
	}
	cut := context.AfterFunc(ctx, func() { nc.Close() })
	end := nc
	if s.TLS != nil {
		end, err = s.encrypt(nc)
	}
	if err != nil {
		cut()
		nc.Close()
		return nil, err
	}
	return &client{conn: transcript.NewConn(end), timeout: s.Timeout, cut: cut}, nil
}

func (s *Server) encrypt(nc net.Conn) (*tls.Conn, error) {
	nc.SetDeadline(time.Now().Add(s.Timeout))
	defer nc.SetDeadline(time.Time{})
	if s.StartTLS {
		return transcript.StartTLS(nc, s.TLS)
	}
	c := tls.Client(nc, s.TLS)
	return c, c.Handshake()
}

// login reads the greeting, unless STARTTLS did, and logs in, unless the greeting says that this
// was done.
func (c *client) login(s *Server) error {
	if s.TLS == nil || !s.StartTLS {
		greeting, err := c.conn.Response(c.timeout)
		if err != nil {
			return fmt.Errorf("server %w", err)
		}
		switch status, _ := word(strings.TrimPrefix(greeting, "* ")); status {
		case "PREAUTH":
			return nil
		case "OK":
		default:
			return fmt.Errorf("server says %q", greeting)
		}
	}
	if c.capabilities()["LOGINDISABLED"] {
		return errors.New("server takes no password on this connection (LOGINDISABLED)")
	}
	if r := c.do("LOGIN %s %s", text(s.User), text(s.Password)); r.status != "OK" {
		return fmt.Errorf("server says %s", r.full())
	}
	return nil
}

func (c *client) capabilities() map[string]bool {
	caps := map[string]bool{}
	for _, line := range c.do("CAPABILITY").untagged {
		if list, ok := strings.CutPrefix(strings.ToUpper(line), "* CAPABILITY "); ok {
			for _, name := range strings.Fields(list) {
				caps[name] = true
			}
		}
	}
	return caps
}

// close ends the connection.
func (c *client) close() {
	c.number = 0
	c.do("LOGOUT")
	if c.conn != nil {
		c.cut()
		c.conn.Close()
	}
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// text is a string for a command, quoted or as a literal.
func text(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Sprintf("{%d}\r\n%s", len(s), s)
	}
	return `"` + escape.Replace(s) + `"`
}

// A reply is what came for a command.
type reply struct {
	tag      string
	untagged []string // with their literals, as they were sent
	status   string   // OK, NO or BAD; "": there was no answer, and rest says why
	rest     string   // after the status
	ended    bool     // instead of an answer, the server ended the connection
}

var responseCode = regexp.MustCompile(`^\[[^]]*\]`)

// code is the response code with its brackets, or "".
func (r reply) code() string { return responseCode.FindString(r.rest) }

// String is the answer without its text, which may be another one each time.
func (r reply) String() string {
	if r.status == "" {
		return r.rest
	}
	return strings.TrimSpace(r.status + " " + r.code())
}

// full is the answer with its text.
func (r reply) full() string { return strings.TrimSpace(r.status + " " + r.rest) }

// numbers are those of the untagged responses "* number NAME".
func (r reply) numbers(name string) (numbers []int) {
	for _, line := range r.untagged {
		if n, rest := word(strings.TrimPrefix(line, "* ")); strings.Trim(n, "0123456789") == "" {
			if got, _ := word(rest); got == name {
				number, _ := strconv.Atoi(n) // a number too large is none of ours
				numbers = append(numbers, number)
			}
		}
	}
	return numbers
}

// fetched is all that FETCH responses say of a message: of the one with a number, or, if uid is not
// "", with a UID, which is digits. It is "" if they say nothing.
func (r reply) fetched(number int, uid string) string {
	pattern := fmt.Sprintf(`^\* %d FETCH `, number)
	if uid != "" {
		pattern = fmt.Sprintf(`(?s)^\* \d+ FETCH \((.* )?UID %s[ )]`, uid)
	}
	begin := regexp.MustCompile(pattern)
	var all strings.Builder
	for _, line := range r.untagged {
		if begin.MatchString(line) {
			all.WriteString(line + "\n")
		}
	}
	return all.String()
}

// left is what is left of messages 1 to n after the EXPUNGE responses.
func (r reply) left(n int) []int {
	messages := make([]int, n)
	for i := range messages {
		messages[i] = i + 1
	}
	for _, number := range r.numbers("EXPUNGE") {
		if number < 1 || number > len(messages) {
			return nil
		}
		messages = slices.Delete(messages, number-1, number)
	}
	return messages
}

// word cuts the first word of a line, and makes it capital letters.
func word(line string) (first, rest string) {
	first, rest, _ = strings.Cut(line, " ")
	return strings.ToUpper(first), rest
}

// said notes a line of the dialogue.
func (c *client) said(who, line string) {
	if c.stage != nil && c.number > 0 {
		c.stage.dialogue = append(c.stage.dialogue, fmt.Sprintf("%s%d: %s", who, c.number, transcript.Show(line)))
	}
}

// do sends a command, in which literals stand as they go over the wire, and reads its answer.
func (c *client) do(format string, args ...any) reply {
	r, goOn := c.begin(fmt.Sprintf(format, args...))
	for goOn { // without having been asked for
		goOn = c.answer(&r)
	}
	return r
}

var literal = regexp.MustCompile(`\{([0-9]+)\}\r\n`)

// begin sends a command and reads until it is answered, or until the server asks to go on although
// all was sent.
func (c *client) begin(command string) (r reply, goOn bool) {
	if c.over {
		return reply{rest: "the connection is over"}, false
	}
	c.tags++
	r.tag = fmt.Sprintf("%c%03d", "XABC"[c.number], c.tags) // as in the RFC, B001 is the first of C2
	left := r.tag + " " + command
	c.said("C", left)
	for {
		m := literal.FindStringSubmatchIndex(left)
		if m == nil {
			c.write(left + "\r\n")
			return r, c.answer(&r)
		}
		size, _ := strconv.Atoi(left[m[2]:m[3]]) // text wrote it
		c.write(left[:m[1]])
		if !c.answer(&r) {
			return r, false
		}
		c.write(left[m[1] : m[1]+size])
		left = left[m[1]+size:]
	}
}

// write sends. That it can't is seen where the answer is read.
func (c *client) write(data string) {
	c.conn.SetWriteDeadline(time.Now().Add(c.timeout))
	io.WriteString(c.conn, data)
}

// answer reads until the command is answered, or until the server asks to go on.
func (c *client) answer(r *reply) (goOn bool) {
	for deadline := time.Now().Add(c.timeout); ; {
		line, err := c.conn.Response(time.Until(deadline))
		if err != nil {
			c.lost(r, err)
			return false
		}
		first, rest := word(line)
		if first == "+" {
			return true
		}
		c.said("S", line)
		if first == r.tag {
			r.status, r.rest = word(rest)
			return false
		}
		r.untagged = append(r.untagged, line)
	}
}

// lost ends what can't go on.
func (c *client) lost(r *reply, err error) {
	c.over = true
	switch {
	case errors.Is(err, transcript.ErrSilent):
		r.rest = fmt.Sprintf("the server says nothing for %v", c.timeout)
		c.stop(NoAnswer, r.rest)
	case errors.Is(err, transcript.ErrEnded):
		r.rest, r.ended = "the server ends the connection", true
	default:
		r.rest = err.Error()
		c.stop(Unanswered, r.rest)
	}
	c.said("S", "("+r.rest+")")
}

func (c *client) stop(a Answer, detail string) {
	if c.stage != nil {
		c.stage.stop(a, "%s", detail)
	}
}

// hear takes what the server says by itself, until it is enough, or for a time.
func (c *client) hear(wait time.Duration, enough func(reply) bool) (r reply) {
	for deadline := time.Now().Add(wait); !c.over && !enough(r); {
		line, err := c.conn.Response(time.Until(deadline))
		if errors.Is(err, transcript.ErrSilent) {
			break
		}
		if err != nil {
			c.lost(&r, err)
			break
		}
		c.said("S", line)
		r.untagged = append(r.untagged, line)
	}
	return r
}

// ask is do for a command in the midst of which no session may end.
func (c *client) ask(format string, args ...any) reply {
	r := c.do(format, args...)
	if r.ended {
		c.stop(Forbidden, "the session ends")
	}
	return r
}

// ok is do for a command that has to succeed. Of what is answered, only that proves anything.
func (c *client) ok(format string, args ...any) reply {
	from := 0
	if c.stage != nil {
		from = len(c.stage.dialogue)
	}
	r := c.do(format, args...)
	if r.status != "OK" {
		command, _ := word(format)
		c.stop(Unanswered, command+": "+r.full())
	} else if c.stage != nil && c.number > 0 {
		said := c.stage.dialogue
		c.stage.dialogue = append(said[:from+1], said[len(said)-1])
	}
	return r
}

// ends reports whether the server ends the session. A BYE that nobody asked for needs a moment;
// some servers look at the mailbox only when they are sent a command.
func (c *client) ends() bool {
	c.hear(c.timeout/10, func(reply) bool { return false })
	return c.over || c.do("NOOP").ended
}
