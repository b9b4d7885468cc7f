package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// A place is where deliverers deliver: Maildirs that Dovecot serves and maildird.
type deliverPlace struct {
	dovecot *peers.Dovecot
	postfix *peers.Postfix // nil: nobody asked for it
	s       *server
}

// A deliverer is a program that brings mail into Maildirs.
type deliverer struct {
	name    string
	postfix bool // it needs a Postfix
	folders bool // it delivers to other mailboxes than INBOX as well, and makes them
	// makes is what it makes for an account that isn't there: directories and the message, with their modes, but for what
	// Dovecot makes for itself. "" is for one that delivers to none that isn't there.
	makes   string
	deliver func(t testing.TB, p *deliverPlace, user, mailbox, text string)
}

var sources atomic.Int32

// fetched puts a message where programs fetch from: into an account of Dovecot's that nobody else uses.
func fetched(t testing.TB, p *deliverPlace, text string, fetch func(t testing.TB, addr, user string)) {
	t.Helper()
	source := fmt.Sprint("source", sources.Add(1))
	p.dovecot.SendLMTP(t, source, text)
	fetch(t, p.dovecot.Addr, source)
}

const private = "drwx------"

var deliverers = []deliverer{
	{"Postfix virtual", true, false, made(private, "-rw-------", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, _, text string) {
		p.postfix.Send(t, user, text)
	}},
	{"Postfix local", true, false, made(private, "-rw-------", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, _, text string) {
		p.postfix.SendLocal(t, user, text)
	}},
	{"maildrop", false, true, made(private, "-rw-------", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, mailbox, text string) {
		peers.Maildrop(t, p.s.root(user), mailbox, text)
	}},
	{"deliverquota", false, true, made(private, "-rw-r--r--", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, mailbox, text string) {
		peers.DeliverQuota(t, p.s.root(user), mailbox, "", text)
	}},
	{"procmail", false, true, made(private, "-rw-------", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, mailbox, text string) {
		peers.Procmail(t, p.s.root(user), mailbox, text)
	}},
	{"script", false, true, made("drwxr-xr-x", "-rw-r--r--", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, mailbox, text string) {
		peers.Script(t, p.s.root(user), mailbox, text)
	}},
	{"dovecot-lda", false, true, made(private, "-rw-------", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, mailbox, text string) {
		p.dovecot.LDA(t, user, mailbox, text)
	}},
	{"LMTP", false, false, made(private, "-rw-------", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, _, text string) {
		p.dovecot.SendLMTP(t, user, text)
	}},
	{"fdm", false, false, made(private, "-rw-------", "cur new tmp"), func(t testing.TB, p *deliverPlace, user, _, text string) {
		fetched(t, p, text, func(t testing.TB, addr, source string) { peers.Fdm(t, p.s.root(user), addr, source) })
	}},
	{"getmail", false, false, "", func(t testing.TB, p *deliverPlace, user, _, text string) {
		fetched(t, p, text, func(t testing.TB, addr, source string) { peers.Getmail(t, p.s.root(user), addr, source) })
	}},
}

// made is how a test writes what madeIn finds.
func made(dir, file, parts string) string {
	text := ". " + dir + "\n"
	for part := range strings.FieldsSeq(parts) {
		text += part + " " + dir + "\n"
		if part == "new" {
			text += "new/* " + file + "\n"
		}
	}
	return text
}

// madeIn is each directory and message in a Maildir with its mode.
func madeIn(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || !e.IsDir() && filepath.Dir(rel) == "." {
			return err
		}
		fi, err := e.Info()
		if !e.IsDir() {
			rel = filepath.Dir(rel) + "/*"
		}
		if err == nil {
			lines = append(lines, fmt.Sprintf("%s %v\n", rel, fi.Mode()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "")
}

// newDeliverPlace starts what a test of deliverers needs. Nobody has an account yet.
func newDeliverPlace(t *testing.T, postfix bool, users ...string) *deliverPlace {
	t.Helper()
	p := &deliverPlace{dovecot: peers.StartDovecot(t, "")}
	homes := p.dovecot.Homes(t, users...)
	p.s = serveUsers(t, users, p.dovecot.Location(), "")
	if postfix {
		p.postfix = peers.StartPostfix(t, homes, users...)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(p.postfix.Log(t))
			}
		})
	}
	return p
}

// letter is a message with lines that are easily changed on the way.
func letter(subject string) string {
	return "From: sender@test.example\nDate: Mon, 2 Jan 2006 15:04:05 +0000\nMessage-Id: <" + strings.ReplaceAll(subject, " ", ".") +
		"@test.example>\nSubject: " + subject + "\n\n.a dot first\n>From here\n" + strings.Repeat("a long line ", 70) + "\nGrüße\n\ttab and space \n\n"
}

