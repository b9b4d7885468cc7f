package practice

import (
	"fmt"
	"slices"
	"strings"
)

// What a session is told, and when, in the scenario of message.go.

func neverDuring(s *stage) verdict {
	_, c2 := s.expunged()
	for _, command := range []string{"FETCH 1:3 FLAGS", `STORE 1 +FLAGS (\Flagged)`, `STORE 1 -FLAGS.SILENT (\Flagged)`, "SEARCH ALL"} {
		if r := c2.ask("%s", command); len(r.numbers("EXPUNGE")) > 0 {
			name, _ := word(command)
			return forbidden("EXPUNGE is sent during %s", name)
		}
	}
	return verdict{Never, ""}
}

func toldAtNoop(s *stage) verdict {
	_, c2 := s.expunged()
	return told(c2.ask("NOOP"))
}

// told judges whether a client was told of the EXPUNGE.
func told(r reply) verdict {
	switch left := r.left(7); {
	case slices.Equal(left, living):
		return verdict{Told, ""}
	case len(left) == 7:
		return verdict{NotTold, ""}
	default:
		return forbidden("the client is left with %v", left)
	}
}

func toldInIdle(s *stage) verdict {
	if !s.offers("IDLE") {
		return verdict{}
	}
	c1, c2 := s.marked()
	if !c2.idle() {
		return verdict{}
	}
	s.expunge(c1)
	r := c2.hear(c2.timeout, func(r reply) bool { return len(r.left(7)) <= 3 })
	c2.done()
	v := told(r)
	if v.answer == NotTold {
		v.detail = fmt.Sprintf("in %v", c2.timeout)
	}
	return v
}

func newInIdle(s *stage) verdict {
	if !s.offers("IDLE") {
		return verdict{}
	}
	foo := s.mailbox("FOO", 7)
	c1, c2 := s.client(1), s.client(2)
	c2.ok("SELECT %s", foo)
	if !c2.idle() {
		return verdict{}
	}
	c1.ok("APPEND %s %s", foo, text(mail(8)))
	r := c2.hear(c2.timeout, func(r reply) bool { return slices.Contains(r.numbers("EXISTS"), 8) })
	c2.done()
	if slices.Contains(r.numbers("EXISTS"), 8) {
		return verdict{Told, ""}
	}
	return verdict{NotTold, fmt.Sprintf("in %v", c2.timeout)}
}

// idle begins IDLE and reports whether the server agrees; the scene is stopped if it does not.
func (c *client) idle() bool {
	r, goOn := c.begin("IDLE")
	if !goOn {
		c.stop(Unanswered, "IDLE: "+r.full())
	}
	c.idling = r
	return goOn
}

// done ends IDLE.
func (c *client) done() {
	if c.over {
		return
	}
	c.said("C", "DONE")
	c.write("DONE\r\n")
	for c.answer(&c.idling) {
	}
}

func numbersStay(s *stage) verdict {
	c1, c2 := s.marked()
	before := c2.uids()
	s.expunge(c1)
	c1.ok("APPEND %s %s", s.name("FOO"), text(mail(8)))
	r := c2.ask("FETCH 1:7 UID")
	for i := 1; i <= 7; i++ {
		now := r.fetched(i, "")
		if now != "" && !strings.Contains(now, "UID "+before[i]+")") || now == "" && !isGone(i) {
			return forbidden("message %d is not what it was before the EXPUNGE is told", i)
		}
	}
	return verdict{Kept, ""}
}
