package maildir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/watch"
)

// A lateWatcher tells of changes as late as a Watcher may: when it is asked to settle.
type lateWatcher struct {
	mu       sync.Mutex
	hints    map[string]func(string) // by the last element of the directory
	queue    [][2]string
	settling func(part string) bool
}

type lateWatching struct {
	w    *lateWatcher
	part string
}

func (w *lateWatcher) Watch(dir string, hint func(string)) Watching {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hints == nil {
		w.hints = map[string]func(string){}
	}
	w.hints[filepath.Base(dir)] = hint
	return &lateWatching{w, filepath.Base(dir)}
}

func (w *lateWatcher) add(paths ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range paths {
		part, name, _ := strings.Cut(p, "/")
		w.queue = append(w.queue, [2]string{part, name})
	}
}

func (x *lateWatching) Settle() bool {
	ok := true
	if x.w.settling != nil {
		ok = x.w.settling(x.part)
	}
	x.w.mu.Lock()
	q := x.w.queue
	x.w.queue = nil
	x.w.mu.Unlock()
	for _, e := range q {
		x.w.mu.Lock()
		h := x.w.hints[e[0]]
		x.w.mu.Unlock()
		if h != nil {
			h(e[1])
		}
	}
	return ok
}

func (x *lateWatching) Stop() {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	delete(x.w.hints, x.part)
}

type box struct {
	*Ref
	t *testing.T
	a *Account
	w *lateWatcher
}

func newBox(t *testing.T, o RefOptions, files ...string) *box {
	t.Helper()
	w := &lateWatcher{}
	root := filepath.Join(t.TempDir(), "Maildir")
	a, err := Open(root, &Options{Watcher: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b := &box{t: t, a: a, w: w}
	r, err := a.Mailbox("INBOX", RefOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b.write(f)
	}
	w.queue = nil
	r.Close()
	b.Ref = open(t, a, "INBOX", o)
	time.Sleep(3 * coarse) // until a change shows another time
	b.sync()
	return b
}

func (b *box) path(name string) string { return filepath.Join(b.a.Root(), filepath.FromSlash(name)) }
func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}
func (b *box) write(name string) {
	b.t.Helper()
	b.must(os.WriteFile(b.path(name), []byte("Subject: x\n\n"), 0o600))
	b.w.add(name)
}
func (b *box) rename(from, to string) {
	b.t.Helper()
	b.must(os.Rename(b.path(from), b.path(to)))
	b.w.add(from, to)
}
func (b *box) link(from, to string) {
	b.t.Helper()
	b.must(os.Link(b.path(from), b.path(to)))
	b.w.add(to)
}
func (b *box) remove(name string) {
	b.t.Helper()
	b.must(os.Remove(b.path(name)))
	b.w.add(name)
}
func (b *box) record(line string) {
	b.t.Helper()
	f, err := os.OpenFile(b.path(listFile), os.O_APPEND|os.O_WRONLY, 0)
	b.must(err)
	_, err = f.WriteString(line + "\n")
	b.must(err)
	b.must(f.Close())
}
func (b *box) sync() *Snapshot {
	b.t.Helper()
	s, err := b.Sync(context.Background())
	b.must(err)
	return s
}

// A message that another process has numbered, and that a look has met, is renamed or removed while that look
// looks a second time, for another one: what is heard of it then counts.
func TestSecondLook(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(b *box)
		want string
	}{
		{"renamed", func(b *box) { b.rename("cur/3.c:2,", "cur/3.c:2,S") }, `2; 3 \Seen`},
		{"removed", func(b *box) { b.remove("cur/3.c:2,") }, "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t, RefOptions{Selected: true}, "cur/1.a:2,", "cur/2.b:2,")
			b.write("cur/3.c:2,")
			b.record("3 :3.c")
			b.remove("cur/1.a:2,")
			n := 0
			b.w.settling = func(string) bool {
				if n++; n == 3 { // the first of the second look
					c.act(b)
				}
				return true
			}
			before := b.a.Scans()
			wantDump(t, b.sync(), c.want)
			if read := b.a.Scans() - before; read > 0 || n < 3 {
				t.Errorf("%d directories were read, %d calls", read, n)
			}
		})
	}
}

// A look in which a base name gets a new record assigns twice, and forgets none of the files it looked for.
func TestSecondLookAgain(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true}, "cur/1.a:2,", "cur/2.b:2,", "cur/3.c:2,", "cur/4.d:2,", "cur/5.e:2,")
	wantDump(t, b.Snapshot(), "1; 2; 3; 4; 5")
	// 1.a went, and its name came back with another UID, as another process says.
	b.record("6 :1.a")
	b.rename("cur/3.c:2,", "cur/3.c:2,S")
	b.rename("cur/4.d:2,", "cur/4.d:2,S")
	b.remove("cur/5.e:2,")
	n := 0
	b.w.settling = func(part string) bool {
		if n++; n == 3 {
			b.write("new/.nothing") // anything that is heard
		}
		return true
	}
	b.sync()
	b.w.settling = nil
	time.Sleep(3 * coarse) // until a change shows another time
	b.sync()
	wantDump(t, b.sync(), `2; 3 \Seen; 4 \Seen; 6`)
}

