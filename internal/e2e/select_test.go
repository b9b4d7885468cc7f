package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// SELECT of the same INBOX by maildird and by Dovecot: first, by whoever knows nothing of it; known,
// by a new process that finds what another one wrote down; again, by a session that had it selected.
func BenchmarkSelect(b *testing.B) {
	withoutRace(b)
	d := peers.StartDovecot(b, "")
	maildird := func(b *testing.B) (addr string, stop func()) {
		s := serve(b, d.Location(), "")
		return s.imap, func() { s.stop(b) }
	}
	dovecot := func(b *testing.B) (addr string, stop func()) { // makes a process for each connection
		return d.Addr, func() {}
	}
	for _, size := range []struct {
		name, user string
		messages   int
	}{{"10k", "ada", 10_000}, {"100k", "ben", 100_000}} {
		root := d.Maildir(b, size.user)
		bigINBOX(b, root, size.messages)
		past := time.Now().Add(-time.Hour) // what is old needs no second look
		for _, part := range []string{"cur", "new"} {
			must(b, os.Chtimes(filepath.Join(root, part), past, past))
		}
		exists := fmt.Sprintf(`^\* %d EXISTS`, size.messages)
		sel := func(c *conn) {
			if told := c.ok("SELECT INBOX"); find(told, exists) == nil {
				b.Fatalf("SELECT: %q", told)
			}
		}
		forget := func() {
			for _, pattern := range []string{"dovecot*", "imapmaildir.cache"} {
				files, err := filepath.Glob(filepath.Join(root, pattern))
				must(b, err)
				for _, file := range files {
					must(b, os.Remove(file))
				}
			}
		}
		for _, state := range []string{"first", "known", "again"} {
			for _, server := range []struct {
				name  string
				start func(*testing.B) (string, func())
			}{{"maildird", maildird}, {"Dovecot", dovecot}} {
				b.Run(fmt.Sprintf("%s/%s/%s", size.name, state, server.name), func(b *testing.B) {
					addr, stop := server.start(b)
					c := login(b, addr, size.user)
					sel(c)
					for b.Loop() {
						b.StopTimer()
						c.ok("UNSELECT")
						if state != "again" {
							c.ok("LOGOUT")
							stop()
							if state == "first" {
								forget()
							}
							addr, stop = server.start(b)
							c = login(b, addr, size.user)
						}
						b.StartTimer()
						sel(c)
					}
					c.ok("LOGOUT")
					stop()
				})
			}
		}
	}
}
