package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// Traps in mailboxes that come and go, their names, and what is in the root beside them.

// takenAway is what a session is answered whose mailbox another program took away, at its first command after
// that: patterns of all its responses in a line. A BOX is the mailbox's name.
var takenAway = []struct {
	command string
	gone    string // it was deleted, delete = "ghost"
	moved   string // it was renamed, rename = "follow"
}{
	{"NOOP", `OK`, `OK`},
	{"CHECK", `OK`, `OK`},
	{"IDLE", `\+ idling, OK`, `\+ idling, OK`},
	{"CLOSE", `OK`, `OK`},
	{"UNSELECT", `OK`, `OK`},
	{"SELECT INBOX", `.*\* OK \[UIDVALIDITY .*OK \[READ-WRITE\]`, `.*\* OK \[UIDVALIDITY .*OK \[READ-WRITE\]`},
	{"FETCH 1:3 (FLAGS)", `\* 1 FETCH \(FLAGS \(\)\), \* 2 FETCH \(FLAGS \(\)\), \* 3 FETCH \(FLAGS \(\\Deleted\)\), OK`,
		`\* 1 FETCH \(FLAGS \(\)\), \* 2 FETCH \(FLAGS \(\)\), \* 3 FETCH \(FLAGS \(\\Deleted\)\), OK`},
	{"FETCH 1:3 (BODY.PEEK[TEXT])", `NO \[EXPUNGEISSUED\]`, `(\* \d FETCH \(BODY\[TEXT\] \{7\}\r\nknown\r\n\), ){3}OK`},
	{"UID FETCH 1:3 (BODY[TEXT])", `OK`, `(\* \d FETCH \(UID \d FLAGS \([^)]*\) BODY\[TEXT\] \{7\}\r\nknown\r\n\), ){3}OK`},
	{`STORE 1 +FLAGS (\Flagged)`, `NO \[NONEXISTENT\]`, `\* 1 FETCH \(UID 1 FLAGS \(\\Flagged\)\), OK`},
	{`STORE 1:3 +FLAGS.SILENT (\Flagged)`, `NO \[NONEXISTENT\]`, `OK`},
	{`UID STORE 1 +FLAGS (\Flagged)`, `NO \[NONEXISTENT\]`, `\* 1 FETCH \(UID 1 FLAGS \(\\Flagged\)\), OK`},
	{"EXPUNGE", `NO \[NONEXISTENT\]`, `\* 3 EXPUNGE, OK`},
	{"SEARCH ALL", `\* SEARCH 1 2 3, OK`, `\* SEARCH 1 2 3, OK`},
	{"SEARCH BODY known", `\* SEARCH, OK`, `\* SEARCH 1 2 3, OK`},
	{"COPY 1 INBOX", `NO \[EXPUNGEISSUED\]`, `OK \[COPYUID \d+ 1 \d+\]`},
	{"MOVE 1 INBOX", `NO \[NONEXISTENT\]`, `\* OK \[COPYUID \d+ 1 \d+\].*, \* 1 EXPUNGE, OK`},
	{"UID COPY 1:3 INBOX", `NO \[EXPUNGEISSUED\]`, `OK \[COPYUID \d+ 1:3 \d+:\d+\]`},
	{"APPEND %s {}", `NO \[TRYCREATE\]`, `NO \[NEWNAME %s %s-moved\]`},
	{"COPY 1 %s", `NO \[(TRYCREATE|EXPUNGEISSUED)\]`, `NO \[NEWNAME %s %s-moved\]`}, // what is seen first
	{"STATUS %s (MESSAGES)", `\* STATUS "%s" \(MESSAGES 3\), OK`, `NO \[NEWNAME %s %s-moved\]`},
	{"RENAME %s %s-else", `NO \[NONEXISTENT\]`, `NO \[NEWNAME %s %s-moved\]`},
	{"DELETE %s", `NO \[NONEXISTENT\]`, `NO \[NEWNAME %s %s-moved\]`},
}

