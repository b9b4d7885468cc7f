package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// Traps in what a message is: its bytes, its size, its links, and when it is gone.

// Trap 11: a wrong S= or W= in a file name, which Dovecot believes until it ends the connection at a FETCH; or one
// that is added, taken away or mended later, which makes another message of it. What maildird appends has the
// sizes that Dovecot counts, however its lines end, and no other file gets a name that differs in them.
func TestTrap11SizesInNames(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	names := []string{"1700000001.plain", "1700000002.wrong,S=1,W=1", "1700000003.half,S=14"}
	for _, name := range names {
		writeFile(t, filepath.Join(root, "cur", name+":2,"), "Subject: x\n\nx\n")
	}
	ours := login(t, s.imap, "ada")
	texts := append([]string{"", "\n", "\r", "\r\n", "\r\r\n", "\n\r", "\r\n\r"}, oddTexts...)
	random := rand.New(rand.NewPCG(11, 11))
	for range 40 {
		text := []byte("Subject: random\r\n\r\n")
		for range random.IntN(200) {
			text = append(text, "\r\n\r\nab"[random.IntN(6)])
		}
		texts = append(texts, string(text))
	}
	for i, text := range texts {
		ours.ok(`APPEND INBOX (\Seen) {}`, text)
		if i%2 == 0 {
			ours.ok("APPEND INBOX {}", text)
		}
	}
	ours.ok("SELECT INBOX")
	ours.ok("FETCH 1:* (RFC822.SIZE BODY.PEEK[])")
	ours.ok(`STORE 1:3 +FLAGS.SILENT (\Flagged)`)
	ours.ok("COPY 1:* INBOX")
	if left, _ := filepath.Glob(filepath.Join(root, "cur", "17000000*")); len(left) != len(names) {
		t.Errorf("files have become %q", left)
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(root, "cur", name+":2,F")); err != nil {
			t.Error(err)
		}
	}
	// What another program named wrongly Dovecot can't read; but it can read the copy.
	ours.ok(`UID STORE 2 +FLAGS.SILENT (\Deleted)`)
	ours.ok("EXPUNGE")
	for _, m := range wantSameMail(t, d, s, "ada")["INBOX"].messages {
		if int(m.size) != len(m.text) {
			t.Errorf("UID %d: %d bytes and not %d: %q", m.uid, len(m.text), m.size, m.text)
		}
	}
	d.WantNoComplaint(t)
}