// wantLetters compares all mail of an account, as maildird and as Dovecot show it, with what was delivered. Programs add
// header fields in front.
func (p *deliverPlace) wantLetters(t *testing.T, user string, subjects map[string][]string) {
	t.Helper()
	ours, _ := lookAtAll(t, p.s.client(t, user, nil))
	theirs, _ := lookAtAll(t, client(t, p.dovecot.Addr, user, nil))
	wantSameMailboxes(t, "Dovecot", ours, theirs)
	for mailbox, subjects := range subjects {
		var got []string
		for _, m := range ours[mailbox].messages {
			for _, subject := range subjects {
				head, body, _ := strings.Cut(crlf(letter(subject)), "\r\n\r\n")
				gotHead, gotBody, _ := strings.Cut(m.text, "\r\n\r\n")
				if strings.Contains(gotHead, head) && gotBody == body {
					got = append(got, subject)
				}
			}
			if m.size != int64(len(m.text)) {
				t.Errorf("%s: UID %d has size %d and %d bytes", mailbox, m.uid, m.size, len(m.text))
			}
		}
		slices.Sort(got)
		slices.Sort(subjects)
		if !slices.Equal(got, subjects) || len(ours[mailbox].messages) != len(subjects) {
			t.Errorf("%s has %q, not %q:\n%s", mailbox, got, subjects, dump(ours[mailbox].messages))
		}
	}
	p.dovecot.WantNoComplaint(t)
}

// Each deliverer: its first delivery makes the account, a session in IDLE hears of each delivery and of nothing else,
// and maildird and Dovecot show the same of all.
func TestDeliverers(t *testing.T) {
	for _, d := range deliverers {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			p := newDeliverPlace(t, d.postfix, "ada")
			root := p.s.root("ada")
			sent := map[string][]string{}
			deliver := func(mailbox, subject string) {
				t.Helper()
				d.deliver(t, p, "ada", mailbox, letter(subject))
				sent[mailbox] = append(sent[mailbox], subject)
			}
			if d.makes == "" {
				p.s.client(t, "ada", nil) // makes the account
			}
			deliver("INBOX", "first")
			await(t, "first delivery", func() bool { return len(files(t, root)) == 1 })
			if got := madeIn(t, root); d.makes != "" && got != d.makes {
				t.Errorf("made are\n%sand not\n%s", got, d.makes)
			}

			i := idle(t, p.s, "ada", "INBOX")
			if n := i.client.Mailbox().NumMessages; n != 1 {
				t.Errorf("%d messages after the first delivery, not 1", n)
			}
			for n := range uint32(4) {
				deliver("INBOX", fmt.Sprint("letter ", n))
				i.wantExists(t, n+2)
			}
			if d.folders {
				deliver("Made.There", "made")
				other := idle(t, p.s, "ada", "Made.There")
				if n := other.client.Mailbox().NumMessages; n != 1 {
					t.Errorf("%d messages in a mailbox that was made by a delivery, not 1", n)
				}
				deliver("Made.There", "another")
				other.wantExists(t, 2)
			}
			if n := i.expunges.Load(); n > 0 {
				t.Errorf("%d EXPUNGEs of what nobody removed", n)
			}
			p.wantLetters(t, "ada", sent)
		})
	}
}

// All deliverers at once, to a new account, while sessions look: each message comes once, and nobody hears of an EXPUNGE.
func TestDeliverersTogether(t *testing.T) {
	const each = 4
	p := newDeliverPlace(t, true, "ada")
	i := idle(t, p.s, "ada", "INBOX")
	sent := map[string][]string{}
	var running sync.WaitGroup
	expunges := polling(t, login(t, p.dovecot.Addr, "ada"), func() {
		for _, d := range deliverers {
			var subjects []string
			for k := range each {
				subjects = append(subjects, fmt.Sprintf("%s %d", d.name, k))
			}
			sent["INBOX"] = append(sent["INBOX"], subjects...)
			running.Go(func() {
				for _, subject := range subjects {
					d.deliver(t, p, "ada", "INBOX", letter(subject))
				}
			})
		}
		running.Wait()
		i.wantExists(t, uint32(each*len(deliverers)))
	})
	if n := i.expunges.Load(); n > 0 || expunges > 0 {
		t.Errorf("%d EXPUNGEs of what nobody removed, and %d from Dovecot", n, expunges)
	}
	p.wantLetters(t, "ada", sent)
}

