package e2e

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

var veryDirty = flag.Bool("verydirty", false, "whether Dovecot doesn't read directories again for its own changes, in BenchmarkLockUnderLoad")

// A probe is a session that does one small thing again and again, and how long each took.
type probe struct {
	stop chan struct{}
	took chan []time.Duration
	n    atomic.Int64 // so far
}

// startProbe calls act until the probe ends, with a pause of 5 to 35 ms after each.
func startProbe(act func(i int)) *probe {
	p := &probe{stop: make(chan struct{}), took: make(chan []time.Duration, 1)}
	go func() {
		var took []time.Duration
		for i := 0; ; i++ {
			begin := time.Now()
			act(i)
			took = append(took, time.Since(begin))
			p.n.Add(1)
			select {
			case <-p.stop:
				p.took <- took
				return
			case <-time.After(5*time.Millisecond + rand.N(30*time.Millisecond)):
			}
		}
	}()
	return p
}

// end ends the probe and reports the median, the 99th percentile and the longest.
func (p *probe) end(b *testing.B) {
	close(p.stop)
	took := <-p.took
	reportDeliveries(b, took) // sorts
	b.ReportMetric(float64(took[len(took)-1])/float64(time.Millisecond), "max-ms")
	b.ReportMetric(float64(len(took)), "n")
}

// holds are how often the server held a lock, and how often no longer than so many seconds.
func (s *server) holds(t testing.TB) (all float64, within map[float64]float64) {
	t.Helper()
	within = map[float64]float64{}
	for _, le := range []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5} {
		within[le] = s.metric(t, fmt.Sprintf(`maildird_lock_held_seconds_bucket{le="%v"}`, le))
	}
	return s.metric(t, "maildird_lock_held_seconds_count"), within
}

// reportHolds reports how many holds of the lock there were since before, and below what time half of them were, 99 of a
// hundred, and all.
func (s *server) reportHolds(b *testing.B, before float64, within map[float64]float64) {
	all, now := s.holds(b)
	b.ReportMetric(all-before, "holds")
	for name, part := range map[string]float64{"held-p50-ms": .5, "held-p99-ms": .99, "held-max-ms": 1} {
		bound := math.Inf(1)
		for le, n := range now {
			if n-within[le] >= part*(all-before) {
				bound = min(bound, le)
			}
		}
		b.ReportMetric(1000*bound, name)
	}
}

// long is ok for a command that may take its time.
func (c *conn) long(command string) {
	c.t.Helper()
	c.send("long " + command + "\r\n")
	c.longAnswer()
}

func (c *conn) longAnswer() {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * patience))
	for {
		switch line, err := c.next(); {
		case err != nil:
			c.fail("read: %v", err)
		case strings.HasPrefix(line, "long OK"):
			return
		case strings.HasPrefix(line, "long "):
			c.fail("%s", line)
		}
	}
}

// How long Dovecot's STORE and APPEND take in a mailbox of 100 000 messages while nothing else happens
// there, and while another session of Dovecot, or one of maildird, works on it.
func BenchmarkLockUnderLoad(b *testing.B) {
	withoutRace(b)
	const messages, some = 100_000, 10_000
	d := peers.StartDovecot(b, "", "maildir_very_dirty_syncs = "+map[bool]string{true: "yes", false: "no"}[*veryDirty])
	root := d.Maildir(b, "ada")
	bigINBOX(b, root, messages)
	s := serve(b, d.Location(), "")
	blind := serve(b, d.Location(), "\n[watch]\nlimit = 1\n") // hears of nothing, and reads the directories

	big := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 50<<20/78)
	appendBig := func(c *conn, pause time.Duration) {
		c.send(fmt.Sprintf("long APPEND INBOX {%d}\r\n", len(big)))
		for line := c.read(); !strings.HasPrefix(line, "+"); line = c.read() {
		}
		for part := range slices.Chunk([]byte(big), len(big)/50+1) {
			if _, err := c.Write(part); err != nil {
				c.fail("a literal: %v", err)
			}
			time.Sleep(pause)
		}
		c.send("\r\n")
		c.longAnswer()
	}
	status := func(c *conn) (n int) {
		fmt.Sscan(find(c.ok("STATUS INBOX (MESSAGES)"), `MESSAGES (\d+)`)[1], &n)
		return n
	}
	var files []func()
	seen := true
	for _, load := range []struct {
		name    string
		prepare func(c *conn)
		work    func(c *conn)
	}{
		{"none", nil, func(*conn) { time.Sleep(10 * time.Second) }},
		{"append-50MB-slowly", nil, func(c *conn) { appendBig(c, 100*time.Millisecond) }},
		{"append-50MB-fast", nil, func(c *conn) {
			for range 3 {
				appendBig(c, 0)
			}
		}},
		{"seen-100k", nil, func(c *conn) {
			seen = !seen
			c.long("STORE 1:* " + map[bool]string{true: "+", false: "-"}[seen] + `FLAGS.SILENT (\Seen)`)
		}},
		{"copy-10k", func(*conn) {}, func(c *conn) { c.long(fmt.Sprintf(`COPY 1:%d INBOX`, some)) }},
		{"expunge-10k", func(c *conn) {
			n := status(c)
			c.long(fmt.Sprintf(`STORE %d:%d +FLAGS.SILENT (\Deleted)`, n-some+1, n))
		}, func(c *conn) { c.long("EXPUNGE") }},
		{"deliver-10k", func(*conn) {
			files = files[:0]
			for range some {
				files = append(files, writeMail(b, root, int(time.Now().UnixNano()/1000%1_000_000_000)))
			}
		}, func(c *conn) {
			for _, deliver := range files {
				deliver()
			}
			c.long("NOOP")
		}},
		{"scan", nil, func(c *conn) {
			for begin := time.Now(); time.Since(begin) < 10*time.Second; {
				c.long("NOOP")
			}
		}},
	} {
		for _, server := range []struct {
			name, addr string
			s          *server
		}{{"Dovecot", d.Addr, nil}, {"maildird", s.imap, s}} {
			switch {
			case load.name == "none" && server.s != nil:
				continue
			case load.name == "scan" && server.s != nil:
				server.addr, server.s = blind.imap, blind
			}
			for _, act := range []string{"STORE", "APPEND"} {
				b.Run(fmt.Sprintf("%s/%s/%s", load.name, server.name, act), func(b *testing.B) {
					for b.Loop() {
						c, other := login(b, server.addr, "ada"), login(b, d.Addr, "ada")
						c.long("SELECT INBOX")
						if load.prepare != nil {
							load.prepare(c)
						}
						other.long("SELECT INBOX")
						c.long("NOOP")
						var holds float64
						var within map[float64]float64
						if server.s != nil {
							holds, within = server.s.holds(b)
						}
						times, begin := 0, time.Now()
						p := startProbe(func(i int) {
							if act == "APPEND" {
								other.ok("APPEND INBOX {}", otherMail)
								return
							}
							sign := "+-"[i%2 : i%2+1]
							other.long(fmt.Sprintf(`STORE %d %sFLAGS.SILENT (\Flagged)`, 1+i/2%1000, sign))
						})
						for ; times == 0 || load.prepare == nil && p.n.Load() < 100 && time.Since(begin) < 20*time.Second; times++ {
							load.work(c)
						}
						b.ReportMetric(time.Since(begin).Seconds()/float64(times), "s/work")
						p.end(b)
						if server.s != nil {
							server.s.reportHolds(b, holds, within)
						}
						c.ok("LOGOUT")
						other.ok("LOGOUT")
					}
				})
			}
		}
	}
}
