package maildir

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A toldWatcher hears only what a test tells it; each of its Settle calls lets the test act first.
type toldWatcher struct {
	hints   map[string]func(name string) // by directory
	settled func()
}

func (w *toldWatcher) Watch(dir string, hint func(name string)) Watching {
	w.hints[filepath.Base(dir)] = hint
	return w
}

func (w *toldWatcher) Settle() bool {
	w.settled()
	return true
}

func (w *toldWatcher) Stop() {}

// A message that another process has numbered, and that a look has met, is renamed or removed while that look
// looks a second time, for another one: what is heard of it then counts.
func TestSecondLook(t *testing.T) {
	for _, c := range []struct{ name, to, want string }{
		{"removed", "", ""},
		{"renamed", "2.x:2,F", `2 \Flagged`},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, other *Account) {
				cur := filepath.Join(other.Root(), "cur")
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				file := func(name string) string { return filepath.Join(cur, name) }
				opts := other.opts
				w := &toldWatcher{hints: map[string]func(string){}, settled: func() {}}
				opts.Watcher = w
				a, err := Open(other.Root(), &opts)
				must(err)
				t.Cleanup(func() { a.Close() })
				r := open(t, a, "INBOX", RefOptions{Selected: true})
				must(os.WriteFile(file("1.x:2,"), nil, 0o600))
				w.hints["cur"]("1.x:2,")
				wantDump(t, resync(t, r), "1")

				must(os.WriteFile(file("2.x:2,"), nil, 0o600))
				resync(t, open(t, other, "INBOX", RefOptions{}))
				must(os.Remove(file("1.x:2,")))
				w.hints["cur"]("2.x:2,")
				w.hints["cur"]("1.x:2,")
				calls := 0
				w.settled = func() {
					if calls++; calls != 3 { // twice before the first look, for new/ and cur/
						return
					}
					if c.to == "" {
						must(os.Remove(file("2.x:2,")))
					} else {
						must(os.Rename(file("2.x:2,"), file(c.to)))
						w.hints["cur"](c.to)
					}
					w.hints["cur"]("2.x:2,")
				}
				before := a.Scans()
				s, err := r.Sync(context.Background())
				must(err)
				wantDump(t, s, strings.TrimSpace(c.want))
				if n := a.Scans() - before; n > 0 || calls < 3 {
					t.Errorf("%d directories were read, %d calls", n, calls)
				}
			})
		})
	}
}
