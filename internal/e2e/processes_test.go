package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// processes are n maildirds on one Maildir, and a session on each of them.
func processes(t *testing.T, n int, policy string) (servers []*server, sessions []*conn) {
	t.Helper()
	_, location := mailDir(t)
	for range n {
		s := serve(t, location, "[policy]\n"+policy)
		servers = append(servers, s)
		sessions = append(sessions, login(t, s.imap, "ada"))
	}
	return servers, sessions
}

// Two maildirds, and ten, give the same UIDs to the same messages, whoever sees them first, and what is
// changed by one is heard at once by who idles at the others.
func TestProcessesAgree(t *testing.T) {
	for _, n := range []int{2, 10} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			servers, sessions := processes(t, n, "")
			for _, c := range sessions {
				c.ok("SELECT INBOX")
			}
			deliver := func(i int) {
				t.Helper()
				for j := range 3 { // by one after the other, all in one second
					name := fmt.Sprintf("1700000000.M%dP%d.delivered", (7*j)%3, i)
					writeFile(t, filepath.Join(servers[0].root("ada"), "new", name), fmt.Sprintf("Subject: %d-%d\n\n", i, j))
				}
			}
			agree := func(first *conn, messages int) {
				t.Helper()
				want := first.ok("UID FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]")
				if len(want) != messages {
					t.Fatalf("%d messages, not %d", len(want), messages)
				}
				for i, c := range sessions {
					c.ok("NOOP")
					if got := c.ok("UID FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]"); !slices.Equal(got, want) {
						t.Errorf("process %d has %q, not %q", i, got, want)
					}
				}
			}
			for i, first := range sessions {
				deliver(i)
				first.ok("NOOP")
				agree(first, 3*(i+1))
			}
			for i := range 10 { // and if all see it first
				deliver(n + i)
				for _, c := range sessions {
					c.send("all NOOP\r\n")
				}
				for _, c := range sessions {
					c.answer("all")
				}
				agree(sessions[i%n], 3*(n+i+1))
			}

			idlers := make([]*conn, n)
			for i, s := range servers {
				idlers[i] = login(t, s.imap, "ada")
				idlers[i].ok("EXAMINE INBOX")
				idlers[i].idle()
			}
			hear := func(response string) {
				t.Helper()
				for _, c := range idlers {
					c.until(response)
				}
			}
			messages := 3 * (n + 10)
			for _, c := range sessions {
				c.ok(`STORE 2 +FLAGS.SILENT (\Flagged)`)
				hear(`* 2 FETCH (UID 2 FLAGS (\Flagged))`)
				c.ok(`STORE 2 -FLAGS.SILENT (\Flagged)`)
				hear(`* 2 FETCH (UID 2 FLAGS ())`)
				c.ok("APPEND INBOX {}", otherMail)
				hear(fmt.Sprintf("* %d EXISTS", messages+1))
				c.ok("NOOP")
				c.ok(fmt.Sprintf(`STORE %d +FLAGS.SILENT (\Deleted)`, messages+1))
				c.ok("EXPUNGE")
				hear(fmt.Sprintf("* %d EXPUNGE", messages+1))
			}
		})
	}
}

// A mailbox that a session of any other process has selected is not deleted or renamed (RFC 2180 3.1), and
// a message that one process expunges is still there for who was not told, in each of the others (4.1.1).
func TestProcessesInUse(t *testing.T) {
	const n = 10
	servers, sessions := processes(t, n, "delete = \"refuse\"\nrename = \"refuse\"")
	first := sessions[0]
	first.ok("CREATE FOO")
	first.ok("APPEND FOO {}", otherMail)
	first.ok("APPEND FOO {}", otherMail)
	for i, holder := range sessions {
		holder.ok("EXAMINE FOO")
		for j, c := range sessions {
			if i == j {
				continue
			}
			for _, command := range []string{"DELETE FOO", "RENAME FOO BAR"} {
				if got := c.refused(command); !strings.HasPrefix(got, "NO [INUSE]") {
					t.Errorf("%s by process %d, while process %d has it selected: %s", command, j, i, got)
				}
			}
		}
		holder.ok("UNSELECT")
	}

	for _, c := range sessions {
		c.ok("SELECT FOO")
	}
	first.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	first.ok("EXPUNGE")
	content := fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n%s)", len(otherMail), otherMail)
	for i, c := range sessions[1:] {
		if got := c.ok("FETCH 1 BODY.PEEK[]"); len(got) == 0 || got[0] != content {
			t.Errorf("process %d shows %q of what was expunged", i+1, got)
		}
	}
	ghosts := filepath.Join(servers[0].root("ada"), ".FOO", "tmp", "*.ghost")
	if names, _ := filepath.Glob(ghosts); len(names) != n-1 {
		t.Errorf("%d processes keep the message, not %d", len(names), n-1)
	}
	for i, c := range sessions[1:] {
		if got := c.ok("NOOP"); find(got, `^\* 1 EXPUNGE$`) == nil {
			t.Errorf("process %d tells %q", i+1, got)
		}
	}
	waitNone(t, ghosts)

	for _, c := range sessions {
		c.ok("UNSELECT")
	}
	first.ok("DELETE FOO")
}

// A mailbox that is deleted while sessions of other processes have it selected stays for them, under its name
// for nobody else, until the last one leaves (RFC 2180 3.2).
func TestProcessesDelete(t *testing.T) {
	servers, sessions := processes(t, 10, `delete = "ghost"`)
	first := sessions[0]
	first.ok("CREATE FOO")
	first.ok("APPEND FOO {}", otherMail)
	for _, c := range sessions[1:] {
		c.ok("SELECT FOO")
	}
	first.ok("DELETE FOO")
	content := fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n%s)", len(otherMail), otherMail)
	for i, c := range sessions[1:] {
		if got := c.ok("FETCH 1 BODY.PEEK[]"); len(got) == 0 || got[0] != content {
			t.Errorf("process %d shows %q of what was deleted", i+1, got)
		}
		first.refused("SELECT FOO")
		first.refused("CREATE FOO") // somebody has it still
		c.ok("UNSELECT")
	}
	waitNone(t, filepath.Join(servers[0].root("ada"), "tmp", "*.deleted"))
	first.ok("CREATE FOO")
	if got := first.ok("STATUS FOO (MESSAGES)"); find(got, `MESSAGES 0`) == nil {
		t.Errorf("made again: %q", got)
	}
}

// waitNone waits until no file matches, since another process removes them.
func waitNone(t *testing.T, patterns ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var left []string
		for _, pattern := range patterns {
			names, err := filepath.Glob(pattern)
			must(t, err)
			left = append(left, names...)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left are %q", left)
		}
	}
}
