package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A stressSession is a session of a stress, one that changes things or one that idles. It keeps what
// it was told.
type stressSession struct {
	*stress
	*rand.Rand
	party   *party
	idles   bool
	home    string // always selects this one
	letters numbering

	// Of the session's goroutine, and of the test's while all is held still.
	conn     *conn
	readOnly bool
	command  string
	before   string // what was selected before

	mu       sync.Mutex // guards what follows; taken after stress.hold
	name     string     // of what is selected; "": nothing
	validity uint32
	view     []entry
	away     bool          // it got a BYE
	changed  chan struct{} // closed and made anew with each response
}

// An entry is what the session knows of a message: its number is the place in the view.
type entry struct {
	uid   uint32 // 0: not known yet
	flags string // "?": not known yet
	base  string // on disk alone
}

func (s *stressSession) run() {
	for !s.isStopped() && !s.t.Failed() {
		var err error
		if s.idles {
			err = s.idle()
		} else {
			err = s.step()
		}
		switch {
		case err == nil:
		case s.isStopped():
			return
		case errors.Is(err, errBye) && s.mayGo():
			s.while(func() error {
				s.goAway()
				return nil
			})
		default:
			s.fail("%v", err)
		}
	}
}

// mayGo reports whether the mailbox may have been removed: this one, or the one before, of which the
// session is still to hear.
// Dovecot's sessions do not follow one that is renamed.
func (s *stressSession) mayGo() bool {
	follows := s.party.s != nil
	return isPassing(s.name) || isPassing(s.before) || !follows && (isMoving(s.name) || isMoving(s.before))
}

// fail tells what is wrong, and the dialogue.
func (s *stressSession) fail(format string, args ...any) {
	var said []string
	if s.conn != nil {
		said = s.conn.said
	}
	s.t.Errorf("session in %s of %s: %s\nthe dialogue:\n%s", s.name, s.party.name, fmt.Sprintf(format, args...), strings.Join(said, "\n"))
}

// goAway ends the connection after a BYE, unless that is done.
func (s *stressSession) goAway() {
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn = nil
	s.forget("", 0)
}

// forget begins a new view.
func (s *stressSession) forget(name string, validity uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.validity, s.view, s.away = name, validity, nil, false
	s.wakeLocked()
}

func (s *stressSession) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

var (
	existsLine  = regexp.MustCompile(`^\* (\d+) EXISTS$`)
	expungeLine = regexp.MustCompile(`^\* (\d+) EXPUNGE$`)
	fetchLine   = regexp.MustCompile(`^\* (\d+) FETCH \(`)
	uidItem     = regexp.MustCompile(`[( ]UID (\d+)`)
	flagsItem   = regexp.MustCompile(`[( ]FLAGS \(([^)]*)\)`)
	validLine   = regexp.MustCompile(`^\* OK \[UIDVALIDITY (\d+)\]`)
	copyUID     = regexp.MustCompile(`OK \[COPYUID (\d+) (\d+) (\d+)\]`)
	appendUID   = regexp.MustCompile(`OK \[APPENDUID (\d+) (\d+)\]`)
)

func number32(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32) // digits
	return uint32(n)
}

// flagsOf are flags in one order, without \Recent.
func flagsOf(flags []string) string {
	flags = slices.DeleteFunc(flags, func(f string) bool { return f == `\Recent` })
	slices.Sort(flags)
	return strings.Join(flags, " ")
}

// told takes an untagged response into the view.
func (s *stressSession) told(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wakeLocked()
	if strings.HasPrefix(line, "* BYE ") {
		s.away = true
		return errBye
	}
	if m := existsLine.FindStringSubmatch(line); m != nil {
		n := int(number32(m[1]))
		if n < len(s.view) {
			return fmt.Errorf("%d EXISTS after %d", n, len(s.view))
		}
		for len(s.view) < n {
			s.view = append(s.view, entry{flags: "?"})
		}
		return nil
	}
	if m := expungeLine.FindStringSubmatch(line); m != nil {
		n := int(number32(m[1]))
		if n < 1 || n > len(s.view) {
			return fmt.Errorf("%d EXPUNGE of %d", n, len(s.view))
		}
		switch verb, _, _ := strings.Cut(s.command, " "); verb {
		case "FETCH", "STORE", "SEARCH": // RFC 9051 7.5.1
			return fmt.Errorf("EXPUNGE during %s", s.command)
		}
		if uid := s.view[n-1].uid; uid != 0 && !isPassing(s.name) {
			s.wasTold(place{s.validity, uid}, s.party)
		}
		s.view = slices.Delete(s.view, n-1, n)
		return nil
	}
	if m := validLine.FindStringSubmatch(line); m != nil {
		s.validity = number32(m[1])
		return nil
	}
	m := fetchLine.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	n := int(number32(m[1]))
	if n < 1 || n > len(s.view) {
		return fmt.Errorf("%d FETCH of %d", n, len(s.view))
	}
	e := &s.view[n-1]
	if m := uidItem.FindStringSubmatch(line); m != nil {
		uid := number32(m[1])
		if e.uid != 0 && e.uid != uid {
			return fmt.Errorf("message %d had UID %d and has UID %d", n, e.uid, uid)
		}
		for i, other := range s.view {
			if i < n-1 && other.uid >= uid || i > n-1 && other.uid != 0 && other.uid <= uid {
				return fmt.Errorf("message %d has UID %d, and message %d has %d", i+1, other.uid, n, uid)
			}
		}
		e.uid = uid
	}
	if m := flagsItem.FindStringSubmatch(line); m != nil {
		e.flags = flagsOf(strings.Fields(m[1]))
	}
	if m := numberLine.FindStringSubmatch(line); m != nil && e.uid != 0 {
		n, _ := strconv.Atoi(m[1]) // digits
		return s.identify(place{s.validity, e.uid}, n)
	}
	return nil
}

