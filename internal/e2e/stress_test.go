package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

var (
	stressTime = flag.Duration("stress", time.Minute, "how long TestStress runs")
	stressSeed = flag.Uint64("stress.seed", 0, "the seed of TestStress's random numbers; 0: another one each time")
)

// TestStress lets three programs from outside and the sessions of two maildirds change one Maildir at
// once. At random moments all is held still, and then each session's view, kept from what it was told and
// nothing else, is what a new session sees of either process and what is on disk; no message is
// lost, none is there twice, and no UID ever means two messages.
//
//	go test ./internal/e2e -run TestStress -stress 3h -timeout 4h
//
// A seed repeats what each program and session wants to do, not when it comes to it.
func TestStress(t *testing.T) {
	length := *stressTime
	if testing.Short() {
		length = min(length, 5*time.Second)
	}
	dir := memoryDir(t)
	st := newStress(t, filepath.Join(dir, "ada", "Maildir"), ".")
	for i := range 2 {
		st.serves(fmt.Sprintf("maildird %d", i+1), serve(t, filepath.Join(dir, "%u", "Maildir"), ""))
	}
	st.returns = true
	st.furnish()
	st.begin(slices.Sorted(maps.Keys(programKinds)))
	st.run(length)
	t.Logf("%d looks, %d messages at last; answers: %v", st.looks, len(st.files), st.answers)
}

// A stress is what is known of a Maildir that servers, programs and sessions change at once.
type stress struct {
	t *testing.T
	*rand.Rand
	seed     uint64
	root     string
	prefix   string // of the names of directories: see dirOf
	parties  []*party
	programs []*outsideProgram
	workers  []worker
	sessions []*stressSession
	running  sync.WaitGroup // sessions and workers
	looks    int

	// names is whether sessions create, delete, rename and subscribe to mailboxes, too.
	names bool
	// returns is whether programs move files away and back under their names: one that comes back before anybody
	// looks again, but for a process that knew it no more, has its UID still (docs/coexistence.md).
	returns bool
	// unlocked is whether programs rename without the lock while Dovecot is there, which then takes messages for
	// expunged that were renamed, and gives them new UIDs (docs/coexistence.md). That is counted, and no error.
	unlocked bool

	hold    sync.RWMutex  // read-locked by a session for a command; taken before mu
	stopped chan struct{} // closed at the end

	mu       sync.Mutex // guards what follows
	numbers  map[place]int
	rests    map[int]place             // where resting messages are
	files    map[int]int               // how often a message is there; at most, if it is doomed
	saved    map[int]bool              // by a mutt since the last look: nobody knows how often
	doomed   map[int]bool              // messages that may be removed, or were
	leaves   map[int]int               // how often a message that is not doomed left a mailbox, or may have
	leaving  map[place]bool            // what sessions may have moved or expunged
	gone     map[place]map[*party]bool // what sessions were told to be expunged, and by whom
	expunged map[place]bool            // what a session expunged for sure
	moving   map[int]*party            // messages that a session is moving
	answers  map[string]int            // how many there were to each command
	tally    tally
	history  map[int][]string // what was done to each message

	validities map[uint64]uint32 // of the mailboxes that are not removed, by their inodes
}

// A tally counts what was done, and what went wrong.
type tally struct {
	operations int // commands that were answered OK, and acts of programs
	expunges   int // of messages that nobody had moved or removed
	others     int // the same, by Dovecot, while programs rename without the lock
	renumbered int // messages that got another UID by that
	lost       int // messages that are there less often than they were put there
	twice      int // or more often
	uids       int // UIDs that meant two messages, and messages that got another UID
	differ     int // views and mailboxes that differ from what is on disk
	asleep     int // how often a Dovecot session in IDLE heard of a change only with the next one
	lockWaits  int // of Dovecot
	lockWaited time.Duration
}

// A party is a server that sessions talk to: a maildird or, if s is nil, a Dovecot.
type party struct {
	name string
	addr string
	s    *server
}

func (st *stress) serves(name string, s *server) {
	st.parties = append(st.parties, &party{name, s.imap, s})
}

