package backend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/backend/cache"
)

// onlyFile is the file that matches pattern.
func onlyFile(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) != 1 {
		t.Fatalf("%s is %q (%v)", pattern, names, err)
	}
	return names[0]
}

// What was parsed once is known after a restart without opening the file: here by the other mail that
// it has by then, with the same size and time, which no honest program would put there. Without the cache
// it shows.
func TestCache(t *testing.T) {
	for _, first := range []string{
		"FETCH 1 ENVELOPE",
		"FETCH 1 BODYSTRUCTURE",
		"FETCH 1 BODY.PEEK[HEADER]", // of a short mail all is read then
		"SEARCH SUBJECT plans",
	} {
		t.Run(first, func(t *testing.T) {
			acct := &backend.Account{
				Root:  filepath.Join(t.TempDir(), "Maildir"),
				Cache: filepath.Join(t.TempDir(), "made", "when needed"),
			}
			const before = "Subject: plans\nDate: Tue, 03 Nov 2026 09:12:41 +0100\n\nHello\n"
			after := strings.NewReplacer("plans", "peace", "2026", "2025").Replace(before)
			answers := func() (all []string) {
				s, stop := start(t, acct)
				defer stop()
				c := dial(t, s.addr)
				c.do("SELECT INBOX")
				for _, command := range []string{first, "FETCH 1 (ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER])", "SEARCH SUBJECT plans SENTSINCE 1-Jan-2026"} {
					untagged, tagged, err := c.exchange(command)
					if err != nil || !strings.HasPrefix(tagged, "OK") {
						t.Fatal(command, tagged, err)
					}
					all = append(all, untagged...)
				}
				return all
			}

			s, stop := start(t, acct)
			c := dial(t, s.addr)
			c.do(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(before), before))
			c.do("SELECT INBOX")
			c.do(first)
			stop()
			want := answers()
			file := onlyFile(t, acct.Root+"/cur/*")
			fi, err := os.Stat(file)
			if err == nil {
				err = os.WriteFile(file, []byte(after), 0o600)
			}
			if err == nil {
				err = os.Chtimes(file, fi.ModTime(), fi.ModTime())
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := answers(); !slices.Equal(got, want) {
				t.Errorf("after a restart\n%q\nnot\n%q", got, want)
			}
			if err := os.Remove(acct.Cache); err != nil {
				t.Fatal(err)
			}
			if got := answers(); slices.Equal(got, want) {
				t.Errorf("without the file that was the cache, still %q", got)
			}
		})
	}
}

// The cache forgets what was expunged while nobody looked, and mailboxes that were deleted.
func TestCacheForgets(t *testing.T) {
	acct := &backend.Account{Root: filepath.Join(t.TempDir(), "Maildir")}
	const mail = "Subject: plans\n\nHello\n"
	inServer := func(commands ...string) {
		t.Helper()
		s, stop := start(t, acct)
		defer stop()
		c := dial(t, s.addr)
		for _, command := range commands {
			c.do(command)
		}
	}
	guid := func(mailbox string) string {
		b, err := os.ReadFile(filepath.Join(acct.Root, mailbox, "dovecot-uidlist"))
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(` G(\w+)\n`).FindStringSubmatch(string(b))[1]
	}
	key := func(pattern string) string {
		base, _, _ := strings.Cut(filepath.Base(onlyFile(t, filepath.Join(acct.Root, pattern))), ":")
		return base
	}
	known := func(guid, key string) bool {
		c := cache.Open(filepath.Join(acct.Root, "imapmaildir.cache"), nil)
		defer c.Close()
		return c.Get(guid, key) != nil
	}
	add := func(mailbox string) string { return fmt.Sprintf("APPEND %s {%d+}\r\n%s", mailbox, len(mail), mail) }

	inServer("CREATE Work", add("INBOX"), add("Work"), "SELECT INBOX", "FETCH 1 ENVELOPE", "SELECT Work", "FETCH 1 ENVELOPE")
	inbox, first := guid(""), key("cur/*")
	work, second := guid(".Work"), key(".Work/cur/*")
	if !known(inbox, first) || !known(work, second) {
		t.Fatal("not known at first")
	}
	if err := os.Remove(onlyFile(t, filepath.Join(acct.Root, "cur/*"))); err != nil {
		t.Fatal(err)
	}
	inServer(add("INBOX"), "SELECT INBOX", "FETCH 1 ENVELOPE", "SELECT Work", "FETCH 1 ENVELOPE")
	if third := key("cur/*"); known(inbox, first) || !known(inbox, third) || !known(work, second) {
		t.Errorf("known are %t of the message that is gone, %t and %t of the others", known(inbox, first), known(inbox, third), known(work, second))
	}
	inServer("SELECT Work", "FETCH 1 ENVELOPE", "UNSELECT", "DELETE Work")
	if known(work, second) {
		t.Error("a mailbox that was deleted is known still")
	}
}
