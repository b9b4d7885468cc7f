package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// writeMail writes a mail to tmp/, as a delivery agent does, and returns what puts it into new/.
func writeMail(t testing.TB, root string, number int) (deliver func()) {
	t.Helper()
	name := fmt.Sprintf("%d.M%06dP4711.mail.example.org", 1900000000+number/1_000_000, number%1_000_000)
	tmp := filepath.Join(root, "tmp", name)
	must(t, os.WriteFile(tmp, fmt.Appendf(nil, "Subject: number %d\n\nhello\n", number), 0o600))
	uid, gid := peers.Owner(t)
	must(t, os.Lchown(tmp, uid, gid))
	return func() { must(t, os.Rename(tmp, filepath.Join(root, "new", name))) }
}

// exists reads in IDLE up to an EXISTS.
func (c *conn) exists(n int) {
	c.t.Helper()
	c.until(fmt.Sprintf("* %d EXISTS", n))
}

// reportDeliveries reports the median and the 99th percentile.
func reportDeliveries(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
	b.ReportMetric(0, "ns/op") // has the pauses in it
}

// From the rename into new/ to the EXISTS at a client in IDLE, by maildird and by Dovecot with its
// defaults, where nothing else happens in the mailbox.
func BenchmarkDelivery(b *testing.B) {
	withoutRace(b)
	d := peers.StartDovecot(b, "")
	for _, user := range users {
		d.Maildir(b, user)
	}
	s := serve(b, d.Location(), "")
	for _, size := range []struct {
		name, user string
		messages   int
	}{{"10", "ada", 10}, {"100k", "ben", 100_000}} {
		root := s.root(size.user)
		bigINBOX(b, root, size.messages)
		delivered := 0
		for _, server := range []struct {
			name, addr string
			deliveries int
		}{{"maildird", s.imap, 500}, {"Dovecot", d.Addr, 50}} {
			b.Run(size.name+"/"+server.name, func(b *testing.B) {
				c := login(b, server.addr, size.user)
				c.ok("SELECT INBOX")
				c.idle()
				var took []time.Duration
				for b.Loop() {
					for range server.deliveries {
						deliver := writeMail(b, root, delivered)
						time.Sleep(5*time.Millisecond + rand.N(45*time.Millisecond))
						begin := time.Now()
						deliver()
						delivered++
						c.exists(size.messages + delivered)
						took = append(took, time.Since(begin))
					}
				}
				reportDeliveries(b, took)
				c.send("DONE\r\n")
				c.answer("idle")
				c.ok("LOGOUT")
			})
		}
	}
}

// 10 000 deliveries as fast as two programs can make them, with a session in IDLE: each mail comes once,
// with a UID of its own. Counted are those that come after one that their program delivered later.
func BenchmarkBurst(b *testing.B) {
	withoutRace(b)
	const mails, programs = 10_000, 2
	for _, size := range []struct {
		name     string
		messages int
	}{{"10", 10}, {"100k", 100_000}} {
		b.Run(size.name, func(b *testing.B) {
			for b.Loop() {
				_, location := mailDir(b)
				root := strings.ReplaceAll(location, "%u", "ada")
				bigINBOX(b, root, size.messages)
				s := serve(b, location, "")
				c := login(b, s.imap, "ada")
				c.ok("SELECT INBOX")
				c.idle()
				deliver := make([]func(), mails)
				for i := range deliver {
					deliver[i] = writeMail(b, root, i)
				}
				scans, cpu := s.metric(b, "maildird_scans_total"), s.metric(b, "process_cpu_seconds_total")
				begin := time.Now()
				var all sync.WaitGroup
				for p := range programs {
					all.Go(func() {
						for i := p; i < mails; i += programs {
							deliver[i]()
						}
					})
				}
				var last time.Time
				go func() {
					all.Wait()
					last = time.Now()
				}()
				c.exists(size.messages + mails)
				shown := time.Now()
				all.Wait()
				b.ReportMetric(last.Sub(begin).Seconds(), "s/renames")
				b.ReportMetric(shown.Sub(last).Seconds(), "s/shown")
				b.ReportMetric(s.metric(b, "maildird_scans_total")-scans, "scans")
				b.ReportMetric(s.metric(b, "process_cpu_seconds_total")-cpu, "cpu-s")
				c.send("DONE\r\n")
				c.answer("idle")
				b.ReportMetric(float64(wantBurst(b, c, size.messages, mails, programs)), "disordered")
				s.stop(b)
			}
		})
	}
}