// newStress is for a Maildir that may not be there yet.
func newStress(t *testing.T, root, prefix string) *stress {
	seed := *stressSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return &stress{
		t:          t,
		Rand:       rand.New(rand.NewPCG(seed, 0)),
		seed:       seed,
		root:       root,
		prefix:     prefix,
		stopped:    make(chan struct{}),
		numbers:    map[place]int{},
		rests:      map[int]place{},
		files:      map[int]int{},
		saved:      map[int]bool{},
		doomed:     map[int]bool{},
		leaves:     map[int]int{},
		leaving:    map[place]bool{},
		gone:       map[place]map[*party]bool{},
		expunged:   map[place]bool{},
		moving:     map[int]*party{},
		history:    map[int][]string{},
		answers:    map[string]int{},
		validities: map[uint64]uint32{},
	}
}

// furnish makes the mailboxes.
func (st *stress) furnish() {
	st.t.Helper()
	first := login(st.t, st.parties[0].addr, "ada")
	for _, name := range []string{"A", "B", "F1", "F2"} {
		first.ok("CREATE " + name)
	}
	first.ok("SELECT INBOX") // Dovecot makes it with that
	first.ok("LOGOUT")
}

// begin starts programs, workers and sessions.
func (st *stress) begin(programs []string) {
	st.t.Helper()
	for i, kind := range programs {
		st.programs = append(st.programs, st.start(kind, st.seed, (i+1)*1_000_000))
	}
	for i, w := range st.workers {
		w.Rand = rand.New(rand.NewPCG(st.seed, uint64(i+100)))
		w.letters = numbering{first: (i + 30) * 1_000_000}
		st.running.Go(func() { st.work(&w) })
	}
	for i := range 9 {
		s := &stressSession{
			stress:  st,
			Rand:    rand.New(rand.NewPCG(st.seed, uint64(i+1))),
			party:   st.parties[i%len(st.parties)],
			idles:   i >= 5,
			letters: numbering{first: (i + 10) * 1_000_000},
			changed: make(chan struct{}),
		}
		if s.idles && i < 5+len(st.parties) {
			s.home = "INBOX" // of each party one
		}
		st.sessions = append(st.sessions, s)
		st.running.Go(s.run)
	}
}

// run looks at random moments, for as long as that, and once more; then all sessions and workers are ended.
func (st *stress) run(length time.Duration) {
	st.t.Helper()
	defer st.running.Wait()
	defer st.stop()
	for end := time.Now().Add(length); time.Now().Before(end) && !st.t.Failed(); {
		time.Sleep(min(time.Duration(st.IntN(3000))*time.Millisecond, time.Until(end)))
		st.holdStill(st.look)
	}
	for _, p := range st.programs {
		p.end()
	}
	st.stop()
	st.running.Wait()
	waitNone(st.t, filepath.Join(st.root, "tmp/*.ghost"), filepath.Join(st.root, "tmp/*.deleted"),
		filepath.Join(st.root, st.prefix+"*/tmp/*.ghost"))
}

// A worker is something of the test's own that changes the Maildir, a step at a time.
type worker struct {
	name string
	step func(*worker)

	*rand.Rand
	letters numbering
}

func (st *stress) work(w *worker) {
	for !st.isStopped() && !st.t.Failed() {
		st.hold.RLock()
		if !st.isStopped() {
			w.step(w)
		}
		st.hold.RUnlock()
		select {
		case <-st.stopped:
		case <-time.After(time.Duration(w.IntN(50)) * time.Millisecond): // now at full speed, now not
		}
	}
}

// wrong counts an error.
func (st *stress) wrong(count *int, format string, args ...any) {
	st.t.Helper()
	*count++
	st.t.Errorf(format, args...)
}

// A place is a UID of a mailbox.
type place struct{ validity, uid uint32 }

// memoryDir is a directory in memory if there is one, since this is not about the disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "maildird")
	if err != nil {
		dir = peers.Dir(t)
	} else {
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	must(t, os.Chmod(dir, 0o755))
	own(t, dir)
	return dir
}

