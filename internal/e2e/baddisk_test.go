package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// Nothing outside of the mail root is shown or touched, whatever symlinks there are.
func TestSymlinkOut(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			outside := peers.Dir(t)
			for _, sub := range []string{"cur", "new", "tmp", ".Sub/cur", "Sub/cur"} {
				must(t, os.MkdirAll(filepath.Join(outside, sub), 0o755))
			}
			writeFile(t, filepath.Join(outside, "cur", "1700000000.secret.host:2,S"), "Subject: a secret\n\n")
			own(t, outside) // only the server itself keeps off it
			_, location := mailDir(t)
			s := serve(t, location, layout.maildird)
			other := newOther(t, s.imap, "ada")
			root := s.root("ada")
			dir := func(name string) string {
				if layout.sep == "." {
					return filepath.Join(root, "."+name)
				}
				return filepath.Join(root, name)
			}
			c := login(t, s.imap, "ada")
			c.ok("CREATE Half")
			c.ok("CREATE Mail")
			link := func(target, name string) {
				t.Helper()
				must(t, os.RemoveAll(name))
				must(t, os.Symlink(target, name))
			}
			link(outside, dir("Out"))
			link(filepath.Join(outside, "cur"), filepath.Join(dir("Half"), "cur"))
			link(filepath.Join(outside, "cur", "1700000000.secret.host:2,S"), filepath.Join(dir("Mail"), "cur", "1700000000.link.host:2,S"))
			before, namesBefore := tree(t, outside), names(t, outside)

			other.during(t, func() {
				c.ok(`LIST "" *`)
				c.ok(`LIST "" * RETURN (STATUS (MESSAGES UNSEEN SIZE))`)
				bad := []string{"Out", "Half"}
				if layout.sep == "/" { // else it is the name of another directory
					bad = append(bad, "Out/Sub", "Out/New", "Out/Sub/New")
				}
				c.ok("SELECT INBOX")
				for _, name := range bad {
					for _, command := range []string{"STATUS %s (MESSAGES SIZE)", "CREATE %s", "DELETE %s", "RENAME Mail %s", "COPY 1 %s", "MOVE 1 %s", "APPEND %s {}", "EXAMINE %s", "SELECT %s"} {
						literals := slices.Repeat([]string{otherMail}, strings.Count(command, "{}"))
						refused := c.refused(fmt.Sprintf(command, name), literals...)
						taken := name == "Half" && command == "CREATE %s" || strings.HasPrefix(command, "RENAME")
						if !strings.HasPrefix(refused, "NO [CANNOT]") && !(taken && strings.HasPrefix(refused, "NO [ALREADYEXISTS]")) {
							t.Errorf(command+": %s", name, refused)
						}
					}
					c.ok("SELECT INBOX")
				}
				for _, line := range slices.Concat(c.ok("SELECT Mail"), c.ok("NOOP")) {
					if strings.HasSuffix(line, "EXISTS") && line != "* 0 EXISTS" {
						t.Errorf("a link to a file outside is a message: %s", line)
					}
				}
				c.refused("RENAME Out In")
				c.do("RENAME Half Whole") // may succeed, since Half is inside
				c.ok("DELETE Mail")
			})
			wantSameTree(t, "outside", before, tree(t, outside))
			if after := names(t, outside); !slices.Equal(after, namesBefore) {
				t.Errorf("outside was %q, and is %q", namesBefore, after)
			}
			for _, link := range []string{`1700000000\.link\.host`, `path=\.?Out `, `path=\.?Half/cur `} {
				s.waitLog(t, `level=WARN.*`+link)
			}
		})
	}
}

// Trap 27: what is in cur/ and is no message ends a look. It is left where it is, told in the log, and hurts nobody.
func TestOddFiles(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	cur := filepath.Join(s.root("ada"), "cur")
	other.during(t, func() {
		must(t, os.Mkdir(filepath.Join(cur, "1700000000.directory:2,S"), 0o755))
		writeFile(t, filepath.Join(cur, "1700000000.directory:2,S", "file"), "kept\n")
		must(t, os.Symlink("nowhere", filepath.Join(cur, "1700000000.dangling:2,S")))
		writeFile(t, filepath.Join(cur, "1700000000.line\nbreak:2,S"), "Subject: line break\n\n")
		c := login(t, s.imap, "ada")
		for _, command := range []string{"SELECT INBOX", "NOOP", "UID SEARCH ALL", "FETCH 1:* (FLAGS ENVELOPE)", "STATUS INBOX (MESSAGES SIZE)", "EXPUNGE", "EXAMINE INBOX"} {
			told := c.ok(command)
			if m := find(told, `^\* (\d+) EXISTS`); m != nil && m[1] != "1" {
				t.Errorf("%s: %q", command, told)
			}
		}
		if got := c.ok("UID FETCH 1:* FLAGS"); len(got) != 1 || !strings.HasPrefix(got[0], "* 1 FETCH (UID 1 ") {
			t.Errorf("FETCH of all: %q", got)
		}
	})
	for _, name := range []string{"directory", "dangling", `line\\\\?nbreak`} {
		s.waitLog(t, `level=WARN.*1700000000\.`+name)
	}
	for _, name := range []string{"1700000000.directory:2,S/file", "1700000000.dangling:2,S", "1700000000.line\nbreak:2,S"} {
		if _, err := os.Lstat(filepath.Join(cur, name)); err != nil {
			t.Errorf("what is no message was not left alone: %v", err)
		}
	}
}

