package cache_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/imapmaildir/imapmaildir/backend/cache"
	"go.etcd.io/bbolt"
)

// logged returns options whose log goes to the buffer.
func logged(buf *bytes.Buffer) *cache.Options {
	return &cache.Options{Logger: slog.New(slog.NewTextHandler(buf, nil))}
}

// open opens a cache that has nothing to complain of.
func open(tb testing.TB, path string) *cache.Cache {
	tb.Helper()
	var log bytes.Buffer
	c := cache.Open(path, logged(&log))
	tb.Cleanup(func() {
		c.Close()
		if log.Len() > 0 {
			tb.Errorf("log: %s", &log)
		}
	})
	return c
}

func mustClose(tb testing.TB, c *cache.Cache) {
	tb.Helper()
	if err := c.Close(); err != nil {
		tb.Errorf("Close: %v", err)
	}
}

// hurry makes the writer write what waits.
func hurry(c *cache.Cache) { c.Put("much", "a", make([]byte, 3<<20)) }

// key returns the name of the n-th message, as Postfix would give it.
func key(n int) string {
	return fmt.Sprintf("%d.Vfe00I%xM%06d.mail.example.org", 1795426099+37*n, 0x9de1d3+n, n*7919%1000000)
}

// value returns what is to be remembered of the n-th message, sometimes more than a page; gen makes
// it another one.
func value(n, gen int) []byte {
	times := 1 + n%50
	if n%30 == 7 {
		times += 1500
	}
	return bytes.Repeat([]byte(fmt.Sprintf("%d/%d ", n, gen)), times)
}

func want(tb testing.TB, c *cache.Cache, mailbox, key string, want []byte) {
	tb.Helper()
	if got := c.Get(mailbox, key); !bytes.Equal(got, want) || (got == nil) != (want == nil) {
		tb.Fatalf("Get(%q, %q) = %.60q, want %.60q", mailbox, key, got, want)
	}
}

func TestRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path)
	want(t, c, "INBOX", "a", nil)
	c.Put("INBOX", "a", []byte("1"))
	c.Put("INBOX", "b", []byte("2"))
	c.Put("", "a", nil)
	c.Put("Work", "a", []byte("3"))
	c.Put("INBOX", "b", []byte("4"))
	c.Put("INBOX", "", []byte("5")) // no key
	c.Put("INBOX", strings.Repeat("k", 1<<16), []byte("6"))
	c.Put(strings.Repeat("m", 1<<16), "a", []byte("7"))
	check := func() {
		t.Helper()
		want(t, c, "INBOX", "a", []byte("1"))
		want(t, c, "INBOX", "b", []byte("4"))
		want(t, c, "INBOX", "", nil)
		want(t, c, "INBOX", strings.Repeat("k", 1<<16), nil)
		want(t, c, strings.Repeat("m", 1<<16), "a", nil)
		want(t, c, "", "a", []byte{})
		want(t, c, "Work", "a", []byte("3"))
		want(t, c, "Work", "b", nil)
	}
	check()
	mustClose(t, c)
	want(t, c, "INBOX", "a", nil)
	c.Put("INBOX", "a", []byte("6"))
	c.Forget("INBOX")
	c.Retain("INBOX", nil)
	mustClose(t, c)

	c = open(t, path)
	check()
	c.Put("Work", "b", []byte("8"))
	c.Forget("Work")
	c.Forget("none")
	want(t, c, "Work", "a", nil)
	want(t, c, "Work", "b", nil)
	c.Put("Work", "b", nil)
	want(t, c, "Work", "b", []byte{})
	want(t, c, "INBOX", "a", []byte("1"))
	mustClose(t, c)

	c = open(t, path)
	want(t, c, "Work", "a", nil)
	want(t, c, "Work", "b", []byte{})
	want(t, c, "INBOX", "a", []byte("1"))
}

// TestOwnBytes changes what was put and what was got.
func TestOwnBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path)
	b := []byte("123" + strings.Repeat(" ", 2000)) // bbolt copies small buckets itself
	whole := string(b)
	c.Put("m", "a", b)
	b[0] = 'x'
	for range 2 { // waiting, written
		for range 2 {
			got := c.Get("m", "a")
			if string(got) != whole {
				t.Fatalf("got %.60q", got)
			}
			got[0] = 'y'
			_ = append(got, "zzzzzzzzzzzzzzzzzzzzzzzzzzzz"...)
		}
		mustClose(t, c)
		c = open(t, path)
	}
}

