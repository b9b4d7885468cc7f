package maildir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asNobody makes the calling goroutine, which has to do all itself then, one of a user who owns nothing, until
// the test ends.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	runtime.LockOSThread()
	unix.Setfsuid(65534)
	t.Cleanup(func() {
		unix.Setfsuid(0)
		runtime.UnlockOSThread()
	})
}

// A lock of another user that can't be read is waited for as one of an unknown owner.
func TestUnreadableLock(t *testing.T) {
	path := t.TempDir()
	os.Chmod(path, 0o777)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	d := &dir{f: f}
	defer d.close()
	if err := os.WriteFile(filepath.Join(path, listLock), []byte("1:"+hostName), 0o600); err != nil {
		t.Fatal(err)
	}
	asNobody(t)
	o := dotlockOptions{guarded: listFile, wait: 20 * time.Millisecond, access: private}
	if _, err := lockDotfile(context.Background(), d, listLock, o); !errors.Is(err, ErrLocked) {
		t.Errorf("a lock that can't be read: %v", err)
	}
	o.stale, o.wait = 10*time.Millisecond, time.Minute
	l, err := lockDotfile(context.Background(), d, listLock, o)
	if err != nil {
		t.Fatalf("one that doesn't change: %v", err)
	}
	if err := l.unlock(); err != nil {
		t.Error(err)
	}
}

// What may not be read is not set aside: others can read it.
func TestUnreadableFiles(t *testing.T) {
	for _, name := range []string{listFile, keysFile, subsFile} {
		t.Run(name, func(t *testing.T) {
			r := newDamagedRoot(t, map[string]string{"cur/1000.a:2,a": "a\n", listFile: goodList, keysFile: "0 Work\n", subsFile: "V\t2\n\na\n"})
			for _, part := range []string{"../..", "..", "", "cur", "new", "tmp"} {
				os.Chmod(filepath.Join(r.path, part), 0o777)
			}
			for _, other := range []string{listFile, keysFile, subsFile} {
				if other != name {
					os.Chmod(filepath.Join(r.path, other), 0o666)
				}
			}
			before := r.read(name)
			asNobody(t)
			a := r.start()
			defer a.Close()
			inbox, err := a.Mailbox("INBOX", RefOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer inbox.Close()
			for range 3 {
				_, err = inbox.Sync(t.Context())
				if errors.Is(err, fs.ErrPermission) != (name != subsFile) {
					t.Errorf("INBOX: %v", err)
				}
				if _, err := a.Subscriptions(); errors.Is(err, fs.ErrPermission) != (name == subsFile) {
					t.Errorf("subscriptions: %v", err)
				}
				if err := a.Subscribe(t.Context(), "new", true); errors.Is(err, fs.ErrPermission) != (name == subsFile) {
					t.Errorf("subscribe: %v", err)
				}
			}
			unix.Setfsuid(0)
			if got := r.read(name); got != before {
				t.Errorf("%s has become %q", name, got)
			}
			r.wantAside(name, false, "")
		})
	}
}