// ask sends a command and returns its untagged responses and the tagged one.
func (s *stressSession) ask(command string) (answer, error) {
	s.command = command
	s.conn.tags++
	tag := fmt.Sprintf("a%d", s.conn.tags)
	s.conn.note("C: ", tag+" "+command)
	s.conn.SetDeadline(time.Now().Add(patience))
	defer s.conn.SetDeadline(time.Time{})
	fmt.Fprintf(s.conn, "%s %s\r\n", tag, command) // an error shows when the answer is read
	return s.answer(tag)
}

// answer reads up to the tagged response.
func (s *stressSession) answer(tag string) (a answer, err error) {
	for {
		line, err := s.conn.next()
		if err != nil {
			return a, err
		}
		if tagged, ok := strings.CutPrefix(line, tag+" "); ok {
			s.stress.answered(s.command, tagged)
			a.tagged = tagged
			if !s.mayAnswer(tagged) {
				return a, fmt.Errorf("%s: %s", s.command, tagged)
			}
			return a, nil
		}
		if err := s.told(line); err != nil {
			return a, err
		}
		a.untagged = append(a.untagged, line)
	}
}

// okAnswer is what may be answered. A mailbox may be moved or gone, a message expunged.
var okAnswer = regexp.MustCompile(`^(OK|NO \[(NONEXISTENT|ALREADYEXISTS|TRYCREATE|NEWNAME \S+ \S+|EXPUNGEISSUED)\]|NO \[UNAVAILABLE\] Another program) `)

// okOfDovecot is what Dovecot may answer: it knows fewer codes.
var okOfDovecot = regexp.MustCompile(`^(OK|NO \[(NONEXISTENT|ALREADYEXISTS|TRYCREATE|EXPUNGEISSUED)\]|NO Mailbox (was deleted under us|doesn't exist)|NO Mailbox already exists|NO New mails were added to mailbox during deletion)`)

// goingNames is in a command about a mailbox that may be removed or renamed meanwhile, which Dovecot may answer by SERVERBUG.
var goingNames = regexp.MustCompile(`\b[NF][123]\b`)

// mayAnswer reports whether a tagged response is one that may come.
func (s *stressSession) mayAnswer(tagged string) bool {
	if s.party.s != nil {
		return okAnswer.MatchString(tagged)
	}
	going := s.mayGo() || goingNames.MatchString(s.command)
	return okOfDovecot.MatchString(tagged) || going && strings.HasPrefix(tagged, "NO [SERVERBUG]")
}

func (a answer) ok() bool { return strings.HasPrefix(a.tagged, "OK") }

// open logs in and selects, with a view of all that is there.
func (s *stressSession) open(name string, readOnly bool) error {
	if s.conn == nil {
		s.conn = dial(s.t, s.party.addr)
		s.conn.quit = runtime.Goexit
		if _, err := s.ask("LOGIN ada pass"); err != nil {
			return err
		}
	}
	if s.name != "" {
		if _, err := s.ask("UNSELECT"); err != nil {
			return err
		}
	}
	if s.name != "" {
		s.before = s.name
	}
	s.forget(name, 0)
	verb := "SELECT"
	if readOnly {
		verb = "EXAMINE"
	}
	a, err := s.ask(verb + " " + name)
	if err != nil {
		return err
	}
	if !a.ok() {
		s.before = name
		s.forget("", 0)
		return nil
	}
	s.readOnly = readOnly
	return s.fetchNew()
}

