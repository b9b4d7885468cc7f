package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// The table "Traps" of docs/coexistence.md has a row for each way to do harm to a Maildir that others use
// too, and names its tests. Most of them are here, in trap*_test.go.

// Each test that a row names is there, and each test of a trap is named in its row.
func TestTraps(t *testing.T) {
	_, section, ok := strings.Cut(readFile(t, "../../docs/coexistence.md"), "\n## Traps\n")
	if !ok {
		t.Fatal("docs/coexistence.md has no section Traps")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[int]string{} // what they say of tests
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|.*\|(.*)\|$`).FindAllStringSubmatch(section, -1) {
		number, _ := strconv.Atoi(m[1]) // digits
		if _, twice := rows[number]; twice {
			t.Errorf("trap %d has two rows", number)
		}
		rows[number] = m[2]
	}

	there := map[string]bool{"maildir": true, "internal/e2e": true} // tests, transcripts, and where they are
	for _, pattern := range []string{"*_test.go", "../../maildir/*_test.go", "../../backend/*_test.go", "transcripts/*.txt"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			if name, ok := strings.CutSuffix(filepath.Base(file), ".txt"); ok {
				there[name] = true
				continue
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test(?:Trap(\d\d))?\w*)\(`).FindAllStringSubmatch(readFile(t, file), -1) {
				there[m[1]] = true
				number, _ := strconv.Atoi(m[2])
				if m[2] != "" && !strings.Contains(rows[number], "`"+m[1]+"`") {
					t.Errorf("the row of trap %d does not name %s", number, m[1])
				}
			}
		}
	}
	for number, tests := range rows {
		named := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(tests, -1)
		if len(named) == 0 {
			t.Errorf("trap %d has no test", number)
		}
		for _, m := range named {
			if !there[m[1]] {
				t.Errorf("trap %d: there is no test and no transcript %s", number, m[1])
			}
		}
	}
	if len(rows) != 30 {
		t.Errorf("%d traps", len(rows))
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
