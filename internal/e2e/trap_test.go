package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// The table "Traps" of docs/coexistence.md has a row for each way to do harm to a Maildir that others use
// too, and names its tests. Most of them are here, in trap*_test.go.

// Each trap has its row, and each test that a row names is there.
func TestTraps(t *testing.T) {
	text := readFile(t, "../../docs/coexistence.md")
	_, section, ok := strings.Cut(text, "\n## Traps\n")
	if !ok {
		t.Fatal("docs/coexistence.md has no section Traps")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	there := map[string]bool{}
	for _, pattern := range []string{"*_test.go", "../../maildir/*_test.go", "../../backend/*_test.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`).FindAllStringSubmatch(readFile(t, file), -1) {
				there[m[1]] = true
			}
		}
	}
	rows := regexp.MustCompile(`(?m)^\| (\d+) \|.*\|(.*)\|$`).FindAllStringSubmatch(section, -1)
	numbers := map[string]bool{}
	for _, row := range rows {
		number, tests := row[1], regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1)
		if numbers[number] {
			t.Errorf("trap %s has two rows", number)
		}
		numbers[number] = true
		if len(tests) == 0 {
			t.Errorf("trap %s has no test", number)
		}
		for _, test := range tests {
			_, err := os.Stat(filepath.Join("transcripts", test[1]+".txt"))
			if !there[test[1]] && err != nil {
				t.Errorf("trap %s: there is no test and no transcript %s", number, test[1])
			}
		}
	}
	if len(numbers) == 0 {
		t.Error("the table has no rows")
	}
}

// beside starts Dovecot and maildird on one Maildir, which is ada's and has no mail. more is maildird's.
func beside(t *testing.T, more string) (d *peers.Dovecot, s *server, root string) {
	t.Helper()
	d = peers.StartDovecot(t, "")
	root = d.Maildir(t, "ada")
	makeMailbox(t, root, ".")
	return d, serve(t, d.Location(), more), root
}

// wantSameMail fails the test if the two servers do not say the same of each mailbox.
func wantSameMail(t *testing.T, d *peers.Dovecot, s *server, user string) map[string]mailbox {
	t.Helper()
	theirs, _ := lookAtAll(t, client(t, d.Addr, user, nil))
	ours, _ := lookAtAll(t, s.client(t, user, nil))
	wantSameMailboxes(t, "Dovecot and maildird", ours, theirs)
	return ours
}

// uids are those of the messages of the selected mailbox, as SEARCH tells them.
func (c *conn) uids() string {
	c.t.Helper()
	m := find(c.ok("UID SEARCH ALL"), `^\* SEARCH ?(.*)$`)
	if m == nil {
		c.fail("no SEARCH response")
		return ""
	}
	return m[1]
}

// makeMailbox makes a folder with cur, new and tmp, or completes it; name is a directory in the root.
func makeMailbox(t *testing.T, root, name string) string {
	t.Helper()
	dir := filepath.Join(root, name)
	for _, part := range []string{"cur", "new", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(dir, part), 0o770))
	}
	own(t, dir)
	return dir
}