// Trap 13: the mailbox that a session has selected is deleted, renamed or made again by another program, and
// the session's commands go to a directory that has its name now, or that they make. Dovecot does it, and then the
// shell; each command may be the first one that a session sends then.
func TestTrap13MailboxTakenAway(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"disconnect", "stay"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			more := "[policy]\ndelete = 'disconnect'\nrename = 'disconnect'"
			if policy == "stay" {
				more = "[policy]\ndelete = 'ghost'\nrename = 'follow'"
			}
			d, s, root := beside(t, more)
			theirs := login(t, d.Addr, "ada")
			fill := func(box, text string) {
				dir := makeMailbox(t, root, "."+box)
				for i, flags := range []string{"", "", "T"} {
					writeFile(t, filepath.Join(dir, "cur", fmt.Sprintf("170000000%d.%s:2,%s", i+1, text, flags)), "Subject: "+text+"\n\n"+text+"\n")
				}
			}
			path := func(box string) string { return filepath.Join(root, "."+box) }
			for i, outsider := range []struct {
				name         string
				moves, again bool // whether the mailbox gets another name, and another mailbox its name
				takes        func(box string)
			}{
				{"DELETE", false, false, func(box string) { theirs.ok("DELETE " + box) }},
				{"RENAME", true, false, func(box string) { theirs.ok("RENAME " + box + " " + box + "-moved") }},
				{"DELETE and CREATE", false, true, func(box string) {
					theirs.ok("DELETE " + box)
					theirs.ok("CREATE " + box)
					for range 3 {
						theirs.ok("APPEND "+box+" {}", "Subject: strange\r\n\r\nstrange\r\n")
					}
				}},
				{"rm", false, false, func(box string) { must(t, os.RemoveAll(path(box))) }},
				{"mv", true, false, func(box string) { must(t, os.Rename(path(box), path(box)+"-moved")) }},
				{"rm and mkdir", false, true, func(box string) {
					must(t, os.RemoveAll(path(box)))
					fill(box, "strange")
				}},
			} {
				for j, row := range takenAway {
					if outsider.again && strings.Contains(row.command, "%s") {
						continue // that is the other mailbox
					}
					box := fmt.Sprintf("box%d-%d", i, j)
					what := outsider.name + ", then " + row.command
					fill(box, "known")
					c := login(t, s.imap, "ada")
					c.ok("SELECT " + box)
					outsider.takes(box)
					got, bye := c.first(strings.ReplaceAll(row.command, "%s", box))
					want := row.gone
					switch {
					case policy == "disconnect":
						if !bye && slices.Contains([]string{"CLOSE", "UNSELECT", "SELECT INBOX"}, row.command) {
							break // it left before that was found out
						}
						want = `.*\* BYE .*`
						if !bye {
							c.bye()
							got += ", * BYE "
						}
					case outsider.moves:
						want = row.moved
					}
					if !regexp.MustCompile(`^(?s:` + strings.ReplaceAll(want, "%s", box) + `)`).MatchString(got) {
						t.Errorf("%s: %q, not %s", what, got, want)
					}
					if strings.Contains(got, "strange") {
						t.Errorf("%s: shows the other mailbox's mail: %q", what, got)
					}
					if _, err := os.Stat(path(box)); !outsider.again && err == nil {
						t.Errorf("%s: the mailbox is there again", what)
					}
					c.Close()
				}
			}
			for _, box := range readDir(t, root) {
				if mail, _ := filepath.Glob(filepath.Join(root, box, "*", "*.strange*")); strings.HasPrefix(box, ".box") && len(mail) != 0 && len(mail) != 3 {
					t.Errorf("of the other mailbox %s there are %d messages, not 3", box, len(mail))
				}
			}
			d.WantNoComplaint(t)
		})
	}
}

// first sends a command to which the answer may be that the connection ends, and returns all responses in one
// line, without the tag. IDLE ends at once.
func (c *conn) first(command string) (responses string, bye bool) {
	c.t.Helper()
	c.tags++
	tag := fmt.Sprintf("a%d ", c.tags)
	c.SetReadDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "%s%s\r\n", tag, strings.Replace(command, "{}", "{6+}\r\nother\n", 1)) // or it is closed already
	var all []string
	for {
		line, err := c.next()
		if err != nil {
			return strings.Join(all, ", "), bye
		}
		all = append(all, strings.TrimPrefix(line, tag))
		bye = bye || strings.HasPrefix(line, "* BYE ")
		if strings.HasPrefix(line, "+") {
			fmt.Fprintf(c, "DONE\r\n")
		}
		if strings.HasPrefix(line, tag) {
			return strings.Join(all, ", "), bye
		}
	}
}