// TestHistory does what comes at random, in a file that is opened again and again, beside a map.
func TestHistory(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path)
	twin := make(map[[2]string][]byte)
	mailboxes := []string{"", "INBOX", "Work", "Work.2026"}
	put := func(mailbox string, n, gen int) {
		v := value(n, gen)
		for c.Put(mailbox, key(n), v); !bytes.Equal(c.Get(mailbox, key(n)), v); c.Put(mailbox, key(n), v) {
			runtime.Gosched() // the writer is slower
		}
		twin[[2]string{mailbox, key(n)}] = v
	}
	for step := range 20_000 {
		mailbox := mailboxes[rnd.IntN(len(mailboxes))]
		n := rnd.IntN(300)
		switch rnd.IntN(1000) {
		case 0:
			c.Forget(mailbox)
			for k := range twin {
				if k[0] == mailbox {
					delete(twin, k)
				}
			}
		case 1:
			hurry(c)
		case 2:
			mustClose(t, c)
			c = open(t, path)
		case 3:
			gone := make(map[string]bool)
			for k := range twin {
				if k[0] == mailbox && rnd.IntN(2) == 0 {
					gone[k[1]] = true
					delete(twin, k)
				}
			}
			c.Retain(mailbox, func(key string) bool { return !gone[key] })
			for range rnd.IntN(100) {
				put(mailbox, rnd.IntN(300), step)
			}
			mustClose(t, c)
			c = open(t, path)
		default:
			if rnd.IntN(2) == 0 {
				want(t, c, mailbox, key(n), twin[[2]string{mailbox, key(n)}])
			} else {
				put(mailbox, n, step)
			}
		}
	}
	mustClose(t, c)
	c = open(t, path)
	for _, mailbox := range mailboxes {
		for n := range 300 {
			want(t, c, mailbox, key(n), twin[[2]string{mailbox, key(n)}])
		}
	}
}

// TestRetainLater puts a message while Retain does not know of it yet.
func TestRetainLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path)
	c.Put("m", "a", []byte("1"))
	asked, answer := make(chan string), make(chan bool)
	c.Retain("m", func(key string) bool { asked <- key; return <-answer })
	c.Put("m", "b", []byte("2"))
	hurry(c)
	if key := <-asked; key != "a" {
		t.Errorf("asked for %q", key)
	}
	want(t, c, "m", "b", []byte("2"))
	c.Put("m", "a", []byte("3")) // another one than was asked for
	want(t, c, "m", "a", []byte("3"))
	answer <- false
	mustClose(t, c)
	c = open(t, path)
	want(t, c, "m", "a", []byte("3"))
	want(t, c, "m", "b", []byte("2"))
}

// TestForgetLater forgets a mailbox while what was put is on its way to the disk.
func TestForgetLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path)
	c.Put("m", "a", []byte("1"))
	asked := make(chan struct{})
	c.Retain("m", func(string) bool { asked <- struct{}{}; <-asked; return true })
	hurry(c)
	<-asked
	c.Forget("m")
	want(t, c, "m", "a", nil)
	asked <- struct{}{}
	mustClose(t, c)
	c = open(t, path)
	want(t, c, "m", "a", nil)
}

// TestMaxBytes puts more than the file may hold: it is made anew, and the newest is kept.
func TestMaxBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	const max = 1 << 20
	var log bytes.Buffer
	o := logged(&log)
	o.MaxBytes = max
	for gen := range 4 {
		c := cache.Open(path, o)
		for n := range 300 {
			c.Put("m", key(n+300*gen), make([]byte, 1000))
		}
		mustClose(t, c)
		if info, err := os.Stat(path); err != nil || info.Size() > max {
			t.Errorf("file of %d bytes, %v", info.Size(), err)
		}
		c = cache.Open(path, o)
		for n := range 300 {
			want(t, c, "m", key(n+300*gen), make([]byte, 1000))
		}
		mustClose(t, c)
	}
	if n := strings.Count(log.String(), "is full"); n == 0 || strings.Contains(log.String(), "WARN") {
		t.Errorf("log: %s", &log)
	}

	// A lower limit than the file has already.
	log.Reset()
	o.MaxBytes = max / 4
	c := cache.Open(path, o)
	want(t, c, "m", key(1199), nil)
	c.Put("m", key(0), []byte("x"))
	mustClose(t, c)
	c = cache.Open(path, o)
	want(t, c, "m", key(0), []byte("x"))
	mustClose(t, c)
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "larger than") {
		t.Errorf("log: %s", &log)
	}
}

