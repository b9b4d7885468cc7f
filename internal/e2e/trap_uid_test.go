package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// Traps that cost a message its UID.

// Trap 1: files that are renamed or removed without the lock. Dovecot polls while maildird moves mail from
// new/ to cur/, marks all of it again and again, moves some away and expunges some: it tells the EXPUNGE of
// these and of no other, and no message gets another UID.
func TestTrap01RenamesUnderTheLock(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	const n, gone = 3000, 100 // so many that a directory takes several reads
	for i := range n {
		must(t, os.WriteFile(filepath.Join(root, "new", fmt.Sprintf("%d.delivered", 1700000000+i)), []byte("Subject: x\n\n"), 0o660))
	}
	own(t, root)
	polls, theirs, ours := login(t, d.Addr, "ada"), login(t, d.Addr, "ada"), login(t, s.imap, "ada")
	polls.ok("EXAMINE INBOX")
	ours.ok("CREATE Away")
	expunged, rounds := 0, 0
	poll := func() {
		for _, line := range polls.ok("NOOP") {
			if strings.HasSuffix(line, " EXPUNGE") {
				expunged++
			}
		}
		rounds++
	}
	polls.quit = runtime.Goexit
	stop := make(chan struct{})
	var polling sync.WaitGroup
	polling.Go(func() {
		for {
			poll()
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		polling.Wait()
	})
	defer end()
	ours.ok("SELECT INBOX")
	for range 4 {
		ours.ok(`STORE 1:* +FLAGS.SILENT (\Seen kw)`)
		ours.ok(`STORE 1:* -FLAGS.SILENT (\Seen)`)
	}
	ours.ok(fmt.Sprintf("MOVE 1:%d Away", gone))
	ours.ok(fmt.Sprintf(`STORE 1:%d +FLAGS.SILENT (\Deleted)`, gone))
	ours.ok("EXPUNGE")
	end()
	polls.quit = t.FailNow
	poll()
	if expunged != 2*gone {
		t.Errorf("Dovecot told %d EXPUNGEs of %d, in %d NOOPs", expunged, 2*gone, rounds)
	}
	if got, want := theirs.ok("STATUS INBOX (MESSAGES UIDNEXT)")[0], fmt.Sprintf("* STATUS INBOX (MESSAGES %d UIDNEXT %d)", n-2*gone, n+1); got != want {
		t.Errorf("Dovecot: %s, want %s", got, want)
	}
	theirs.ok("SELECT INBOX")
	if got, want := theirs.uids(), ours.uids(); got != want {
		t.Errorf("Dovecot has the UIDs %s, maildird %s", got, want)
	}
	d.WantNoComplaint(t)
}

// Trap 4: mbsync gives files other base names (",U=1"), so they are other messages: EXPUNGE and new
// UIDs, the same for both servers, and what is shown can be read.
func TestTrap04MbsyncRenames(t *testing.T) {
	t.Parallel()
	peers.Need(t, "mbsync")
	d, s, root := beside(t, "")
	const n = 5
	for i := 1; i <= n; i++ {
		writeFile(t, filepath.Join(root, "cur", fmt.Sprintf("170000000%d.delivered:2,S", i)), fmt.Sprintf("Subject: %d\n\nbody %d\n", i, i))
	}
	theirs, ours, idler := login(t, d.Addr, "ada"), login(t, s.imap, "ada"), login(t, s.imap, "ada")
	for _, c := range []*conn{theirs, ours, idler} {
		c.ok("SELECT INBOX")
		if got := c.uids(); got != "1 2 3 4 5" {
			t.Fatalf("UIDs %s", got)
		}
	}
	ours.ok("FETCH 1:* (BODY.PEEK[])")
	idler.idle()

	dir := peers.Dir(t)
	must(t, os.Mkdir(filepath.Join(dir, "copy"), 0o755))
	rc := filepath.Join(dir, "mbsyncrc")
	writeFile(t, rc, fmt.Sprintf(`
MaildirStore served
Path %[1]s/
Inbox %[1]s

MaildirStore copy
Path %[2]s/copy/
Inbox %[2]s/copy/INBOX

Channel all
Far :served:
Near :copy:
Create Near
SyncState %[2]s/state-
`, root, dir))
	own(t, dir)
	mbsync := exec.Command("mbsync", "-c", rc, "all")
	peers.AsOwner(t, mbsync)
	if out, err := mbsync.CombinedOutput(); err != nil {
		t.Fatalf("mbsync: %v\n%s", err, out)
	}
	if renamed, _ := filepath.Glob(filepath.Join(root, "cur", "*,U=*")); len(renamed) != n {
		t.Fatalf("mbsync named %q, which is %d files and not %d", renamed, len(renamed), n)
	}

	for expunged, exists := 0, ""; expunged < n || exists != fmt.Sprintf("* %d EXISTS", n); {
		switch line := idler.read(); {
		case strings.HasSuffix(line, " EXPUNGE"):
			expunged++
		case strings.HasSuffix(line, " EXISTS"):
			exists = line
		}
	}
	for _, c := range []*conn{theirs, ours} {
		c.ok("NOOP")
		c.ok("NOOP")
		if got := c.uids(); got != "6 7 8 9 10" {
			t.Errorf("UIDs %s after mbsync", got)
		}
		got := c.ok("UID FETCH 6:10 (BODY.PEEK[TEXT])")
		if len(got) != n {
			t.Errorf("of %d messages can be read: %q", n, got)
		}
	}
	for _, m := range wantSameMail(t, d, s, "ada")["INBOX"].messages {
		if want := fmt.Sprintf("Subject: %d\r\n\r\nbody %[1]d\r\n", m.uid-n); m.text != want || m.flags != `[\Seen]` {
			t.Errorf("UID %d is %q %s, not %q", m.uid, m.text, m.flags, want)
		}
	}
	d.WantNoComplaint(t)
}

// Trap 7: a last line of dovecot-uidlist without its end is no record, wherever it is cut: the message gets the
// next UID, and Dovecot finds it so. Dovecot itself appends behind such a line, so it has to be gone then. Who
// reads while a line is written in parts sees all of it or nothing.
func TestTrap07CutRecord(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	theirs, ours := login(t, d.Addr, "ada"), login(t, s.imap, "ada")
	const last = "2 W7 G0123456789abcdef :1700000002.two:2,S"
	for cut := range len(last) + 1 {
		dir := makeMailbox(t, root, fmt.Sprintf(".cut%d", cut))
		for _, name := range []string{"1700000001.one", "1700000002.two"} {
			writeFile(t, filepath.Join(dir, "cur", name+":2,"), "Subject: "+name+"\n\n")
		}
		writeFile(t, filepath.Join(dir, "dovecot-uidlist"), "3 V1600000000 N5 G0123456789abcdef0123456789abcdef\n1 :1700000001.one\n"+last[:cut])
		for _, c := range []*conn{ours, theirs} {
			c.ok(fmt.Sprintf("SELECT cut%d", cut))
			if got := c.uids(); got != "1 5" {
				t.Errorf("cut after %q: UIDs %s", last[:cut], got)
			}
		}
		theirs.ok(fmt.Sprintf("APPEND cut%d {}", cut), otherMail)
		ours.ok("NOOP")
		if got := ours.uids(); got != "1 5 6" {
			t.Errorf("cut after %q, then Dovecot appended: UIDs %s", last[:cut], got)
		}
	}

	// Here somebody else has the lock, writes byte by byte, and takes his time.
	dir := makeMailbox(t, root, ".slow")
	list := filepath.Join(dir, "dovecot-uidlist")
	writeFile(t, filepath.Join(dir, "cur", "1700000001.one:2,"), "Subject: one\n\n")
	ours.ok("SELECT slow")
	leaveLock(t, dir, holder(t, os.Getpid()), 0)
	idler := login(t, s.imap, "ada")
	idler.ok("SELECT slow")
	idler.idle()
	line := "7 :1700000002.two\n"
	for i := range line {
		appendFile(t, list, line[i:i+1])
		if i == len(line)-2 {
			writeFile(t, filepath.Join(dir, "tmp", "1700000002.two"), "Subject: two\n\n")
			must(t, os.Rename(filepath.Join(dir, "tmp", "1700000002.two"), filepath.Join(dir, "cur", "1700000002.two:2,F")))
		}
	}
	must(t, os.Remove(lockIn(dir)))
	idler.until("* 2 EXISTS")
	ours.ok("NOOP")
	if got := ours.uids(); got != "1 7" {
		t.Errorf("written byte by byte: UIDs %s", got)
	}
	wantSameMail(t, d, s, "ada")
	d.WantNoComplaint(t)
}

// Trap 8: fields of dovecot-uidlist that mean nothing here, in its header and its records, are there still after
// maildird wrote it anew, and mean to Dovecot what they meant.
func TestTrap08UnknownFields(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	list := filepath.Join(root, "dovecot-uidlist")
	records := []string{
		"3 W30 Ppop3-of-three O2 S28 G0123456789abcdef0123456789abcdef Zfuture :1700000003.three",
		"5 Ppop3.of.five O1 Gguid-of-five X :1700000005.five,S=13",
		"9 Yx:y Qw=1 :1700000009.with a space",
	}
	// The last line is none: maildird writes all anew.
	writeFile(t, list, "3 V1600000000 Pxu N12 G00112233445566778899aabbccddeeff Znew\n"+
		records[0]+"\n"+records[1]+"\n"+records[2]+"\nno record\n")
	for name, size := range map[string]int{"1700000003.three": 28, "1700000005.five,S=13": 13, "1700000009.with a space": 20} {
		writeFile(t, filepath.Join(root, "cur", name+":2,S"), "Subject: x\n\n"+strings.Repeat("x", size-12))
	}
	before := inode(t, list)
	ours := login(t, s.imap, "ada")
	ours.ok("SELECT INBOX")
	if got := ours.uids(); got != "3 5 9" {
		t.Errorf("UIDs %s", got)
	}
	ours.ok("APPEND INBOX {}", otherMail)
	if inode(t, list) == before {
		t.Fatal("maildird did not write the list anew")
	}
	want := func(who string) {
		t.Helper()
		now := readFile(t, list)
		header, _, _ := strings.Cut(now, "\n")
		lacks := func(line, fields string) {
			t.Helper()
			for _, field := range strings.Fields(fields) {
				if !slices.Contains(strings.Fields(line), field) {
					t.Errorf("%s: %q, without %s", who, line, field)
				}
			}
		}
		lacks(header, "V1600000000 Pxu G00112233445566778899aabbccddeeff Znew")
		for i, uid := range []int{3, 5, 9} {
			lacks(record(now, uid), records[i])
		}
	}
	want("maildird")
	got := d.Doveadm(t, "-f", "flow", "fetch", "-u", "ada", "uid guid pop3.uidl pop3.order size.physical", "mailbox", "INBOX")
	for _, line := range []string{
		"uid=3 guid=0123456789abcdef0123456789abcdef pop3.uidl=pop3-of-three pop3.order=2 size.physical=28",
		"uid=5 guid=guid-of-five pop3.uidl=pop3.of.five pop3.order=1 size.physical=13",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("Dovecot finds\n%snot\n%s", got, line)
		}
	}
	theirs := login(t, d.Addr, "ada")
	theirs.ok("SELECT INBOX")
	if got := theirs.uids(); !strings.HasPrefix(got, "3 5 9") {
		t.Errorf("Dovecot has the UIDs %s", got)
	}
	want("Dovecot")
	d.WantNoComplaint(t)
}

