package e2e

import (
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What arrives while sessions watch; baddisk_test.go has what is there when they come.

// untilAll reads in IDLE until each of the patterns has matched a response.
func (c *conn) untilAll(patterns ...string) {
	c.t.Helper()
	for len(patterns) > 0 {
		line := c.read()
		for i, p := range patterns {
			if regexp.MustCompile(p).MatchString(line) {
				patterns = append(patterns[:i], patterns[i+1:]...)
				break
			}
		}
	}
}

// More happens than the kernel's queue holds, while the server does not read it. The log tells of that
// once, and nothing is missed: neither there nor in a mailbox whose events came after those.
func TestOverflow(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	queue, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(t, err)
	if queue > 200_000 {
		t.Skipf("max_queued_events is %d", queue)
	}
	_, location := mailDir(t)
	const mails = 10
	bigINBOX(t, strings.ReplaceAll(location, "%u", "ada"), mails)
	s := serve(t, location, "")
	ada, ben := login(t, s.imap, "ada"), login(t, s.imap, "ben")
	for _, c := range []*conn{ada, ben} {
		c.ok("SELECT INBOX")
		c.idle()
	}
	t.Cleanup(func() { s.cmd.Process.Signal(syscall.SIGCONT) })
	files, err := filepath.Glob(filepath.Join(s.root("ada"), "cur", "*"))
	must(t, err)
	for round, flags := range []struct{ file, told string }{{":2,FS", `\\Flagged`}, {":2,T", `\\Deleted`}} {
		must(t, s.cmd.Process.Signal(syscall.SIGSTOP))
		must(t, os.Remove(files[0]))
		files = files[1:]
		for range queue / len(files) {
			for _, info := range []string{":2,R", flags.file} {
				for i, file := range files {
					base, _, _ := strings.Cut(file, ":")
					files[i] = base + info
					must(t, os.Rename(file, files[i]))
				}
			}
		}
		writeMail(t, s.root("ada"), round)()
		writeMail(t, s.root("ben"), round)()
		must(t, s.cmd.Process.Signal(syscall.SIGCONT))

		told := []string{`^\* 1 EXPUNGE$`, fmt.Sprintf(`^\* %d EXISTS$`, mails)}
		for uid := round + 2; uid <= mails; uid++ {
			told = append(told, fmt.Sprintf(`FETCH \(UID %d FLAGS \(.*%s`, uid, flags.told))
		}
		ada.untilAll(told...)
		ben.exists(round + 1)
		if n := s.metric(t, "maildird_watch_overflows_total"); n <= float64(round) {
			t.Errorf("%v overflows in round %d", n, round)
		}
	}
	if n := s.count("level=WARN.*overflow"); n != 1 {
		t.Errorf("overflows are told %d times", n)
	}
	fresh := login(t, s.imap, "ada")
	fresh.ok("SELECT INBOX")
	ada.send("DONE\r\n")
	ada.answer("idle")
	recent := regexp.MustCompile(` ?\\Recent`)
	all := func(c *conn) string {
		return recent.ReplaceAllString(strings.Join(c.ok("FETCH 1:* (UID FLAGS)"), "\n"), "")
	}
	if got, want := all(ada), all(fresh); got != want || !strings.Contains(got, "* 10 FETCH (UID 12 ") {
		t.Errorf("the session has\n%s\na fresh one\n%s", got, want)
	}
}

// A directory fills with so many empty files that looks at it take long: the session that watches it gets
// them all, and meanwhile one of another mailbox gets its mail.
func TestFlood(t *testing.T) {
	t.Parallel()
	if heard := len(flood(t, 100_000)); heard < 50 {
		t.Errorf("only %d deliveries to the other mailbox were heard of", heard)
	}
}

var floodFiles = flag.Int("flood.files", 1_000_000, "empty files that BenchmarkFlood makes")

// What deliveries to another mailbox take meanwhile.
func BenchmarkFlood(b *testing.B) {
	withoutRace(b)
	for b.Loop() {
		reportDeliveries(b, flood(b, *floodFiles))
	}
}

// flood fills a mailbox with empty files and delivers to another one until it is full. It returns how long
// these deliveries took to be heard of.
func flood(t testing.TB, files int) (took []time.Duration) {
	t.Helper()
	_, location := mailDir(t)
	s := serve(t, location, "")
	ada, ben := login(t, s.imap, "ada"), login(t, s.imap, "ben")
	for _, c := range []*conn{ada, ben} {
		c.ok("SELECT INBOX")
		c.idle()
	}
	filled := make(chan error)
	go func() {
		var err error
		for i := 0; i < files && err == nil; i++ {
			name := fmt.Sprintf("%d.M%06dP1.mail.example.org:2,", 1900000000+i/1_000_000, i%1_000_000)
			err = unix.Mknod(filepath.Join(s.root("ada"), "cur", name), unix.S_IFREG|0o644, 0)
		}
		filled <- err
	}()
	begin := time.Now()
	for filling := true; filling; {
		select {
		case err := <-filled:
			must(t, err)
			filling = false
		default:
			deliver := writeMail(t, s.root("ben"), len(took))
			begin := time.Now()
			deliver()
			ben.exists(len(took) + 1)
			took = append(took, time.Since(begin))
		}
	}
	full := time.Now()
	ada.exists(files)
	shown := time.Now()
	ada.send("DONE\r\n")
	ada.answer("idle")
	if got := ada.ok("STATUS INBOX (MESSAGES)"); find(got, fmt.Sprintf("MESSAGES %d", files)) == nil {
		t.Errorf("STATUS: %q", got)
	}
	if got := ada.ok(fmt.Sprintf("FETCH %d BODY[]", files)); find(got, `BODY\[\] (""|\{0\})`) == nil {
		t.Errorf("FETCH of an empty file: %q", got)
	}
	t.Logf("full after %v, all shown %v later; CPU %v s, %v scans; the slowest of %d deliveries to the other mailbox took %v", full.Sub(begin), shown.Sub(full),
		s.metric(t, "process_cpu_seconds_total"), s.metric(t, "maildird_scans_total"), len(took), slices.Max(took))
	return took
}

// What is no message arrives in new/ and cur/ of a mailbox that sessions watch, and takes a message's place:
// it is left alone and told in the log, and hurts nobody. Names that are only ugly are messages.
func TestOddArrivals(t *testing.T) {
	t.Parallel()
	_, location := mailDir(t)
	s := serve(t, location, "")
	root := s.root("ada")
	other := newOther(t, s.imap, "ben")
	idler := login(t, s.imap, "ada")
	idler.ok("APPEND INBOX {}", "Subject: to be replaced\r\n\r\n")
	idler.ok("SELECT INBOX")
	c := login(t, s.imap, "ada")
	c.ok("SELECT INBOX")
	idler.idle()

	outside := filepath.Join(root, "tmp", "odd")
	kinds := []struct {
		name string
		make func() error
	}{
		{"fifo", func() error { return unix.Mkfifo(outside, 0o666) }},
		{"socket", func() error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: outside, Net: "unix"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}},
		{"device", func() error { return unix.Mknod(outside, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }}, // /dev/zero
		{"loop", func() error { return os.Symlink("1700000000.loop:2,", outside) }},
		{"directory", func() error { return os.Mkdir(outside, 0o755) }},
		{"line\nbreak", func() error { return os.WriteFile(outside, []byte("Subject: x\n\n"), 0o644) }},
	}
	messages, left := 1, []string{}
	other.during(t, func() {
		for i, kind := range kinds {
			for _, part := range []string{"new", "cur"} {
				err := kind.make()
				if kind.name == "device" && os.Geteuid() != 0 {
					continue
				}
				must(t, err)
				own(t, outside)
				file := filepath.Join(root, part, "1700000000."+kind.name+map[string]string{"cur": ":2,"}[part])
				must(t, os.Rename(outside, file))
				left = append(left, file)
				writeMail(t, root, messages)()
				messages++
				idler.exists(messages)
			}
			if got := c.ok("NOOP"); find(got, fmt.Sprintf(`^\* %d EXISTS`, messages)) == nil {
				t.Errorf("after %s: %q", kind.name, got)
			}
			c.ok("FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[])")
			c.ok(fmt.Sprintf("STORE %d +FLAGS (\\Seen)", i+1))
		}
		for _, name := range []string{"new/1700000001.\xff\xc0\x80", "cur/1700000001.\xed\xa0\x80\xfe:2,F"} {
			writeFile(t, outside, "Subject: ugly\n\n")
			must(t, os.Rename(outside, filepath.Join(root, name)))
			messages++
			idler.exists(messages)
			c.ok("NOOP")
			if got := c.ok(fmt.Sprintf("FETCH %d BODY.PEEK[]", messages)); find(got, "Subject: ugly") == nil {
				t.Errorf("FETCH of %q: %q", name, got)
			}
			c.ok(fmt.Sprintf("STORE %d +FLAGS (\\Answered)", messages))
		}
	})
	for _, file := range left {
		if _, err := os.Lstat(file); err != nil {
			t.Errorf("what is no message was not left alone: %v", err)
		}
		s.waitLog(t, `level=WARN.*`+filepath.Base(filepath.Dir(file))+`/1700000000\.`+strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file[strings.Index(file, ".")+1:]), ":2,"), "\n", `\\\\?n`))
	}
	fresh := login(t, s.imap, "ada")
	if got := fresh.ok("SELECT INBOX"); find(got, fmt.Sprintf(`^\* %d EXISTS`, messages)) == nil {
		t.Errorf("a fresh session is told %q, not %d messages", got, messages)
	}
}