// Trap 23: a copy shares its file with other mailboxes, and, where Dovecot made it, its base name too. What is
// done to the one leaves the other alone; and where there can be no link, bytes are copied.
func TestTrap23Copies(t *testing.T) {
	t.Parallel()
	t.Run("links", func(t *testing.T) {
		d, s, root := beside(t, "")
		theirs, ours := login(t, d.Addr, "ada"), login(t, s.imap, "ada")
		for _, box := range []string{"A", "B"} {
			theirs.ok("CREATE " + box)
		}
		theirs.ok("APPEND INBOX {}", otherMail)
		theirs.ok("SELECT INBOX")
		theirs.ok("COPY 1 A") // a link of the same base name
		ours.ok("SELECT A")
		ours.ok("COPY 1 B") // a link of another one
		links := func(n uint64) {
			t.Helper()
			seen := map[uint64]bool{}
			for _, box := range []string{"", ".A", ".B"} {
				for _, file := range files(t, filepath.Join(root, box)) {
					seen[inode(t, file)] = true
					if fi, err := os.Stat(file); err != nil || fi.Sys().(*syscall.Stat_t).Nlink != n {
						t.Errorf("%s has not %d links", file, n)
					}
				}
			}
			if len(seen) != 1 {
				t.Errorf("it is in %d files", len(seen))
			}
		}
		links(3)
		body := func(box string) {
			t.Helper()
			ours.ok("SELECT " + box)
			if got := ours.ok("FETCH 1 (ENVELOPE BODY.PEEK[])"); find(got, "I am here") == nil || find(got, `"hello"`) == nil {
				t.Errorf("%s: %q", box, got)
			}
		}
		for _, box := range []string{"INBOX", "A", "B"} {
			body(box)
		}
		// One base name, and each mailbox has another mail of it.
		base := filepath.Base(files(t, root)[0])
		writeFile(t, filepath.Join(root, "tmp", "other"), "Subject: another\n\nanother\n")
		must(t, os.Rename(filepath.Join(root, "tmp", "other"), files(t, filepath.Join(root, ".A"))[0]))
		if got := filepath.Base(files(t, filepath.Join(root, ".A"))[0]); strings.SplitN(got, ":", 2)[0] != strings.SplitN(base, ":", 2)[0] {
			t.Fatalf("Dovecot's copy of %s is %s", base, got)
		}
		ours.ok("SELECT A")
		if got := ours.ok("FETCH 1 (ENVELOPE BODY.PEEK[])"); find(got, "another") == nil || find(got, `"hello"`) != nil {
			t.Errorf("A: %q", got)
		}
		ours.ok(`STORE 1 +FLAGS (\Deleted)`)
		ours.ok("EXPUNGE")
		body("INBOX")
		body("B")
		links(2)
		d.WantNoComplaint(t)
	})

	// Each of these COPYs is refused a link by the system.
	for _, no := range []struct {
		name    string
		prepare func(t *testing.T, root, file string)
	}{
		{"another file system", func(t *testing.T, root, file string) {
			if err := unix.Mount("none", filepath.Join(root, ".A"), "tmpfs", 0, "mode=770"); err != nil {
				t.Skipf("no file system can be mounted: %v", err)
			}
			t.Cleanup(func() { unix.Unmount(filepath.Join(root, ".A"), unix.MNT_DETACH) })
			makeMailbox(t, root, ".A")
		}},
		{"too many links", func(t *testing.T, root, file string) {
			aside := filepath.Join(filepath.Dir(root), "links")
			must(t, os.Mkdir(aside, 0o755))
			for i := 0; ; i++ {
				err := os.Link(file, filepath.Join(aside, fmt.Sprint(i)))
				if errors.Is(err, unix.EMLINK) {
					return
				}
				must(t, err)
				if i == 70000 {
					t.Skip("this file system has no limit of links")
				}
			}
		}},
		{"another user's file", func(t *testing.T, root, file string) {
			if b, err := os.ReadFile("/proc/sys/fs/protected_hardlinks"); err != nil || b[0] != '1' {
				t.Skip("here links to the files of others may be made")
			}
			must(t, os.Chown(file, 0, 0))
			must(t, os.Chmod(file, 0o644))
		}},
	} {
		t.Run(no.name, func(t *testing.T) {
			d, s, root := beside(t, "")
			makeMailbox(t, root, ".A")
			file := filepath.Join(root, "cur", "1700000001.a:2,F")
			writeFile(t, file, "Subject: a\n\nI am here\n")
			no.prepare(t, root, file)
			ours := login(t, s.imap, "ada")
			ours.ok("SELECT INBOX")
			ours.ok("COPY 1 A")
			ours.ok("SELECT A")
			if got := ours.ok("FETCH 1 (FLAGS BODY.PEEK[])"); find(got, `(?s)\\Flagged.*\r\n\r\nI am here`) == nil {
				t.Errorf("the copy is %q", got)
			}
			for _, copied := range files(t, filepath.Join(root, ".A")) {
				if inode(t, copied) == inode(t, file) {
					t.Errorf("%s is a link", copied)
				}
			}
			if left := readDir(t, filepath.Join(root, ".A", "tmp")); len(left) != 0 {
				t.Errorf("left in tmp: %q", left)
			}
			wantSameMail(t, d, s, "ada")
			d.WantNoComplaint(t)
		})
	}
}