// identify notes that a UID means the message with a number.
func (st *stress) identify(m place, number int) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if before, ok := st.numbers[m]; ok && before != number {
		st.tally.uids++
		return fmt.Errorf("UID %d of UIDVALIDITY %d was message %d and is message %d", m.uid, m.validity, before, number)
	}
	if at, ok := st.rests[number]; ok && at != m {
		if st.unlocked && m.validity == at.validity && m.uid > at.uid {
			st.tally.renumbered++
			st.numbers[m], st.rests[number] = number, m
			return nil
		}
		if st.unlocked && m.validity == at.validity {
			return nil // somebody was not told yet
		}
		st.tally.uids++
		return fmt.Errorf("message %d had UID %d of UIDVALIDITY %d and has UID %d of %d", number, at.uid, at.validity, m.uid, m.validity)
	}
	st.numbers[m] = number
	if kindOf(number) == resting {
		st.rests[number] = m
	}
	return nil
}

// numberOf is what identify noted.
func (st *stress) numberOf(m place) (number int, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	number, ok = st.numbers[m]
	return number, ok
}

// came notes that a message is there once more.
func (st *stress) came(number int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.files[number]++
	st.tally.operations++
	st.noteLocked(number, "came")
}

// removed notes that a message is gone, or will be.
func (st *stress) removed(number int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.doomed[number] = true
	st.leaves[number]++
	st.tally.operations++
	st.noteLocked(number, "left")
}

// note adds to the history of a message.
func (st *stress) note(number int, format string, args ...any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.noteLocked(number, format, args...)
}

func (st *stress) noteLocked(number int, format string, args ...any) {
	st.history[number] = append(st.history[number], time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// moved notes that a message was moved, or will be.
func (st *stress) moved(number int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.leaves[number]++
	st.tally.operations++
	st.noteLocked(number, "left")
}

// mayLeave notes that a session moves or expunges a message.
func (st *stress) mayLeave(m place, number int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.leaving[m] {
		st.leaving[m] = true
		st.leaves[number]++
	}
}

// claim reports whether a session may move a message now. Dovecot copies and then expunges: with another MOVE at the same
// moment the message is in both places (docs/coexistence.md).
func (st *stress) claim(number int, by *party) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if other, ok := st.moving[number]; ok && (other.s == nil || by.s == nil) {
		return false
	}
	st.moving[number] = by
	return true
}

func (st *stress) unclaim(number int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.moving, number)
}

// dooms notes that a session expunges a message.
func (st *stress) dooms(m place, number int) {
	st.mayLeave(m, number)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.doomed[number] = true
}

// wasTold notes that a session was told of an EXPUNGE.
func (st *stress) wasTold(m place, by *party) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone[m] == nil {
		st.gone[m] = map[*party]bool{}
	}
	st.gone[m][by] = true
}

// An outsideProgram is a running program.
type outsideProgram struct {
	stdin io.WriteCloser
	held  chan struct{}
	ended chan struct{}
	exit  error // of the program, once it has ended
}

// end lets the program end with what it does.
func (p *outsideProgram) end() {
	p.stdin.Close()
	<-p.ended
}

const programEnv = "MAILDIRD_TEST_PROGRAM"

func (st *stress) start(kind string, seed uint64, first int) *outsideProgram {
	st.t.Helper()
	exe, err := os.Executable()
	must(st.t, err)
	uid, gid := peers.Owner(st.t)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %d %d %d %d", programEnv, kind, st.root, st.prefix, int64(seed), first, uid, gid))
	cmd.Stderr = st.t.Output()
	stdin, err := cmd.StdinPipe()
	must(st.t, err)
	stdout, err := cmd.StdoutPipe()
	must(st.t, err)
	must(st.t, cmd.Start())
	p := &outsideProgram{stdin: stdin, held: make(chan struct{}, 1), ended: make(chan struct{})}
	st.t.Cleanup(func() {
		p.end()
		if p.exit != nil {
			st.t.Errorf("%s: %v", kind, p.exit)
		}
	})
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			did, number, _ := strings.Cut(lines.Text(), " ")
			n, _ := strconv.Atoi(number)
			switch did {
			case "held":
				p.held <- struct{}{}
			case "delivered":
				st.came(n)
			case "removed":
				st.removed(n)
			case "moved":
				st.moved(n)
			}
		}
		p.exit = cmd.Wait()
	}()
	return p
}