// A file that is no message takes the place of one: the message is gone, and who reads it does not wait.
func TestOddReplacements(t *testing.T) {
	t.Parallel()
	_, location := mailDir(t)
	bigINBOX(t, strings.ReplaceAll(location, "%u", "ada"), 3)
	s := serve(t, location, "")
	root := s.root("ada")
	idler, c := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	idler.ok("SELECT INBOX")
	c.ok("SELECT INBOX")
	idler.idle()
	files, err := filepath.Glob(filepath.Join(root, "cur", "*"))
	must(t, err)
	odd := filepath.Join(root, "tmp", "odd")
	s.tolerate = "message can't be read" // it is a symlink
	for i, kind := range []struct {
		make    func() error
		refusal string
	}{
		{func() error { return unix.Mkfifo(odd, 0o666) }, "NO [EXPUNGEISSUED] "},
		{func() error { return os.Symlink(filepath.Base(files[1]), odd) }, "NO [UNAVAILABLE] "},
	} {
		must(t, kind.make())
		own(t, odd)
		must(t, os.Rename(odd, files[i]))
		idler.until("* 1 EXPUNGE")
		if got := c.refused("FETCH 1 BODY.PEEK[]"); !strings.HasPrefix(got, kind.refusal) {
			t.Errorf("FETCH of what is gone: %s", got)
		}
		c.ok("NOOP")
	}
	if got := c.ok("FETCH 1:* (UID BODY.PEEK[])"); len(got) != 1 || !strings.HasPrefix(got[0], "* 1 FETCH (UID 3 ") {
		t.Errorf("left: %q", got)
	}
}