// TestTooMuch puts more at once than may wait.
func TestTooMuch(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "cache"))
	c.Put("m", "a", []byte("1"))
	c.Put("m", "a", make([]byte, 5<<20))
	want(t, c, "m", "a", []byte("1"))
	stuck := make(chan struct{})
	c.Retain("m", func(string) bool { stuck <- struct{}{}; <-stuck; return true })
	hurry(c)
	<-stuck
	for n := range 50 {
		c.Put("m", key(n), make([]byte, 1<<20-400))
	}
	for n := range 50 {
		if got := c.Get("m", key(n)); (len(got) == 1<<20-400) != (n < 4) {
			t.Errorf("%d: got %d bytes", n, len(got))
		}
	}
	stuck <- struct{}{}
}

func TestConcurrent(t *testing.T) {
	c := cache.Open(filepath.Join(t.TempDir(), "cache"), &cache.Options{MaxBytes: 10 << 20})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 0))
			mailbox := fmt.Sprint(g % 2)
			for range 5000 {
				n := rnd.IntN(300)
				switch rnd.IntN(200) {
				case 0:
					c.Forget(mailbox)
				case 1:
					c.Retain(mailbox, func(string) bool { return n%2 == 0 })
				default:
					c.Put(mailbox, key(n), value(n, 0))
					if got := c.Get(mailbox, key(n)); got != nil && !bytes.Equal(got, value(n, 0)) {
						t.Errorf("got %q for %d", got, n)
					}
				}
			}
		})
	}
	wg.Wait()
	for range 2 {
		wg.Go(func() { mustClose(t, c) })
	}
	c.Put("0", key(1), value(1, 0))
	c.Get("0", key(1))
	wg.Wait()
}

// filled returns a file of 160 messages, and its path.
func filled(t *testing.T) (content []byte, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "cache")
	for _, part := range [][2]int{{0, 80}, {80, 120}, {120, 160}} {
		c := open(t, path)
		for n := part[0]; n < part[1]; n++ {
			c.Put("INBOX", key(n), value(n, 0))
		}
		mustClose(t, c)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content, path
}

// usable opens a file that may be anything. What it knows has to be right; it has to be a cache at
// last, and the log has to tell at most once of it. It returns how much was known, and the log.
func usable(t *testing.T, path string, content []byte, what string) (known int, log string) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	c := cache.Open(path, logged(&buf))
	for n := range 160 {
		switch got := c.Get("INBOX", key(n)); {
		case bytes.Equal(got, value(n, 0)):
			known++
		case got != nil:
			t.Fatalf("%s: message %d is %.60q", what, n, got)
		}
	}
	for range 2 { // damage that is found now is gone at the next opening
		c.Retain("INBOX", func(key string) bool { return true })
		c.Put("INBOX", "later", []byte(what))
		c.Put("INBOX", key(5), value(5, 0))
		c.Close()
		c = cache.Open(path, logged(&buf))
	}
	want(t, c, "INBOX", "later", []byte(what))
	want(t, c, "INBOX", key(5), value(5, 0))
	mustClose(t, c)
	if n := strings.Count(buf.String(), "\n"); n > 1 {
		t.Errorf("%s: log: %s", what, &buf)
	}
	return known, buf.String()
}

const page = 4096