// order holds the program or lets it go.
func (p *outsideProgram) order(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		t.Fatal("a program ended: ", err)
	}
}

// holdStill does something while no program and no session does anything.
func (st *stress) holdStill(f func()) {
	st.t.Helper()
	for _, p := range st.programs {
		p.order(st.t)
	}
	for _, p := range st.programs {
		select {
		case <-p.held:
		case <-p.ended:
			st.t.Fatal("a program ended")
		}
	}
	st.hold.Lock()
	defer st.hold.Unlock()
	f()
	for _, p := range st.programs {
		p.order(st.t)
	}
}

// stop ends all sessions, unless that is done.
func (st *stress) stop() {
	st.hold.Lock()
	defer st.hold.Unlock()
	if st.isStopped() {
		return
	}
	close(st.stopped)
	for _, s := range st.sessions {
		if s.conn != nil {
			s.conn.Close()
		}
	}
}

func (st *stress) isStopped() bool {
	select {
	case <-st.stopped:
		return true
	default:
		return false
	}
}

// answered counts what was answered to commands.
func (st *stress) answered(command, tagged string) {
	verb, rest, _ := strings.Cut(command, " ")
	if verb == "UID" {
		verb, _, _ = strings.Cut(rest, " ")
	}
	status, rest, _ := strings.Cut(tagged, " ")
	took := lockWait.FindStringSubmatch(tagged)
	if code, _, ok := strings.Cut(rest, " "); ok && status != "OK" {
		status = code
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.answers[verb+" "+status]++
	if status == "OK" {
		st.tally.operations++
	}
	if took != nil {
		waited, _ := time.ParseDuration(took[1] + "s") // digits
		st.tally.lockWaits++
		st.tally.lockWaited += waited
	}
}

// lockWait is what Dovecot tells of a command that waited for locks.
var lockWait = regexp.MustCompile(` \(\d+\.\d+ \+ \d+\.\d+ \+ (\d+\.\d+) secs\)\.$`)

// A diskBox is a mailbox as a plain reading of its directory shows it.
type diskBox struct {
	name     string
	inode    uint64
	validity uint32
	view     []entry // in the order of UIDs
	numbers  []int   // of the same
	problem  error
}

// readBox reads a mailbox's directory. With an error it returns what it knows by then.
func (st *stress) readBox(name string) (*diskBox, error) {
	dir := filepath.Join(st.root, dirOf(st.prefix, name))
	b := &diskBox{name: name}
	fi, err := os.Stat(dir)
	if err != nil {
		return b, err
	}
	b.inode = fi.Sys().(*syscall.Stat_t).Ino
	list, err := os.ReadFile(filepath.Join(dir, "dovecot-uidlist"))
	if err != nil {
		return b, err
	}
	header := listHeader.FindSubmatch(list)
	if header == nil {
		return b, fmt.Errorf("%s: uidlist begins %.40q", name, list)
	}
	b.validity = number32(string(header[1]))
	keywords := map[rune]string{}
	if text, err := os.ReadFile(filepath.Join(dir, "dovecot-keywords")); err == nil {
		for line := range strings.Lines(string(text)) {
			n, keyword, _ := strings.Cut(strings.TrimSpace(line), " ")
			i, _ := strconv.Atoi(n)
			keywords['a'+rune(i)] = keyword
		}
	}
	flags := map[string]string{}
	numbers := map[string]int{}
	for _, part := range []string{"new", "cur"} {
		files, err := os.ReadDir(filepath.Join(dir, part))
		if err != nil {
			return b, err
		}
		for _, f := range files {
			base, letters, _ := strings.Cut(f.Name(), ":2,")
			if _, twice := flags[base]; twice {
				return b, fmt.Errorf("%s has two files %s", name, base)
			}
			var all []string
			for _, c := range letters {
				if flag := flagLetters[c]; flag != "" {
					all = append(all, flag)
				} else if keywords[c] != "" {
					all = append(all, keywords[c])
				}
			}
			flags[base] = flagsOf(all)
			text, err := os.ReadFile(filepath.Join(dir, part, f.Name()))
			if err != nil {
				return b, err
			}
			m := numberLine.FindSubmatch(text)
			if m == nil {
				return b, fmt.Errorf("%s in %s is no message: %q", f.Name(), name, text)
			}
			numbers[base], _ = strconv.Atoi(string(m[1])) // digits
		}
	}
	last := uint32(0)
	for line := range strings.Lines(string(list[len(header[0]):])) {
		m := listRecord.FindStringSubmatch(line)
		if m == nil {
			return b, fmt.Errorf("%s: uidlist has the line %q", name, line)
		}
		uid, base := number32(m[1]), m[2]
		if uid <= last {
			return b, fmt.Errorf("%s: UID %d after %d", name, uid, last)
		}
		last = uid
		if _, ok := flags[base]; ok {
			if i := slices.IndexFunc(b.view, func(e entry) bool { return e.base == base }); i >= 0 {
				b.view, b.numbers = slices.Delete(b.view, i, i+1), slices.Delete(b.numbers, i, i+1) // it was away, and came back
			}
			b.view = append(b.view, entry{uid, flags[base], base})
			b.numbers = append(b.numbers, numbers[base])
		}
	}
	if len(b.view) != len(flags) {
		return b, fmt.Errorf("%s: %d of %d files have a UID", name, len(b.view), len(flags))
	}
	return b, nil
}

var (
	flagLetters = map[rune]string{'D': `\Draft`, 'F': `\Flagged`, 'R': `\Answered`, 'S': `\Seen`, 'T': `\Deleted`}
	listHeader  = regexp.MustCompile(`^3 V(\d+) N\d+( [A-Z]\S*)*\n`)
	listRecord  = regexp.MustCompile(`^(\d+) (?:[A-Z]\S* )*:(\S+)\n$`)
)

// readAll reads all mailboxes. What is wrong with one is in its problem.
func (st *stress) readAll() (boxes []*diskBox) {
	entries, err := os.ReadDir(st.root)
	must(st.t, err)
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), st.prefix)
		switch {
		case e.Name() == "cur":
			name = "INBOX"
		case !ok || !e.IsDir() || strings.HasPrefix(name, ".") || name == "new" || name == "tmp":
			continue
		}
		if _, err := os.Stat(filepath.Join(st.root, e.Name(), "cur")); st.prefix == "" && name != "INBOX" && err != nil {
			continue // a directory that is no mailbox is one that may have others below
		}
		b, err := st.readBox(name)
		b.problem = err
		boxes = append(boxes, b)
	}
	return boxes
}

