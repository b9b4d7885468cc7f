package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

const limits = "1000000000S,100000C" // of all quota files here

// dovecotQuota makes Dovecot keep maildirsize.
const dovecotQuota = `
mail_plugins = quota
protocol lmtp {
  mail_plugins = quota
}
plugin {
  quota = maildir:User quota
  quota_rule = *:bytes=1000000000:messages=100000
}`

// quotaSum reads a quota file: the sum of its lines.
func quotaSum(t *testing.T, file string) string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(readFile(t, file), "\n"), "\n")
	if lines[0] != limits {
		t.Errorf("the limits are %q, not %q", lines[0], limits)
	}
	var bytes, messages int
	for _, line := range lines[1:] {
		var b, n int
		if _, err := fmt.Sscan(line, &b, &n); err != nil {
			t.Errorf("line %q: %v", line, err)
		}
		bytes += b
		messages += n
	}
	return fmt.Sprintf("%d bytes in %d messages", bytes, messages)
}

// A keeper is a program that keeps quota files.
type keeper struct {
	name    string
	control bool // it has it among control files that are apart
	// recount lets it count an account that has no quota file. The account stays as it is but for that file.
	recount func(t *testing.T, d *peers.Dovecot, root string)
}

func byDovecot(t *testing.T, d *peers.Dovecot, root string) {
	d.Doveadm(t, "quota", "recalc", "-u", "ada")
}

var keepers = []keeper{
	{"dovecot", false, byDovecot},
	{"dovecot with control files apart", true, byDovecot},
	{"maildrop", false, func(t *testing.T, d *peers.Dovecot, root string) {
		copied := filepath.Join(peers.Dir(t), "Maildir")
		if out, err := exec.Command("cp", "-a", root, copied).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		os.Remove(filepath.Join(copied, "maildirfolder")) // Dovecot makes it in the root, where maildrop would go up
		own(t, filepath.Dir(copied))
		peers.DeliverQuota(t, copied, "INBOX", limits, "Subject: last\n\n")
		lines := strings.SplitAfter(readFile(t, filepath.Join(copied, "maildirsize")), "\n")
		if len(lines) != 4 {
			t.Fatalf("maildrop's quota file is %q", lines)
		}
		writeFile(t, filepath.Join(root, "maildirsize"), lines[0]+lines[1]) // without its delivery
	}},
}

var dovecotKeeper, maildropKeeper = keepers[0], keepers[2]

// start starts Dovecot and maildird on an account, and returns the Maildir and its quota file.
func (k keeper) start(t *testing.T, more string) (d *peers.Dovecot, s *server, root, file string) {
	t.Helper()
	if !k.control {
		d = peers.StartDovecot(t, "", dovecotQuota)
		root = d.Maildir(t, "ada")
		return d, serve(t, d.Location(), more), root, k.file(root)
	}
	d = peers.StartDovecot(t, ":CONTROL=~/control", dovecotQuota)
	root = d.Maildir(t, "ada")
	control := filepath.Dir(k.file(d.Location()))
	return d, serve(t, d.Location(), fmt.Sprintf("control = %q\n", control)+more), root, k.file(root)
}

// file is where the quota file of a Maildir is.
func (k keeper) file(root string) string {
	if k.control {
		root = filepath.Join(filepath.Dir(root), "control")
	}
	return filepath.Join(root, "maildirsize")
}

// wantCount compares the quota file with what the keeper counts, and leaves it as it was.
func (k keeper) wantCount(t *testing.T, what string, d *peers.Dovecot, root string) {
	t.Helper()
	file := k.file(root)
	kept := readFile(t, file)
	got := quotaSum(t, file)
	must(t, os.Remove(file))
	k.recount(t, d, root)
	if want := quotaSum(t, file); got != want {
		t.Errorf("%s: the file says %s, %s counts %s\n%s", what, got, k.name, want, kept)
	}
	writeFile(t, file, kept)
}