// Trap 17: names in UTF-8 (Courier's) beside those in modified UTF-7 (Dovecot's). maildird spells as Dovecot does,
// shows what is spelled otherwise, and of two spellings of one name makes and opens Dovecot's.
func TestTrap17NamesInTwoSpellings(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	ours, theirs := s.client(t, "ada", nil), client(t, d.Addr, "ada", nil)
	for _, box := range []struct{ dir, text string }{
		{".Entw&APw-rfe", "seven"}, {".Entwürfe", "eight"}, // both
		{".Grüße", "eight"},    // UTF-8 alone
		{".M&APw-ll", "seven"}, // UTF-7 alone
		{".Bad&x", "bad"},
	} {
		dir := makeMailbox(t, root, box.dir)
		writeFile(t, filepath.Join(dir, "new", "1700000001.a"), "Subject: "+box.text+"\n\n")
	}
	names := func() string { return listed(t, ours, "*", nil) }
	want := names()
	for _, name := range []string{"Entwürfe", "Grüße", "Müll", "Bad&x"} {
		if strings.Count(want, name+" ")+strings.Count(want, name+"\n") > 1 {
			t.Errorf("%s is listed twice: %s", name, want)
		}
		text := map[string]string{"Grüße": "eight", "Bad&x": "bad"}[name]
		if text == "" {
			text = "seven"
		}
		if got := messages(t, ours, name); len(got) != 1 || !strings.Contains(got[0].text, text) {
			t.Errorf("%s has %s", name, dump(got))
		}
		if err := ours.Create(name, nil).Wait(); err == nil {
			t.Errorf("%s was made again", name)
		}
	}
	for _, name := range []string{"Entwürfe", "Müll"} {
		if o, th := messages(t, ours, name), messages(t, theirs, name); !slices.Equal(o, th) {
			t.Errorf("%s has for maildird\n%sand for Dovecot\n%s", name, dump(o), dump(th))
		}
	}
	must(t, ours.Create("Übung", nil).Wait())
	if _, err := os.Stat(filepath.Join(root, ".&ANw-bung")); err != nil {
		t.Errorf("Übung is not spelled as Dovecot spells it: %v", err)
	}
	if got := messages(t, theirs, "Übung"); len(got) != 0 {
		t.Errorf("Dovecot has in Übung %s", dump(got))
	}
}

// Trap 19: the file subscriptions is overwritten in another version, with other separators. What one server
// subscribes, the other one shows, in each version and each order.
func TestTrap19Subscriptions(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		for version, text := range map[string]string{"none": "", "1": "old.one\nEntw&APw-rfe\n", "2": "V\t2\n\nold\tone\nEntw&APw-rfe\n"} {
			t.Run(layout.name+"/version "+version, func(t *testing.T) {
				t.Parallel()
				d := peers.StartDovecot(t, layout.dovecot)
				root := d.Maildir(t, "ada")
				s := serve(t, d.Location(), layout.maildird)
				if layout.sep == "/" {
					text = strings.ReplaceAll(text, ".", "/")
				}
				file := filepath.Join(root, "subscriptions")
				if version != "none" {
					writeFile(t, file, text)
				}
				clients := []*conn{login(t, d.Addr, "ada"), login(t, s.imap, "ada")}
				want := []string{}
				if version != "none" {
					want = []string{`Entw&APw-rfe`, "old" + layout.sep + "one"}
				}
				check := func(what string) {
					t.Helper()
					for i, c := range clients {
						var got []string
						for _, line := range c.ok(`LSUB "" "*"`) {
							if m := find([]string{line}, `^\* LSUB \([^)]*\) "."  *"?([^"]*)"?$`); m != nil && !strings.Contains(line, `\NoSelect`) {
								got = append(got, m[1])
							}
						}
						slices.Sort(got)
						if !slices.Equal(got, want) {
							t.Errorf("after %s %s has %q, not %q", what, []string{"Dovecot", "maildird"}[i], got, want)
						}
					}
				}
				check("nothing")
				for i := range 4 {
					makes, takes := clients[i%2], clients[i/2]
					name := fmt.Sprintf("a%sb c%d", layout.sep, i)
					clients[0].ok(fmt.Sprintf("CREATE %q", name))
					makes.ok(fmt.Sprintf("SUBSCRIBE %q", name))
					want = append(want, name)
					slices.Sort(want)
					check("SUBSCRIBE")
					if i%2 == 0 {
						continue
					}
					takes.ok(fmt.Sprintf("UNSUBSCRIBE %q", name))
					want = slices.DeleteFunc(want, func(s string) bool { return s == name })
					check("UNSUBSCRIBE")
				}
				if is := readFile(t, file); strings.HasPrefix(is, "V\t2\n\n") != (version != "1") {
					t.Errorf("the file of version %s is now %q", version, is)
				}
				d.WantNoComplaint(t)
			})
		}
	}
}