func TestTruncated(t *testing.T) {
	content, path := filled(t)
	if known, log := usable(t, path, content, "whole"); known != 160 || log != "" {
		t.Fatalf("whole file: %d of 160 known, log: %s", known, log)
	}
	for n := 0; n < len(content); n += len(content)/50 + 13 {
		if slices.Max(content[n:]) == 0 {
			break // never used
		}
		known, log := usable(t, path, content[:n], fmt.Sprintf("%d of %d bytes", n, len(content)))
		if known > 0 || n > 0 && !strings.Contains(log, "made anew") || n > 2*page && !strings.Contains(log, "truncated") {
			t.Errorf("%d of %d bytes: %d known, log: %s", n, len(content), known, log)
		}
	}
}

// TestFlipped changes one bit in each of the values.
func TestFlipped(t *testing.T) {
	content, path := filled(t)
	for n := range 160 {
		v := value(n, 0)
		for at, end := 0, 0; ; at = end { // also in pages that don't count any more
			i := bytes.Index(content[at:], []byte(key(n)))
			if i < 0 {
				break
			}
			end = at + i + len(key(n))
			if rest := content[end+4:]; bytes.HasPrefix(rest, v) { // behind the sum
				rest[n%len(v)] ^= 1 << (n % 8)
			}
		}
	}
	if known, log := usable(t, path, content, "flipped"); known > 0 || log != "" {
		t.Errorf("%d known, log: %s", known, log)
	}
}

// TestPages clears each page, and puts another one in its place.
func TestPages(t *testing.T) {
	content, path := filled(t)
	noticed := 0
	for n := 0; n < len(content) && slices.Max(content[n:]) > 0; n += page {
		b := bytes.Clone(content)
		what := fmt.Sprintf("page %d cleared", n/page)
		if n/page%2 == 0 {
			clear(b[n : n+page])
		} else {
			what = fmt.Sprintf("page %d is page %d", n/page, n/page-1)
			copy(b[n:n+page], b[n-page:])
		}
		if _, log := usable(t, path, b, what); log != "" {
			noticed++
		}
	}
	if noticed == 0 {
		t.Error("no damage was noticed")
	}
}

// database returns the content of a bbolt file that has a value in a bucket.
func database(t *testing.T, bucket, key, value string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bbolt")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte(bucket))
		return errors.Join(err, b.Put([]byte(key), []byte(value)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestForeign(t *testing.T) {
	_, path := filled(t)
	for _, tt := range []struct{ name, content string }{
		{"x", "x"},
		{"SQLite", "SQLite format 3\x00"},
		{"zeros", strings.Repeat("\x00", 10000)},
		{"ones", strings.Repeat("\xff", 10000)},
		{"another version", database(t, "format", "version", "0")},
		{"another program", database(t, "files", "version", "1")},
	} {
		known, log := usable(t, path, []byte(tt.content), tt.name)
		if known > 0 || !strings.Contains(log, "made anew") {
			t.Errorf("%s: %d messages known, log: %s", tt.name, known, log)
		}
	}
}

// TestTruncatedOpen has another program that empties the file while it is open: what is mapped then
// is not there.
func TestTruncatedOpen(t *testing.T) {
	content, path := filled(t)
	var log bytes.Buffer
	c := cache.Open(path, logged(&log))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	want(t, c, "INBOX", key(1), nil)
	want(t, c, "INBOX", key(2), nil)
	c.Put("INBOX", key(1), value(1, 0))
	mustClose(t, c)
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "damaged") {
		t.Errorf("log: %s", &log)
	}

	// The writer may be the first to find it.
	log.Reset()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	c = cache.Open(path, logged(&log))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	c.Put("INBOX", key(1), value(1, 0))
	if err := c.Close(); err == nil {
		t.Error("Close: no error")
	}
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "damaged") {
		t.Errorf("log: %s", &log)
	}
	c = open(t, path)
	c.Put("INBOX", key(1), value(1, 0))
}

// TestWithout has places where there can be no file.
func TestWithout(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(other, []byte("other"), 0o600), os.Symlink(other, link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, why string }{
		{"directory", dir, "directory"},
		{"link", link, "symbolic link"},
		{"FIFO", fifo, "not a regular file"},
		{"no directory", filepath.Join(dir, "none", "cache"), "no such file"},
		{"unwritable", "/proc/version", "can't be used"},
		{"device", "/dev/null", "not a regular file"},
		{"no path", "", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			c := cache.Open(tt.path, logged(&log))
			c.Put("m", "a", []byte("1"))
			c.Retain("m", func(string) bool { return true })
			c.Forget("m")
			want(t, c, "m", "a", nil)
			mustClose(t, c)
			if strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), tt.why) {
				t.Errorf("log: %s", &log)
			}
		})
	}
	if b, err := os.ReadFile(other); string(b) != "other" {
		t.Errorf("followed a link: %q, %v", b, err)
	}
}