// Trap 16: dovecot-uidlist alone changes, which no directory tells of. Its news count all the same.
func TestTrap16OnlyTheListChanges(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	list := filepath.Join(root, "dovecot-uidlist")
	ours, idler, theirs := login(t, s.imap, "ada"), login(t, s.imap, "ada"), login(t, d.Addr, "ada")
	for range 2 {
		ours.ok("APPEND INBOX {}", otherMail)
	}
	ours.ok("EXAMINE INBOX")
	idler.ok("EXAMINE INBOX")
	theirs.ok("EXAMINE INBOX")
	idler.idle()

	// Mail comes while another program has the lock, so that nobody can number it, and is numbered by that one.
	leaveLock(t, root, holder(t, os.Getpid()), 0)
	must(t, deliver(root, otherMail))
	own(t, filepath.Join(root, "new"))
	var base string
	for _, name := range readDir(t, filepath.Join(root, "new")) {
		if !strings.Contains(readFile(t, list), ":"+name+"\n") {
			base = name
		}
	}
	appendFile(t, list, "40 :"+base+"\n")
	must(t, os.Remove(lockIn(root)))
	idler.until("* 3 EXISTS")
	for who, c := range map[string]*conn{"maildird": ours, "Dovecot": theirs} {
		c.ok("NOOP")
		if got := c.uids(); got != "1 2 40" {
			t.Errorf("%s has the UIDs %s", who, got)
		}
	}

	// It is written anew with a higher next UID, and nothing else happens: the UID counts when mail comes.
	must(t, os.WriteFile(list+".tmp", regexp.MustCompile(` N\d+`).ReplaceAll([]byte(readFile(t, list)), []byte(" N60")), 0o660))
	own(t, list+".tmp")
	must(t, os.Rename(list+".tmp", list))
	if got := ours.ok("STATUS INBOX (UIDNEXT)")[0]; got != "* STATUS INBOX (UIDNEXT 60)" {
		t.Errorf("a list with N60: %s", got)
	}
	ours.ok("APPEND INBOX {}", otherMail)
	for who, c := range map[string]*conn{"maildird": ours, "Dovecot": theirs} {
		c.ok("NOOP")
		if got := c.uids(); got != "1 2 40 60" {
			t.Errorf("%s has the UIDs %s", who, got)
		}
	}
	d.WantNoComplaint(t)
}

// Trap 18: UIDVALIDITY from the clock alone. A mailbox that is deleted and made again at once, by one server
// and the other, has a higher one each time.
func TestTrap18UIDValidityGrows(t *testing.T) {
	t.Parallel()
	d, s, _ := beside(t, "")
	servers := []*conn{login(t, d.Addr, "ada"), login(t, s.imap, "ada")}
	last := 0
	for i := range 40 {
		makes, deletes := servers[i%2], servers[i/2%2] // each way round
		makes.ok("CREATE Again")
		for _, c := range servers {
			got, err := strconv.Atoi(find(c.ok("STATUS Again (UIDVALIDITY)"), `UIDVALIDITY (\d+)`)[1])
			must(t, err)
			if c == servers[0] && got <= last {
				t.Fatalf("UIDVALIDITY %d after %d", got, last)
			} else if c == servers[1] && got != last {
				t.Fatalf("maildird says UIDVALIDITY %d, Dovecot %d", got, last)
			}
			last = got
		}
		deletes.ok("DELETE Again")
	}
	d.WantNoComplaint(t)
}