// fetchNew asks for what is not known of the messages.
func (s *stressSession) fetchNew() error {
	i := slices.IndexFunc(s.view, func(e entry) bool { return e.uid == 0 || e.flags == "?" })
	if i < 0 {
		return nil
	}
	_, err := s.ask(fmt.Sprintf("FETCH %d:%d (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])", i+1, len(s.view)))
	return err
}

// while does something while nothing is held still.
func (s *stressSession) while(f func() error) error {
	s.hold.RLock()
	defer s.hold.RUnlock()
	return f()
}

func (s *stressSession) isSelected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name != ""
}

// knowsAll reports whether nothing came that was not asked for yet.
func (s *stressSession) knowsAll() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.view) == 0 || s.view[len(s.view)-1].uid != 0
}

// where is a mailbox to select.
func (s *stressSession) where() string {
	if s.home != "" {
		return s.home
	}
	if s.idles && s.party.s == nil {
		return anyOf(s.Rand, staying, passing) // it does not follow, and may be told of another mailbox
	}
	return anyOf(s.Rand, staying, staying, moving, passing)
}

// idle selects a mailbox and idles in it, then in another; it fetches what comes, as mail programs do. Whenever all
// is held still it is in IDLE, or has nothing selected.
func (s *stressSession) idle() error {
	if err := s.while(func() error {
		if err := s.open(s.where(), s.IntN(2) == 0); err != nil || !s.isSelected() {
			return err
		}
		return s.beginIdle()
	}); err != nil || !s.isSelected() {
		return err
	}
	for {
		line, err := s.conn.next()
		if err == nil {
			err = s.told(line)
		}
		if err != nil {
			return err
		}
		leave := s.IntN(100) == 0
		if !leave && s.knowsAll() || !s.hold.TryRLock() {
			continue
		}
		err = s.endIdle()
		if err == nil && leave {
			err = s.open(s.where(), s.IntN(2) == 0)
		} else if err == nil {
			err = s.fetchNew()
		}
		if err == nil && s.isSelected() {
			err = s.beginIdle()
		}
		s.hold.RUnlock()
		if err != nil || !s.isSelected() {
			return err
		}
	}
}

func (s *stressSession) beginIdle() error {
	s.command = "IDLE"
	s.conn.note("C: ", "idle IDLE")
	fmt.Fprint(s.conn, "idle IDLE\r\n")
	for {
		line, err := s.conn.next()
		if err == nil && strings.HasPrefix(line, "+") {
			return nil
		}
		if err == nil {
			err = s.told(line)
		}
		if err != nil {
			return err
		}
	}
}

func (s *stressSession) endIdle() error {
	s.conn.note("C: ", "DONE")
	fmt.Fprint(s.conn, "DONE\r\n")
	_, err := s.answer("idle")
	return err
}

// step sends a command.
func (s *stressSession) step() error {
	return s.while(func() error {
		if s.isStopped() {
			return nil
		}
		if !s.isSelected() || s.IntN(100) == 0 {
			return s.open(s.where(), s.IntN(6) == 0)
		}
		if !s.knowsAll() && s.IntN(3) > 0 {
			return s.fetchNew()
		}
		return s.any()
	})
}

// any sends any command.
func (s *stressSession) any() error {
	if s.names && s.IntN(50) == 0 {
		return s.anyName()
	}
	n := s.IntN(20)
	switch {
	case n == 0:
		name, least := anyOf(s.Rand, staying, moving, passing), resting
		if isPassing(name) {
			least = removable
		}
		return s.append(name, s.letters.next(least))
	case n < 5:
		_, err := s.ask("NOOP")
		return err
	case n == 5:
		_, err := s.ask("STATUS " + anyOf(s.Rand, staying, moving, passing) + " (MESSAGES UIDNEXT UNSEEN)")
		return err
	case n == 6 && !s.readOnly:
		_, err := s.ask("EXPUNGE")
		return err
	}
	if len(s.view) == 0 {
		_, err := s.ask("CHECK")
		return err
	}
	i := s.IntN(len(s.view))
	e := s.view[i]
	number, known := s.numberOf(place{s.validity, e.uid})
	set, uid := fmt.Sprint(i+1), ""
	if s.IntN(2) == 0 {
		set = fmt.Sprintf("%d:%d", i+1, min(len(s.view), i+1+s.IntN(10)))
	}
	if e.uid != 0 && s.IntN(2) == 0 {
		set, uid = fmt.Sprint(e.uid), "UID "
	}
	switch {
	case n < 10:
		items := []string{"(UID FLAGS)", "(UID FLAGS BODY.PEEK[])", "(UID RFC822.SIZE BODY[])", "(UID ENVELOPE INTERNALDATE)"}
		if s.readOnly {
			items = items[:2]
		}
		_, err := s.ask(uid + "FETCH " + set + " " + anyOf(s.Rand, items))
		return err
	case n == 10:
		_, err := s.ask(uid + "SEARCH UNSEEN")
		return err
	case s.readOnly || !known || n < 15:
		if s.readOnly {
			_, err := s.ask("FETCH 1:* (UID FLAGS)")
			return err
		}
		op := anyOf(s.Rand, []string{"+", "-"})
		_, err := s.ask(uid + "STORE " + set + " " + op + "FLAGS (" + anyOf(s.Rand, []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, "kwA", "kwB"}) + ")")
		return err
	case n < 17 && kindOf(number) >= mortal:
		return s.expunge(e.uid, number)
	}
	kind := kindOf(number)
	dest := anyOf(s.Rand, staying, moving)
	if kind == removable {
		dest = anyOf(s.Rand, staying, moving, passing)
	}
	switch {
	case n == 17 && kind >= copied && (kind > copied || s.IntN(5) == 0):
		return s.copyTo("COPY", e.uid, number, dest)
	case n > 17 && kind >= wandering:
		return s.copyTo("MOVE", e.uid, number, dest)
	}
	_, err := s.ask("NOOP")
	return err
}

