package practice

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A Server is the server that is asked, and as whom.
type Server struct {
	Addr           string      // host and port
	TLS            *tls.Config // nil: connections are not encrypted
	StartTLS       bool        // with TLS: encrypt by STARTTLS, not from the first byte
	User, Password string
	Timeout        time.Duration // how long the server may take for an answer; must be set
}

// Ask asks the server all questions. The error says that it could not be asked, that ctx was done
// before the last question, or that mailboxes are left behind. The report holds what was found out
// until then; it is nil if the server could not be asked. Several may be asked at once, and one
// several times.
func (s *Server) Ask(ctx context.Context) (*Report, error) {
	id := make([]byte, 4)
	rand.Read(id) // never fails
	r := &run{server: s, id: fmt.Sprintf("rfc2180-%x", id)}
	var err error
	if r.maker, err = r.connect(ctx); err != nil {
		return nil, cmp.Or(context.Cause(ctx), err)
	}
	r.caps = r.maker.capabilities()
	if err := r.findPlace(); err != nil {
		return nil, errors.Join(cmp.Or(context.Cause(ctx), err), r.end())
	}
	report := &Report{Server: s.Addr}
	for i, sc := range scenes {
		f := r.play(ctx, i+1, sc)
		if ctx.Err() != nil {
			return report, errors.Join(context.Cause(ctx), r.end())
		}
		report.Findings = append(report.Findings, f)
	}
	return report, r.end()
}

// A run is the asking of one server.
type run struct {
	server *Server
	id     string          // what the names of all mailboxes of this run begin with, after the prefix
	prefix string          // of the namespace where mailboxes can be made
	caps   map[string]bool // capabilities after login, in capital letters
	maker  *client         // makes mailboxes and mail
}

var (
	// The prefix of the first personal namespace (RFC 2342), and the separator that LIST tells.
	personal  = regexp.MustCompile(`(?i)^\* NAMESPACE \(\("((?:[^"\\]|\\.)*)"`)
	separator = regexp.MustCompile(`(?i)^\* LIST \([^)]*\) "([^"\\]|\\.)"`)
	unescape  = strings.NewReplacer(`\\`, `\`, `\"`, `"`)
)

// findPlace finds out where mailboxes can be made, by making one.
func (r *run) findPlace() error {
	if r.caps["NAMESPACE"] {
		for _, line := range r.maker.do("NAMESPACE").untagged {
			if m := personal.FindStringSubmatch(line); m != nil {
				r.prefix = unescape.Replace(m[1])
			}
		}
	}
	made := r.maker.do("CREATE %s", text(r.prefix+r.id))
	if made.status == "NO" && r.prefix == "" { // some servers have all mailboxes below INBOX
		for _, line := range r.maker.do(`LIST "" ""`).untagged {
			if m := separator.FindStringSubmatch(line); m != nil {
				r.prefix = "INBOX" + unescape.Replace(m[1])
				made = r.maker.do("CREATE %s", text(r.prefix+r.id))
			}
		}
	}
	if made.status != "OK" {
		return fmt.Errorf("make a mailbox: server says %s", made.full())
	}
	return nil
}

// play asks one question.
func (r *run) play(ctx context.Context, number int, sc scene) Finding {
	s := &stage{run: r, ctx: ctx, number: number, clients: map[int]*client{}, dialogue: []string{}}
	v := sc.play(s)
	if s.stopped != nil {
		v = *s.stopped
	}
	for _, c := range s.clients {
		c.close()
	}
	return Finding{
		Scene:    sc.name,
		Section:  sc.section,
		Question: sc.question,
		Answer:   v.answer,
		Detail:   v.detail,
		Proof:    s.dialogue,
	}
}

// cleaning is how often a server is asked to delete a mailbox that it says is in use.
const cleaning = 100 * time.Millisecond

// end deletes all mailboxes of this run. What ended the run does not end it. It gives up when the
// server has deleted nothing for a while: it may need some time to see that nobody has a mailbox selected
// any more, and also for each DELETE (Courier takes two seconds).
func (r *run) end() error {
	r.maker.close()
	all := text(r.prefix + r.id + "*")
	c, err := r.connect(context.Background())
	if err != nil {
		return fmt.Errorf("delete the mailboxes %s: %w", all, err)
	}
	defer c.close()
	again := time.NewTicker(cleaning)
	defer again.Stop()
	ours := regexp.MustCompile(regexp.QuoteMeta(r.id) + `[-A-Z0-9]*`)
	for deadline := time.Now().Add(r.server.Timeout); ; <-again.C {
		failed := c.do(`LIST "" %s`, all)
		left := ours.FindAllString(strings.Join(failed.untagged, "\n"), -1)
		if failed.status == "OK" && len(left) == 0 {
			return nil
		}
		for _, name := range left {
			del := c.do("DELETE %s", text(r.prefix+name))
			if del.status == "OK" {
				deadline = time.Now().Add(r.server.Timeout)
			} else {
				failed = del
			}
			if c.over {
				break
			}
		}
		if c.over || time.Now().After(deadline) {
			return fmt.Errorf("delete the mailboxes %s: server says %s", all, failed.full())
		}
	}
}
