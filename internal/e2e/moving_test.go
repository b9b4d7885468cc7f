package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
	"github.com/imapmaildir/imapmaildir/maildir"
)

var (
	// commandLine is what mbsync -Dn prints of a command that it sends.
	commandLine = regexp.MustCompile(`(?m)^(?:\(\d+ in progress\) )?>>> \d+ (.*?)\r?$`)
	// looking are the commands that fetch no mail and change nothing.
	looking = regexp.MustCompile(`^(AUTHENTICATE|LOGIN|CAPABILITY|NAMESPACE|LIST|SELECT|CLOSE|LOGOUT|UID FETCH [\d:,]+ \(UID FLAGS\)$|UID FETCH \* \(UID\)$)`)
)

// wantNothing runs mbsync with the state that it has, and wants it to do nothing: by its counts, by the
// commands that it sends, and by what is on disk on both sides. far is the account's Maildir.
func (m *mbsync) wantNothing(t *testing.T, what, addr, far string, mailboxes int) {
	t.Helper()
	near, server := mailTree(t, m.dir), mailTree(t, far)
	out, err := m.command(t, addr, "", "-Dn").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: mbsync: %v\n%s", what, err, out)
	}
	selected := 0
	for _, c := range commandLine.FindAllStringSubmatch(string(out), -1) {
		if !looking.MatchString(c[1]) {
			t.Errorf("%s: mbsync sends %q", what, c[1])
		}
		if strings.HasPrefix(c[1], "SELECT ") {
			selected++
		}
	}
	if selected != mailboxes {
		t.Errorf("%s: mbsync selects %d mailboxes, not %d\n%s", what, selected, mailboxes, out)
	}
	said := strings.TrimSpace(m.count(t, addr, ""))
	if none := fmt.Sprintf("C: 1/1  B: %d/%[1]d  F: +0/0 *0/0 #0/0  N: +0/0 *0/0 #0/0", mailboxes); !strings.HasSuffix(said, none) {
		t.Errorf("%s: mbsync does not say %q:\n%s", what, none, said)
	}
	wantSameTree(t, what+", here", near, mailTree(t, m.dir))
	wantSameTree(t, what+", on the server", server, mailTree(t, far))
}

// mailTree is the tree of an account without what each server keeps for itself.
func mailTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := tree(t, dir)
	maps.DeleteFunc(files, func(name, _ string) bool {
		name = filepath.Base(name)
		return strings.HasPrefix(name, "dovecot.") || strings.HasPrefix(name, "imapmaildir.") || name == "mbsyncrc"
	})
	return files
}

// wantCarried changes an account on both sides, and wants mbsync to carry over that and no more. The
// account has mail in its INBOX, and a mailbox work, which is "Work" for mbsync.
func (m *mbsync) wantCarried(t *testing.T, what, addr string, c *imapclient.Client, work string) {
	t.Helper()
	fresh := func(where string) string { return fmt.Sprintf("Subject: %s, %s\r\n\r\nNew.\r\n", what, where) }
	appendMail(t, c, work, fresh("there"), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagFlagged}})
	before := messages(t, c, "INBOX")
	_, err := c.Select("INBOX", nil).Wait()
	must(t, err)
	flagged, op := before[0], imap.StoreFlagsAdd
	if strings.Contains(flagged.flags, string(imap.FlagFlagged)) {
		op = imap.StoreFlagsDel
	}
	store(t, c, imap.UIDSetNum(flagged.uid), op, imap.FlagFlagged, "Carried")
	writeFile(t, filepath.Join(m.dir, "Work", "new", fmt.Sprintf("%d.%s.here", time.Now().UnixNano(), filepath.Base(m.dir))),
		strings.ReplaceAll(fresh("here"), "\r\n", "\n"))

	said := m.count(t, addr, "")
	if counts := "F: +1/1 *0/0 #0/0  N: +1/1 *1/1 #0/0"; !strings.HasSuffix(strings.TrimSpace(said), counts) {
		t.Errorf("%s: mbsync does not say %q:\n%s", what, counts, said)
	}
	got := messages(t, c, work)
	if !slices.ContainsFunc(got, func(m message) bool { return tuid.ReplaceAllString(m.text, "") == fresh("here") }) {
		t.Errorf("%s: the server did not get the new message, but has\n%s", what, dump(got))
	}
	var near []string
	for _, name := range files(t, filepath.Join(m.dir, "Work")) {
		near = append(near, crlf(tuid.ReplaceAllString(readFile(t, name), "")))
	}
	if !slices.Contains(near, fresh("there")) {
		t.Errorf("%s: here there is no new message, but %q", what, near)
	}
}

