package e2e

import (
	"bufio"
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
	seed := *stressSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	dir := memoryDir(t)
	st := &stress{
		t:          t,
		Rand:       rand.New(rand.NewPCG(seed, 0)),
		root:       filepath.Join(dir, "ada", "Maildir"),
		stopped:    make(chan struct{}),
		numbers:    map[place]int{},
		rests:      map[int]place{},
		files:      map[int]int{},
		doomed:     map[int]bool{},
		expunged:   map[place]bool{},
		answers:    map[string]int{},
		validities: map[uint64]uint32{},
	}
	for range 2 {
		st.servers = append(st.servers, serve(t, filepath.Join(dir, "%u", "Maildir"), ""))
	}
	first := login(t, st.servers[0].imap, "ada")
	for _, name := range []string{"A", "B", "F1", "F2"} {
		first.ok("CREATE " + name)
	}
	first.ok("LOGOUT")

	for i, kind := range slices.Sorted(maps.Keys(programKinds)) {
		st.programs = append(st.programs, st.start(kind, seed, (i+1)*1_000_000))
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer st.stop()
	for i := range 9 {
		s := &stressSession{
			stress:  st,
			Rand:    rand.New(rand.NewPCG(seed, uint64(i+1))),
			server:  st.servers[i%2],
			idles:   i >= 5,
			letters: numbering{first: (i + 10) * 1_000_000},
			changed: make(chan struct{}),
		}
		if s.idles && i < 7 {
			s.home = "INBOX" // of both processes one
		}
		st.sessions = append(st.sessions, s)
		running.Go(s.run)
	}

	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		time.Sleep(min(time.Duration(st.IntN(3000))*time.Millisecond, time.Until(end)))
		st.holdStill(st.look)
	}
	st.stop()
	running.Wait()
	waitNone(t, filepath.Join(st.root, "tmp/*.ghost"), filepath.Join(st.root, "tmp/*.deleted"), filepath.Join(st.root, ".*/tmp/*.ghost"))
	st.mu.Lock() // the programs go on
	defer st.mu.Unlock()
	t.Logf("%d looks, %d messages at last; answers: %v", st.looks, len(st.files), st.answers)
}

// A stress is what is known of the Maildir that is changed.
type stress struct {
	t *testing.T
	*rand.Rand
	root     string
	servers  []*server
	programs []*outsideProgram
	sessions []*stressSession
	looks    int

	hold    sync.RWMutex  // read-locked by a session for a command; taken before mu
	stopped chan struct{} // closed at the end

	mu       sync.Mutex // guards what follows
	numbers  map[place]int
	rests    map[int]place  // where resting messages are
	files    map[int]int    // how often a message is there; at most, if it is doomed
	doomed   map[int]bool   // messages that may be removed, or were
	expunged map[place]bool // what a session expunged for sure
	answers  map[string]int // how many there were to each command

	validities map[uint64]uint32 // of the mailboxes that are not removed, by their inodes
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
		return fmt.Errorf("UID %d of UIDVALIDITY %d was message %d and is message %d", m.uid, m.validity, before, number)
	}
	if at, ok := st.rests[number]; ok && at != m {
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
}

// removed notes that a message may be gone.
func (st *stress) removed(number int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.doomed[number] = true
}

// An outsideProgram is a running program.
type outsideProgram struct {
	stdin io.WriteCloser
	held  chan struct{}
	ended chan struct{}
}

const programEnv = "MAILDIRD_TEST_PROGRAM"

func (st *stress) start(kind string, seed uint64, first int) *outsideProgram {
	st.t.Helper()
	exe, err := os.Executable()
	must(st.t, err)
	uid, gid := peers.Owner(st.t)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %d %d", programEnv, kind, st.root, int64(seed), first, uid, gid))
	cmd.Stderr = st.t.Output()
	stdin, err := cmd.StdinPipe()
	must(st.t, err)
	stdout, err := cmd.StdoutPipe()
	must(st.t, err)
	must(st.t, cmd.Start())
	p := &outsideProgram{stdin, make(chan struct{}, 1), make(chan struct{})}
	st.t.Cleanup(func() {
		stdin.Close() // it ends with what it does
		<-p.ended
		if err := cmd.Wait(); err != nil {
			st.t.Errorf("%s: %v", kind, err)
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
			}
		}
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
	if code, _, ok := strings.Cut(rest, " "); ok && status != "OK" {
		status = code
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.answers[verb+" "+status]++
}

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
	dir := filepath.Join(st.root, dirOf(name))
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
		name := strings.TrimPrefix(e.Name(), ".")
		if e.Name() == "cur" {
			name = "INBOX"
		} else if name == e.Name() || !e.IsDir() {
			continue
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

// await waits until a session that idles sees what is on disk, or is sent away.
func (st *stress) await(s *stressSession) {
	st.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s.mu.Lock()
		name, changed := s.name, s.changed
		s.mu.Unlock()
		if name == "" {
			return
		}
		said := s.differs(st.readAll())
		if said == "" {
			return
		}
		if time.Now().After(deadline) {
			s.fail("not told in IDLE: %s", said)
			return
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
		if s.idles || s.conn == nil || s.name == "" {
			continue
		}
		if _, err := s.ask("NOOP"); err == errBye && s.mayGo() {
			s.conn.Close()
			s.conn = nil
			s.forget("", 0)
		} else if err != nil {
			s.fail("%v", err)
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
		if s.name == "" || s.idles {
			continue
		}
		if said := s.differs(boxes); said != "" {
			s.fail("%s", said)
		}
	}
	for _, s := range fresh {
		s.conn.Close()
	}
	if len(fresh) != len(st.servers)*len(boxes) {
		st.t.Errorf("%d mailboxes are listed by %d servers, %d are there", len(fresh), len(st.servers), len(boxes))
	}
	st.awaitAll()
	st.wantAll(boxes)
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

// fresh are new sessions, one in each mailbox of each server.
func (st *stress) fresh() (all []*stressSession) {
	for _, server := range st.servers {
		lister := login(st.t, server.imap, "ada")
		for _, line := range lister.ok(`LIST "" *`) {
			s := &stressSession{stress: st, Rand: st.Rand, server: server, changed: make(chan struct{})}
			if err := s.open(line[strings.LastIndexByte(line, ' ')+1:], true); err != nil || s.name == "" {
				s.fail("a new session can't look at it: %s: %v", line, err)
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
			st.t.Errorf("UID %d of UIDVALIDITY %d was expunged and is there", m.uid, m.validity)
		}
	}
	clear(st.expunged)
	for number, n := range files {
		if n > st.files[number] {
			st.t.Errorf("message %d is there %d times, %d were made", number, n, st.files[number])
		}
	}
	for number, n := range st.files {
		sure := !st.doomed[number] && kindOf(number) != removable
		if sure && files[number] < n {
			st.t.Errorf("message %d is there %d times of %d", number, files[number], n)
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