func TestPerm(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "cache")
	for _, tt := range []struct{ perm, want fs.FileMode }{{0, 0o600}, {0o660, 0o660}} {
		mustClose(t, cache.Open(path, &cache.Options{Perm: tt.perm}))
		if info, err := os.Stat(path); err != nil || info.Mode() != tt.want {
			t.Errorf("Perm %o: got %v, %v", tt.perm, info.Mode(), err)
		}
		os.Remove(path)
	}
}

// TestRemoved removes the file while it is open.
func TestRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path)
	c.Put("m", "a", []byte("1"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next := open(t, path)
	next.Put("m", "a", []byte("2"))
	want(t, c, "m", "a", []byte("1"))
	want(t, next, "m", "a", []byte("2"))
}

// TestDiskFull has a disk without room for the file, by the limit that the system sets on file sizes.
func TestDiskFull(t *testing.T) {
	if path := os.Getenv("CACHE_TEST_FULL"); path != "" {
		full(t, path)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	child.Env = append(os.Environ(), "CACHE_TEST_FULL="+filepath.Join(t.TempDir(), "cache"))
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func full(t *testing.T, path string) {
	limit := func(size uint64) {
		var rlimit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &rlimit); err != nil {
			t.Fatal(err)
		}
		rlimit.Cur = size
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &rlimit); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	warnings := func(want int) {
		t.Helper()
		if n := strings.Count(log.String(), "level=WARN"); n != want {
			t.Errorf("%d warnings, want %d; log: %s", n, want, &log)
		}
	}
	limit(5000)
	c := cache.Open(path, logged(&log))
	c.Put("m", "a", []byte("1"))
	mustClose(t, c)
	warnings(1)
	log.Reset()

	limit(200_000) // what is there of the file is made anew
	c = cache.Open(path, logged(&log))
	c.Put("m", "before", []byte("1"))
	mustClose(t, c)
	warnings(1)
	log.Reset()

	c = cache.Open(path, logged(&log))
	for range 2 {
		hurry(c)
		for c.Get("much", "a") != nil { // until the writer has failed
			runtime.Gosched()
		}
		want(t, c, "m", "before", []byte("1"))
	}
	c.Put("m", "after", []byte("2"))
	mustClose(t, c)
	warnings(1)
	c = open(t, path)
	want(t, c, "m", "before", []byte("1"))
	want(t, c, "m", "after", []byte("2"))
	want(t, c, "much", "a", nil)
}

// TestTwoProcesses has another process that has the file, and is killed.
func TestTwoProcesses(t *testing.T) {
	if path := os.Getenv("CACHE_TEST_PATH"); path != "" {
		c := cache.Open(path, nil)
		for n := range 100 {
			c.Put("m", key(n), value(n, 0))
		}
		c.Close()
		c = cache.Open(path, nil)
		for n := range 100 {
			c.Put("m", "unwritten", value(n, 0))
		}
		fmt.Println("ready")
		select {}
	}
	path := filepath.Join(t.TempDir(), "cache")
	child := exec.Command(os.Args[0], "-test.run=^TestTwoProcesses$")
	child.Env = append(os.Environ(), "CACHE_TEST_PATH="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("got %q, %v", line, err)
	}

	var log bytes.Buffer
	c := cache.Open(path, logged(&log))
	c.Put("m", "mine", []byte("1"))
	want(t, c, "m", "mine", nil)
	want(t, c, "m", key(1), nil)
	mustClose(t, c)
	if !strings.Contains(log.String(), "in use elsewhere") || strings.Contains(log.String(), "WARN") {
		t.Errorf("log: %s", &log)
	}

	child.Process.Kill()
	child.Wait()
	c = open(t, path)
	for n := range 100 {
		want(t, c, "m", key(n), value(n, 0))
	}
}
