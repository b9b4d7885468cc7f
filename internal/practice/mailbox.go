package practice

import "strings"

// Section 3 of RFC 2180: C2 has a mailbox selected, C1 deletes or renames it.

// refused is the answer of a server that does not carry out a command because of others.
func refused(r reply, others *client) verdict {
	switch {
	case r.status != "NO":
		return forbidden("%s", r)
	case !others.reads():
		return forbidden("NO, and the other session can't read its messages any more")
	}
	return verdict{Refuse, r.code()}
}

// reads reports whether a client is given all three messages.
func (c *client) reads() bool {
	r := c.do("FETCH 1:3 BODY.PEEK[]")
	for i := 1; i <= 3; i++ {
		if !strings.Contains(r.fetched(i, ""), mark(i)) {
			return false
		}
	}
	return r.status == "OK"
}

func deleteSelected(s *stage) verdict {
	foo := s.mailbox("FOO", 3)
	c1, c2 := s.client(1), s.client(2)
	c2.ok("SELECT %s", foo)
	if r := c1.ask("DELETE %s", foo); r.status != "OK" {
		return refused(r, c2)
	}
	c2.ends()
	reads := c2.reads()
	if c1.ask("STATUS %s (MESSAGES)", foo).status == "OK" {
		return forbidden("the mailbox is still found by its name")
	}
	if strings.Contains(strings.Join(c1.ask(`LIST "" %s`, foo).untagged, "\n"), s.run.id) {
		return forbidden("the mailbox is still listed")
	}
	switch {
	case c2.over:
		return verdict{Disconnect, ""}
	case !reads:
		return forbidden("the session goes on without the messages")
	case c2.ask("STATUS %s (MESSAGES)", foo).status != "OK":
		return verdict{Ghost, "but STATUS fails"}
	}
	return verdict{Ghost, ""}
}

func nameOfDeleted(s *stage) verdict {
	foo := s.mailbox("FOO", 3)
	c1, c2, c3 := s.client(1), s.client(2), s.client(3)
	c2.ok("SELECT %s", foo)
	if c1.ask("DELETE %s", foo).status != "OK" || c2.ends() {
		return verdict{NotAsked, ""}
	}
	r := c3.ask("CREATE %s", foo)
	if r.status == "OK" {
		c3.ok("APPEND %s %s", foo, text(mail(4)))
		if c2.do("NOOP"); strings.Contains(c2.do("FETCH 1 BODY.PEEK[]").fetched(1, ""), mark(4)) {
			return forbidden("free at once, and the session takes the new mailbox for its own")
		}
		return verdict{Free, ""}
	}
	c2.ok("CLOSE")
	if again := c3.ask("CREATE %s", foo); again.status != "OK" {
		return forbidden("never free again: %s", again)
	}
	return verdict{Reserved, r.code()}
}

func renameSelected(s *stage) verdict {
	foo, bar := s.mailbox("FOO", 3), s.name("BAR")
	c1, c2 := s.client(1), s.client(2)
	c2.ok("SELECT %s", foo)
	if r := c1.ask("RENAME %s %s", foo, bar); r.status != "OK" {
		return refused(r, c2)
	}
	c2.ends()
	reads := c2.reads()
	c1.ok("SELECT %s", bar)
	switch {
	case !c1.reads():
		return forbidden("the messages are not in the renamed mailbox")
	case c2.over:
		return verdict{Disconnect, ""}
	case !reads:
		return forbidden("the session goes on without the messages")
	}
	c2.ask(`STORE 1 +FLAGS (\Flagged)`)
	c1.ok("NOOP")
	if found := c1.ask("SEARCH FLAGGED").found(); len(found) != 1 {
		return forbidden("the session goes on, but what it changes is lost")
	}
	return verdict{Follow, ""}
}

func nameOfRenamed(s *stage) verdict {
	foo, bar := s.mailbox("FOO", 3), s.name("BAR")
	c1, c2 := s.client(1), s.client(2)
	c2.ok("SELECT %s", foo)
	if c1.ask("RENAME %s %s", foo, bar).status != "OK" || c2.ends() {
		return verdict{NotAsked, ""}
	}
	switch r := c2.ask("STATUS %s (MESSAGES)", foo); {
	case r.status == "NO" && strings.HasPrefix(strings.ToUpper(r.code()), "[NEWNAME "):
		return verdict{NewName, ""}
	case r.status == "NO":
		return verdict{No, r.code()}
	default:
		return forbidden("%s", r)
	}
}