// differs tells how the session's view differs from a mailbox. What came and was not asked for
// counts without UID and flags.
func (s *stressSession) differs(boxes []*diskBox) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(boxes, func(b *diskBox) bool { return b.validity == s.validity })
	if i < 0 {
		return fmt.Sprintf("%s is not on disk any more", s.name)
	}
	if err := boxes[i].problem; err != nil {
		return err.Error()
	}
	want := boxes[i].view
	if len(want) != len(s.view) {
		var more []string
		for _, e := range s.view {
			if e.uid != 0 && !slices.ContainsFunc(want, func(w entry) bool { return w.uid == e.uid }) {
				n, _ := s.numberOf(place{s.validity, e.uid})
				more = append(more, fmt.Sprintf("UID %d (message %d)", e.uid, n))
			}
		}
		return fmt.Sprintf("%d messages; %d are there: %v; %q is not", len(s.view), len(want), want, more)
	}
	for i, e := range s.view {
		if e.uid != 0 && e.uid != want[i].uid || e.flags != "?" && e.flags != want[i].flags {
			return fmt.Sprintf("message %d is UID %d (%s); it is %v", i+1, e.uid, e.flags, want[i])
		}
	}
	return ""
}

// isApart reports whether a session of Dovecot has a mailbox selected that was removed or renamed. It gets a BYE
// some time, and until then it may see what it likes.
func (s *stressSession) isApart(boxes []*diskBox) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.party.s == nil && !slices.ContainsFunc(boxes, func(b *diskBox) bool { return b.name == s.name && b.validity == s.validity })
}

