package practice

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Section 4 of RFC 2180, in its scenario: C1 and C2 have a mailbox of seven messages selected, of
// which 4:7 are \Deleted; C1 expunges them.

var (
	living = []int{1, 2, 3}
	gone   = []int{4, 5, 6, 7}
	mixed  = []int{3, 4, 5}
)

func isGone(n int) bool { return n > 3 }

// marked is the scenario before the EXPUNGE.
func (s *stage) marked() (c1, c2 *client) {
	foo := s.mailbox("FOO", 7)
	c1, c2 = s.client(1), s.client(2)
	c1.ok("SELECT %s", foo)
	c1.ok(`STORE 4:7 +FLAGS.SILENT (\Deleted)`)
	c2.ok("SELECT %s", foo)
	return c1, c2
}

// expunged is the scenario after the EXPUNGE, of which C2 was not told.
func (s *stage) expunged() (c1, c2 *client) {
	c1, c2 = s.marked()
	s.expunge(c1)
	return c1, c2
}

// expunge stops the scene unless messages 4:7 are expunged.
func (s *stage) expunge(c1 *client) {
	if expunged(c1.ask("EXPUNGE")).answer != Allow {
		s.stop(NotAsked, "")
	}
}

func expunged(r reply) verdict {
	switch {
	case r.status == "NO" && len(r.numbers("EXPUNGE")) == 0:
		return verdict{Refuse, r.code()}
	case r.status != "OK":
		return forbidden("%s", r)
	case !slices.Equal(r.left(7), living):
		return forbidden("OK, and messages 4:7 are not expunged")
	}
	return verdict{Allow, ""}
}

func expungeSelected(s *stage) verdict {
	c1, _ := s.marked()
	return expunged(c1.ask("EXPUNGE"))
}

// How FETCH shows a message.
type shown int

const (
	absent shown = iota
	empty        // by a NIL FETCH response (4.1.3)
	whole
	changed
)

var nilData = regexp.MustCompile(`(?i)[ (](BODY\[\]|ENVELOPE|FLAGS) (NIL|""|\{0\}\r\n|\((NIL ?)*(\\Recent)?\))`)

// show tells how a message is shown by what was fetched of it; sign is in what is whole.
func show(fetched, sign string) shown {
	switch {
	case fetched == "":
		return absent
	case strings.Contains(fetched, sign):
		return whole
	case nilData.MatchString(fetched):
		return empty
	}
	return changed
}

// flags is a sign of a message's flags.
func flags(number int) string {
	if isGone(number) {
		return `\Deleted`
	}
	return "FLAGS ("
}

// fetched judges the answer to a FETCH of messages of which some, or all, are gone. uids is nil, or
// the UIDs by which they were named.
func fetched(r reply, messages []int, uids []string, sign func(int) string) verdict {
	var all bool // of the living ones are shown
	var how shown
	all, how = true, -1
	for _, n := range messages {
		uid := ""
		if uids != nil {
			uid = uids[n]
		}
		is := show(r.fetched(n, uid), sign(n))
		switch {
		case !isGone(n):
			all = all && is == whole
		case how < 0:
			how = is
		case how != is:
			how = changed
		}
	}
	switch {
	case uids == nil && len(r.numbers("EXPUNGE")) > 0:
		return forbidden("EXPUNGE is sent during FETCH")
	case !all:
		return forbidden("%s, without what is left", r)
	case r.status == "NO" && how == absent:
		return verdict{No, r.code()}
	case r.status != "OK":
		return forbidden("%s", r)
	}
	switch how {
	case whole:
		return verdict{Ghost, ""}
	case empty:
		return verdict{Nil, r.code()}
	case absent:
		return verdict{LeftOut, ""}
	}
	return forbidden("OK, with other data in their place")
}

// byNumber is fetched for sequence numbers: leaving out is no strategy there.
func byNumber(r reply, messages []int, sign func(int) string) verdict {
	v := fetched(r, messages, nil, sign)
	if v.answer == LeftOut {
		return forbidden("OK, and they are left out")
	}
	return v
}