// polling does something while a session with INBOX asks for news all the time, and counts the EXPUNGEs it is told.
func polling(t *testing.T, c *conn, f func()) (expunges int) {
	t.Helper()
	c.ok("SELECT INBOX")
	c.quit = runtime.Goexit // FailNow is for the test's goroutine
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			for _, line := range c.ok("NOOP") {
				if strings.HasSuffix(line, " EXPUNGE") {
					expunges++
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return expunges
}

// Postfix makes an account's Maildir with its first delivery: cur, new and tmp for the owner alone, and nothing else.
// While it delivers, a message has two names. An INBOX works that has new/ only.
func TestTrap28FirstDelivery(t *testing.T) {
	p := newDeliverPlace(t, true, "ada")

	p.postfix.Send(t, "ada", letter("first"))
	root := p.s.root("ada")
	await(t, "first delivery", func() bool { return len(files(t, root)) == 1 })
	if got := madeIn(t, root); got != made(private, "-rw-------", "cur new tmp") {
		t.Errorf("Postfix made\n%s", got)
	}
	if got := readDir(t, root); !slices.Equal(got, []string{"cur", "new", "tmp"}) {
		t.Errorf("Postfix made %q", got)
	}
	for _, part := range []string{"cur", "tmp"} {
		must(t, os.Remove(filepath.Join(root, part)))
	}
	i := idle(t, p.s, "ada", "INBOX")
	if n := i.client.Mailbox().NumMessages; n != 1 {
		t.Errorf("%d messages where only new/ was, not 1", n)
	}
	for _, part := range []string{"cur", "tmp"} {
		if fi, err := os.Stat(filepath.Join(root, part)); err != nil || fi.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", part, fi, err)
		}
	}

	// As Postfix does it, step by step.
	tmp, there := filepath.Join(root, "tmp", "1795000000.P1.host"), filepath.Join(root, "new", "1795000000.Vfe00I1M1.host")
	writeFile(t, tmp, letter("second"))
	must(t, os.Link(tmp, there))
	i.wantExists(t, 2)
	must(t, os.Remove(tmp))
	p.postfix.Send(t, "ada", letter("third"))
	i.wantExists(t, 3)
	if n := i.expunges.Load(); n > 0 {
		t.Errorf("%d EXPUNGEs of what nobody removed", n)
	}
	p.wantLetters(t, "ada", map[string][]string{"INBOX": {"first", "second", "third"}})
}

// The first delivery and the first logins come at one moment, for each deliverer and a few accounts.
func TestFirstDeliveryAtLogin(t *testing.T) {
	var able []deliverer
	for _, d := range deliverers {
		if d.makes != "" {
			able = append(able, d)
		}
	}
	var many []string
	for n := range 2 * len(able) {
		many = append(many, fmt.Sprint("user", n))
	}
	p := newDeliverPlace(t, true, many...)
	var running sync.WaitGroup
	for n, user := range many {
		running.Go(func() { able[n%len(able)].deliver(t, p, user, "INBOX", letter("to "+user)) })
		for _, addr := range []string{p.s.imap, p.dovecot.Addr} {
			running.Go(func() {
				c := raceDial(t, addr)
				if c == nil {
					return
				}
				defer c.Close()
				for _, command := range []string{"LOGIN " + user + " pass", "SELECT INBOX", "NOOP"} {
					if tagged, err := c.exchange(command); err != nil || !strings.HasPrefix(tagged, "OK") {
						t.Errorf("%s, %s: %q, %v", able[n%len(able)].name, command, tagged, err)
					}
				}
			})
		}
	}
	running.Wait()
	for _, user := range many {
		await(t, "delivery", func() bool { return len(files(t, p.s.root(user))) == 1 })
		p.wantLetters(t, user, map[string][]string{"INBOX": {"to " + user}})
	}
}

// While somebody else holds dovecot-uidlist.lock, Dovecot's deliverers don't wait: the message is in new/ and has no record.
// It gets its UID from whoever looks when the lock is free.
func TestDeliveryWhileLocked(t *testing.T) {
	p := newDeliverPlace(t, false, "ada")
	p.dovecot.LDA(t, "ada", "INBOX", letter("first"))
	root := p.s.root("ada")
	list := filepath.Join(root, "dovecot-uidlist")
	i := idle(t, p.s, "ada", "INBOX")
	before := readFile(t, list)
	leaveLock(t, root, holder(t, os.Getpid()), 0)

	p.dovecot.LDA(t, "ada", "INBOX", letter("by LDA"))
	p.dovecot.SendLMTP(t, "ada", letter("by LMTP"))
	if got := readDir(t, filepath.Join(root, "new")); len(got) != 2 {
		t.Errorf("in new/ are %q, not two messages", got)
	}
	if after := readFile(t, list); after != before {
		t.Errorf("the list was\n%sand is\n%s", before, after)
	}
	must(t, os.Remove(lockIn(root)))
	i.wantExists(t, 3)
	if n := i.expunges.Load(); n > 0 {
		t.Errorf("%d EXPUNGEs of what nobody removed", n)
	}
	p.wantLetters(t, "ada", map[string][]string{"INBOX": {"first", "by LDA", "by LMTP"}})
}

// maildrop makes an mbox where a Maildir should be and is not. Nobody gets a Maildir in its place; the client is told that the
// mail can't be had, and the log says why.
func TestDeliveryMadeMbox(t *testing.T) {
	p := newDeliverPlace(t, false, "ada")
	root := p.s.root("ada")
	peers.MaildropOnly(t, root, letter("first"))
	if fi, err := os.Stat(root); err != nil || !fi.Mode().IsRegular() {
		t.Fatalf("maildrop made %v, %v", fi, err)
	}
	before := readFile(t, root)
	c := dial(t, p.s.imap)
	if a := c.do("LOGIN ada pass"); !strings.HasPrefix(a.tagged, "NO [UNAVAILABLE]") {
		t.Errorf("LOGIN: %q", a.tagged)
	}
	p.s.waitLog(t, root+".*not a directory")
	if after := readFile(t, root); after != before {
		t.Errorf("the mbox was\n%s\nand is\n%s", before, after)
	}
	p.s.tolerate = "not a directory"
}