// anyName creates, deletes, renames, or subscribes to any mailbox.
func (s *stressSession) anyName() error {
	var command string
	switch s.IntN(5) {
	case 0:
		command = "CREATE " + anyOf(s.Rand, passing)
	case 1:
		name := anyOf(s.Rand, passing)
		if name == s.name {
			return nil // it would go on in what is nowhere
		}
		command = "DELETE " + name
	case 2:
		if s.party.s == nil {
			return nil // that is for holdStill
		}
		command = fmt.Sprintf("RENAME %s %s", anyOf(s.Rand, moving), anyOf(s.Rand, moving))
	case 3:
		command = "SUBSCRIBE " + anyOf(s.Rand, staying)
	case 4:
		command = "UNSUBSCRIBE " + anyOf(s.Rand, staying)
	}
	_, err := s.ask(command)
	return err
}

func (s *stressSession) append(name string, number int) error {
	flags := anyOf(s.Rand, []string{"", `\Seen`, `\Flagged kwB`})
	text := textOf(number)
	a, err := s.ask(fmt.Sprintf("APPEND %s (%s) {%d+}\r\n%s", name, flags, len(text), text))
	if m := appendUID.FindStringSubmatch(a.tagged); m != nil {
		s.came(number)
		return s.identify(place{number32(m[1]), number32(m[2])}, number)
	}
	if errors.Is(err, errBye) {
		s.came(number) // perhaps
		s.removed(number)
	}
	return err
}

// expunge marks a message and removes it. That it is gone then is for the next look to see.
func (s *stressSession) expunge(uid uint32, number int) error {
	m := place{s.validity, uid}
	s.dooms(m, number)
	s.note(number, "expunge UID %d of %s by %s", uid, s.name, s.party.name)
	a, err := s.ask(fmt.Sprintf(`UID STORE %d +FLAGS (\Deleted)`, uid))
	if err != nil || !a.ok() || s.IntN(2) == 0 {
		return err
	}
	a, err = s.ask(fmt.Sprintf("UID EXPUNGE %d", uid))
	if err == nil && a.ok() {
		s.stress.mu.Lock()
		defer s.stress.mu.Unlock()
		s.stress.expunged[m] = true
	}
	return err
}

// copyTo copies or moves a message.
func (s *stressSession) copyTo(verb string, uid uint32, number int, dest string) error {
	if s.party.s == nil && dest == s.name {
		return nil // it gives the message its first name again, which has a record still (docs/coexistence.md)
	}
	if verb == "MOVE" {
		if !s.claim(number, s.party) {
			return nil
		}
		defer s.unclaim(number)
		s.mayLeave(place{s.validity, uid}, number)
	}
	s.note(number, "%s from UID %d of %s to %s by %s", verb, uid, s.name, dest, s.party.name)
	a, err := s.ask(fmt.Sprintf("UID %s %d %s", verb, uid, dest))
	s.note(number, "%s from UID %d: %q %s", verb, uid, a.untagged, a.tagged)
	m := copyUID.FindStringSubmatch(strings.Join(append(a.untagged, a.tagged), "\n"))
	switch {
	case m != nil:
		if verb == "COPY" || !a.ok() { // Dovecot may have copied and then not have expunged
			s.came(number)
		}
		if got := number32(m[2]); got != uid {
			return fmt.Errorf("%s of UID %d: %s", verb, uid, m[0])
		}
		return errors.Join(err, s.identify(place{number32(m[1]), number32(m[3])}, number))
	case errors.Is(err, errBye) && verb == "COPY":
		s.came(number) // perhaps
		s.removed(number)
	}
	return err
}
