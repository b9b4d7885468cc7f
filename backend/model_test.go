package backend_test

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/policy"
	"pgregory.net/rapid"
)

// modelCommands is how many commands TestModel sends in all.
var modelCommands = flag.Int("model.commands", 200_000, "commands that TestModel sends in all")

// TestModel sends random commands from several sessions and holds each answer against a model of
// RFC 2180 and RFC 9051: sequence numbers, UIDs, flags, content, EXPUNGE only where it is allowed,
// and the answer that the policy asks for. Commands of all sessions come one after the other, so
// that there is one right answer, but what the others did is untold until a session hears of it. The
// sessions are of one server or of two, which share nothing but the disk.
//
//	go test ./backend -run TestModel -model.commands 1000000
//
// A failure prints the commands that lead to it, as few as were found.
func TestModel(t *testing.T) {
	const steps = 100
	for name, value := range map[string]string{
		"rapid.steps":      strconv.Itoa(steps),
		"rapid.checks":     strconv.Itoa(max(1, *modelCommands/steps)),
		"rapid.nofailfile": "true",
	} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	dir := memoryDir(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		m := newModel(t, rt, filepath.Join(dir, strconv.Itoa(n)))
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"append":   m.append,
			"select":   m.selectMailbox,
			"unselect": m.unselect,
			"fetch":    m.fetch,
			"store":    m.store,
			"search":   m.search,
			"copy":     m.copy,
			"move":     m.move,
			"expunge":  m.expunge,
			"noop":     m.noop,
			"create":   m.create,
			"delete":   m.delete,
			"rename":   m.rename,
			"status":   m.status,
		})
	})
}

// A mail is one message of a mailbox in the model.
type mail struct {
	uid     uint32
	flags   map[string]bool
	content string
}

// A box is a mailbox in the model. One that was deleted stays with those who have it selected.
type box struct {
	mails []*mail
	next  uint32
}

func (b *box) find(uid uint32) *mail {
	for _, m := range b.mails {
		if m.uid == uid {
			return m
		}
	}
	return nil
}

func (b *box) add(flags map[string]bool, content string) uint32 {
	b.next++
	b.mails = append(b.mails, &mail{b.next, maps.Clone(flags), content})
	return b.next
}

func (b *box) remove(uid uint32) {
	b.mails = slices.DeleteFunc(b.mails, func(m *mail) bool { return m.uid == uid })
}

// A told is what a client was told of a message.
type told struct {
	*mail
	flags string // "" as long as they were not told
	// known are the flags that the server takes the client to know. They are those of a message that is
	// gone, however others changed it before that.
	known map[string]bool
}

// A party is one session in the model: the connection and what its client knows.
type party struct {
	name     string
	server   *server
	conn     *client
	box      *box // nil: nothing selected
	readOnly bool
	view     []*told
	most     int
}

func (p *party) gone(t *told) bool { return p.box.find(t.uid) == nil }

type model struct {
	t       *testing.T
	rt      *rapid.T
	servers []*server // as many as there are processes
	stops   []func()
	policy  policy.Policy
	boxes   map[string]*box
	ghosts  map[*box]string // deleted mailboxes that were kept, and the names they had
	parties []*party
	mails   int
	log     []string
}

// memoryDir is a directory in memory if there is one: the model is not about the disk, and a file
// system on one makes it ten times slower.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "model")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newModel(t *testing.T, rt *rapid.T, root string) *model {
	m := &model{t: t, rt: rt, boxes: map[string]*box{"INBOX": {}}, ghosts: map[*box]string{}}
	m.policy = policy.Policy{
		Delete:        rapid.SampledFrom([]policy.Delete{policy.DeleteDisconnect, policy.DeleteRefuse, policy.DeleteGhost}).Draw(rt, "delete"),
		Rename:        rapid.SampledFrom([]policy.Rename{policy.RenameFollow, policy.RenameRefuse, policy.RenameDisconnect}).Draw(rt, "rename"),
		Expunge:       rapid.SampledFrom([]policy.Expunge{policy.ExpungeAllow, policy.ExpungeAllow, policy.ExpungeRefuse}).Draw(rt, "expunge"),
		FetchExpunged: rapid.SampledFrom([]policy.FetchExpunged{policy.FetchGhost, policy.FetchNo, policy.FetchNil}).Draw(rt, "fetch_expunged"),
		StoreExpunged: rapid.SampledFrom([]policy.StoreExpunged{policy.StorePartial, policy.StoreRefuse}).Draw(rt, "store_expunged"),
		CopyExpunged:  rapid.SampledFrom([]policy.CopyExpunged{policy.CopyRefuse, policy.CopyGhost}).Draw(rt, "copy_expunged"),
	}
	for range rapid.IntRange(1, 2).Draw(rt, "processes") {
		s, stop := start(t, &backend.Account{Root: root, Policy: &policy.Rules{Default: m.policy}})
		m.servers, m.stops = append(m.servers, s), append(m.stops, stop)
	}
	for i := range rapid.IntRange(3, 8).Draw(rt, "sessions") {
		s := m.servers[i%len(m.servers)]
		m.parties = append(m.parties, &party{name: fmt.Sprintf("C%d", i+1), server: s, conn: m.dial(s)})
	}
	for range 8 {
		m.append(rt)
	}
	return m
}