// expunged is what a session is answered to commands that name messages of which another one expunged 2, as
// patterns of all responses in a line. What was expunged may be kept or not.
var expunged = []struct {
	command string
	kept    string // by default, expunged by maildird
	gone    string // by default, removed by another program
	null    string // fetch_expunged = "nil"
}{
	{"FETCH 2 (BODY.PEEK[TEXT])", `\* 2 FETCH \(BODY\[TEXT\] \{\d+\}\r\nmail 2\r\n\), OK`, `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`},
	{"FETCH 2 (FLAGS)", `\* 2 FETCH \(FLAGS \([^)]*\)\), OK`, `\* 2 FETCH \(FLAGS \([^)]*\)\), OK`, `NO \[EXPUNGEISSUED\]`},
	{"FETCH 2 (RFC822.SIZE INTERNALDATE ENVELOPE)", `\* 2 FETCH \(.*"mail 2".*\), OK`, `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`},
	{"FETCH 1:3 (BODY.PEEK[TEXT])", `(\* \d FETCH \(BODY\[TEXT\] \{\d+\}\r\nmail \d\r\n\), ){3}OK`,
		`\* 1 FETCH \([^,]*mail 1\r\n\), \* 3 FETCH \([^,]*mail 3\r\n\), NO \[EXPUNGEISSUED\]`,
		`\* 1 FETCH \([^,]*mail 1\r\n\), \* 2 FETCH \(BODY\[TEXT\] \{0\}\r\n\), \* 3 FETCH \([^,]*mail 3\r\n\), OK`},
	{"UID FETCH 2 (BODY.PEEK[TEXT])", `\* 2 FETCH \(UID 2 BODY\[TEXT\] \{\d+\}\r\nmail 2\r\n\), \* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`},
	{`STORE 2 +FLAGS (\Flagged)`, `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`},
	{`STORE 2 +FLAGS.SILENT (\Flagged)`, `OK`, `OK`, `OK`},
	{`STORE 1:3 +FLAGS (\Flagged)`, `\* 1 FETCH \([^*]*Flagged[^*]*\* 3 FETCH \([^*]*Flagged[^*]*NO \[EXPUNGEISSUED\]`,
		`\* 1 FETCH \([^*]*Flagged[^*]*\* 3 FETCH \([^*]*Flagged[^*]*NO \[EXPUNGEISSUED\]`, `\* 1 FETCH \([^*]*Flagged[^*]*\* 3 FETCH \([^*]*Flagged[^*]*NO \[EXPUNGEISSUED\]`},
	{`STORE 1:3 -FLAGS.SILENT (\Flagged)`, `OK`, `OK`, `OK`},
	{`UID STORE 2 +FLAGS (\Flagged)`, `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`},
	{"SEARCH ALL", `\* SEARCH 1 3, OK`, `\* SEARCH 1 3, OK`, `\* SEARCH 1 3, OK`},
	{"SEARCH 2", `\* SEARCH, OK`, `\* SEARCH, OK`, `\* SEARCH, OK`},
	{"SEARCH BODY mail", `\* SEARCH 1 3, OK`, `\* SEARCH 1 3, OK`, `\* SEARCH 1 3, OK`},
	{"SEARCH SUBJECT mail", `\* SEARCH 1 3, OK`, `\* SEARCH 1 3, OK`, `\* SEARCH 1 3, OK`},
	{"COPY 2 Copies", `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`},
	{"COPY 1:3 Copies", `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`},
	{"MOVE 2 Copies", `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`, `NO \[EXPUNGEISSUED\]`},
	{"UID COPY 2 Copies", `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`},
	{"EXPUNGE", `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`},
	{"UID EXPUNGE 2", `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`},
	{"NOOP", `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`, `\* 2 EXPUNGE, OK`},
}

// Trap 29: FETCH, STORE and SEARCH by sequence number tell an EXPUNGE, which moves the numbers under the
// client's feet. It is told at the next NOOP, whoever expunged; COPY copies nothing.
func TestTrap29ExpungedByAnother(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "[[policy.mailbox]]\nmatch = 'nil-*'\nfetch_expunged = 'nil'\n")
	theirs, other, copies := login(t, d.Addr, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada")
	copies.ok("CREATE Copies")
	sequence := regexp.MustCompile(`^(FETCH|STORE|SEARCH)`)
	for who, expunge := range map[string]func(box string){
		"maildird": func(box string) {
			other.ok("SELECT " + box)
			other.ok(`STORE 2 +FLAGS.SILENT (\Deleted)`)
			other.ok("EXPUNGE")
		},
		"Dovecot": func(box string) {
			theirs.ok("SELECT " + box)
			theirs.ok(`STORE 2 +FLAGS.SILENT (\Deleted)`)
			theirs.ok("EXPUNGE")
		},
		"rm": func(box string) {
			must(t, os.Remove(filepath.Join(root, "."+box, "cur", "1700000002.mail:2,S")))
		},
	} {
		for _, null := range []bool{false, true} {
			for i, row := range expunged {
				box, want := fmt.Sprintf("box-%s-%d", who, i), row.gone
				switch {
				case null:
					box, want = "nil-"+box, row.null
				case who == "maildird":
					want = row.kept
				}
				dir := makeMailbox(t, root, "."+box)
				for n := 1; n <= 3; n++ {
					writeFile(t, filepath.Join(dir, "cur", fmt.Sprintf("170000000%d.mail:2,S", n)), fmt.Sprintf("Subject: mail %d\n\nmail %[1]d\n", n))
				}
				c := login(t, s.imap, "ada")
				c.ok("SELECT " + box)
				expunge(box)
				got, _ := c.first(row.command)
				what := fmt.Sprintf("%s in %s", row.command, box)
				if !regexp.MustCompile(`^(?s:` + want + `)`).MatchString(got) {
					t.Errorf("%s: %q, not %s", what, got, want)
				}
				told := strings.Contains(got, "EXPUNGE,") || strings.Contains(got, " EXPUNGE ")
				if told && sequence.MatchString(row.command) {
					t.Errorf("%s tells of an EXPUNGE: %q", what, got)
				}
				rest := strings.Join(c.ok("NOOP"), ", ")
				if strings.Contains(rest, "* 2 EXPUNGE") == told {
					t.Errorf("%s: %q, then at NOOP %q", what, got, rest)
				}
				if uids := c.uids(); uids != "1 3" {
					t.Errorf("%s: then UIDs are %s", what, uids)
				}
				c.Close()
			}
		}
	}
	if got := copies.ok("STATUS Copies (MESSAGES)"); find(got, `MESSAGES 0`) == nil {
		t.Errorf("copied were %q", got)
	}
	d.WantNoComplaint(t)
}

