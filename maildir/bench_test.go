package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// sizes are the mailboxes that benchmarks look at.
var sizes = []struct {
	name string
	n    int
}{{"10k", 10_000}, {"100k", 100_000}}

// fill makes a Maildir with n messages in cur/, named as this package and Dovecot name them, and a
// dovecot-uidlist of them.
func fill(tb testing.TB, n int) (root string) {
	tb.Helper()
	root = filepath.Join(tb.TempDir(), "Maildir")
	for _, part := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, part), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	var list strings.Builder
	fmt.Fprintf(&list, "3 V1795424725 N1 G%s\n", newGUID())
	for i := range n {
		base := fmt.Sprintf("%d.M%06dP14033Q%d.mail.example.org,S=1302,W=1337", 1795424725+i, (i*7919)%1000000, i%1000)
		f, err := os.OpenFile(filepath.Join(root, "cur", base+":2,S"), os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			tb.Fatal(err)
		}
		f.Close()
		fmt.Fprintf(&list, "%d :%s\n", i+1, base)
	}
	if err := os.WriteFile(filepath.Join(root, listFile), []byte(list.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	past := time.Now().Add(-time.Hour) // what is old needs no second look
	for _, part := range []string{"cur", "new"} {
		if err := os.Chtimes(filepath.Join(root, part), past, past); err != nil {
			tb.Fatal(err)
		}
	}
	return root
}

// selectAll opens INBOX as SELECT does.
func selectAll(tb testing.TB, a *Account, n int) *Ref {
	tb.Helper()
	r, err := a.Mailbox("INBOX", RefOptions{Selected: true})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := r.Sync(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	if len(s.Messages) != n {
		tb.Fatalf("%d messages, want %d", len(s.Messages), n)
	}
	return r
}

func openAccount(tb testing.TB, root string) *Account {
	tb.Helper()
	a, err := Open(root, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// BenchmarkSelect opens a mailbox: for the first time with a dovecot-uidlist and without one, and
// again after its last session left.
func BenchmarkSelect(b *testing.B) {
	for _, size := range sizes {
		root := fill(b, size.n)
		b.Run("numbered/"+size.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a := openAccount(b, root)
				selectAll(b, a, size.n).Close()
				a.Close()
			}
		})
		b.Run("again/"+size.name, func(b *testing.B) {
			b.ReportAllocs()
			a := openAccount(b, root)
			defer a.Close()
			selectAll(b, a, size.n).Close()
			for b.Loop() {
				selectAll(b, a, size.n).Close()
			}
		})
		b.Run("unnumbered/"+size.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if err := os.Remove(filepath.Join(root, listFile)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				a := openAccount(b, root)
				selectAll(b, a, size.n).Close()
				a.Close()
			}
		})
	}
}

// BenchmarkMemory reports what a message of an open mailbox costs.
func BenchmarkMemory(b *testing.B) {
	for _, size := range sizes {
		root := fill(b, size.n)
		b.Run(size.name, func(b *testing.B) {
			for b.Loop() {
				a := openAccount(b, root)
				before := heap()
				r := selectAll(b, a, size.n)
				b.ReportMetric(float64(heap()-before)/float64(size.n), "B/message")
				r.Close()
				a.Close() // which would keep it
			}
		})
	}
}

// heap is what is in use on the heap.
func heap() int64 {
	var st runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&st)
	return int64(st.HeapAlloc)
}

// A message of an open mailbox costs at most 130 bytes.
func TestMemory(t *testing.T) {
	const n = 4000
	a := openAccount(t, fill(t, n))
	defer a.Close()
	before := heap()
	r := selectAll(t, a, n)
	defer r.Close()
	if got := float64(heap()-before) / n; got > 130 {
		t.Errorf("%.1f bytes a message", got)
	}
}

// BenchmarkChange is one change of ours, and one of another program's, in an open mailbox, until
// the snapshot has it.
func BenchmarkChange(b *testing.B) {
	ctx := context.Background()
	for _, size := range sizes {
		a := openAccount(b, fill(b, size.n))
		r := selectAll(b, a, size.n)
		b.Run("store/"+size.name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				op := []imap.StoreFlagsOp{imap.StoreFlagsAdd, imap.StoreFlagsDel}[i%2]
				if _, err := r.Store(ctx, []imap.UID{5}, op, []imap.Flag{imap.FlagFlagged}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("append/"+size.name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := r.Append(ctx, strings.NewReader("Subject: x\r\n\r\n"), nil, time.Time{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		n := len(r.Snapshot().Messages)
		b.Run("delivery/"+size.name, func(b *testing.B) {
			for b.Loop() {
				base := newBase(time.Now())
				if err := os.WriteFile(filepath.Join(a.Root(), "new", base), nil, 0o600); err != nil {
					b.Fatal(err)
				}
				s, err := r.Sync(ctx)
				if err != nil {
					b.Fatal(err)
				}
				if n++; len(s.Messages) != n {
					b.Fatalf("%d messages, want %d", len(s.Messages), n)
				}
			}
		})
		r.Close()
		a.Close()
	}
}