var numbered = regexp.MustCompile(`^\* (\d+) FETCH \(UID (\d+) BODY\[[^\r]*\r\nSubject: number (\d+)\r\n`)

// wantBurst looks at what came after the first messages of a mailbox.
func wantBurst(t testing.TB, c *conn, first, mails, programs int) (disordered int) {
	t.Helper()
	got := c.ok(fmt.Sprintf("FETCH %d:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])", first+1))
	if len(got) != mails {
		t.Errorf("%d messages came, not %d", len(got), mails)
	}
	uid, last, seen := 0, make([]int, programs), make([]bool, mails)
	for i, line := range got {
		m := numbered.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("FETCH: %q", line)
		}
		var n [3]int
		for j := range n {
			fmt.Sscan(m[j+1], &n[j])
		}
		if n[0] != first+i+1 || n[1] <= uid || seen[n[2]] {
			t.Fatalf("%q after UID %d", line, uid)
		}
		uid, seen[n[2]] = n[1], true
		if p := n[2] % programs; n[2] < last[p] {
			disordered++
		} else {
			last[p] = n[2]
		}
	}
	return disordered
}

// 5000 connections in IDLE, in two INBOXes and then in a mailbox each: what a mailbox costs that is watched.
func BenchmarkWatched(b *testing.B) {
	withoutRace(b)
	const mailboxes = 5000
	for b.Loop() {
		_, location := mailDir(b)
		for i := range mailboxes {
			for _, part := range []string{"cur", "new", "tmp"} {
				must(b, os.MkdirAll(filepath.Join(folder(location, i), part), 0o700))
			}
		}
		for _, user := range users {
			own(b, filepath.Dir(strings.ReplaceAll(location, "%u", user)))
		}
		var rss, heap [2]float64
		for round, name := range []func(int) string{
			func(int) string { return "INBOX" },
			func(i int) string { return fmt.Sprintf("B%d", i) },
		} {
			s := serve(b, location, "\n[limits]\nconnections_per_address = 0\n")
			conns := make([]*conn, mailboxes)
			var all sync.WaitGroup
			for part := range 10 {
				all.Go(func() {
					for i := part; i < mailboxes; i += 10 {
						conns[i] = login(b, s.imap, users[i%len(users)])
						conns[i].ok("SELECT " + name(i))
						conns[i].idle()
					}
				})
			}
			all.Wait()
			if b.Failed() {
				b.FailNow()
			}
			rss[round] = float64(s.resident(b))
			heap[round] = s.metric(b, "go_memstats_heap_alloc_bytes")
			if round == 0 {
				s.stop(b)
				for _, c := range conns {
					c.Close()
				}
				continue
			}
			b.ReportMetric(rss[1]/(1<<20), "MB")
			b.ReportMetric((rss[1]-rss[0])/mailboxes, "B/mailbox")
			b.ReportMetric((heap[1]-heap[0])/mailboxes, "B-heap/mailbox")
			files, instances, watches := s.descriptors(b)
			b.ReportMetric(float64(files), "files")
			b.ReportMetric(float64(instances), "inotify-instances")
			b.ReportMetric(float64(watches), "inotify-watches")
			var took []time.Duration
			for n := range 200 {
				i := rand.N(mailboxes/200) + n*(mailboxes/200)
				deliver := writeMail(b, folder(location, i), n)
				time.Sleep(5*time.Millisecond + rand.N(45*time.Millisecond))
				begin := time.Now()
				deliver()
				conns[i].exists(1)
				took = append(took, time.Since(begin))
			}
			reportDeliveries(b, took)
			s.stop(b)
		}
	}
}