// Two files of one base name: when the one that is shown goes, the other one is the message.
func TestTwoFilesOfOneBase(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true}, "cur/1.a:2,", "cur/2.b:2,")
	b.link("cur/1.a:2,", "cur/1.a:2,S")
	wantDump(t, b.sync(), `1 \Seen; 2`)
	b.remove("cur/1.a:2,S")
	wantDump(t, b.sync(), `1; 2`)
}

// What is no regular file any more is no message, as for who reads all.
func TestNoFileAnyMore(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true}, "cur/1.a:2,", "cur/2.b:2,")
	b.remove("cur/1.a:2,")
	b.must(os.Symlink("/nowhere", b.path("cur/1.a:2,")))
	b.w.add("cur/1.a:2,")
	wantDump(t, b.sync(), `2`)
}

// appendBeside appends a message, and another program delivers one while ours is made durable, on a slow disk.
func (b *box) appendBeside() {
	b.t.Helper()
	setFault(b.Ref, func(op string, paths ...string) error {
		if op == "fsync" && strings.HasSuffix(paths[0], "/new") {
			b.write("new/9.foreign")
			time.Sleep(3 * coarse)
		}
		return nil
	})
	_, _, err := b.Append(context.Background(), strings.NewReader("x"), nil, time.Time{})
	setFault(b.Ref, nil)
	b.must(err)
}

// What another program did while this one made its own change durable is in the directory's times as well.
func TestChangeBesideOurOwn(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true, ReadOnly: true}, "cur/2.b:2,")
	b.appendBeside()
	wantDump(t, b.sync(), "1; 2; 3")
}

// The same for who comes after the last session has left.
func TestChangeBesideOurOwnUnselected(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true, ReadOnly: true}, "cur/2.b:2,")
	b.appendBeside()
	b.Ref.Close()
	b.w.queue = nil // who has stopped is not told
	r, err := b.a.Mailbox("INBOX", RefOptions{Selected: true, ReadOnly: true})
	b.must(err)
	defer r.Close()
	for range 3 {
		if _, err := r.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.Snapshot().Messages); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

// After a Settle that failed a mailbox reads its directories once, and then looks at names again.
func TestNamesTellAgain(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true}, "cur/1.a:2,", "cur/2.b:2,")
	var works atomic.Bool // lookAgain asks, too
	b.w.mu.Lock()
	b.w.settling = func(part string) bool { return works.Load() }
	b.w.mu.Unlock()
	b.rename("cur/1.a:2,", "cur/1.a:2,S")
	b.sync()
	works.Store(true)
	time.Sleep(3 * coarse) // until a change shows another time
	resync(t, b.Ref)
	before := b.a.Scans()
	for _, to := range []string{"", "S", "", "S", "", "S"} {
		from := "S"
		if to == "S" {
			from = ""
		}
		b.rename("cur/1.a:2,"+from, "cur/1.a:2,"+to)
		b.sync()
		time.Sleep(3 * coarse) // until a change shows another time
	}
	if n := b.a.Scans() - before; n > 2 {
		t.Errorf("%d directories were read since Settle works again", n)
	}
}

type realWatcher struct{ *watch.Watcher }

func (w realWatcher) Watch(dir string, hint func(name string)) Watching {
	return w.Watcher.Watch(dir, func(h watch.Hint) { hint(h.Name) })
}