// await waits until a session that idles sees what is on disk, or is sent away.
func (st *stress) await(s *stressSession) {
	st.t.Helper()
	deadline := time.Now().Add(patience)
	nudge, late := time.Now().Add(3*time.Second), false
	for {
		s.mu.Lock()
		name, changed, away := s.name, s.changed, s.away
		s.mu.Unlock()
		if name == "" || away && s.mayGo() {
			return
		}
		boxes := st.readAll()
		said := s.differs(boxes)
		if said == "" || s.isApart(boxes) {
			return
		}
		if time.Now().After(deadline) {
			s.fail("not told in IDLE: %s", said)
			return
		}
		if s.party.s == nil && time.Now().After(nudge) {
			// Of two changes within a second Dovecot may tell who idles of the first alone, until there is another one
			// (docs/coexistence.md).
			nudge = nudge.Add(3 * time.Second)
			if !late {
				late = true
				st.tally.asleep++
			}
			now := time.Now()
			os.Chtimes(filepath.Join(st.root, dirOf(st.prefix, name), "cur"), now, now)
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // the disk may have changed
		}
	}
}

// look compares what all see, while all is held still.
func (st *stress) look() {
	st.looks++
	st.awaitAll()
	// A process in which nobody had a mailbox selected may not know yet that a message was away and came back:
	// it gives it another UID, of which the other process hears at its next command.
	for _, s := range st.fresh() {
		s.conn.Close()
	}
	for _, s := range st.sessions {
		if !s.idles {
			s.catchUp()
		}
	}
	fresh := st.fresh()
	boxes := st.readAll()
	for i, b := range boxes {
		if b.problem != nil {
			st.t.Error(b.problem)
		}
		if slices.ContainsFunc(boxes[:i], func(other *diskBox) bool { return other.validity == b.validity }) {
			st.t.Errorf("%s has the UIDVALIDITY of another", b.name)
		}
	}
	for _, s := range slices.Concat(st.sessions, fresh) {
		if s.name == "" || s.idles || s.isApart(boxes) {
			continue
		}
		if said := s.differs(boxes); said != "" {
			st.tally.differ++
			s.fail("%s", said)
		}
	}
	for _, s := range fresh {
		s.conn.Close()
	}
	if len(fresh) != len(st.parties)*len(boxes) {
		st.wrong(&st.tally.differ, "%d mailboxes are listed by %d servers, %d are there", len(fresh), len(st.parties), len(boxes))
	}
	st.awaitAll()
	st.wantAll(boxes)
	for _, p := range st.parties {
		// Dovecot renames without a lock: while others change the mailbox that leaves locks behind, with Dovecot alone
		// as well (docs/coexistence.md).
		if st.names && p.s == nil {
			c := login(st.t, p.addr, "ada")
			c.do(fmt.Sprintf("RENAME %s %s", anyOf(st.Rand, moving), anyOf(st.Rand, moving)))
			c.Close()
		}
	}
}

// awaitAll waits for all that idle.
func (st *stress) awaitAll() {
	st.t.Helper()
	for _, s := range st.sessions {
		if s.idles && !st.t.Failed() {
			st.await(s)
		}
	}
}

