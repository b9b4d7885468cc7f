package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
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

// team is a group that users share mail with.
const team = "games"

// gidOf is the number of a group.
func gidOf(t *testing.T, group string) int {
	t.Helper()
	g, err := user.LookupGroup(group)
	must(t, err)
	gid, err := strconv.Atoi(g.Gid)
	must(t, err)
	return gid
}

// permitted is how a directory is to be: its mode with setgid, and its group, or "" for that of the server.
type permitted struct {
	mode  os.FileMode
	group string
}

func (p permitted) set(t *testing.T, path string) {
	t.Helper()
	uid, gid := peers.Owner(t)
	if p.group != "" {
		gid = gidOf(t, p.group)
	}
	must(t, os.Chown(path, uid, gid))
	must(t, os.Chmod(path, p.mode))
}

var messageFile = regexp.MustCompile(`/\d+\.M[^:]*`)

// access lists what is in a Maildir with mode and group, messages and numbers without their names, and what is only
// Dovecot's left out.
func access(t *testing.T, root string) (all, ours []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		name := filepath.Base(path)
		if strings.HasPrefix(name, "dovecot.") || strings.HasPrefix(name, "mailboxes.lock") || rel == "maildirfolder" || rel == "dovecot-shared" {
			return nil
		}
		if strings.HasPrefix(name, "dovecot-uidvalidity.") {
			rel = "dovecot-uidvalidity.NUMBER"
		}
		rel = messageFile.ReplaceAllString("/"+rel, "/MESSAGE")
		line := fmt.Sprintf("%v %d %s", fi.Mode(), fi.Sys().(*syscall.Stat_t).Gid, rel)
		if strings.HasPrefix(name, "imapmaildir.") {
			ours = append(ours, line)
		} else {
			all = append(all, line)
		}
		return nil
	})
	must(t, err)
	slices.Sort(all)
	return slices.Compact(all), ours
}

// lockAccess waits until a mailbox is locked while something is done again and again, and the lock has the mode (and
// the group) that it is to have: it may be looked at before it got them.
func lockAccess(t *testing.T, lock, want string, do func()) {
	t.Helper()
	stop, seen := make(chan struct{}), make(chan map[string]bool)
	go func() {
		all := map[string]bool{}
		for {
			select {
			case <-stop:
				seen <- all
				return
			default:
			}
			if fi, err := os.Lstat(lock); err == nil {
				access := fmt.Sprintf("%v %d", fi.Mode(), fi.Sys().(*syscall.Stat_t).Gid)
				if strings.HasPrefix(access, want) {
					close(seen)
					return
				}
				all[access] = true
			}
		}
	}()
	for deadline := time.Now().Add(patience); ; do() {
		select {
		case <-seen:
			return
		default:
		}
		if time.Now().After(deadline) {
			close(stop)
			t.Errorf("%s is %q, not %q", filepath.Base(lock), slices.Sorted(maps.Keys(<-seen)), want)
			return
		}
	}
}