// Trap 24: Dovecot 2.3 puts a file maildirfolder into the root too, when it makes the INBOX. The root is no
// folder of the directory above for that; and a folder without that file is one.
func TestTrap24MaildirfolderInRoot(t *testing.T) {
	t.Parallel()
	d := peers.StartDovecot(t, "")
	root := d.Maildir(t, "ada")
	theirs := login(t, d.Addr, "ada")
	must(t, os.Remove(root))
	theirs.ok("SELECT INBOX") // makes it
	readFile(t, filepath.Join(root, "maildirfolder"))
	home := filepath.Dir(root)
	before := readDir(t, home)
	s := serve(t, d.Location(), "")
	ours := login(t, s.imap, "ada")
	ours.ok("APPEND INBOX {}", otherMail)
	ours.ok("CREATE Made")
	makeMailbox(t, root, ".Plain")
	ours.ok("APPEND Plain {}", otherMail)
	ours.ok("CREATE Gone")
	ours.ok("DELETE Gone")
	if got := ours.ok(`LIST "" *`); len(got) != 3 {
		t.Errorf("listed are %q", got)
	}
	for _, folder := range []string{".Made", ".Plain"} {
		_, err := os.Stat(filepath.Join(root, folder, "maildirfolder"))
		if (err == nil) != (folder == ".Made") {
			t.Errorf("%s: maildirfolder: %v", folder, err)
		}
	}
	if after := readDir(t, home); !slices.Equal(before, after) {
		t.Errorf("above the root there were %q and are %q", before, after)
	}
	all := wantSameMail(t, d, s, "ada")
	if len(all) != 3 || len(all["INBOX"].messages) != 1 || len(all["Plain"].messages) != 1 {
		t.Errorf("mailboxes are %v", all)
	}
	d.WantNoComplaint(t)
}

// Trap 25: what Dovecot is deleting stands in the root as a mailbox, and Dovecot removes it wholesale. It is
// not shown, not opened, and holds nothing of ours.
func TestTrap25Trashed(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			d := peers.StartDovecot(t, layout.dovecot)
			root := d.Maildir(t, "ada")
			s := serve(t, d.Location(), layout.maildird+"\n[policy]\ndelete = 'ghost'")
			theirs, ours, holder := login(t, d.Addr, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada")
			trash := filepath.Join(root, map[string]string{".": "..DOVECOT-TRASHED", "/": "..DOVECOT-TrasH"}[layout.sep])
			left := makeMailbox(t, root, filepath.Base(trash)) // by a Dovecot that was killed
			writeFile(t, filepath.Join(left, "cur", "1700000001.left:2,S"), "Subject: left\n\n")
			for _, box := range []string{"A", "B"} {
				theirs.ok("CREATE " + box)
				ours.ok("APPEND "+box+" {}", otherMail)
			}
			before := tree(t, trash)
			if got := ours.ok(`LIST "" *`); len(got) != 3 {
				t.Errorf("listed are %q", got)
			}
			for _, name := range []string{filepath.Base(trash), map[string]string{".": ".DOVECOT-TRASHED", "/": "../DOVECOT-TrasH"}[layout.sep]} {
				for _, command := range []string{"SELECT %s", "STATUS %s (MESSAGES)", "CREATE %s", "DELETE %s", "APPEND %s {}", "RENAME B %s"} {
					ours.refused(fmt.Sprintf(command, name), slices.Repeat([]string{otherMail}, strings.Count(command, "{}"))...)
				}
			}
			// Ours deletes what a session has selected and keeps: not there, where it would go with the rest.
			holder.ok("SELECT A")
			ours.ok("DELETE A")
			wantSameTree(t, "Dovecot's trash", before, tree(t, trash))
			theirs.ok("DELETE B")
			if _, err := os.Stat(trash); err == nil && layout.sep == "." {
				t.Errorf("Dovecot has left %q", readDir(t, trash))
			}
			if got := holder.ok("FETCH 1 BODY.PEEK[TEXT]"); find(got, "I am here") == nil {
				t.Errorf("what a session kept is %q", got)
			}
			holder.ok("UNSELECT")
			ours.ok("CREATE A")
			d.WantNoComplaint(t)
		})
	}
}