func fetchMixed(s *stage) verdict {
	_, c2 := s.expunged()
	return byNumber(c2.ask("FETCH 3:5 BODY.PEEK[]"), mixed, mark)
}

func fetchGone(s *stage) verdict {
	_, c2 := s.expunged()
	return byNumber(c2.ask("FETCH 4:7 BODY.PEEK[]"), gone, mark)
}

func fetchEnvelope(s *stage) verdict {
	_, c2 := s.expunged()
	return byNumber(c2.ask("FETCH 3:5 ENVELOPE"), mixed, mark)
}

func fetchFlags(s *stage) verdict {
	_, c2 := s.expunged()
	return byNumber(c2.ask("FETCH 3:5 FLAGS"), mixed, flags)
}

func fetchTold(s *stage) verdict {
	_, c2 := s.expunged()
	if !slices.Equal(c2.ask("NOOP").left(7), living) {
		return forbidden("NOOP does not tell of the EXPUNGE")
	}
	switch r := c2.ask("FETCH 4:7 BODY.PEEK[]"); {
	case len(r.numbers("FETCH")) > 0:
		return forbidden("%s, with data", r)
	case r.status == "NO":
		return verdict{No, r.code()}
	case r.status == "BAD":
		return verdict{Bad, ""}
	default:
		return forbidden("%s", r)
	}
}

// uids are the UIDs that a client is told of messages 1 to 7; there is none of 0.
func (c *client) uids() []string { return c.ask("FETCH 1:7 UID").uids() }

var numberAndUID = regexp.MustCompile(`^\* ([1-7]) FETCH \(UID (\d+)\)$`)

func (r reply) uids() []string {
	uids := make([]string, 8)
	for _, line := range r.untagged {
		if m := numberAndUID.FindStringSubmatch(line); m != nil {
			uids[m[1][0]-'0'] = m[2]
		}
	}
	return uids
}

func uidFetch(s *stage) verdict {
	c1, c2 := s.marked()
	uids := c2.uids()
	s.expunge(c1)
	return fetched(c2.ask("UID FETCH %s:%s BODY.PEEK[]", uids[3], uids[5]), mixed, uids, mark)
}

// flagged are the messages that are \Flagged for a client that was told all.
func (c *client) flagged() []int {
	c.ok("NOOP")
	return c.ask("SEARCH FLAGGED").found()
}

// found are the numbers that SEARCH answers.
func (r reply) found() []int {
	numbers := []int{}
	for _, line := range r.untagged {
		if list, ok := strings.CutPrefix(strings.ToUpper(line), "* SEARCH"); ok {
			for _, word := range strings.Fields(list) {
				if n, err := strconv.Atoi(word); err == nil {
					numbers = append(numbers, n)
				}
			}
		}
	}
	slices.Sort(numbers)
	return numbers
}

func storeSilent(s *stage) verdict {
	c1, c2 := s.expunged()
	r := c2.ask(`STORE 1:7 +FLAGS.SILENT (\Flagged)`)
	switch set := c1.flagged(); {
	case len(r.numbers("EXPUNGE")) > 0:
		return forbidden("EXPUNGE is sent during STORE")
	case r.status != "OK":
		return forbidden("%s", r)
	case !slices.Equal(set, living):
		return forbidden("OK, and flags are set of %v", set)
	}
	return verdict{OK, ""}
}

func storeGone(s *stage) verdict {
	_, c2 := s.expunged()
	r := c2.ask(`STORE 5:7 +FLAGS (\Flagged)`)
	if r.status == "NO" && len(r.numbers("FETCH")) == 0 {
		return verdict{No, r.code()}
	}
	return stored(r)
}

