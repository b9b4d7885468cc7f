package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Ten sessions create, delete, rename and select one name at once. Each command is answered, and what
// is there in the end can be opened.
func TestNamesRace(t *testing.T) {
	answered := regexp.MustCompile(`^(OK|NO \[(NONEXISTENT|ALREADYEXISTS|INUSE|TRYCREATE|NEWNAME [AB] [AB])\])`)
	for _, layout := range layouts {
		for _, strategy := range []string{"disconnect", "refuse", "ghost"} {
			t.Run(layout.name+"/"+strategy, func(t *testing.T) {
				t.Parallel()
				rename := map[string]string{"disconnect": "disconnect", "refuse": "refuse", "ghost": "follow"}[strategy]
				_, location := mailDir(t)
				s := serve(t, location, layout.maildird+"\n"+fmt.Sprintf("[policy]\ndelete = %q\nrename = %q\n", strategy, rename))
				var sessions sync.WaitGroup
				for range 10 {
					sessions.Go(func() {
						c := raceLogin(t, s.imap)
						for range 40 {
							command := []string{"CREATE A", "DELETE A", "RENAME A B", "RENAME B A", "SELECT A", "STATUS A (MESSAGES)",
								"EXAMINE B", "APPEND A {1+}\r\nx", "NOOP", "UNSELECT"}[rand.IntN(10)]
							tagged, err := c.exchange(command)
							if err == errBye {
								c = raceLogin(t, s.imap)
								continue
							}
							selected := command != "UNSELECT" || !strings.HasPrefix(tagged, "BAD") // nothing to unselect
							if err != nil || selected && !answered.MatchString(tagged) {
								t.Errorf("%s: %q, %v", command, tagged, err)
								return
							}
						}
						c.Close()
					})
				}
				sessions.Wait()
				c := login(t, s.imap, "ada")
				for _, line := range c.ok(`LIST "" "*"`) {
					if name := line[strings.LastIndexByte(line, ' ')+1:]; !strings.Contains(line, `\N`) {
						c.ok("SELECT " + name)
						c.ok("UNSELECT")
					}
				}
				for _, name := range []string{"A", "B"} {
					c.do("DELETE " + name)
					c.ok("CREATE " + name) // nothing keeps the name
				}
				if left, _ := filepath.Glob(filepath.Join(s.root("ada"), "tmp", "*")); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		}
	}
}

// A racer is a connection whose server may say BYE at any time.
type racer struct {
	net.Conn
	b []byte // read, not looked at
}

var errBye = errors.New("BYE")

func raceLogin(t *testing.T, addr string) *racer {
	c := raceDial(t, addr)
	if c == nil {
		return nil
	}
	if tagged, err := c.exchange("LOGIN ada pass"); err != nil || !strings.HasPrefix(tagged, "OK") {
		t.Errorf("LOGIN: %q, %v", tagged, err)
	}
	return c
}

func raceDial(t *testing.T, addr string) *racer {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return nil
	}
	return &racer{Conn: conn}
}

// exchange sends a command and returns its tagged response, or errBye.
func (c *racer) exchange(command string) (string, error) {
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "t %s\r\n", command)
	for {
		line, rest, ok := bytes.Cut(c.b, []byte("\r\n"))
		if ok {
			c.b = rest
			if bytes.HasPrefix(line, []byte("* BYE ")) {
				c.Close()
				return "", errBye
			}
			if tagged, ok := bytes.CutPrefix(line, []byte("t ")); ok {
				return string(tagged), nil
			}
			continue
		}
		var b [4096]byte
		n, err := c.Read(b[:])
		c.b = append(c.b, b[:n]...)
		if n == 0 && err != nil {
			return "", err
		}
	}
}

// A session that does not read what it asked for holds up nobody who deletes or renames its mailbox.
// What it was sent before is whole; only the rest is lost.
func TestStuckHolder(t *testing.T) {
	for _, command := range []string{"DELETE Big", "RENAME Big Small"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			_, location := mailDir(t)
			s := serve(t, location, "[policy]\ndelete = \"disconnect\"\nrename = \"disconnect\"\n")
			c := login(t, s.imap, "ada")
			c.ok("CREATE Big")
			mail := "Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 200_000) // more than sockets hold
			c.ok("APPEND Big {}", mail)
			stuck := login(t, s.imap, "ada")
			stuck.ok("SELECT Big")
			stuck.send("f FETCH 1 BODY.PEEK[]\r\n")
			head, err := stuck.r.ReadString('\n') // it has begun
			if err != nil || !strings.HasPrefix(head, "* 1 FETCH (") {
				t.Fatalf("%q, %v", head, err)
			}
			c.ok(command)
			c.ok("CREATE Other")
			got, err := io.ReadAll(stuck.r) // until the server ends the connection
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("the connection does not end")
			}
			body, _, _ := bytes.Cut(got, []byte("* BYE"))
			if n := min(len(body), len(mail)); string(body[:n]) != mail[:n] {
				t.Error("what was sent is not the mail")
			}
		})
	}
}

// What a crash leaves of a mailbox that was deleted and still in use goes when the server is back.
func TestCrashWithGhost(t *testing.T) {
	_, location := mailDir(t)
	const ghost = "[policy]\ndelete = \"ghost\"\n"
	s := serve(t, location, ghost)
	c, holder := login(t, s.imap, "ada"), login(t, s.imap, "ada")
	c.ok("CREATE FOO")
	c.ok("APPEND FOO {}", otherMail)
	holder.ok("SELECT FOO")
	c.ok("DELETE FOO")
	c.refused("CREATE FOO")
	aside := func() []string {
		names, _ := filepath.Glob(filepath.Join(s.root("ada"), "tmp", "*.deleted"))
		return names
	}
	if len(aside()) != 1 {
		t.Fatalf("kept are %q", aside())
	}
	s.kill(t)
	s = serve(t, location, ghost)
	c = login(t, s.imap, "ada")
	c.ok("CREATE FOO")
	for _, line := range c.ok("SELECT FOO") {
		if strings.HasSuffix(line, " EXISTS") && line != "* 0 EXISTS" {
			t.Errorf("the new mailbox has the old one's mail: %s", line)
		}
	}
	if len(aside()) != 0 {
		t.Errorf("left are %q", aside())
	}
	if _, err := os.Stat(filepath.Join(s.root("ada"), ".FOO", "cur")); err != nil {
		t.Error(err)
	}
}
