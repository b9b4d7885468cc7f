package e2e

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Ten connections delete, rename and select one mailbox at the same time. One of those that delete or
// rename it wins, or none where the strategy lets the sessions win that select it; no message is lost. A
// session whose SELECT comes at the same moment may get a BYE under each strategy.
func TestOneWins(t *testing.T) {
	t.Parallel()
	answers := regexp.MustCompile(`^(OK|NO \[(NONEXISTENT|INUSE|ALREADYEXISTS|NEWNAME X Y[0-9])\]) `)
	for _, c := range []struct {
		name, policy string
		refuses      bool
	}{
		{"default", "", false},
		{"refuse", "delete = \"refuse\"\nrename = \"refuse\"", true},
		{"ghost", `delete = "ghost"`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, location := mailDir(t)
			s := serve(t, location, "[policy]\n"+c.policy)
			first := login(t, s.imap, "ada")
			for round := range 5 {
				first.ok("CREATE X")
				for range 3 {
					first.ok("APPEND X {}", otherMail)
				}
				commands := []string{"DELETE X", "DELETE X", "DELETE X"}
				for i := range 4 {
					commands = append(commands, fmt.Sprintf("RENAME X Y%d", i))
				}
				commands = append(commands, "SELECT X", "SELECT X", "SELECT X")
				conns := make([]*conn, len(commands))
				for i := range conns {
					conns[i] = login(t, s.imap, "ada")
				}

				said := make([]string, len(commands)) // the tagged answers
				var racing sync.WaitGroup
				for i, command := range commands {
					racing.Go(func() {
						conn := conns[i]
						fmt.Fprintf(conn, "R %s\r\n", command)
						said[i] = conn.tagged("R")
					})
				}
				racing.Wait()

				won := 0
				for i, command := range commands {
					switch {
					case said[i] == "" && command == "SELECT X": // BYE
					case !answers.MatchString(said[i] + " "):
						t.Errorf("round %d: %s: %q", round, command, said[i])
					case strings.HasPrefix(said[i], "OK") && command != "SELECT X":
						won++
					}
				}
				selected := 0
				for i, command := range commands {
					if command != "SELECT X" || !strings.HasPrefix(said[i], "OK") {
						continue
					}
					selected++
					fmt.Fprintf(conns[i], "F FETCH 1:3 BODY.PEEK[]\r\n")
					if got := conns[i].tagged("F"); won == 0 && !strings.HasPrefix(got, "OK") {
						t.Errorf("round %d: a session that selected it is answered %q", round, got)
					}
				}
				if won != 1 && !(c.refuses && won == 0 && selected > 0) {
					t.Errorf("round %d: %d of the commands won: %q", round, won, said)
				}
				for _, conn := range conns {
					conn.Close()
				}
				wantOnePlace(t, first, won == 0 || !strings.Contains(strings.Join(said[:3], "\n"), "OK"))
			}
		})
	}
}

// tagged reads up to the answer of a tag, and returns it; it is "" if the connection ends before.
func (c *conn) tagged(tag string) string {
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		line, err := c.r.ReadString('\n')
		if err == io.EOF || err != nil && strings.Contains(err.Error(), "reset") {
			return ""
		}
		if err != nil {
			c.t.Errorf("read: %v", err)
			return err.Error()
		}
		if answer, ok := strings.CutPrefix(strings.TrimSpace(line), tag+" "); ok {
			return answer
		}
	}
}

// wantOnePlace fails the test unless X, or what became of it, is in one place with its three messages, or
// was deleted. It deletes it, which a session that is just leaving may still prevent.
func wantOnePlace(t *testing.T, c *conn, there bool) {
	t.Helper()
	var names []string
	for _, line := range c.ok(`LIST "" "%" RETURN (STATUS (MESSAGES))`) {
		name := line[strings.LastIndexByte(line, ' ')+1:]
		switch {
		case strings.HasPrefix(line, "* STATUS INBOX "):
		case strings.HasPrefix(line, "* STATUS "):
			if !strings.HasSuffix(line, "(MESSAGES 3)") {
				t.Errorf("messages are lost: %s", line)
			}
		case name != "INBOX":
			names = append(names, name)
		}
	}
	if want := map[bool]int{true: 1}[there]; len(names) != want {
		t.Errorf("there are the mailboxes %q", names)
	}
	deadline := time.Now().Add(patience)
	for _, name := range append(names, "X") { // X: until its ghost is gone
		for {
			a := c.do("CREATE " + name)
			if a = c.do("DELETE " + name); strings.HasPrefix(a.tagged, "OK") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("DELETE %s: %s", name, a.tagged)
			}
		}
	}
}
