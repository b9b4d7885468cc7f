package maildir

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// However a message comes in parts, it is stored with LF for CRLF and nothing else changed.
func TestLFWriter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		text := make([]byte, r.IntN(12))
		for i := range text {
			text[i] = "ab\r\n"[r.IntN(4)]
		}
		var out bytes.Buffer
		w := &lfWriter{w: bufio.NewWriter(&out)}
		for rest := text; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			w.Write(rest[:n])
			rest = rest[n:]
		}
		w.flush()
		want := strings.ReplaceAll(string(text), "\r\n", "\n")
		bare := strings.Count(want, "\n") - strings.Count(want, "\r\n")
		if out.String() != want || w.stored != int64(len(want)) || w.virtual != int64(len(want)+bare) {
			t.Fatalf("%q became %q, %d and %d bytes", text, out.String(), w.stored, w.virtual)
		}
	}
}