// A damage is what happens to the uidlist of a mailbox with the UIDs 1 to 5.
type damage struct {
	mailbox string // is named by the damage
	do      func(list string) string
	lost    []imap.UID // whose messages get other UIDs where nobody knows these
	log     string     // the pattern of what is told, if anything is; the file is kept then
}

var allFive = []imap.UID{1, 2, 3, 4, 5}

var damages = []damage{
	{"CutAtTheEnd", func(list string) string { return list[:len(list)-10] }, nil, ""},
	{"CutInTheMiddle", func(list string) string { return strings.Replace(list, record(list, 3), "3 W\n", 1) }, []imap.UID{3}, `WARN.* line 4: `},
	{"TwoLinesInOne", func(list string) string { return strings.Replace(list, "\n4 ", "4 ", 1) }, []imap.UID{3, 4}, ""},
	{"UIDTwice", func(list string) string { return strings.Replace(list, "\n3 ", "\n2 ", 1) }, []imap.UID{2, 3}, `WARN.* line 4: `},
	{"UIDOfAnother", func(list string) string { return strings.Replace(list, "\n3 ", "\n4 ", 1) }, []imap.UID{3, 4}, `WARN.* line 5: `},
	{"Garbage", func(list string) string { return strings.Replace(list, "\n3 ", "\n\xff\x00garbage\n3 ", 1) }, nil, `WARN.* line 4: `},
	{"GarbageAtTheEnd", func(list string) string { return list + "garbage\n" }, nil, `WARN.* line 7: `},
	{"NoRecords", func(list string) string { return list[:strings.Index(list, "\n")+1] }, nil, ""},
	{"ForeignHeader", func(list string) string { return "7 something else" + list[strings.Index(list, "\n"):] }, allFive, `ERROR.* line 1: `},
	{"AnotherFile", func(string) string { return strings.Repeat("This is no uidlist.\n", 10) }, allFive, `ERROR.* line 1: `},
	{"Empty", func(string) string { return "" }, allFive, `ERROR.* line 1: `},
}

// record is the line of a UID.
func record(list string, uid int) string {
	return regexp.MustCompile(fmt.Sprintf(`(?m)^%d [^V].*\n`, uid)).FindString(list)
}