// Trap 26: what both servers make in a folder has the folder's mode and group, whatever their umask.
func TestTrap26Modes(t *testing.T) {
	private, shared := permitted{mode: 0o700}, permitted{0o770, team}
	setgid := permitted{0o770 | os.ModeSetgid, team}
	cases := []struct {
		name   string
		root   permitted
		box    *permitted // what a folder is made to be, if not like the root
		shared bool       // dovecot-shared is in the root
	}{
		{name: "0700", root: private},
		{name: "0750", root: permitted{mode: 0o750}},
		{name: "0750-team", root: permitted{0o750, team}},
		{name: "0770-team", root: shared, shared: true},
		{name: "2770-team", root: setgid, shared: true},
		{name: "2700-team", root: permitted{0o700 | os.ModeSetgid, team}},
		{name: "0755-team", root: permitted{0o755, team}},
		{name: "0775-team", root: permitted{0o775, team}},
		{name: "0711", root: permitted{mode: 0o711}},
		{name: "0777", root: permitted{mode: 0o777}},
		{name: "1777-team", root: permitted{0o777 | os.ModeSticky, team}},
		{name: "0770-in-0700", root: private, box: &shared},
		{name: "0700-in-2770", root: setgid, box: &private},
	}
	d := peers.StartDovecot(t, "", "mail_access_groups = "+team)
	var users []string
	for _, c := range cases {
		users = append(users, c.name)
	}
	// make makes an account through a server, and has its locks looked at.
	make := func(t *testing.T, addr, user, root string, box *permitted, lock func(dir string) string) {
		c := login(t, addr, user)
		c.ok("CREATE Box")
		if box != nil {
			for _, part := range []string{"", "cur", "new", "tmp"} {
				box.set(t, filepath.Join(root, ".Box", part))
			}
		}
		c.ok("CREATE Box.Sub")
		c.ok("CREATE Other")
		c.ok("SUBSCRIBE Box")
		for range 3 {
			c.ok("APPEND INBOX {}", otherMail)
		}
		c.ok(`APPEND INBOX (\Seen first) {}`, otherMail)
		c.ok("APPEND Box (other first) {}", otherMail)
		c.ok("SELECT INBOX")
		c.ok("STORE 2 +FLAGS (second)")
		c.ok("COPY 1,4 Box")
		c.ok("MOVE 2 Box")
		c.ok("COPY 3 Box.Sub")
		for _, name := range []string{"INBOX", "Box"} {
			c.ok("SELECT " + name)
			dir := root
			if name == "Box" {
				dir = filepath.Join(root, ".Box")
			}
			n := 0
			lockAccess(t, lockIn(dir), lock(dir), func() {
				n++
				c.ok(fmt.Sprintf(`STORE 1 %cFLAGS (\Flagged)`, "+-"[n%2]))
			})
			c.ok(`STORE 1 -FLAGS (\Flagged)`)
		}
		c.ok("LOGOUT")
	}
	uid, gid := peers.Owner(t)
	for _, umask := range []string{"077", "000"} {
		_, location := mailDir(t)
		as := &runner{syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gidOf(t, team))}}, umask}
		s := serveAs(t, as, users, location, "")
		for _, c := range cases {
			t.Run(c.name+"/"+umask, func(t *testing.T) {
				roots := map[string]string{"dovecot": strings.ReplaceAll(d.Location(), "%u", c.name+umask), "maildird": s.root(c.name)}
				for _, root := range roots {
					must(t, os.MkdirAll(root, 0o755))
					own(t, filepath.Dir(root))
					c.root.set(t, root)
					if c.shared {
						writeFile(t, filepath.Join(root, "dovecot-shared"), "")
					}
				}
				// A lock is as the other files that are made in its folder; Dovecot doesn't give it their group.
				theirLock := func(dir string) string {
					fi, err := os.Stat(filepath.Join(dir, "dovecot-keywords"))
					must(t, err)
					return fmt.Sprintf("%v ", fi.Mode())
				}
				ourLock := func(dir string) string {
					fi, err := os.Stat(filepath.Join(dir, "dovecot-keywords"))
					must(t, err)
					return fmt.Sprintf("%v %d", fi.Mode(), fi.Sys().(*syscall.Stat_t).Gid)
				}
				make(t, d.Addr, c.name+umask, roots["dovecot"], c.box, theirLock)
				make(t, s.imap, c.name, roots["maildird"], c.box, ourLock)
				want, _ := access(t, roots["dovecot"])
				got, ours := access(t, roots["maildird"])
				if !slices.Equal(got, want) {
					t.Errorf("maildird made\n%s\nand Dovecot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				for _, line := range ours {
					access, file, _ := strings.Cut(line, " /")
					file = filepath.Join(filepath.Dir(file), "dovecot-keywords")
					if !slices.Contains(want, access+" /"+file) {
						t.Errorf("%s is not as %s", line, file)
					}
				}
				if len(ours) < 2 {
					t.Errorf("of maildird's own files there are %q", ours)
				}
			})
		}
	}
	d.WantNoComplaint(t)
}

