package backend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/imapmaildir/imapmaildir/backend"
)

// bigMailbox makes an INBOX of n small mails that were read, as a delivery agent names them.
func bigMailbox(tb testing.TB, n int) string {
	tb.Helper()
	root := filepath.Join(tb.TempDir(), "Maildir")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	const mail = "From: Ada <ada@example.org>\nTo: Tom <tom@example.org>\nSubject: Plans\nDate: Tue, 03 Nov 2026 09:12:41 +0100\n\nHello\n"
	for i := range n {
		name := fmt.Sprintf("%d.M%06dP4711.mail.example.org,S=%d,W=%d:2,S", 1700000000+i/10, i%10, len(mail), len(mail)+6)
		if err := os.WriteFile(filepath.Join(root, "cur", name), []byte(mail), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return root
}

// The first SELECT numbers all messages; the others find dovecot-uidlist.
func BenchmarkSelect(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("%dk", n/1000), func(b *testing.B) {
			root := bigMailbox(b, n)
			b.Run("first", func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					for _, f := range []string{"dovecot-uidlist", "dovecot-uidvalidity", "imapmaildir.cache"} {
						os.Remove(filepath.Join(root, f))
					}
					c := dial(b, serve(b, &backend.Account{Root: root}).addr)
					b.StartTimer()
					c.do("SELECT INBOX")
				}
			})
			b.Run("new-process", func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					c := dial(b, serve(b, &backend.Account{Root: root}).addr)
					b.StartTimer()
					c.do("SELECT INBOX")
				}
			})
			b.Run("again", func(b *testing.B) {
				c := dial(b, serve(b, &backend.Account{Root: root}).addr)
				c.do("SELECT INBOX")
				c.do("UNSELECT")
				for b.Loop() {
					c.do("SELECT INBOX")
					b.StopTimer()
					c.do("UNSELECT")
					b.StartTimer()
				}
			})
		})
	}
}

// What is asked for a first time is parsed and remembered; then it is in the metadata cache.
func BenchmarkFetch(b *testing.B) {
	root := bigMailbox(b, 10_000)
	for _, items := range []string{"FLAGS", "(UID FLAGS INTERNALDATE RFC822.SIZE)", "ENVELOPE", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]", "BODY.PEEK[]"} {
		b.Run(items+"/first", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				os.Remove(filepath.Join(root, "imapmaildir.cache"))
				s, stop := start(b, &backend.Account{Root: root})
				c := dial(b, s.addr)
				c.do("SELECT INBOX")
				b.StartTimer()
				c.do("FETCH 1:* " + items)
				b.StopTimer()
				stop()
				b.StartTimer()
			}
		})
		b.Run(items+"/again", func(b *testing.B) {
			c := dial(b, serve(b, &backend.Account{Root: root}).addr)
			c.do("SELECT INBOX")
			c.do("FETCH 1:* " + items)
			for b.Loop() {
				c.do("FETCH 1:* " + items)
			}
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	c := dial(b, serve(b, &backend.Account{Root: bigMailbox(b, 10_000)}).addr)
	c.do("SELECT INBOX")
	for _, keys := range []string{"UNSEEN", "SUBJECT xyz", "BODY xyz"} {
		b.Run(keys, func(b *testing.B) {
			for b.Loop() {
				c.do("SEARCH " + keys)
			}
		})
	}
}
