package watch

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The child of TestKernelLimits is told by these what to set, and what is the user namespace that it
// must not set it in: the limits of the first one hold for the machine.
const (
	limitVar     = "WATCH_TEST_LIMIT"
	namespaceVar = "WATCH_TEST_PARENT_NAMESPACE"
)

// TestKernelLimits reaches the kernel's limits for real. A user namespace has limits of its own, so
// the test runs once more, in a process with one.
func TestKernelLimits(t *testing.T) {
	if limit := os.Getenv(limitVar); limit != "" {
		name, value, _ := strings.Cut(limit, "=")
		setLimit(t, name, value)
		switch limit {
		case "max_inotify_watches=4":
			testWatchesLimit(t)
		case "max_inotify_watches=1":
			testSentinelLimit(t)
		case "max_inotify_instances=0":
			testInstancesLimit(t)
		}
		return
	}
	namespace, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Skip(err)
	}
	for _, limit := range []string{"max_inotify_watches=4", "max_inotify_watches=1", "max_inotify_instances=0"} {
		t.Run(limit, func(t *testing.T) {
			c := exec.Command("/proc/self/exe", "-test.run=^TestKernelLimits$", "-test.v", "-test.timeout=1m")
			c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", limitVar+"="+limit, namespaceVar+"="+namespace)
			c.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			}
			out, err := c.CombinedOutput()
			for _, not := range []error{syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENOSYS, syscall.ENOSPC, syscall.EUSERS} {
				if errors.Is(err, not) {
					t.Skip("no user namespace:", err)
				}
			}
			switch {
			case err != nil:
				t.Errorf("%v\n%s", err, out)
			case bytes.Contains(out, []byte("--- SKIP")):
				t.Skipf("%s", out)
			case !bytes.Contains(out, []byte("--- PASS: TestKernelLimits")):
				t.Errorf("did not run:\n%s", out)
			}
		})
	}
}

func setLimit(t *testing.T, name, value string) {
	t.Helper()
	if now, err := os.Readlink("/proc/self/ns/user"); err != nil || now == os.Getenv(namespaceVar) || os.Getenv(namespaceVar) == "" {
		t.Fatalf("not in a user namespace of its own: %s, %v", now, err)
	}
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0); err != nil {
		t.Skip(err)
	}
}

// logged returns a Watcher that looks often, and its log.
func logged(t *testing.T) (*Watcher, *bytes.Buffer) {
	var log bytes.Buffer
	return newTestWatcher(t, Options{Interval: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))}), &log
}

// testWatchesLimit has watches for the sentinel's two files and two directories.
func testWatchesLimit(t *testing.T) {
	root := t.TempDir()
	w, log := logged(t)
	var watches []*Watch
	var told []hints
	for i := range 4 {
		dir, h := fmt.Sprint(i), newHints()
		act(t, root, "mkdir "+dir)
		watches = append(watches, w.Watch(filepath.Join(root, dir), h.give))
		told = append(told, h)
	}
	if got := w.Stats(); got.Watched != 2 || got.Polled != 2 {
		t.Errorf("Stats() = %+v", got)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "fs.inotify.max_user_watches") {
		t.Errorf("log %q", got)
	}
	for i, want := range []bool{true, true, false, false} {
		if got := watches[i].Settle(); got != want {
			t.Errorf("%d settled: %v", i, got)
		}
		act(t, root, fmt.Sprintf("touch %d/a", i))
		told[i].next(t)
	}
	watches[0].Stop() // and there is room
	act(t, root, "touch 3/b")
	waitStats(t, w, func(s Stats) bool { return s.Watched == 2 && s.Polled == 1 })
}

// testSentinelLimit has a watch for one of the sentinel's files only, which a directory gets instead.
func testSentinelLimit(t *testing.T) {
	root := t.TempDir()
	w, _ := logged(t)
	h := newHints()
	x := w.Watch(root, h.give)
	if got := w.Stats(); got.Watched != 1 || got.Polled != 0 || x.Settle() {
		t.Errorf("Stats() = %+v", got)
	}
	act(t, root, "touch a")
	if got := h.next(t); got.Name != "a" {
		t.Errorf("hint %v", got)
	}
}

// testInstancesLimit has no inotify.
func testInstancesLimit(t *testing.T) {
	root := t.TempDir()
	w, log := logged(t)
	h := newHints()
	w.Watch(root, h.give)
	if got := w.Stats(); got.Watched != 0 || got.Polled != 1 {
		t.Errorf("Stats() = %+v", got)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "fs.inotify.max_user_instances") {
		t.Errorf("log %q", got)
	}
	act(t, root, "touch a")
	h.next(t)
}