// ofTeam is a user of his own with a group of his own, who is in the team too.
func ofTeam(t *testing.T, uid int, umask string) *runner {
	t.Helper()
	return &runner{syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{uint32(gidOf(t, team))}}, umask}
}

// The users of a shared mailbox, by number.
const adasUID, bensUID, dovecotsUID = 64001, 64002, 64003

// teamRoot makes a Maildir that belongs to ada and is shared with the team.
func teamRoot(t *testing.T, root string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(root, 0o755))
	for _, dir := range []string{root, filepath.Dir(root), filepath.Dir(filepath.Dir(root))} {
		must(t, os.Chown(dir, adasUID, gidOf(t, team)))
		must(t, os.Chmod(dir, 0o775)) // maildird wants to be able to make roots
	}
	must(t, os.Chmod(root, mode))
}

// Trap 26: two maildirds and Dovecot, each under another uid, share a mailbox by its group.
func TestTrap26Shared(t *testing.T) {
	d := peers.StartDovecotAs(t, dovecotsUID, dovecotsUID, "", "mail_access_groups = "+team)
	root := strings.ReplaceAll(d.Location(), "%u", "ada")
	teamRoot(t, root, 0o770|os.ModeSetgid)
	servers := map[string]string{"dovecot": d.Addr}
	var ours []*server
	for uid, umask := range map[int]string{adasUID: "077", bensUID: "022"} {
		s := serveAs(t, ofTeam(t, uid, umask), users, d.Location(), "")
		servers[fmt.Sprint(uid)] = s.imap
		ours = append(ours, s)
	}
	names := slices.Sorted(maps.Keys(servers))
	first := login(t, servers[names[0]], "ada")
	first.ok("CREATE Common")
	first.ok("LOGOUT")

	const rounds = 25
	var uidIn = regexp.MustCompile(`\[(?:APPENDUID \d+|COPYUID \d+ \d+) (\d+)\]`)
	var sessions sync.WaitGroup
	for i, name := range names {
		c := login(t, servers[name], "ada")
		c.quit = func() {} // FailNow is for the test's goroutine
		c.ok("SELECT INBOX")
		sessions.Go(func() {
			// sure sends a command that succeeds, and returns the UID that it made.
			sure := func(command string, literals ...string) string {
				a := c.do(command, literals...)
				if !strings.HasPrefix(a.tagged, "OK") {
					t.Errorf("%s: %s: %s", name, command, a.tagged)
				}
				if m := uidIn.FindStringSubmatch(a.tagged); m != nil {
					return m[1]
				}
				return ""
			}
			for n := range rounds {
				text := fmt.Sprintf("Subject: %s %d\r\n\r\nkept\r\n", name, n)
				uid := sure(fmt.Sprintf("APPEND INBOX (of%d) {}", i), text)
				gone := sure("APPEND INBOX {}", strings.Replace(text, "kept", "gone", 1))
				sure("NOOP")
				sure(fmt.Sprintf("UID STORE %s +FLAGS (\\Seen round%d)", uid, n%4))
				sure(fmt.Sprintf("UID COPY %s Common", uid))
				sure("UID STORE " + gone + ` +FLAGS (\Deleted)`)
				sure("UID EXPUNGE " + gone)
				if a := c.do(`STORE 1:3 +FLAGS (\Flagged)`); !strings.HasPrefix(a.tagged, "OK") && !strings.HasPrefix(a.tagged, "NO [EXPUNGEISSUED]") {
					t.Errorf("%s: STORE of messages of others: %s", name, a.tagged)
				}
				if n%5 == 0 {
					sure(fmt.Sprintf("CREATE of-%s-%d", name, n))
					sure(fmt.Sprintf("SUBSCRIBE of-%s-%d", name, n))
					sure(fmt.Sprintf("CREATE Common.%s-%d", name, n))
					sure(fmt.Sprintf("APPEND Common.%s-%d {}", name, n), text)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	sessions.Wait()
	if t.Failed() {
		return
	}

	want, subscribed := lookAtAll(t, client(t, d.Addr, "ada", nil))
	var texts, again []string
	for name, m := range want {
		for _, msg := range m.messages {
			switch name {
			case "INBOX":
				texts = append(texts, msg.text)
			case "Common":
				again = append(again, msg.text)
			default:
				if len(m.messages) != 1 {
					t.Errorf("%s has %d messages", name, len(m.messages))
				}
			}
		}
	}
	slices.Sort(texts)
	slices.Sort(again)
	if kept := slices.Compact(slices.Clone(texts)); len(texts) != len(names)*rounds || len(kept) != len(texts) || strings.Contains(strings.Join(texts, ""), "gone") {
		t.Errorf("of %d messages in INBOX there are %d:\n%q", len(names)*rounds, len(texts), texts)
	}
	if !slices.Equal(texts, again) {
		t.Errorf("INBOX has\n%q\nand the copies are\n%q", texts, again)
	}
	if n := len(names) * rounds / 5; len(subscribed) != n || len(want) != 2+2*n {
		t.Errorf("there are %d mailboxes, and subscribed are %q", len(want), subscribed)
	}
	for _, s := range ours {
		got, gotSubscribed := lookAtAll(t, client(t, s.imap, "ada", nil))
		wantSameMailboxes(t, "maildird of what Dovecot sees", want, got)
		if !slices.Equal(subscribed, gotSubscribed) {
			t.Errorf("subscribed are %q, and in Dovecot %q", gotSubscribed, subscribed)
		}
		s.mu.Lock()
		for _, line := range s.log {
			if strings.Contains(line, "permi") || strings.Contains(line, "level=WARN") {
				t.Errorf("maildird's log: %s", line)
			}
		}
		s.mu.Unlock()
	}
	d.WantNoComplaint(t)
}

// Trap 26: who may read a shared mailbox and not change it reads it, is told so, and is refused the rest.
func TestTrap26ReadOnly(t *testing.T) {
	d := peers.StartDovecotAs(t, dovecotsUID, dovecotsUID, "", "mail_access_groups = "+team)
	root := strings.ReplaceAll(d.Location(), "%u", "ada")
	teamRoot(t, root, 0o750)
	ada := login(t, serveAs(t, ofTeam(t, adasUID, "077"), users, d.Location(), "").imap, "ada")
	ada.ok("CREATE Box")
	ada.ok("APPEND Box {}", otherMail)
	ada.ok("APPEND INBOX (first) {}", otherMail)
	ada.ok("APPEND INBOX {}", otherMail)
	ada.ok("SUBSCRIBE Box")
	ada.ok("SELECT INBOX")
	ada.ok("FETCH 1:* BODYSTRUCTURE") // makes the cache
	ada.ok("UNSELECT")

	s := serveAs(t, ofTeam(t, bensUID, "077"), users, d.Location(), "")
	s.tolerate = "permission denied"
	ben := login(t, s.imap, "ada")
	for _, addr := range []string{s.imap, d.Addr} {
		a := login(t, addr, "ada").do("SELECT INBOX")
		if !strings.HasPrefix(a.tagged, "OK [READ-ONLY] ") || find(a.untagged, `^\* OK \[PERMANENTFLAGS \(\)\]`) == nil || find(a.untagged, `^\* 2 EXISTS`) == nil {
			t.Errorf("SELECT on %s: %q", addr, a)
		}
	}
	before := tree(t, root)
	ben.ok("SELECT INBOX")
	if got := ben.ok("FETCH 1:* (UID FLAGS BODY[])"); len(got) != 2 || find(got, `^\* 1 FETCH \(UID 1 FLAGS \(first\) BODY\[\] \{[0-9]+\}\r\nSubject: hello`) == nil {
		t.Errorf("fetched %q", got)
	}
	if got := ben.ok("SEARCH BODY here"); !slices.Equal(got, []string{"* SEARCH 1 2"}) {
		t.Errorf("found %q", got)
	}
	if got := ben.ok("STATUS Box (MESSAGES UIDNEXT)"); !slices.Equal(got, []string{`* STATUS "Box" (MESSAGES 1 UIDNEXT 2)`}) {
		t.Errorf("status %q", got)
	}
	if got := ben.ok(`LSUB "" *`); find(got, `"Box"$`) == nil {
		t.Errorf("subscribed %q", got)
	}
	ben.wantRefused("NOPERM", `STORE 1 +FLAGS (\Flagged)`, "STORE 1 +FLAGS (other)", "COPY 1 Box", "MOVE 1 Box", "EXPUNGE", "APPEND INBOX {}", "APPEND Box {}",
		"CREATE New", "CREATE Box.New", "DELETE Box", "RENAME Box Bax", "RENAME INBOX Bax", "SUBSCRIBE New", "UNSUBSCRIBE Box")
	wantSameTree(t, "refused", before, tree(t, root))

	// What has no UID yet can't be shown; when the owner's server has numbered it, it is.
	must(t, os.WriteFile(filepath.Join(root, "new", "1700000000.x.host"), []byte(otherMail), 0o644))
	must(t, os.Chown(filepath.Join(root, "new", "1700000000.x.host"), adasUID, gidOf(t, team)))
	for range 3 {
		if got := ben.ok("NOOP"); len(got) > 0 {
			t.Errorf("told %q", got)
		}
	}
	ada.ok("SELECT INBOX")
	if got := ben.ok("NOOP"); find(got, `^\* 3 EXISTS`) == nil {
		t.Errorf("told %q", got)
	}
	ben.ok("FETCH 3 BODY[]")
	if n := s.count("level=ERROR"); n > 1 {
		t.Errorf("%d lines of the log say what can't be done", n)
	}

	// Permission comes with the next SELECT.
	for _, part := range []string{"", "cur", "new", "tmp"} {
		must(t, os.Chmod(filepath.Join(root, part), 0o770))
	}
	if a := ben.do("SELECT INBOX"); !strings.HasPrefix(a.tagged, "OK [READ-WRITE] ") {
		t.Errorf("SELECT: %s", a.tagged)
	}
	ben.ok(`STORE 1 +FLAGS (\Flagged)`)
}

// Trap 26: where the folder's group is not one of the server's, Dovecot makes nothing. maildird makes what its user alone
// can use, says so once, and gives no other group what is that group's.
func TestTrap26Stranger(t *testing.T) {
	d := peers.StartDovecot(t, "")
	root := d.Maildir(t, "ada")
	permitted{0o770, team}.set(t, root)
	if a := login(t, d.Addr, "ada").do("CREATE Box"); !strings.HasPrefix(a.tagged, "NO ") {
		t.Errorf("Dovecot: %s", a.tagged)
	}

	s := serve(t, d.Location(), "")
	c := login(t, s.imap, "ada")
	c.ok("CREATE Box")
	c.ok("SUBSCRIBE Box")
	for range 3 {
		c.ok("APPEND INBOX (first) {}", otherMail)
		c.ok("APPEND Box {}", otherMail)
	}
	c.ok("SELECT INBOX")
	c.ok("COPY 1 Box")
	c.ok("MOVE 2 Box")
	if n := s.count(`level=WARN msg="files don't get the group of their folder`); n != 1 {
		t.Errorf("%d lines of the log say so", n)
	}
	all, ours := access(t, root)
	_, gid := peers.Owner(t)
	stranger := regexp.MustCompile(fmt.Sprintf(`^(d|-)r[w-][x-]------ %d `, gid))
	for _, line := range append(all, ours...) {
		if !stranger.MatchString(line) && !strings.HasSuffix(line, " /.") && !strings.HasSuffix(line, "NUMBER") {
			t.Errorf("made %s", line)
		}
	}
	if len(all) < 15 {
		t.Errorf("there is only %q", all)
	}
}
