package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// nobody is the number of no process: above every number that Linux gives.
const nobody = 1<<22 + 1

func lockDir(t *testing.T, path string) *dir {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	d := &dir{f: f}
	t.Cleanup(func() { d.close() })
	return d
}

// A lock is waited for as long as Dovecot waits (122 s), and one of an unknown owner that does not change is taken over
// as Dovecot does it (after 120 s). Who waits hears of it, and may give up.
func TestLockWaits(t *testing.T) {
	for _, tt := range []struct {
		name, holder string
		changes      bool // the list does, every minute
		taken        bool
		after        time.Duration
	}{
		{"alive", "1:" + hostName, false, false, 122 * time.Second},
		{"dead", fmt.Sprintf("%d:%s", nobody, hostName), false, true, 2 * time.Second},
		{"other host", "1:elsewhere.example.org", false, true, 120 * time.Second},
		{"empty", "", false, true, 120 * time.Second},
		{"other host at work", "1:elsewhere.example.org", true, false, 122 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir()
			d := lockDir(t, path)
			lock, list := filepath.Join(path, listLock), filepath.Join(path, listFile)
			os.WriteFile(lock, []byte(tt.holder), 0o600)
			synctest.Test(t, func(t *testing.T) {
				future := time.Now().AddDate(100, 0, 0) // the file system has another clock
				os.Chtimes(lock, future, future)
				if tt.changes {
					stop := make(chan struct{})
					defer close(stop)
					go func() {
						for n := 1; ; n++ {
							select {
							case <-stop:
								return
							case <-time.After(time.Minute):
								os.WriteFile(list, []byte(strings.Repeat("x", n)), 0o600)
							}
						}
					}()
				}
				told := time.Duration(-1)
				begin := time.Now()
				l, err := lockDotfile(context.Background(), d, listLock, dotlockOptions{
					guarded: listFile, wait: lockWait, access: private,
					waiting: func(w LockWait) error {
						if w.Waited < told || string(w.Holder) != tt.holder || w.Limit != lockWait {
							t.Errorf("told %+v after %v", w, told)
						}
						told = w.Waited
						return nil
					},
				})
				if took := time.Since(begin); took < tt.after || took > tt.after+time.Second {
					t.Errorf("waited %v", took)
				}
				if (err == nil) != tt.taken || err != nil && !errors.Is(err, ErrLocked) {
					t.Fatal(err)
				}
				if l != nil {
					l.unlock()
				}
			})
			if left, _ := filepath.Glob(lock + "*"); len(left) > 0 && tt.taken {
				t.Errorf("left behind: %q", left)
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		path := t.TempDir()
		d := lockDir(t, path)
		os.WriteFile(filepath.Join(path, listLock), []byte("1:"+hostName), 0o600)
		gone := errors.New("nobody is there")
		_, err := lockDotfile(context.Background(), d, listLock, dotlockOptions{
			guarded: listFile, wait: lockWait, access: private,
			waiting: func(LockWait) error { return gone },
		})
		if err != gone {
			t.Error(err)
		}
	})
}

// A lock that is held for long is touched, so that who can't see its holder does not take it for left behind.
func TestLockIsTouched(t *testing.T) {
	path := t.TempDir()
	d := lockDir(t, path)
	lock := filepath.Join(path, listLock)
	synctest.Test(t, func(t *testing.T) {
		l, err := lockDotfile(t.Context(), d, listLock, dotlockOptions{guarded: listFile, wait: lockWait, access: private})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			old := time.Now().Add(-time.Hour)
			os.Chtimes(lock, old, old)
			time.Sleep(touchPause + time.Millisecond)
			synctest.Wait()
			if fi, err := os.Stat(lock); err != nil || time.Since(fi.ModTime()) > time.Minute {
				t.Fatalf("not touched: %v, %v", fi.ModTime(), err)
			}
		}
		if err := l.unlock(); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * touchPause)
	})
}

// raceEnv is the directory in which a process of TestOneTakesOver works.
const raceEnv = "MAILDIR_LOCK_RACE"

// Processes that all want a lock that was left behind, and leave it behind in their turn: one has it at any time.
func TestOneTakesOver(t *testing.T) {
	if path := os.Getenv(raceEnv); path != "" {
		raceForLock(t, path)
		return
	}
	path := t.TempDir()
	leave(t, filepath.Join(path, listLock))
	var all []*exec.Cmd
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOneTakesOver$", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), raceEnv+"="+path)
		cmd.Stdout = t.Output()
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(path, listLock+".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// leave makes a lock file what a process leaves that dies.
func leave(t *testing.T, lock string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	err := os.WriteFile(lock, fmt.Appendf(nil, "%d:%s", nobody, hostName), 0o600)
	if err == nil {
		err = os.Chtimes(lock, old, old)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func raceForLock(t *testing.T, path string) {
	settlePause = 0 // Dovecot is not here
	d := lockDir(t, path)
	d.fault = func(op string, _ ...string) error { // between a look at the lock and what is done about it
		if op == "remove" || op == "exchange" {
			time.Sleep(rand.N(time.Millisecond))
		}
		return nil
	}
	inside := filepath.Join(path, "inside")
	for range 150 {
		l, err := lockDotfile(t.Context(), d, listLock, dotlockOptions{guarded: listFile, wait: time.Minute, access: private})
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(inside, os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			t.Fatal("two have the lock")
		} else if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if !l.held() {
			t.Fatal("the lock was taken away")
		}
		os.Remove(inside)
		leave(t, filepath.Join(path, listLock))
		l.forget()
		l.f.Close()
	}
}

// A lock that is no file is waited for like any other, whatever it would give or not give to who reads it.
func TestLockIsFIFO(t *testing.T) {
	path := t.TempDir()
	lock := filepath.Join(path, listLock)
	must(t, syscall.Mkfifo(lock, 0o600))
	f, err := os.OpenFile(lock, os.O_RDWR, 0) // who reads would wait for what is written here
	must(t, err)
	defer f.Close()
	_, err = lockDotfile(t.Context(), lockDir(t, path), listLock, dotlockOptions{guarded: listFile, wait: shortWait, access: private})
	if !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
}

// Who subscribes hears of it that another program holds subscriptions.lock, and may give up.
func TestSubscribeTellsWait(t *testing.T) {
	a := reopened(t, t.TempDir(), nil)
	must(t, os.WriteFile(filepath.Join(a.Root(), subsFile+".lock"), nil, 0o600))
	ctx := WithLockWait(context.Background(), func(w LockWait) error { return w.GiveUp() })
	if err := a.Subscribe(ctx, "INBOX", true); !errors.Is(err, ErrLocked) { // it would be taken over in the end
		t.Errorf("subscribe: %v", err)
	}
}