func storeMixed(s *stage) verdict {
	c1, c2 := s.expunged()
	r := c2.ask(`STORE 1:7 +FLAGS (\Flagged)`)
	told := slices.Compact(slices.Sorted(slices.Values(r.numbers("FETCH"))))
	switch set := c1.flagged(); {
	case r.status != "NO":
		return stored(r)
	case slices.Equal(set, living) && slices.Equal(told, living):
		return verdict{Partial, r.code()}
	case len(set) == 0 && len(told) == 0:
		return verdict{Refuse, r.code()}
	default:
		return forbidden("NO; flags are set of %v and told of %v", set, told)
	}
}

// stored judges the answer to a STORE that should have been NO.
func stored(r reply) verdict {
	switch {
	case len(r.numbers("EXPUNGE")) > 0:
		return forbidden("EXPUNGE is sent during STORE")
	case r.status != "OK":
		return forbidden("%s", r)
	case slices.ContainsFunc(r.numbers("FETCH"), isGone):
		return forbidden("OK, as if they were there")
	}
	return forbidden("OK, and they are left out")
}

func uidStore(s *stage) verdict {
	c1, c2 := s.marked()
	uids := c2.uids()
	s.expunge(c1)
	r := c2.ask(`UID STORE %s:%s +FLAGS (\Flagged)`, uids[1], uids[7])
	set := c1.flagged()
	switch {
	case r.status == "NO" && len(set) == 0:
		return verdict{No, r.code()}
	case r.status != "OK":
		return forbidden("%s; flags are set of %v", r, set)
	case !slices.Equal(set, living):
		return forbidden("OK, and flags are set of %v", set)
	case strings.Contains(r.fetched(0, uids[7]), `\Flagged`):
		return forbidden("OK, as if they were there")
	}
	return verdict{LeftOut, ""}
}

func searchAll(s *stage) verdict  { return search(s, "SEARCH ALL") }
func searchText(s *stage) verdict { return search(s, `SEARCH BODY "message"`) }

func search(s *stage, command string) verdict {
	_, c2 := s.expunged()
	r := c2.ask("%s", command)
	found := r.found()
	switch {
	case len(r.numbers("EXPUNGE")) > 0:
		return forbidden("EXPUNGE is sent during SEARCH")
	case r.status != "OK":
		return forbidden("%s", r)
	case slices.Equal(found, living):
		return verdict{LeftOut, r.code()}
	case slices.Equal(found, slices.Concat(living, gone)):
		return verdict{Listed, r.code()}
	}
	return forbidden("finds %v", found)
}

func copyMixed(s *stage) verdict { return transfer(s, "COPY") }

func moveMixed(s *stage) verdict {
	if !s.offers("MOVE") {
		return verdict{}
	}
	return transfer(s, "MOVE")
}

func uidCopy(s *stage) verdict { return transfer(s, "UID COPY") }

// transfer asks what COPY, or a command like it, does with messages 3:5, of which two are gone.
func transfer(s *stage, command string) verdict {
	bar := s.mailbox("BAR", 0)
	c1, c2 := s.marked()
	set := "3:5"
	byUID := strings.HasPrefix(command, "UID ")
	if byUID {
		uids := c2.uids()
		set = uids[3] + ":" + uids[5]
	}
	s.expunge(c1)
	r := c2.ask("%s %s %s", command, set, bar)

	c3 := s.client(3)
	var there []int
	if n := c3.ok("SELECT %s", bar).numbers("EXISTS"); len(n) > 0 && n[0] > 0 {
		all := strings.Join(c3.ask("FETCH 1:* BODY.PEEK[]").untagged, "\n")
		for i := 1; i <= 7; i++ {
			if strings.Contains(all, mark(i)) {
				there = append(there, i)
			}
		}
	}
	switch {
	case r.status == "NO" && len(there) == 0:
		return verdict{Refuse, r.code()}
	case r.status == "OK" && slices.Equal(there, mixed):
		return verdict{Ghost, ""}
	case r.status == "OK" && slices.Equal(there, []int{3}) && byUID:
		return verdict{LeftOut, ""}
	case r.status == "OK" && slices.Equal(there, []int{3}):
		return forbidden("OK, and they are left out")
	}
	return forbidden("%s; of 3:5, %v are there", r, there)
}