func (m *model) close() {
	for _, p := range m.parties {
		p.conn.c.Close()
	}
	for _, stop := range m.stops {
		stop()
	}
	os.RemoveAll(m.servers[0].root)
}

func (m *model) dial(s *server) *client {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		m.fail("%v", err)
	}
	cl := newClient(m.t, c)
	cl.login()
	return cl
}

// fail ends the run with the dialogue so far.
func (m *model) fail(format string, args ...any) {
	m.rt.Fatalf("%s\npolicy %+v\n%s", fmt.Sprintf(format, args...), m.policy, strings.Join(m.log, "\n"))
}

// exchange sends a command and notes what came.
func (m *model) exchange(p *party, command string) (untagged []string, tagged string) {
	m.log = append(m.log, p.name+": "+command)
	p.conn.c.SetDeadline(time.Now().Add(30 * time.Second))
	untagged, tagged, err := p.conn.exchange(command)
	for _, line := range append(slices.Clone(untagged), tagged) {
		m.log = append(m.log, "S"+p.name[1:]+": "+line)
	}
	if err != nil {
		m.fail("%v", err)
	}
	return untagged, tagged
}

func (m *model) party(rt *rapid.T) *party {
	return rapid.SampledFrom(m.parties).Draw(rt, "session")
}

// selected draws a session that has a mailbox selected.
func (m *model) selected(rt *rapid.T) *party {
	var with []*party
	for _, p := range m.parties {
		if p.box != nil {
			with = append(with, p)
		}
	}
	if len(with) == 0 {
		rt.Skip("nothing is selected")
	}
	return rapid.SampledFrom(with).Draw(rt, "session")
}

var modelNames = []string{"INBOX", "A", "B", "A.C"}

func (m *model) mailbox(rt *rapid.T) string { return rapid.SampledFrom(modelNames).Draw(rt, "mailbox") }

var modelFlags = []string{`\Answered`, `\Deleted`, `\Deleted`, `\Flagged`, `\Seen`, `$A`, `$B`}

func (m *model) flags(rt *rapid.T) map[string]bool {
	flags := map[string]bool{}
	for _, f := range rapid.SliceOfN(rapid.SampledFrom(modelFlags), 0, 3).Draw(rt, "flags") {
		flags[f] = true
	}
	return flags
}

func spell(flags map[string]bool) string {
	return "(" + strings.Join(slices.Sorted(maps.Keys(flags)), " ") + ")"
}

// others counts the sessions that have a mailbox selected, but for one.
func (m *model) others(b *box, p *party) (n int) {
	for _, other := range m.parties {
		if other != p && other.box == b {
			n++
		}
	}
	return n
}

// reserved reports whether a name is that of a deleted mailbox that somebody has open.
func (m *model) reserved(name string) bool {
	for b, had := range m.ghosts {
		if had == name && m.others(b, nil) > 0 {
			return true
		}
	}
	return false
}

// A set is what a command names.
type set struct {
	text  string
	byUID bool
	named []*told // in the order of the view
	err   string  // the answer if the numbers are wrong
}

func (s set) verb(command string) string {
	if s.byUID {
		return "UID " + command + " " + s.text
	}
	return command + " " + s.text
}