// A damaged uidlist loses no message, no UID that the server knows, and where it knows none no more
// than the damage names. It is mended, so that Dovecot finds nothing wrong with it.
func TestDamagedUIDList(t *testing.T) {
	for _, known := range []string{"selected", "closed", "unknown"} { // what the server knows the mailbox from
		t.Run(known, func(t *testing.T) {
			d := peers.StartDovecot(t, "")
			d.Maildir(t, "ada")
			start := func() (*server, *imapclient.Client) {
				s := serve(t, d.Location(), "")
				s.tolerate = "set aside and made anew"
				return s, s.client(t, "ada", nil)
			}
			s, c := start()
			before := map[string]mailbox{}
			for _, dam := range damages {
				must(t, c.Create(dam.mailbox, nil).Wait())
				for uid := range allFive {
					appendMail(t, c, dam.mailbox, fmt.Sprintf("Subject: number %d\r\n\r\n", uid+1), nil)
				}
				before[dam.mailbox] = look(t, c, dam.mailbox)
			}
			must(t, c.Unselect().Wait())
			sessions := map[string]*conn{}
			switch known {
			case "selected":
				for _, dam := range damages {
					sessions[dam.mailbox] = login(t, s.imap, "ada")
					sessions[dam.mailbox].ok("SELECT " + dam.mailbox)
				}
			case "unknown":
				s.stop(t)
				s, c = start()
			}
			other := newOther(t, s.imap, "ada")
			file := func(dam damage) string { return filepath.Join(s.root("ada"), "."+dam.mailbox, "dovecot-uidlist") }
			damaged := map[string]string{}
			for _, dam := range damages {
				list := readFile(t, file(dam))
				damaged[dam.mailbox] = dam.do(list)
				if more, ok := strings.CutPrefix(damaged[dam.mailbox], list); ok {
					appendFile(t, file(dam), more)
				} else {
					writeFile(t, file(dam)+".new", damaged[dam.mailbox])
					must(t, os.Rename(file(dam)+".new", file(dam)))
				}
			}

			after := map[string]mailbox{}
			other.during(t, func() {
				for name, session := range sessions {
					if told := session.ok("NOOP"); len(told) > 0 {
						t.Errorf("%s: the session that has it selected was told %q", name, told)
					}
				}
				for _, dam := range damages {
					after[dam.mailbox] = look(t, c, dam.mailbox)
				}
			})
			for _, dam := range damages {
				lost := dam.lost
				if known != "unknown" {
					lost = nil
				}
				wantUIDs(t, dam.mailbox, before[dam.mailbox], after[dam.mailbox], lost)
				aside, _ := filepath.Glob(file(dam) + ".broken-*")
				if dam.log == "" && len(aside) > 0 || dam.log != "" && (len(aside) != 1 || readFile(t, aside[0]) != damaged[dam.mailbox]) {
					t.Errorf("%s: the damaged file is kept as %q", dam.mailbox, aside)
				}
				if dam.log != "" {
					s.waitLog(t, fmt.Sprintf("level=%s", strings.Replace(dam.log, ".*", ".* mailbox="+dam.mailbox+" .*dovecot-uidlist", 1)))
				}
			}

			// It stays so, for a server that knows nothing and for Dovecot, and no UID comes twice.
			s.stop(t)
			s, c = start()
			for what, c := range map[string]*imapclient.Client{"maildird": c, "Dovecot": client(t, d.Addr, "ada", nil)} {
				for _, dam := range damages {
					wantUIDs(t, what+" in "+dam.mailbox, after[dam.mailbox], look(t, c, dam.mailbox), nil)
				}
			}
			d.WantNoComplaint(t)
			for _, dam := range damages {
				if got := appendMail(t, c, dam.mailbox, "Subject: one more\r\n\r\n", nil); got.UID < after[dam.mailbox].next {
					t.Errorf("%s: the next UID is %d, UIDNEXT was %d", dam.mailbox, got.UID, after[dam.mailbox].next)
				}
			}
		})
	}
}

func appendFile(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(text)
	must(t, err)
}

// wantUIDs compares the UIDs of a mailbox's messages at two times. Those that were lost are others
// now, which no message had before.
func wantUIDs(t *testing.T, what string, before, after mailbox, lost []imap.UID) {
	t.Helper()
	if len(after.messages) != len(before.messages) {
		t.Errorf("%s: messages were\n%sand are\n%s", what, dump(before.messages), dump(after.messages))
	}
	uids := map[string]imap.UID{}
	for _, m := range after.messages {
		uids[m.text] = m.uid
	}
	if len(lost) == len(before.messages) {
		if after.validity <= before.validity {
			t.Errorf("%s: UIDVALIDITY is %d, not more than %d", what, after.validity, before.validity)
		}
		return
	}
	if after.validity != before.validity {
		t.Errorf("%s: UIDVALIDITY is %d, not %d", what, after.validity, before.validity)
	}
	for _, m := range before.messages {
		switch got := uids[m.text]; {
		case !slices.Contains(lost, m.uid) && got != m.uid:
			t.Errorf("%s: %q had UID %d and has %d", what, m.text, m.uid, got)
		case slices.Contains(lost, m.uid) && got < before.next:
			t.Errorf("%s: %q has UID %d, which may have been another's", what, m.text, got)
		}
	}
}

// With another UIDVALIDITY the UIDs mean other messages: who has the mailbox open has to leave it, as
// with Dovecot.
func TestForeignUIDValidity(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	other := newOther(t, s.imap, "ada")
	c := login(t, s.imap, "ada")
	c.ok("CREATE Box")
	c.ok("APPEND Box {}", otherMail)
	c.ok("SELECT Box")
	file := filepath.Join(s.root("ada"), ".Box", "dovecot-uidlist")
	other.during(t, func() {
		list := regexp.MustCompile(` V\d+`).ReplaceAllString(readFile(t, file), " V4000000000")
		writeFile(t, file+".new", list)
		must(t, os.Rename(file+".new", file))
		c.send("x NOOP\r\n")
		for line := ""; !strings.HasPrefix(line, "* BYE "); line = c.read() {
		}
		again := login(t, s.imap, "ada")
		if told := again.ok("SELECT Box"); find(told, `^\* OK \[UIDVALIDITY 4000000000\]`) == nil || find(told, `^\* 1 EXISTS`) == nil {
			t.Errorf("selected again: %q", told)
		}
		if got := again.ok("UID FETCH 1:* FLAGS"); find(got, `^\* 1 FETCH \(UID 1 `) == nil {
			t.Errorf("fetched again: %q", got)
		}
	})
}