// spend are commands that change what an account takes, or might. A name is used once.
func spend(name string) (steps []func(*testing.T, *imapclient.Client) string) {
	mail := func(n int) string { return "Subject: x\r\n\r\n" + strings.Repeat("y\r\n", n) }
	step := func(what string, f func(*testing.T, *imapclient.Client)) {
		steps = append(steps, func(t *testing.T, c *imapclient.Client) string { f(t, c); return what })
	}
	open := func(t *testing.T, c *imapclient.Client, mailbox string) {
		t.Helper()
		_, err := c.Select(mailbox, nil).Wait()
		must(t, err)
	}
	first, last := imap.SeqSetNum(1), imap.SeqSetNum(0)
	step("CREATE", func(t *testing.T, c *imapclient.Client) {
		for _, mailbox := range []string{"Trash", "Trash." + name, name} {
			must(t, c.Create(mailbox, nil).Wait())
		}
	})
	step("APPEND", func(t *testing.T, c *imapclient.Client) {
		for n, mailbox := range []string{"INBOX", "INBOX", "INBOX", "Trash", "Trash." + name, name} {
			appendMail(t, c, mailbox, mail(10+n), nil)
		}
		appendMail(t, c, name, mail(1000), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagDeleted}})
		appendMail(t, c, name, mail(2000), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
	})
	step("STORE", func(t *testing.T, c *imapclient.Client) {
		open(t, c, "INBOX")
		store(t, c, first, imap.StoreFlagsAdd, imap.FlagDeleted)
		store(t, c, last, imap.StoreFlagsAdd, imap.FlagDeleted, "keyword")
		store(t, c, last, imap.StoreFlagsSet, imap.FlagFlagged)
		open(t, c, name)
		store(t, c, imap.SeqSetNum(2), imap.StoreFlagsDel, imap.FlagDeleted)
		store(t, c, last, imap.StoreFlagsAdd, imap.FlagDeleted)
		open(t, c, "Trash")
		store(t, c, last, imap.StoreFlagsAdd, imap.FlagDeleted)
	})
	step("COPY", func(t *testing.T, c *imapclient.Client) {
		open(t, c, "INBOX")
		all := imap.SeqSet{imap.SeqRange{Start: 1}}
		for _, mailbox := range []string{name, "Trash", "Trash." + name, "INBOX"} {
			_, err := c.Copy(all, mailbox).Wait()
			must(t, err)
		}
	})
	step("MOVE", func(t *testing.T, c *imapclient.Client) {
		for _, way := range [][2]string{{"INBOX", "Trash"}, {"Trash", name}, {name, "Trash." + name}, {"Trash." + name, "INBOX"}} {
			open(t, c, way[0])
			_, err := c.Move(imap.SeqSetNum(1, 2), way[1]).Wait()
			must(t, err)
		}
	})
	step("EXPUNGE", func(t *testing.T, c *imapclient.Client) {
		open(t, c, name)
		store(t, c, first, imap.StoreFlagsAdd, imap.FlagDeleted)
		must(t, c.Expunge().Close())
		open(t, c, "Trash")
		store(t, c, last, imap.StoreFlagsAdd, imap.FlagDeleted)
		must(t, c.Expunge().Close())
		must(t, c.Unselect().Wait())
	})
	step("RENAME below Trash", func(t *testing.T, c *imapclient.Client) { must(t, c.Rename(name, "Trash."+name+".Old", nil).Wait()) })
	step("RENAME from below Trash", func(t *testing.T, c *imapclient.Client) {
		must(t, c.Rename("Trash."+name+".Old", name+"Back", nil).Wait())
	})
	step("RENAME of Trash", func(t *testing.T, c *imapclient.Client) { must(t, c.Rename("Trash", "Was"+name, nil).Wait()) })
	step("RENAME to Trash", func(t *testing.T, c *imapclient.Client) { must(t, c.Rename(name+"Back", "Trash", nil).Wait()) })
	step("DELETE", func(t *testing.T, c *imapclient.Client) {
		must(t, c.Delete("Trash").Wait())
		must(t, c.Delete("Was"+name+"."+name).Wait())
	})
	return steps
}

// While maildird changes an account, its quota file agrees at each step with what the program counts that made it. So it does when
// the program goes on, and when maildird has changed it again.
func TestQuota(t *testing.T) {
	for _, k := range keepers {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			d, s, root, file := k.start(t, "[policy]\ndelete = \"ghost\"\n")
			c := s.client(t, "ada", nil)
			_, err := c.Select("INBOX", nil).Wait()
			must(t, err)
			// Postfix counts nothing, and names no sizes.
			writeFile(t, filepath.Join(root, "new", "1700000000.delivered.host"), letter("delivered"))
			k.recount(t, d, root)
			before := readFile(t, file)
			for _, step := range spend("A") {
				k.wantCount(t, step(t, c), d, root)
			}
			furnish(t, c, "", ".")
			k.wantCount(t, "many commands", d, root)
			if form := strings.Contains(before, "  "); form != strings.Contains(lastLine(readFile(t, file)), "  ") {
				t.Errorf("the file was\n%sand is\n%s", before, readFile(t, file))
			}

			if k.name == maildropKeeper.name {
				peers.DeliverQuota(t, root, "INBOX", "", letter("by deliverquota"))
				peers.DeliverQuota(t, root, "WasA", "", letter("by deliverquota"))
				peers.Maildrop(t, root, "Work", letter("by maildrop"))
			} else {
				c := client(t, d.Addr, "ada", nil)
				for _, step := range spend("B") {
					step(t, c)
				}
				d.SendLMTP(t, "ada", letter("by LMTP"))
			}
			k.wantCount(t, "their changes", d, root)
			change(t, c, "", ".")
			for _, step := range spend("C") {
				k.wantCount(t, step(t, c), d, root)
			}
			d.WantNoComplaint(t)
		})
	}
}

