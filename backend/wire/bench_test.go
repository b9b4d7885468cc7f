package wire_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/backend/wire"
)

// BenchmarkFetchFlags fetches the flags of 10 000 messages over TCP from go-imap's server alone and behind
// a Listener, and reports the system calls that write the answer.
func BenchmarkFetchFlags(b *testing.B) {
	for _, bb := range []struct {
		name string
		o    *wire.Options
	}{
		{"go-imap", nil},
		{"wire", &wire.Options{}},
	} {
		b.Run(bb.name+"/10k", func(b *testing.B) {
			s := start(b, true, bb.o)
			s.fill(b, 10_000)
			c := s.dial(b)
			c.conn.SetDeadline(time.Time{})
			c.expect("* OK ")
			c.send(login)
			c.expect("l OK ")
			c.send("a SELECT INBOX\r\n")
			c.until("a OK ")
			before := s.writes.Load()
			for b.Loop() {
				c.send("b FETCH 1:* FLAGS\r\n")
				for {
					line, err := c.br.ReadSlice('\n')
					if err != nil {
						b.Fatal(err)
					}
					if bytes.HasPrefix(line, []byte("b OK ")) {
						break
					}
				}
			}
			b.ReportMetric(float64(s.writes.Load()-before)/float64(b.N), "writes/op")
		})
	}
}
