package practice

import (
	"context"
	"fmt"
)

// A scene asks one question.
type scene struct {
	name, section, question string
	play                    func(*stage) verdict
}

// A verdict is an answer, and more about it in words.
type verdict struct {
	answer Answer
	detail string
}

func forbidden(format string, args ...any) verdict {
	return verdict{Forbidden, fmt.Sprintf(format, args...)}
}

// A stage is what a scene is played on. Once it is stopped, what is still played is without effect.
type stage struct {
	run      *run
	ctx      context.Context
	number   int // of the scene
	clients  map[int]*client
	dialogue []string
	stopped  *verdict // the answer, where the scene did not come to its end
}

// stop ends the scene; the first call counts.
func (s *stage) stop(a Answer, format string, args ...any) {
	if s.stopped == nil {
		s.stopped = &verdict{a, fmt.Sprintf(format, args...)}
	}
}

// client is client C1, C2 or C3, logged in at its first use.
func (s *stage) client(number int) *client {
	c := s.clients[number]
	if c != nil {
		return c
	}
	c, err := s.run.connect(s.ctx)
	if err != nil {
		s.stop(Unanswered, "%v", err)
		c = &client{over: true}
	}
	c.stage, c.number = s, number
	s.clients[number] = c
	return c
}

// offers reports whether the server has a capability; the scene is stopped if it has not.
func (s *stage) offers(capability string) bool {
	if !s.run.caps[capability] {
		s.stop(NotOffered, "")
	}
	return s.stopped == nil
}

// name is a mailbox name for this scene, for use in a command.
func (s *stage) name(name string) string {
	return text(fmt.Sprintf("%s%s-%d-%s", s.run.prefix, s.run.id, s.number, name))
}

// mailbox makes a mailbox of as many messages, and returns its name for use in a command.
func (s *stage) mailbox(name string, messages int) string {
	name = s.name(name)
	m := s.run.maker
	if m.over {
		c, err := s.run.connect(s.ctx)
		if err != nil {
			s.stop(Unanswered, "%v", err)
			return name
		}
		m.close()
		m, s.run.maker = c, c
	}
	m.stage = s
	m.ok("CREATE %s", name)
	for i := range messages {
		m.ok("APPEND %s %s", name, text(mail(i+1)))
	}
	return name
}

// mail is a message that is known again: mark tells its number where its subject or its text is
// shown.
func mail(number int) string {
	return fmt.Sprintf("From: rfc2180@example.org\r\nSubject: %s\r\n\r\nThis is %[1]s.\r\n", mark(number))
}

func mark(number int) string { return fmt.Sprintf("message <%d>", number) }