// Courier and maildird change an account in turns, each what the other one has marked for deletion or put into Trash. The
// file agrees with what maildrop counts.
func TestQuotaCourier(t *testing.T) {
	courier := peers.StartCourier(t)
	root, k := courier.Maildir(), maildropKeeper
	s := serve(t, root, "")
	ours := login(t, s.imap, "ada")
	theirs := raceDial(t, courier.Addr)
	defer theirs.Close()
	they := func(commands ...string) {
		t.Helper()
		for _, command := range commands {
			if tagged, err := theirs.exchange(command); err != nil || !strings.HasPrefix(tagged, "OK") {
				t.Fatalf("Courier: %s: %q, %v", command, tagged, err)
			}
		}
		k.wantCount(t, "Courier: "+strings.Join(commands, ", "), nil, root)
	}
	we := func(commands ...string) {
		t.Helper()
		for _, command := range commands {
			ours.ok(command)
		}
		k.wantCount(t, "maildird: "+strings.Join(commands, ", "), nil, root)
	}
	for n := range 8 {
		ours.ok("APPEND INBOX {}", "Subject: x\r\n\r\n"+strings.Repeat("y\r\n", 1<<n))
	}
	k.recount(t, nil, root)
	we("CREATE Trash", "SELECT INBOX", `STORE 1:2 +FLAGS (\Deleted)`)
	they("SELECT INBOX", `STORE 3:4 +FLAGS (\Deleted)`, `STORE 2 -FLAGS (\Deleted)`, "COPY 5 INBOX.Trash", "COPY 5 INBOX")
	we("NOOP", `STORE 2 +FLAGS (\Deleted)`, `STORE 3 -FLAGS (\Deleted)`, "MOVE 6 Trash", "COPY 7 Trash", "COPY 7 INBOX")
	they("NOOP", "EXPUNGE")
	we("NOOP", `STORE 2 +FLAGS (\Deleted)`, "SELECT Trash", `STORE 1 +FLAGS (\Deleted)`, "MOVE 2 INBOX", "EXPUNGE")
	they("NOOP", `STORE 1:* +FLAGS (\Deleted)`)
	we("SELECT INBOX", "EXPUNGE")
	they("NOOP", "SELECT INBOX.Trash", `STORE 1:* +FLAGS (\Deleted)`, "EXPUNGE")
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return lines[len(lines)-1]
}

// Two maildirds and Dovecot change an account at once, and nothing is lost of the sum.
func TestQuotaAtOnce(t *testing.T) {
	d := peers.StartDovecot(t, "", dovecotQuota)
	root := d.Maildir(t, "ada")
	one, two := serve(t, d.Location(), ""), serve(t, d.Location(), "")
	dovecotKeeper.recount(t, d, root)
	var running sync.WaitGroup
	for n, addr := range []string{one.imap, one.imap, two.imap, d.Addr} {
		c := raceLogin(t, addr)
		own := fmt.Sprint("Box", n)
		commands := []string{"CREATE " + own}
		for i := range 40 {
			text := "Subject: x\r\n\r\n" + strings.Repeat("y", i)
			commands = append(commands, fmt.Sprintf("APPEND %s {%d+}\r\n%s", []string{"INBOX", own}[i%2], len(text), text))
		}
		commands = append(commands, "SELECT "+own, "MOVE 1:3 INBOX", "COPY 1:5 INBOX", `STORE 1:3 +FLAGS (\Deleted)`, "EXPUNGE")
		running.Go(func() {
			defer c.Close()
			for _, command := range commands {
				if tagged, err := c.exchange(command); err != nil || !strings.HasPrefix(tagged, "OK") {
					t.Errorf("%s: %q, %v", command, tagged, err)
				}
			}
		})
	}
	running.Wait()
	dovecotKeeper.wantCount(t, "all", d, root)
	d.WantNoComplaint(t)
}

// A quota file of 5120 bytes or more is counted anew by maildird, when nobody changes mail; its limits stay, and so does who
// counted.
func TestQuotaCountedAnew(t *testing.T) {
	for _, k := range keepers {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			d, s, root, file := k.start(t, "")
			c := s.client(t, "ada", nil)
			for _, step := range spend("A") {
				step(t, c)
			}
			k.recount(t, d, root)
			text := readFile(t, file)
			line := text[len(limits)+1:]
			must(t, os.WriteFile(file, []byte(text+strings.Repeat(line, 5120/len(line)+1)), 0o644)) // and the sum is wrong
			appendMail(t, c, "INBOX", otherMail, nil)
			await(t, "new count", func() bool { return len(readFile(t, file)) < 100 })
			k.wantCount(t, "counted anew", d, root)
			appendMail(t, c, "INBOX", otherMail, nil)
			k.wantCount(t, "after that", d, root)
			if got := readFile(t, file); strings.Contains(text, "  ") != strings.Contains(lastLine(got), "  ") {
				t.Errorf("the file was\n%sand is\n%s", text, got)
			}
			if left := append(readDir(t, filepath.Join(root, "tmp")), find(readDir(t, filepath.Dir(file)), "maildirsize[.].*")...); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}