func (m *model) set(rt *rapid.T, p *party) set {
	s := set{byUID: rapid.Bool().Draw(rt, "by UID")}
	highest := p.most + 1
	if s.byUID {
		highest = int(p.box.next) + 1
	}
	type span struct{ from, to int }
	var spans []span
	var parts []string
	for range rapid.IntRange(1, 2).Draw(rt, "ranges") {
		from := rapid.IntRange(1, highest).Draw(rt, "from")
		to := rapid.IntRange(1, highest).Draw(rt, "to")
		spans = append(spans, span{min(from, to), max(from, to)})
		parts = append(parts, fmt.Sprintf("%d:%d", from, to))
	}
	s.text = strings.Join(parts, ",")
	for i, t := range p.view {
		n := i + 1
		if s.byUID {
			n = int(t.uid)
		}
		if slices.ContainsFunc(spans, func(sp span) bool { return sp.from <= n && n <= sp.to }) {
			s.named = append(s.named, t)
		}
	}
	if !s.byUID {
		last := 0
		for _, sp := range spans {
			last = max(last, sp.to)
		}
		if last > p.most {
			s.err = "BAD"
		} else if last > len(p.view) {
			s.err = "NO [EXPUNGEISSUED]"
		}
	}
	return s
}

// split tells the living from the gone.
func (s set) split(p *party) (living, gone []*told) {
	for _, t := range s.named {
		if p.gone(t) {
			gone = append(gone, t)
		} else {
			living = append(living, t)
		}
	}
	return living, gone
}