// writeMany writes messages as another program does that knows no server.
func writeMany(t *testing.T, dir string, n int) {
	t.Helper()
	for i := range n {
		name := filepath.Join(dir, "cur", fmt.Sprintf("17%08d.M%dP1.many:2,%s", i/3, i, []string{"", "S", "FS", "RS"}[i%4]))
		must(t, os.WriteFile(name, fmt.Appendf(nil, "Subject: %d\n\nOf many.\n", i), 0o660))
		date := time.Unix(1_700_000_000+int64(i)*60, 0)
		must(t, os.Chtimes(name, date, date))
	}
	own(t, dir)
}

// An account moves from Dovecot to maildird and back, and then with a copy of its Maildir to another
// machine. mbsync, which goes on with the state that it has, transfers nothing.
func TestMoveFromDovecot(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			many := map[string]int{".": 10_000, "/": 300}[layout.sep] // once is enough
			d := peers.StartDovecot(t, layout.dovecot)
			root := d.Maildir(t, "ada")
			theirs := client(t, d.Addr, "ada", nil)
			furnish(t, theirs, "", layout.sep)
			for _, name := range []string{"Archive|2025|Spring|日本|Entwürfe", "Archive|2025|Spring", "Many"} {
				must(t, theirs.Create(strings.ReplaceAll(name, "|", layout.sep), nil).Wait())
			}
			for _, text := range []string{"Subject: one\n\nBy LMTP.\n", "Subject: two\n\nBy LMTP.\n"} {
				d.SendLMTP(t, "ada", text)
			}
			manyDir := filepath.Join(root, map[string]string{".": ".Many", "/": "Many"}[layout.sep])
			writeMany(t, manyDir, many)
			_, err := theirs.Select("INBOX", nil).Wait()
			must(t, err)
			deep := strings.ReplaceAll("Archive|2025|Spring|日本|Entwürfe", "|", layout.sep)
			_, err = theirs.Copy(imap.UIDSetNum(1, 3, 5), deep).Wait()
			must(t, err)
			store(t, theirs, imap.UIDSetNum(4), imap.StoreFlagsAdd, imap.FlagDeleted, imap.FlagFlagged)
			_, err = theirs.Select("Many", nil).Wait()
			must(t, err)
			var gaps imap.UIDSet
			gaps.AddRange(100, 199)
			gaps.AddRange(imap.UID(many-49), imap.UID(many)) // UIDNEXT is above all that is left
			store(t, theirs, gaps, imap.StoreFlagsAdd, imap.FlagDeleted)
			must(t, theirs.Expunge().Close())
			must(t, theirs.Unselect().Wait())

			copied := &mbsync{dir: t.TempDir(), expunge: "None"}
			if out, err := copied.command(t, d.Addr, "").CombinedOutput(); err != nil {
				t.Fatalf("mbsync: %v\n%s", err, out)
			}
			want, subscribed := lookAtAll(t, theirs)
			if n := len(want["Many"].messages); n != many-150 {
				t.Fatalf("Dovecot has %d of many messages", n)
			}
			copied.wantNothing(t, "Dovecot", d.Addr, root, len(want))

			same := func(what string, c *imapclient.Client) {
				t.Helper()
				got, gotSubscribed := lookAtAll(t, c)
				wantSameMailboxes(t, what, want, got)
				if !slices.Equal(subscribed, gotSubscribed) {
					t.Errorf("%s: subscribed are %q, not %q", what, gotSubscribed, subscribed)
				}
			}
			// To us. Dovecot may go on.
			s := serve(t, d.Location(), layout.maildird)
			copied.wantNothing(t, "maildird", s.imap, root, len(want))
			ours := s.client(t, "ada", nil)
			same("maildird", ours)
			copied.wantCarried(t, "maildird", s.imap, ours, "Work")
			want, subscribed = lookAtAll(t, ours)
			ours.Close()
			s.stop(t)

			// And back.
			copied.wantNothing(t, "Dovecot again", d.Addr, root, len(want))
			theirs.Close()
			theirs = client(t, d.Addr, "ada", nil)
			same("Dovecot again", theirs)
			copied.wantCarried(t, "Dovecot again", d.Addr, theirs, "Work")
			want, subscribed = lookAtAll(t, theirs)
			theirs.Close()
			d.WantNoComplaint(t)

			// To another machine.
			home, location := mailDir(t)
			must(t, os.Mkdir(filepath.Join(home, "ada"), 0o755))
			run(t, nil, "cp", "-a", root, filepath.Join(home, "ada", "Maildir"))
			own(t, home)
			s = serve(t, location, layout.maildird)
			copied.wantNothing(t, "copy", s.imap, s.root("ada"), len(want))
			ours = s.client(t, "ada", nil)
			same("copy", ours)
			copied.wantCarried(t, "copy", s.imap, ours, "Work")
		})
	}
}

