package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// withoutRace builds maildird as it is shipped, for figures.
func withoutRace(b *testing.B) {
	b.Helper()
	dir := peers.Dir(b)
	race := maildirdPath
	maildirdPath = filepath.Join(dir, "maildird")
	b.Cleanup(func() { maildirdPath = race })
	if out, err := exec.Command("go", "build", "-o", maildirdPath, "github.com/imapmaildir/imapmaildir/cmd/maildird").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// resident is how much memory the server has, in bytes, when it has had time to give back what it does
// not need: it is looked at until it falls no more for seven seconds.
func (s *server) resident(b *testing.B) int64 {
	b.Helper()
	least, since := int64(0), time.Now()
	for ; time.Since(since) < 7*time.Second; time.Sleep(100 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		kib, _ := strconv.ParseInt(regexp.MustCompile(`VmRSS:\s+(\d+)`).FindStringSubmatch(string(status))[1], 10, 64)
		if rss := kib << 10; least == 0 || rss < least {
			least, since = rss, time.Now()
		}
	}
	return least
}

// bigINBOX makes an INBOX of n messages that were read, named as a delivery agent does.
func bigINBOX(b testing.TB, root string, n int) {
	b.Helper()
	for _, part := range []string{"cur", "new", "tmp"} {
		must(b, os.MkdirAll(filepath.Join(root, part), 0o700))
	}
	first := ""
	for i := range n {
		name := filepath.Join(root, "cur", fmt.Sprintf("%d.M%06dP14033Q%d.mail.example.org,S=1302,W=1337:2,S", 1795424725+i, (i*7919)%1_000_000, i%1000))
		if i%20_000 == 0 { // a file system has its limit of links
			first = name
			must(b, os.WriteFile(name, []byte("Subject: hello\n\n"+strings.Repeat("x", 1286)), 0o600))
			continue
		}
		must(b, os.Link(first, name))
	}
	own(b, filepath.Dir(root))
}

// Resident memory of the real maildird, above what it has with nobody there: for each message of an
// open mailbox, for each connection that waits in IDLE, and for each that says nothing.
func BenchmarkMemory(b *testing.B) {
	withoutRace(b)
	const messages, connections = 100_000, 1000
	b.Run("message", func(b *testing.B) {
		for b.Loop() {
			_, location := mailDir(b)
			bigINBOX(b, strings.ReplaceAll(location, "%u", "ada"), messages)
			s := serve(b, location, "")
			login(b, s.imap, "ben").ok("SELECT INBOX")
			empty := s.resident(b)
			c := login(b, s.imap, "ada")
			c.ok("SELECT INBOX")
			first := s.resident(b)
			b.ReportMetric(float64(first-empty)/messages, "B/message-first")
			s.stop(b)
			s = serve(b, location, "") // the list is there by now
			login(b, s.imap, "ben").ok("SELECT INBOX")
			empty = s.resident(b)
			login(b, s.imap, "ada").ok("SELECT INBOX")
			b.ReportMetric(float64(s.resident(b)-empty)/messages, "B/message")
			b.ReportMetric(float64(empty)/(1<<20), "MB/empty")
			s.stop(b)
		}
	})
	for name, connect := range map[string]func(b *testing.B, addr string){
		"connection-greeted": func(b *testing.B, addr string) { dial(b, addr) },
		"connection-idle": func(b *testing.B, addr string) {
			c := login(b, addr, "ada")
			c.ok("SELECT INBOX")
			c.send("i IDLE\r\n")
			c.read()
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, location := mailDir(b)
				s := serve(b, location, "")
				login(b, s.imap, "ada").ok("SELECT INBOX")
				empty := s.resident(b)
				var all sync.WaitGroup
				for range connections {
					all.Go(func() { connect(b, s.imap) })
				}
				all.Wait()
				b.ReportMetric(float64(s.resident(b)-empty)/connections, "B/connection")
				s.stop(b)
			}
		})
	}
}