// catchUp lets a session hear what there is. Dovecot may look at a directory a second later, where it changed just before
// the last look.
func (s *stressSession) catchUp() {
	for deadline := time.Now().Add(patience); s.conn != nil && s.name != ""; {
		var err error = errBye
		if !s.away { // or else it has just heard it, and could not go any more
			_, err = s.ask("NOOP")
		}
		switch {
		case errors.Is(err, errBye) && s.mayGo():
			s.goAway()
			return
		case err != nil:
			s.fail("%v", err)
			return
		case s.party.s != nil || time.Now().After(deadline) || s.seesAll():
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *stressSession) seesAll() bool {
	boxes := s.readAll()
	return s.differs(boxes) == "" || s.isApart(boxes)
}

// fresh are new sessions, one in each mailbox of each server.
func (st *stress) fresh() (all []*stressSession) {
	for _, party := range st.parties {
		lister := login(st.t, party.addr, "ada")
		for _, line := range lister.ok(`LIST "" *`) {
			if strings.Contains(strings.ToLower(line), `\noselect`) {
				continue
			}
			s := &stressSession{stress: st, Rand: st.Rand, party: party, changed: make(chan struct{})}
			if err := s.open(line[strings.LastIndexByte(line, ' ')+1:], true); err != nil || s.name == "" {
				s.fail("a new session can't look at it: %s: %v", line, err)
			} else if party.s == nil {
				s.catchUp()
			}
			all = append(all, s)
		}
		lister.Close()
	}
	return all
}

// wantAll compares the messages that are there with those that should be.
func (st *stress) wantAll(boxes []*diskBox) {
	files := map[int]int{}
	there := map[place]bool{}
	for _, b := range boxes {
		if v, ok := st.validities[b.inode]; ok && v != b.validity {
			st.t.Errorf("%s had UIDVALIDITY %d and has %d", b.name, v, b.validity)
		} else if !isPassing(b.name) {
			st.validities[b.inode] = b.validity
		}
		for i, e := range b.view {
			m := place{b.validity, e.uid}
			there[m] = true
			files[b.numbers[i]]++
			if err := st.identify(m, b.numbers[i]); err != nil {
				st.t.Error(err)
			}
		}
	}
	if len(st.validities) != len(staying)+2 {
		st.t.Errorf("%d mailboxes were made, %v", len(st.validities), st.validities)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for m := range st.expunged {
		if there[m] {
			st.wrong(&st.tally.differ, "UID %d of UIDVALIDITY %d was expunged and is there", m.uid, m.validity)
		}
	}
	clear(st.expunged)
	st.wantLeft(there)
	for number, n := range files {
		if n > st.files[number] && !st.saved[number] {
			st.wrong(&st.tally.twice, "message %d is there %d times, %d were made:\n%s", number, n, st.files[number], strings.Join(st.history[number], "\n"))
		}
	}
	for number := range st.saved {
		st.files[number] = files[number]
	}
	clear(st.saved)
	for number, n := range st.files {
		sure := !st.doomed[number] && kindOf(number) != removable
		if sure && files[number] < n {
			st.wrong(&st.tally.lost, "message %d is there %d times of %d:\n%s", number, files[number], n, strings.Join(st.history[number], "\n"))
		}
		if !sure {
			n = files[number]
		}
		if n > 0 {
			st.files[number] = n
		} else {
			delete(st.files, number)
		}
	}
}

// wantLeft compares what sessions were told to be expunged with what was moved or removed. The caller holds mu.
func (st *stress) wantLeft(there map[place]bool) {
	left := map[int][]place{}
	for m := range st.gone {
		if there[m] && !(st.returns && st.leaves[st.numbers[m]] > 0) {
			st.wrong(&st.tally.expunges, "UID %d of UIDVALIDITY %d (message %d) is there, and %s said that it was expunged",
				m.uid, m.validity, st.numbers[m], st.whoSaid(m))
		}
		if number, known := st.numbers[m]; known && !st.doomed[number] && kindOf(number) != removable {
			left[number] = append(left[number], m)
		}
	}
	for number, places := range left {
		more := len(places) - st.leaves[number]
		if more <= 0 {
			continue
		}
		if st.leaves[number] = len(places); st.unlocked {
			st.tally.others += more
			continue
		}
		var said []string
		for _, m := range places {
			said = append(said, fmt.Sprintf("UID %d of UIDVALIDITY %d, by %s", m.uid, m.validity, st.whoSaid(m)))
		}
		st.tally.expunges += more - 1
		st.wrong(&st.tally.expunges, "message %d left %d times, and was told to be expunged more often: %v\n%s", number, len(places)-more, said, strings.Join(st.history[number], "\n"))
	}
}

func (st *stress) whoSaid(m place) string {
	var names []string
	for p := range st.gone[m] {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return strings.Join(names, " and ")
}