// folder is the directory of the mailbox with a number; they belong to all users in turn.
func folder(location string, i int) string {
	return filepath.Join(strings.ReplaceAll(location, "%u", users[i%len(users)]), fmt.Sprintf(".B%d", i))
}

// descriptors counts the server's descriptors, and the inotify instances and watches that it has.
func (s *server) descriptors(t testing.TB) (files, instances, watches int) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	fds, err := os.ReadDir(proc + "fd")
	must(t, err)
	for _, fd := range fds {
		target, err := os.Readlink(proc + "fd/" + fd.Name())
		if err != nil {
			continue // closed meanwhile
		}
		files++
		if target == "anon_inode:inotify" {
			instances++
			info, err := os.ReadFile(proc + "fdinfo/" + fd.Name())
			must(t, err)
			watches += strings.Count(string(info), "inotify wd:")
		}
	}
	return files, instances, watches
}

// runtimeCalls are system calls that Go's runtime makes to run goroutines and to wait.
var runtimeCalls = regexp.MustCompile(`^(futex|epoll_pwait|nanosleep|sched_\w+|madvise|mmap|munmap|mprotect|getpid|gettid|tgkill|` +
	`rt_sig\w+|sigaltstack|restart_syscall|clone3?|set_robust_list|rseq)$`)

// The system calls of a delivery do not grow with the mailbox: no directory is read, nor all of a file.
func TestDeliveryCalls(t *testing.T) {
	peers.Need(t, "strace")
	const deliveries, most = 20, 80
	for _, messages := range []int{10, 20_000} {
		t.Run(fmt.Sprint(messages), func(t *testing.T) {
			_, location := mailDir(t)
			root := strings.ReplaceAll(location, "%u", "ada")
			bigINBOX(t, root, messages)
			s := serve(t, location, "")
			c := login(t, s.imap, "ada")
			c.ok("SELECT INBOX")
			c.idle()
			deliver := func(i int) {
				writeMail(t, root, i)()
				c.exists(messages + i + 1)
				time.Sleep(50 * time.Millisecond) // a delivery during the look after this one would share that
			}
			deliver(0)
			calls := s.trace(t, func() {
				for i := range deliveries {
					deliver(i + 1)
				}
			})
			sum := 0
			for _, name := range slices.SortedFunc(maps.Keys(calls), func(a, b string) int { return calls[b] - calls[a] }) {
				t.Logf("%5.1f %s", float64(calls[name])/deliveries, name)
				if !runtimeCalls.MatchString(name) {
					sum += calls[name]
				}
			}
			t.Logf("%5.1f in all, without the runtime's", float64(sum)/deliveries)
			if sum > most*deliveries || calls["getdents64"] > 0 {
				t.Errorf("%.1f system calls for a delivery, more than %d", float64(sum)/deliveries, most)
			}
		})
	}
}

var call = regexp.MustCompile(`^\d+ +(\w+)\(`)

// trace counts the server's system calls while f runs.
func (s *server) trace(t testing.TB, f func()) map[string]int {
	t.Helper()
	file := filepath.Join(peers.Dir(t), "trace")
	cmd := exec.Command("strace", "-f", "-o", file, "-p", fmt.Sprint(s.cmd.Process.Pid))
	said, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.Contains(line, "attached") {
		cmd.Process.Kill()
		cmd.Wait()
		t.Skipf("strace can't look at another process: %s", line)
	}
	f()
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait() // ends by the signal
	text, err := os.ReadFile(file)
	must(t, err)
	calls := map[string]int{}
	for line := range strings.SplitSeq(string(text), "\n") {
		if m := call.FindStringSubmatch(line); m != nil {
			calls[m[1]]++
		}
	}
	return calls
}
