package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

var coexistTime = flag.Duration("coexistence", 2*time.Second, "how long each pairing of TestCoexistence runs")

// A pairing is a set of servers and programs that share one account.
type pairing struct {
	name      string
	layout    int // of layouts
	maildirds int
	dovecot   bool
	lmtp      bool
	postfix   bool
	maildrop  bool
	mbsync    bool // one for each server, each with a Maildir of its own
	mutts     []string
	baseline  bool // runs for the table only
}

var pairings = []pairing{
	{name: "maildird, Dovecot, its LMTP, a script that delivers", maildirds: 1, dovecot: true, lmtp: true},
	{name: "the same, two maildirds", maildirds: 2, dovecot: true, lmtp: true},
	{name: "the same, layout `fs`", maildirds: 2, dovecot: true, lmtp: true, layout: 1},
	{name: "maildird, Dovecot, Postfix, maildrop", maildirds: 1, dovecot: true, postfix: true, maildrop: true},
	{name: "maildird, Dovecot, mbsync with each of them", maildirds: 1, dovecot: true, mbsync: true},
	{name: "two maildirds, neomutt, mutt", maildirds: 2, mutts: []string{"neomutt", "mutt"}},
	{name: "maildird, Dovecot, neomutt, mutt", maildirds: 1, dovecot: true, mutts: []string{"neomutt", "mutt"}},
	{name: "Dovecot, its LMTP, a script: without maildird", dovecot: true, lmtp: true, baseline: true},
	{name: "Dovecot, neomutt, mutt: without maildird", dovecot: true, mutts: []string{"neomutt", "mutt"}, baseline: true},
}

// TestCoexistence lets maildird, Dovecot and other programs change one account at once. See TestStress: at random
// moments all is held still and compared. In the end each server says the same of each message, and
// Dovecot's log has no complaint.
//
//	go test ./internal/e2e -run TestCoexistence -coexistence 5m -timeout 2h
//
// make coexistence writes what was counted into docs/coexistence.md.
func TestCoexistence(t *testing.T) {
	var table strings.Builder
	table.WriteString("| pairing | operations | false EXPUNGEs by maildird | by Dovecot | messages lost, doubled | UIDs that differ | messages, views that differ | complaints in `dovecot.log` | Dovecot's IDLE late | lock waits of maildird | of Dovecot |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range pairings {
		t.Run(p.name, func(t *testing.T) {
			if p.baseline && *coexistTime < 10*time.Second {
				t.Skip("it is not about maildird")
			}
			p.run(t, &table)
		})
	}
	if *update && !t.Failed() {
		inDoc(t, "coexistence", "figures", table.String())
	}
}