var statusOfLink = regexp.MustCompile(`^(OK|NO \[(CANNOT|NONEXISTENT)\]) `)

// Folders arrive that are symlinks in a circle, or lead to a folder above.
func TestFolderLoops(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			_, location := mailDir(t)
			s := serve(t, location, layout.maildird)
			root := s.root("ada")
			idler, c := login(t, s.imap, "ada"), login(t, s.imap, "ada")
			c.ok("CREATE Box")
			idler.ok("SELECT Box")
			idler.idle()
			dot := map[string]string{".": ".", "/": ""}[layout.sep]
			for i, link := range []struct{ name, to string }{
				{dot + "Self", dot + "Self"},
				{dot + "One", dot + "Other"}, {dot + "Other", dot + "One"},
				{dot + "Root", "."}, {dot + "Above", ".."},
				{dot + "Box/" + dot + "In", "."}, {dot + "Box/" + dot + "Out", ".."},
			} {
				must(t, os.Symlink(link.to, filepath.Join(root, link.name)))
				writeMail(t, filepath.Join(root, dot+"Box"), i)()
				idler.exists(i + 1)
				got := c.ok(`LIST "" * RETURN (STATUS (MESSAGES))`)
				if n := len(got); n > 20 {
					t.Errorf("%d responses to LIST", n)
				}
				if want := fmt.Sprintf(`^\* STATUS "?Box"? \(MESSAGES %d\)`, i+1); find(got, want) == nil {
					t.Errorf("listed with %s -> %s: %q", link.name, link.to, got)
				}
				name := strings.TrimPrefix(filepath.Base(link.name), dot)
				if strings.Contains(link.name, "Box/") {
					name = "Box" + layout.sep + name
				}
				if a := c.do("STATUS " + name + " (MESSAGES)"); !statusOfLink.MatchString(a.tagged) {
					t.Errorf("STATUS %s: %s", name, a.tagged)
				}
			}
		})
	}
}
