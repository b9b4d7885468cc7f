package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var renamesTime = flag.Duration("renames", 5*time.Second, "how long TestUnlockedRenames renames, in each mailbox")

// Trap 2: a file is taken for gone that a look does not find, or that one reading of the directory misses. A program
// renames flags at full speed, without any lock, while sessions ask and idle: nothing is expunged, and nothing
// gets another UID.
//
//	go test ./internal/e2e -run TestUnlockedRenames -renames 1m
func TestUnlockedRenames(t *testing.T) {
	for _, n := range []int{300, 5000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := memoryDir(t)
			s := serve(t, filepath.Join(dir, "%u", "Maildir"), "")
			c := login(t, s.imap, "ada")
			cur := filepath.Join(s.root("ada"), "cur")
			name := func(i int, flags string) string {
				return filepath.Join(cur, fmt.Sprintf("%d.churn:2,%s", 1000+i, flags))
			}
			for i := range n {
				must(t, os.WriteFile(name(i, ""), nil, 0o600))
			}
			own(t, cur)
			status := "STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY)"
			want := c.ok(status)[0]

			// Of each session all is counted that must not come: only flags change.
			bad := regexp.MustCompile(`^\* (\d+ (EXPUNGE|EXISTS)|BYE )`)
			var expunged, told atomic.Int64
			see := func(lines ...string) {
				for _, line := range lines {
					if bad.MatchString(line) {
						expunged.Add(1)
					} else if strings.Contains(line, "FLAGS") {
						told.Add(1)
					}
				}
			}
			stop := make(chan struct{})
			var sessions sync.WaitGroup
			var idlers []*conn
			for range 2 {
				asking, idling := login(t, s.imap, "ada"), login(t, s.imap, "ada")
				asking.ok("SELECT INBOX")
				idling.ok("SELECT INBOX")
				idling.idle()
				idling.SetReadDeadline(time.Time{})
				asking.quit = runtime.Goexit
				sessions.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							see(asking.ok("NOOP")...)
						}
					}
				})
				sessions.Go(func() {
					for {
						line, err := idling.next()
						if err != nil || strings.HasPrefix(line, "idle OK") {
							return
						}
						see(line)
					}
				})
				idlers = append(idlers, idling)
			}

			renames := 0
			for end, from, to := time.Now().Add(*renamesTime), "", "S"; time.Now().Before(end); from, to = to, from {
				for i := range n {
					must(t, os.Rename(name(i, from), name(i, to)))
				}
				renames += n
			}
			close(stop)
			for _, c := range idlers {
				c.send("DONE\r\n")
			}
			sessions.Wait()
			got := c.ok(status)[0]
			t.Logf("%d renames; sessions were told of flags %d times", renames, told.Load())
			if bad := expunged.Load(); bad > 0 || got != want {
				t.Errorf("%d EXPUNGE or EXISTS; %s, before: %s", bad, got, want)
			}
			if told.Load() == 0 {
				t.Error("nobody was told of any flags")
			}
		})
	}
}