func (p *pairing) run(t *testing.T, table *strings.Builder) {
	layout := layouts[p.layout]
	home, location := "", "" // what users' homes are in
	var dovecot *peers.Dovecot
	if p.dovecot {
		dovecot = peers.StartDovecot(t, layout.dovecot, "mailbox_idle_check_interval = 1s", "mail_max_userip_connections = 100")
		dovecot.Maildir(t, "ada")
		location = dovecot.Location()
		home = filepath.Dir(filepath.Dir(location))
	} else {
		home, location = mailDir(t)
	}
	st := newStress(t, strings.ReplaceAll(location, "%u", "ada"), strings.TrimSuffix(layout.sep, "/"))
	st.names = true
	st.unlocked = p.dovecot && p.mutts != nil
	var servers []*server
	for i := range p.maildirds {
		s := serve(t, location, layout.maildird)
		servers = append(servers, s)
		st.serves(fmt.Sprintf("maildird %d", i+1), s)
	}
	if dovecot != nil {
		st.parties = append(st.parties, &party{name: "Dovecot", addr: dovecot.Addr})
	}
	st.furnish()
	if p.lmtp {
		st.workers = append(st.workers, st.lmtp(dovecot))
	}
	if p.postfix {
		st.workers = append(st.workers, st.postfix(home))
	}
	if p.maildrop {
		st.workers = append(st.workers, st.maildrop())
	}
	if p.mbsync {
		for _, party := range st.parties {
			st.workers = append(st.workers, st.mbsync(party))
		}
	}
	for _, mutt := range p.mutts {
		st.workers = append(st.workers, st.mutt(mutt))
	}
	st.begin([]string{"deliver"})
	st.run(*coexistTime)
	if t.Failed() {
		if dovecot != nil {
			t.Logf("dovecot.log:\n%s", dovecot.Log(t))
		}
		return
	}
	st.wantSame()
	if t.Failed() {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	n := &st.tally
	complaints := 0
	if dovecot != nil {
		found := grudge.FindAllString(dovecot.Log(t), -1)
		complaints = len(found)
		for _, line := range found {
			switch {
			case st.unlocked || p.baseline:
			case counted.MatchString(line):
				t.Logf("dovecot complains: %s\n%s", line, st.about(line))
			default:
				t.Errorf("dovecot complains: %s\n%s", line, st.about(line))
			}
		}
		t.Logf("what else is in dovecot.log:\n%s", strings.Join(trouble.FindAllString(dovecot.Log(t), 20), "\n"))
	}
	if p.mutts != nil && *coexistTime > 30*time.Second { // in two seconds a mutt may just have started
		st.wantSaved()
	}
	waits, waited := 0.0, 0.0
	for _, s := range servers {
		const metric = "maildird_lock_wait_seconds"
		waits -= s.metric(t, metric+`_bucket{result="ok",le="0.001"}`) // it was free
		for _, result := range []string{"ok", "no"} {
			waits += s.metric(t, fmt.Sprintf("%s_count{result=%q}", metric, result))
			waited += s.metric(t, fmt.Sprintf("%s_sum{result=%q}", metric, result))
		}
	}
	row := fmt.Sprintf("| %s | %d | %s | %s | %d, %d | %d | %d | %s | %s | %s | %s |\n", p.name, n.operations,
		count(p.maildirds > 0, n.expunges), count(p.dovecot, n.others), n.lost, n.twice, n.uids, n.differ, count(p.dovecot, complaints), count(p.dovecot, n.asleep),
		waitsOf(p.maildirds > 0, int(waits), waited), waitsOf(p.dovecot, n.lockWaits, n.lockWaited.Seconds()))
	table.WriteString(row)
	t.Logf("%d looks, %d messages at last, %d renumbered; answers: %v\n%s", st.looks, len(st.files), n.renumbered, st.answers, row)
}

// counted is a complaint that is in the table and fails no test: a mailbox that Dovecot has open was removed and made again.
var counted = regexp.MustCompile(`indexid changed`)

// about is what is known of the file that a complaint names. The caller holds mu.
func (st *stress) about(complaint string) string {
	m := duplicateEntry.FindStringSubmatch(complaint)
	if m == nil {
		return ""
	}
	var b strings.Builder
	for _, box := range st.readAll() {
		list, _ := os.ReadFile(filepath.Join(st.root, dirOf(st.prefix, box.name), "dovecot-uidlist"))
		for line := range strings.Lines(string(list)) {
			if strings.Contains(line, m[1]) {
				fmt.Fprintf(&b, "%s, UIDVALIDITY %d: %s", box.name, box.validity, line)
			}
		}
	}
	for place, number := range st.numbers {
		if fmt.Sprint(place.uid) != m[2] && fmt.Sprint(place.uid) != m[3] {
			continue
		}
		if h := strings.Join(st.history[number], "\n"); strings.Contains(h, "UID "+m[2]) || strings.Contains(h, " "+m[3]+"]") {
			fmt.Fprintf(&b, "maybe message %d, UID %d of UIDVALIDITY %d:\n%s\n", number, place.uid, place.validity, h)
		}
	}
	return b.String()
}

var duplicateEntry = regexp.MustCompile(`Duplicate file entry at line \d+: (\S+) \(uid (\d+) -> (\d+)\)`)

// grudge is what Dovecot logs when it finds that another program did what it should not.
var grudge = regexp.MustCompile(`(?m)^.*(Broken|Duplicate|reappeared|lowered|Corrupt|overridden|larger than expected).*$`)

// trouble is what else may be of interest.
var trouble = regexp.MustCompile(`(?m)^.*(Error:|Warning:|Panic:).*$`)

// count is a number in the table.
func count(has bool, n int) string {
	if !has {
		return "–"
	}
	return fmt.Sprint(n)
}

func waitsOf(has bool, n int, seconds float64) string {
	if !has {
		return "–"
	}
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, %.0f ms each", n, 1000*seconds/float64(n))
}

// wantSaved checks that the mutts did something: what they save has names of their kind.
func (st *stress) wantSaved() {
	names := regexp.MustCompile(`^\d+\.R\d+\.`) // of neomutt and, with what follows, of mutt
	saved := 0
	for _, b := range st.readAll() {
		for _, e := range b.view {
			if names.MatchString(e.base) {
				saved++
			}
		}
	}
	st.t.Logf("%d messages were saved by mutts", saved)
	if saved == 0 {
		st.t.Error("no mutt has saved a message")
	}
}

// wantSame compares all that the servers say of each mailbox and each message.
func (st *stress) wantSame() {
	st.t.Helper()
	var first map[string]mailbox
	var subscribed []string
	for i, party := range st.parties {
		boxes, names := lookAtAll(st.t, client(st.t, party.addr, "ada", nil))
		for name, box := range boxes {
			wrong := st.wrongSizes(name)
			box.messages = slices.DeleteFunc(box.messages, func(m message) bool { return wrong[m.uid] })
			boxes[name] = box
		}
		if i == 0 {
			first, subscribed = boxes, names
			continue
		}
		wantSameMailboxes(st.t, party.name, first, boxes)
		if !slices.Equal(names, subscribed) {
			st.t.Errorf("%s says that %q are subscribed, %s says %q", party.name, names, st.parties[0].name, subscribed)
		}
	}
}

// wrongSizes are the messages whose file names tell a wrong size. Dovecot makes them when it copies mail with S= and without W=,
// as maildrop delivers it, to where its name is taken; it shows their content by that (docs/coexistence.md).
func (st *stress) wrongSizes(name string) map[imap.UID]bool {
	b, err := st.readBox(name)
	if err != nil {
		st.t.Error(err)
		return nil
	}
	texts := map[string]string{}
	for _, f := range files(st.t, filepath.Join(st.root, dirOf(st.prefix, name))) {
		base, _, _ := strings.Cut(filepath.Base(f), ":2,")
		texts[base] = readFile(st.t, f)
	}
	wrong := map[imap.UID]bool{}
	for _, e := range b.view {
		if m := virtualSize.FindStringSubmatch(e.base); m != nil && m[1] == m[2] && m[2] != fmt.Sprint(len(crlf(texts[e.base]))) {
			wrong[imap.UID(e.uid)] = true
		}
	}
	return wrong
}

var virtualSize = regexp.MustCompile(`,S=(\d+),W=(\d+)`)