// An account moves with what else Dovecot's users set.
func TestMoveSettings(t *testing.T) {
	for _, setting := range settings[len(layouts):] {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			d := peers.StartDovecot(t, setting.dovecot, setting.more)
			home := filepath.Dir(d.Maildir(t, "ada"))
			theirs := client(t, d.Addr, "ada", nil)
			furnish(t, theirs, setting.prefix, setting.sep)
			copied := &mbsync{dir: t.TempDir(), expunge: "None"}
			if out, err := copied.command(t, d.Addr, "").CombinedOutput(); err != nil {
				t.Fatalf("mbsync: %v\n%s", err, out)
			}
			const mailboxes = 6

			s := serve(t, d.Location(), strings.ReplaceAll(setting.maildird, "HOME", filepath.Dir(d.Location())))
			copied.wantNothing(t, "maildird", s.imap, home, mailboxes)
			copied.wantCarried(t, "maildird", s.imap, s.client(t, "ada", nil), setting.prefix+"Work")
			copied.wantNothing(t, "Dovecot again", d.Addr, home, mailboxes)
			copied.wantCarried(t, "Dovecot again", d.Addr, theirs, setting.prefix+"Work")
			d.WantNoComplaint(t)
		})
	}
}

// maildirdOnce runs maildird as the owner of the mail, and returns what it says and whether it succeeds.
func maildirdOnce(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), maildirdPath, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	peers.AsOwner(t, cmd)
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// lookAtCourier is lookAtAll for Courier, which knows no LIST-EXTENDED, with names as if they were not all below INBOX.
func lookAtCourier(t *testing.T, addr string, c *imapclient.Client) (mailboxes map[string]mailbox, subscribed []string) {
	t.Helper()
	list, err := c.List("", "*", nil).Collect()
	must(t, err)
	mailboxes = map[string]mailbox{}
	names := map[string]string{} // by what LSUB says
	for _, l := range list {
		if slices.Contains(l.Attrs, imap.MailboxAttrNoSelect) {
			continue
		}
		m := look(t, c, l.Mailbox)
		status, err := c.Status(l.Mailbox, &imap.StatusOptions{UIDNext: true}).Wait() // SELECT does not tell
		must(t, err)
		m.next = status.UIDNext
		name := strings.TrimPrefix(l.Mailbox, "INBOX.")
		mailboxes[name], names[maildir.EncodeUTF7(name)] = m, name
	}
	_, port, _ := strings.Cut(addr, ":")
	out, _ := run(t, nil, "python3", "-c", `
import imaplib, sys
for line in imaplib.IMAP4("127.0.0.1", int(sys.argv[1])).lsub()[1]:
    print(line.decode().split(' "." ')[1].strip('"'))
`, port)
	for name := range strings.Lines(out) {
		name = strings.TrimPrefix(strings.TrimSpace(name), "INBOX.")
		subscribed = append(subscribed, cmp.Or(names[name], name))
	}
	slices.Sort(subscribed)
	return mailboxes, subscribed
}