// Trap 30: what a crash leaves in tmp/ stays for ever, or what is needed there is removed by others, as all do that
// is older than 36 hours. maildird removes old files too, when a mailbox is selected; and an upload whose file
// another program took away is refused, and leaves nothing.
func TestTrap30OldFilesInTmp(t *testing.T) {
	t.Parallel()
	d := peers.StartDovecot(t, "")
	root := d.Maildir(t, "ada")
	image := filepath.Join(peers.Dir(t), "image")
	run(t, nil, "truncate", "-s", "16M", image)
	run(t, nil, "mkfs.ext4", "-q", image)
	mounted := func() {
		if out, err := exec.Command("mount", "-o", "loop", image, root).CombinedOutput(); err != nil {
			t.Skipf("no file system can be mounted: %v: %s", err, out)
		}
		own(t, root)
		must(t, os.Chmod(root, 0o770))
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	mounted()
	must(t, os.RemoveAll(filepath.Join(root, "lost+found")))
	makeMailbox(t, root, ".")
	makeMailbox(t, root, ".Box")
	// The time of an inode's last change can't be set where it is mounted.
	var commands strings.Builder
	for _, name := range []string{"tmp/1.new", "tmp/1.old", ".Box/tmp/1.old", ".Box/tmp/1.new", "tmp/1.kept.deleted/cur/1.a:2,"} {
		if strings.Contains(name, "deleted") {
			makeMailbox(t, root, "tmp/1.kept.deleted")
		}
		writeFile(t, filepath.Join(root, name), "Subject: left\n\n")
	}
	for _, name := range []string{"tmp/1.old", ".Box/tmp/1.old", "tmp/1.kept.deleted"} {
		for _, field := range []string{"ctime", "mtime", "atime"} {
			fmt.Fprintf(&commands, "set_inode_field /%s %s @%d\n", name, field, time.Now().Add(-37*time.Hour).Unix())
		}
	}
	must(t, unix.Unmount(root, 0))
	run(t, strings.NewReader(commands.String()), "debugfs", "-w", "-f", "-", image)
	mounted()
	if fi, err := os.Stat(filepath.Join(root, "tmp/1.old")); err != nil || time.Since(time.Unix(fi.Sys().(*syscall.Stat_t).Ctim.Unix())) < 36*time.Hour {
		t.Fatalf("not old: %+v, %v", fi, err)
	}

	s := serve(t, d.Location(), "")
	c := login(t, s.imap, "ada")
	for box, dir := range map[string]string{"INBOX": "tmp", "Box": ".Box/tmp"} {
		c.ok("SELECT " + box)
		for name, kept := range map[string]bool{"1.new": true, "1.old": false} {
			if _, err := os.Stat(filepath.Join(root, dir, name)); (err == nil) != kept {
				t.Errorf("after SELECT %s: %s/%s: %v", box, dir, name, err)
			}
		}
	}

	theirs := login(t, d.Addr, "ada")
	theirs.ok("SELECT INBOX")
	theirs.ok("SELECT Box")

	c.send("up APPEND Box {70000}\r\n")
	if line := c.read(); !strings.HasPrefix(line, "+") {
		c.fail("APPEND: %q", line)
	}
	text := "Subject: up\r\n\r\n" + strings.Repeat("x", 70000-15)
	c.send(text[:69000])
	upload := ""
	await(t, "a file in tmp", func() bool {
		for _, name := range readDir(t, filepath.Join(root, ".Box", "tmp")) {
			if name != "1.new" {
				upload = name
			}
		}
		return upload != ""
	})
	must(t, os.Remove(filepath.Join(root, ".Box", "tmp", upload)))
	c.send(text[69000:] + "\r\n")
	if got := c.answer("up"); !refusal.MatchString(got.tagged) || strings.Contains(got.tagged, "SERVERBUG") {
		t.Errorf("an upload whose file is gone: %q", got)
	}
	c.ok("APPEND Box {}", otherMail)
	if got := c.ok("STATUS Box (MESSAGES)"); find(got, "MESSAGES 1") == nil {
		t.Errorf("%q", got)
	}
	wantSameMail(t, d, s, "ada")
	d.WantNoComplaint(t)
}