func realBox(t *testing.T) (*Account, *Ref) {
	t.Helper()
	w := watch.New(watch.Options{})
	t.Cleanup(func() { w.Close() })
	a, err := Open(filepath.Join(t.TempDir(), "Maildir"), &Options{Watcher: realWatcher{w}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a, open(t, a, "INBOX", RefOptions{Selected: true})
}

// A disk that is full makes no hot loop while a session idles.
func TestFullDiskIsNoLoop(t *testing.T) {
	a, r := realBox(t)
	defer r.Listen()()
	var tries atomic.Int64
	full := errors.New("no space left")
	r.disk.Lock()
	r.d.fault = func(op string, paths ...string) error {
		if op == "write" && strings.HasSuffix(paths[0], listFile) {
			tries.Add(1)
			return full
		}
		return nil
	}
	r.disk.Unlock()
	if err := os.WriteFile(filepath.Join(a.Root(), "new", "1.x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // nothing else tells that nothing goes on
	n := tries.Load()
	r.disk.Lock()
	r.d.fault = nil
	r.disk.Unlock()
	if n > 5 {
		t.Errorf("%d looks in a second and a half for one change", n)
	}
}

// A look that failed is made again while a session idles.
func TestFailedLookIsMadeAgain(t *testing.T) {
	a, r := realBox(t)
	defer r.Listen()()
	changed := r.Changed()
	var tries atomic.Int64
	r.disk.Lock()
	r.d.fault = func(op string, paths ...string) error {
		if op == "create" && strings.HasSuffix(paths[0], listLock) && tries.Add(1) == 1 {
			return errors.New("too many open files")
		}
		return nil
	}
	r.disk.Unlock()
	tmp := filepath.Join(a.Root(), "tmp", "1.x")
	if err := os.WriteFile(tmp, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(a.Root(), "new", "1.x")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(5 * time.Second):
		t.Errorf("new mail is not shown, %d tries", tries.Load())
	}
}

// A program that delivers to new/ and moves on by link and unlink, as mutt's safe_rename, with a look between the two.
func TestRenameByLink(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true, ReadOnly: true}, "cur/2.b:2,")
	b.write("new/9.a")
	b.link("new/9.a", "cur/9.a:2,S")
	b.sync()
	b.remove("new/9.a")
	wantDump(t, b.sync(), `1; 2 \Seen`)
}

// Of two files with one base name in new/ and cur/ the same is shown, whichever way they are learned.
func TestWhichOfTwoFiles(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true, ReadOnly: true}, "cur/2.b:2,")
	b.write("new/9.a")
	b.write("cur/9.a:2,S")
	by := dump(b.sync())
	a, err := Open(b.a.Root(), nil)
	b.must(err)
	defer a.Close()
	r, err := a.Mailbox("INBOX", RefOptions{})
	b.must(err)
	defer r.Close()
	s, err := r.Sync(context.Background())
	b.must(err)
	if all := dump(s); all != by {
		t.Errorf("by events %q, by reading %q", by, all)
	}
}

// A session that leaves does not wait for the lock of another program.
func TestCloseDoesNotWait(t *testing.T) {
	a, r := realBox(t)
	again, err := a.Mailbox("INBOX", RefOptions{Selected: true})
	if err != nil {
		t.Fatal(err)
	}
	stop := again.Listen()
	lock := filepath.Join(a.Root(), listLock)
	if err := os.WriteFile(lock, []byte("1:"+hostName), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Root(), "new", "1.x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for r.disk.TryLock() { // until the look waits for the lock
		r.disk.Unlock()
		runtime.Gosched()
	}
	stop()
	r.Close()
	started := time.Now()
	again.Close()
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	os.Remove(lock)
}

// A keyword that is named, and given to a message, after dovecot-keywords was read and before the message is looked at.
func TestKeywordNamedMeanwhile(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true}, "cur/1.a:2,", "cur/2.b:2,")
	b.rename("cur/2.b:2,", "cur/2.b:2,S")
	var once sync.Once
	b.w.mu.Lock()
	b.w.settling = func(string) bool {
		once.Do(func() {
			b.must(os.WriteFile(b.path(keysFile), []byte("0 late\n"), 0o600))
			b.rename("cur/1.a:2,", "cur/1.a:2,a")
		})
		return true
	}
	b.w.mu.Unlock()
	s := b.sync()
	if got := s.IMAPFlags(s.Messages[0].Flags); len(got) != 1 || got[0] != "late" {
		t.Errorf("its flags are %v", got)
	}
}

// A message that another program has numbered is renamed again whenever it is looked for: it keeps its UID.
func TestNumberedAndRenamed(t *testing.T) {
	b := newBox(t, RefOptions{Selected: true}, "cur/1.a:2,", "cur/2.b:2,")
	b.write("cur/3.c:2,")
	f, err := os.OpenFile(b.path(listFile), os.O_APPEND|os.O_WRONLY, 0)
	b.must(err)
	_, err = f.WriteString("3 :3.c\n")
	b.must(err)
	b.must(f.Close())
	name, times := "cur/3.c:2,", 0
	b.w.mu.Lock()
	b.w.settling = func(part string) bool {
		if part == "cur" && times < 5 { // as often as one look asks
			times++
			next := "cur/3.c:2," + string("DFRST"[times%5])
			b.must(os.Rename(b.path(name), b.path(next)))
			b.w.add(name) // what was heard of by now has another name
			name = next
		}
		return true
	}
	b.w.mu.Unlock()
	b.sync()
	b.w.add(name)
	s := b.sync()
	if len(s.Messages) != 3 || s.Messages[2].UID != 3 || s.UIDNext != 4 {
		t.Errorf("after %d renames %d messages, the last one UID %d, next %d", times, len(s.Messages), s.Messages[len(s.Messages)-1].UID, s.UIDNext)
	}
}