// An account moves from Courier to maildird, back, and again to maildird. With UTF-8 names, and with what
// import and export carry over, mbsync transfers nothing.
func TestMoveFromCourier(t *testing.T) {
	t.Parallel()
	courier := peers.StartCourier(t)
	root := courier.Maildir()
	dir := peers.Dir(t)
	own(t, dir)
	config := filepath.Join(dir, "maildird.toml")
	writeFile(t, filepath.Join(dir, "users"), "ada:{PLAIN}pass\n")
	writeFile(t, config, fmt.Sprintf(`
[listen]
imap = "127.0.0.1:0"
[auth]
passwd_file = "users"
allow_insecure = true
[mail]
location = %q
names = "utf-8"
`, root))
	// move runs import or export: first without doing it, at last again to no effect.
	move := func(command string) {
		t.Helper()
		before := mailTree(t, root)
		dry, ok := maildirdOnce(t, command, "courier", "-config", config, "-n")
		wantSameTree(t, command+" -n", before, mailTree(t, root))
		said, really := maildirdOnce(t, command, "courier", "-config", config)
		stamp := regexp.MustCompile(`\.before-\S+`)
		if !ok || !really || stamp.ReplaceAllString(dry, "") != stamp.ReplaceAllString(said, "")+"Nothing was changed.\n" {
			t.Errorf("%s says\n%s, with -n\n%s", command, said, dry)
		}
		after := mailTree(t, root)
		if maps.Equal(before, after) {
			t.Errorf("%s does nothing, and says\n%s", command, said)
		}
		said, ok = maildirdOnce(t, command, "courier", "-config", config)
		if !ok {
			t.Errorf("%s a second time says\n%s", command, said)
		}
		wantSameTree(t, command+" a second time", after, mailTree(t, root))
	}

	theirs := client(t, courier.Addr, "ada", nil)
	names := []string{"INBOX.Work", "INBOX.Work.Entwürfe", "INBOX.日本", "INBOX.Archive.2025.Spring", "INBOX.R&D ~"}
	for i, name := range names {
		must(t, theirs.Create(name, nil).Wait())
		if i%2 == 0 {
			must(t, theirs.Subscribe(name).Wait())
		}
	}
	must(t, theirs.Subscribe("INBOX").Wait())
	must(t, theirs.Subscribe("INBOX.Gone").Wait())
	date := time.Date(2001, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600))
	for i := range 20 {
		text := fmt.Sprintf("Subject: %d\r\n\r\nHello.\r\n", i)
		for _, name := range append(names, "INBOX")[:2+i%5] {
			appendMail(t, theirs, name, text, &imap.AppendOptions{Time: date.Add(time.Duration(i) * time.Hour),
				Flags: []imap.Flag{imap.FlagSeen, "$Work", imap.Flag(fmt.Sprintf("kw%d", i%4))}[:i%4]})
		}
		appendMail(t, theirs, "INBOX", text, &imap.AppendOptions{Flags: []imap.Flag{"Other"}[:i%2]})
	}
	_, err := theirs.Select("INBOX", nil).Wait()
	must(t, err)
	store(t, theirs, imap.UIDSetNum(1, 2, 3), imap.StoreFlagsAdd, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDraft, "Late")
	store(t, theirs, imap.UIDSetNum(2), imap.StoreFlagsDel, "Other")
	_, err = theirs.Copy(imap.UIDSetNum(1, 3, 5), "INBOX.日本").Wait()
	must(t, err)
	store(t, theirs, imap.UIDSetNum(7, 8, 9, 20), imap.StoreFlagsAdd, imap.FlagDeleted)
	must(t, theirs.Expunge().Close())
	store(t, theirs, imap.UIDSetNum(5), imap.StoreFlagsAdd, imap.FlagDeleted)

	copied := &mbsync{dir: t.TempDir(), expunge: "None"}
	if out, err := copied.command(t, courier.Addr, "").CombinedOutput(); err != nil {
		t.Fatalf("mbsync: %v\n%s", err, out)
	}
	want, subscribed := lookAtCourier(t, courier.Addr, theirs)
	copied.wantNothing(t, "Courier", courier.Addr, root, len(want))
	theirs.Close()
	same := func(what string, got map[string]mailbox, gotSubscribed []string) {
		t.Helper()
		wantSameMailboxes(t, what, want, got)
		if !slices.Equal(subscribed, gotSubscribed) {
			t.Errorf("%s: subscribed are %q, not %q", what, gotSubscribed, subscribed)
		}
	}

	if said, ok := maildirdOnce(t, "check", "-config", config); ok || !strings.Contains(said, "maildird import courier") {
		t.Errorf("check says nothing of what was not imported:\n%s", said)
	}
	if os.Geteuid() == 0 {
		out, err := exec.CommandContext(t.Context(), maildirdPath, "import", "courier", "-config", config).CombinedOutput()
		if err == nil || !strings.Contains(string(out), ": left as it is: it belongs to the user with uid ") {
			t.Errorf("import by another user says\n%s", out)
		}
	}
	move("import")
	if said, ok := maildirdOnce(t, "check", "-config", config); !ok {
		t.Errorf("check after import says\n%s", said)
	}
	// Dovecot reads it, too.
	d := peers.StartDovecot(t, ":UTF-8")
	other := d.Maildir(t, "ada")
	run(t, nil, "cp", "-a", root+"/.", other)
	copied.wantNothing(t, "Dovecot", d.Addr, other, len(want))
	got, gotSubscribed := lookAtAll(t, client(t, d.Addr, "ada", nil))
	same("Dovecot", got, gotSubscribed)
	d.WantNoComplaint(t)

	s := serve(t, root, "names = 'utf-8'")
	copied.wantNothing(t, "maildird", s.imap, root, len(want))
	ours := s.client(t, "ada", nil)
	got, gotSubscribed = lookAtAll(t, ours)
	same("maildird", got, gotSubscribed)
	copied.wantCarried(t, "maildird", s.imap, ours, "Work")
	want, subscribed = lookAtAll(t, ours)
	ours.Close()
	s.stop(t)

	move("export")
	copied.wantNothing(t, "Courier again", courier.Addr, root, len(want))
	theirs = client(t, courier.Addr, "ada", nil)
	got, gotSubscribed = lookAtCourier(t, courier.Addr, theirs)
	same("Courier again", got, gotSubscribed)
	copied.wantCarried(t, "Courier again", courier.Addr, theirs, "INBOX.Work")
	want, subscribed = lookAtCourier(t, courier.Addr, theirs)
	theirs.Close()

	// With Courier's names, for programs that ask for no namespace.
	move("import")
	s = serve(t, root, "names = 'utf-8'\nprefix = 'INBOX.'")
	copied.wantNothing(t, "maildird again", s.imap, root, len(want))
	got, _ = lookAtAll(t, s.client(t, "ada", nil))
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(slices.Values(append(names, "INBOX"))); !slices.Equal(g, w) {
		t.Errorf("maildird again: mailboxes are %q, and in Courier %q", g, w)
	}
}