var (
	fetchLine  = regexp.MustCompile(`(?s)^\* (\d+) FETCH \((.*)\)$`)
	numberLine = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|RECENT)$`)
	uidItem    = regexp.MustCompile(`^UID (\d+) ?`)
	flagsItem  = regexp.MustCompile(`^FLAGS \(([^)]*)\) ?`)
	bodyItem   = regexp.MustCompile(`(?s)^BODY\[\] \{([^}]*)\} ?`)
	searchLine = regexp.MustCompile(`^\* SEARCH(.*)$`)
)

// A fetched is a FETCH response.
type fetched struct {
	n     int
	uid   uint32
	flags *string // without \Recent, sorted
	body  *string
}

// hear takes in what came untagged, and returns FETCH responses. EXPUNGE is an error unless the
// command allows it.
func (m *model) hear(p *party, untagged []string, allowExpunge bool) (fetches []fetched) {
	for _, line := range untagged {
		if f := numberLine.FindStringSubmatch(line); f != nil {
			n, _ := strconv.Atoi(f[1])
			switch f[2] {
			case "EXPUNGE":
				switch {
				case !allowExpunge:
					m.fail("EXPUNGE is not allowed here")
				case n < 1 || n > len(p.view):
					m.fail("EXPUNGE of %d, there are %d", n, len(p.view))
				case !p.gone(p.view[n-1]):
					m.fail("EXPUNGE of %d, which has UID %d and is there", n, p.view[n-1].uid)
				}
				p.view = slices.Delete(p.view, n-1, n)
			case "EXISTS":
				known := uint32(0)
				if len(p.view) > 0 {
					known = p.view[len(p.view)-1].uid
				}
				for _, mail := range p.box.mails {
					if mail.uid > known {
						p.view = append(p.view, &told{mail: mail})
					}
				}
				if n != len(p.view) {
					m.fail("EXISTS says %d, there are %d", n, len(p.view))
				}
				p.most = max(p.most, n)
			}
			continue
		}
		f := fetchLine.FindStringSubmatch(line)
		if f == nil {
			continue
		}
		var r fetched
		r.n, _ = strconv.Atoi(f[1])
		if r.n < 1 || r.n > len(p.view) {
			m.fail("FETCH of %d, there are %d", r.n, len(p.view))
		}
		rest := f[2]
		for rest != "" {
			if i := uidItem.FindStringSubmatch(rest); i != nil {
				uid, _ := strconv.Atoi(i[1])
				r.uid, rest = uint32(uid), rest[len(i[0]):]
			} else if i := flagsItem.FindStringSubmatch(rest); i != nil {
				flags := map[string]bool{}
				for _, flag := range strings.Fields(i[1]) {
					if flag != `\Recent` {
						flags[flag] = true
					}
				}
				text := spell(flags)
				r.flags, rest = &text, rest[len(i[0]):]
			} else if i := bodyItem.FindStringSubmatch(rest); i != nil {
				r.body, rest = &i[1], rest[len(i[0]):]
			} else {
				m.fail("FETCH with %q", rest)
			}
		}
		t := p.view[r.n-1]
		if r.uid != 0 && r.uid != t.uid {
			m.fail("message %d has UID %d, not %d", r.n, t.uid, r.uid)
		}
		if r.flags != nil && !p.gone(t) {
			if want := spell(p.box.find(t.uid).flags); *r.flags != want {
				m.fail("message %d with UID %d has flags %s, not %s", r.n, t.uid, want, *r.flags)
			}
			t.flags = *r.flags
			t.known = maps.Clone(p.box.find(t.uid).flags)
		}
		fetches = append(fetches, r)
	}
	return fetches
}

// informed checks that a client knows all there is to know, after a tagged OK.
func (m *model) informed(p *party, expunges bool) {
	if p.box == nil {
		return
	}
	known := map[uint32]*told{}
	for _, t := range p.view {
		if p.gone(t) && expunges {
			m.fail("message with UID %d is gone and untold", t.uid)
		}
		known[t.uid] = t
	}
	for _, mail := range p.box.mails {
		t := known[mail.uid]
		if t == nil {
			m.fail("message with UID %d is there and untold", mail.uid)
		}
		if want := spell(mail.flags); t.flags != "" && t.flags != want {
			m.fail("message with UID %d has flags %s, the client was told %s", mail.uid, want, t.flags)
		}
		t.known = maps.Clone(mail.flags)
	}
}

// ok runs a command that has to be answered with OK.
func (m *model) ok(p *party, command string, expunges bool) []fetched {
	untagged, tagged := m.exchange(p, command)
	fetches := m.hear(p, untagged, expunges)
	if !strings.HasPrefix(tagged, "OK") {
		m.fail("not OK: %s", tagged)
	}
	m.informed(p, expunges)
	return fetches
}

// refused runs a command that has to be answered otherwise.
func (m *model) refused(p *party, command, answer string) []fetched {
	untagged, tagged := m.exchange(p, command)
	fetches := m.hear(p, untagged, false)
	if !strings.HasPrefix(tagged, answer) {
		m.fail("want %s, got %s", answer, tagged)
	}
	return fetches
}

func (m *model) append(rt *rapid.T) {
	p, name, flags := m.party(rt), m.mailbox(rt), m.flags(rt)
	m.mails++
	content := fmt.Sprintf("Subject: %d\r\n\r\n%d\r\n", m.mails, m.mails)
	command := fmt.Sprintf("APPEND %s %s {%d+}\r\n%s", name, spell(flags), len(content), content)
	b := m.boxes[name]
	if b == nil {
		m.refused(p, command, "NO")
		return
	}
	b.add(flags, content)
	m.ok(p, command, true)
}

func (m *model) selectMailbox(rt *rapid.T) {
	p, name := m.party(rt), m.mailbox(rt)
	readOnly := rapid.IntRange(0, 4).Draw(rt, "examine") == 0
	command := "SELECT "
	if readOnly {
		command = "EXAMINE "
	}
	p.box, p.view, p.most = nil, nil, 0
	b := m.boxes[name]
	if b == nil {
		m.refused(p, command+name, "NO")
		return
	}
	untagged, tagged := m.exchange(p, command+name)
	p.box, p.readOnly = b, readOnly
	m.hear(p, untagged, false)
	if !strings.HasPrefix(tagged, "OK") {
		m.fail("not OK: %s", tagged)
	}
	m.informed(p, true)
}

func (m *model) unselect(rt *rapid.T) {
	p := m.selected(rt)
	command := rapid.SampledFrom([]string{"UNSELECT", "CLOSE"}).Draw(rt, "command")
	b := p.box
	if command == "CLOSE" && !p.readOnly && !m.expungeRefused(p) {
		b.mails = slices.DeleteFunc(b.mails, func(mail *mail) bool { return mail.flags[`\Deleted`] })
	}
	p.box, p.view, p.most = nil, nil, 0
	m.ok(p, command, true)
}

func (m *model) noop(rt *rapid.T) { m.ok(m.party(rt), "NOOP", true) }

func (m *model) fetch(rt *rapid.T) {
	p := m.selected(rt)
	s := m.set(rt, p)
	items := rapid.SampledFrom([]string{"FLAGS", "(UID FLAGS)", "BODY.PEEK[]", "(FLAGS BODY.PEEK[])"}).Draw(rt, "items")
	command := s.verb("FETCH") + " " + items
	if s.err != "" {
		m.refused(p, command, s.err)
		return
	}
	living, gone := s.split(p)
	shown, empty, answer := s.named, map[*told]bool{}, "OK"
	if len(gone) > 0 && m.policy.FetchExpunged != policy.FetchGhost {
		shown = living
		switch {
		case s.byUID:
		case len(living) == 0:
			answer = "NO [EXPUNGEISSUED]"
		case m.policy.FetchExpunged == policy.FetchNo:
			answer = "NO [EXPUNGEISSUED]"
		default:
			shown = s.named
			for _, t := range gone {
				empty[t] = true
			}
		}
	}
	places := map[*told]int{}
	for i, t := range p.view {
		places[t] = i + 1
	}
	var fetches []fetched
	if answer == "OK" {
		fetches = m.ok(p, command, s.byUID)
	} else {
		fetches = m.refused(p, command, answer)
	}
	// The responses that were asked for come first, then what changed.
	for i, t := range shown {
		if i >= len(fetches) || fetches[i].n != places[t] {
			m.fail("no FETCH response for message %d", places[t])
		}
		f := fetches[i]
		if strings.Contains(items, "BODY") {
			want := t.content
			if empty[t] {
				want = ""
			}
			if f.body == nil || *f.body != want {
				m.fail("message %d has content %q", f.n, want)
			}
		}
		if strings.Contains(items, "FLAGS") && f.flags == nil {
			m.fail("no FLAGS for message %d", f.n)
		}
		if strings.Contains(items, "UID") && f.uid != t.uid {
			m.fail("no UID for message %d", f.n)
		}
	}
}

func (m *model) store(rt *rapid.T) {
	p := m.selected(rt)
	s := m.set(rt, p)
	op := rapid.SampledFrom([]string{"+FLAGS", "+FLAGS", "-FLAGS", "FLAGS"}).Draw(rt, "op")
	silent := rapid.Bool().Draw(rt, "silent")
	flags := m.flags(rt)
	item := op
	if silent {
		item += ".SILENT"
	}
	command := fmt.Sprintf("%s %s %s", s.verb("STORE"), item, spell(flags))
	if p.readOnly {
		m.refused(p, command, "NO")
		return
	}
	if s.err != "" {
		m.refused(p, command, s.err)
		return
	}
	living, gone := s.split(p)
	answer := "OK"
	if len(gone) > 0 && !silent && !s.byUID {
		answer = "NO [EXPUNGEISSUED]"
		if m.policy.StoreExpunged == policy.StoreRefuse {
			living = nil
		}
	}
	change := func(now map[string]bool) map[string]bool {
		next := maps.Clone(now)
		if op == "FLAGS" {
			next = map[string]bool{}
		}
		for f := range flags {
			if op == "-FLAGS" {
				delete(next, f)
			} else {
				next[f] = true
			}
		}
		return next
	}
	for _, t := range living {
		mail := p.box.find(t.uid)
		mail.flags = change(mail.flags)
		if now := spell(mail.flags); silent && t.flags != "" && now == spell(change(t.known)) {
			t.flags = now // as the client expects, whatever another one changed before
		}
	}
	if answer != "OK" {
		m.refused(p, command, answer)
		return
	}
	fetches := m.ok(p, command, s.byUID)
	if silent {
		return
	}
	for _, t := range living {
		if !slices.ContainsFunc(fetches, func(f fetched) bool { return f.flags != nil && f.uid == t.uid }) {
			m.fail("no FLAGS for UID %d", t.uid)
		}
	}
}

func (m *model) search(rt *rapid.T) {
	p := m.selected(rt)
	flag := rapid.SampledFrom([]string{"ALL", "DELETED", "SEEN", "UNSEEN", "KEYWORD $A", "NOT FLAGGED", "2:4", "UID 3:*"}).Draw(rt, "key")
	byUID := rapid.Bool().Draw(rt, "by UID")
	var want []string
	for i, t := range p.view {
		mail := p.box.find(t.uid)
		if mail == nil {
			continue
		}
		is := map[string]bool{
			"ALL": true, "DELETED": mail.flags[`\Deleted`], "SEEN": mail.flags[`\Seen`], "UNSEEN": !mail.flags[`\Seen`],
			"KEYWORD $A": mail.flags["$A"], "NOT FLAGGED": !mail.flags[`\Flagged`],
			"2:4": 2 <= i+1 && i+1 <= 4, "UID 3:*": t.uid >= 3 || i == len(p.view)-1,
		}[flag]
		if n := i + 1; is && byUID {
			want = append(want, strconv.Itoa(int(t.uid)))
		} else if is {
			want = append(want, strconv.Itoa(n))
		}
	}
	command := "SEARCH " + flag
	if byUID {
		command = "UID " + command
	}
	untagged, tagged := m.exchange(p, command)
	if !strings.HasPrefix(tagged, "OK") {
		m.fail("not OK: %s", tagged)
	}
	f := searchLine.FindStringSubmatch(untagged[0])
	if f == nil || strings.Join(strings.Fields(f[1]), " ") != strings.Join(want, " ") {
		m.fail("SEARCH finds %v, not %s", want, untagged[0])
	}
	m.hear(p, untagged[1:], byUID)
	m.informed(p, byUID)
}

// expungeRefused is draft 4.1.4.
func (m *model) expungeRefused(p *party) bool {
	return m.policy.Expunge == policy.ExpungeRefuse && m.others(p.box, p) > 0
}

// toCopy finds what COPY and MOVE take, or the answer if they take nothing.
func (m *model) toCopy(p *party, s set) (take []*told, answer string) {
	living, gone := s.split(p)
	switch {
	case s.err != "":
		return nil, s.err
	case len(gone) == 0:
		return living, "OK"
	case m.policy.CopyExpunged == policy.CopyGhost:
		return s.named, "OK"
	case s.byUID:
		return living, "OK"
	}
	return nil, "NO [EXPUNGEISSUED]"
}

func (m *model) copy(rt *rapid.T) {
	p := m.selected(rt)
	s, name := m.set(rt, p), m.mailbox(rt)
	command := s.verb("COPY") + " " + name
	take, answer := m.toCopy(p, s)
	dest := m.boxes[name]
	if answer == "OK" && dest == nil {
		answer = "NO"
	}
	if answer != "OK" {
		m.refused(p, command, answer)
		return
	}
	for _, t := range take {
		dest.add(m.currentFlags(p, t), t.content)
	}
	m.ok(p, command, true)
}

// currentFlags are a message's flags, of one that is gone those that the client knows.
func (m *model) currentFlags(p *party, t *told) map[string]bool {
	if mail := p.box.find(t.uid); mail != nil {
		return mail.flags
	}
	return t.known
}

func (m *model) move(rt *rapid.T) {
	p := m.selected(rt)
	s, name := m.set(rt, p), m.mailbox(rt)
	command := s.verb("MOVE") + " " + name
	take, answer := m.toCopy(p, s)
	dest := m.boxes[name]
	switch {
	case p.readOnly, m.expungeRefused(p):
		answer = "NO"
	case answer == "OK" && dest == nil:
		answer = "NO"
	}
	if answer != "OK" {
		m.refused(p, command, answer)
		return
	}
	for _, t := range take {
		dest.add(m.currentFlags(p, t), t.content)
		p.box.remove(t.uid)
	}
	m.ok(p, command, true)
}

func (m *model) expunge(rt *rapid.T) {
	p := m.selected(rt)
	command := "EXPUNGE"
	dead := func(mail *mail) bool { return mail.flags[`\Deleted`] }
	if rapid.Bool().Draw(rt, "UID EXPUNGE") {
		s := m.set(rt, p)
		if s.byUID {
			command = s.verb("EXPUNGE")
			dead = func(mail *mail) bool {
				return mail.flags[`\Deleted`] && slices.ContainsFunc(s.named, func(t *told) bool { return t.uid == mail.uid })
			}
		}
	}
	if p.readOnly || m.expungeRefused(p) {
		m.refused(p, command, "NO")
		return
	}
	p.box.mails = slices.DeleteFunc(p.box.mails, dead)
	m.ok(p, command, true)
}

func (m *model) create(rt *rapid.T) {
	p, name := m.party(rt), m.mailbox(rt)
	if m.boxes[name] != nil {
		m.refused(p, "CREATE "+name, "NO [ALREADYEXISTS]")
		return
	}
	if m.reserved(name) {
		m.refused(p, "CREATE "+name, "NO [INUSE]")
		return
	}
	m.boxes[name] = &box{}
	m.ok(p, "CREATE "+name, true)
}

// disconnected takes in that sessions were sent away.
func (m *model) disconnected(b *box, p *party) {
	for _, other := range m.parties {
		if other == p || other.box != b {
			continue
		}
		other.conn.c.SetDeadline(time.Now().Add(30 * time.Second))
		rest, err := io.ReadAll(other.conn.r)
		m.log = append(m.log, fmt.Sprintf("S%s: %s", other.name[1:], rest))
		if err != nil || !strings.HasPrefix(string(rest), "* BYE") {
			m.fail("no BYE: %q %v", rest, err)
		}
		other.conn.c.Close()
		other.conn, other.box, other.view, other.most = m.dial(other.server), nil, nil, 0
	}
}

func (m *model) delete(rt *rapid.T) {
	p, name := m.party(rt), m.mailbox(rt)
	b := m.boxes[name]
	switch {
	case name == "INBOX" || b == nil:
		m.refused(p, "DELETE "+name, "NO")
		return
	case m.policy.Delete == policy.DeleteRefuse && m.others(b, p) > 0:
		m.refused(p, "DELETE "+name, "NO [INUSE]")
		return
	}
	delete(m.boxes, name)
	if m.policy.Delete == policy.DeleteGhost && m.others(b, nil) > 0 {
		m.ghosts[b] = name
		m.ok(p, "DELETE "+name, true)
		return
	}
	if p.box == b {
		b.mails = nil // it sees an empty mailbox until it selects another
	}
	m.ok(p, "DELETE "+name, true)
	m.disconnected(b, p)
}

func (m *model) rename(rt *rapid.T) {
	p, from, to := m.party(rt), m.mailbox(rt), m.mailbox(rt)
	if from == "INBOX" {
		rt.Skip("moves the mail of INBOX")
	}
	command := fmt.Sprintf("RENAME %s %s", from, to)
	moves := map[string]string{}
	taken := to == "INBOX"
	for name := range m.boxes {
		if name == from || strings.HasPrefix(name, from+".") {
			moves[name] = to + name[len(from):]
		}
	}
	inUse := false
	for name, now := range moves {
		taken = taken || m.boxes[now] != nil || m.reserved(now)
		inUse = inUse || m.policy.Rename == policy.RenameRefuse && m.others(m.boxes[name], p) > 0
	}
	if len(moves) == 0 || taken || inUse || from == to || strings.HasPrefix(to, from+".") {
		m.refused(p, command, "NO")
		return
	}
	var moved []*box
	for name, now := range moves {
		b := m.boxes[name]
		delete(m.boxes, name)
		defer func() { m.boxes[now] = b }()
		moved = append(moved, b)
	}
	m.ok(p, command, true)
	if m.policy.Rename == policy.RenameDisconnect {
		for _, b := range moved {
			m.disconnected(b, p)
		}
	}
}

func (m *model) status(rt *rapid.T) {
	p, name := m.party(rt), m.mailbox(rt)
	command := "STATUS " + name + " (MESSAGES UIDNEXT UNSEEN DELETED)"
	b := m.boxes[name]
	if b == nil && p.box != nil && m.ghosts[p.box] == name {
		b = p.box // draft 3.2
	}
	if b == nil {
		m.refused(p, command, "NO")
		return
	}
	unseen, deleted := 0, 0
	for _, mail := range b.mails {
		if !mail.flags[`\Seen`] {
			unseen++
		}
		if mail.flags[`\Deleted`] {
			deleted++
		}
	}
	untagged, tagged := m.exchange(p, command)
	want := fmt.Sprintf("(MESSAGES %d UIDNEXT %d UNSEEN %d DELETED %d)", len(b.mails), b.next+1, unseen, deleted)
	if !strings.HasPrefix(tagged, "OK") || !strings.HasSuffix(untagged[0], want) {
		m.fail("STATUS is not %s", want)
	}
	m.hear(p, untagged[1:], true)
	m.informed(p, true)
}
