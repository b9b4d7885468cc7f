package maildir

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// sample is a file of testdata/compressed.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "compressed", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	readableSamples = []string{"plain", "dovecot-gz", "dovecot-zstd", "dovecot-bz2", "gzip", "zstd", "zstd-ultra"}
	otherSamples    = []string{"xz", "lz4", "dovecot-lz4"}
)

// withCRLF is a message as clients get it.
func withCRLF(b []byte) string {
	return strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n", "\r\n")
}

// deliver puts a file into new/.
func deliver(t *testing.T, r *Ref, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.d.f.Name(), "new", name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// contentOf is a file's content outside of any mailbox.
func contentOf(t testing.TB, b []byte) *Content {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := &Content{f: f, raw: int64(len(b)), size: -1, counted: func(int64) {}}
	t.Cleanup(func() { c.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return c
}

// everything reads a content from start to end.
func everything(c *Content) (string, error) {
	b, err := io.ReadAll(io.NewSectionReader(c, 0, math.MaxInt64))
	return string(b), err
}

// A compressed file is the message that was compressed: with its size, also where the name doesn't tell it, and in a copy, which is
// the same file.
func TestCompressed(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		plain := sample(t, "plain")
		want := withCRLF(plain)
		r := open(t, a, "INBOX", RefOptions{})
		for i, name := range readableSamples {
			base := fmt.Sprintf("%d.%s", 2*i+1, name)
			deliver(t, r, base, sample(t, name))
			deliver(t, r, withSizes(fmt.Sprintf("%d.%s", 2*i+2, name), int64(len(plain)), int64(len(want))), sample(t, name))
		}
		if err := a.Create(ctx, "copies", nil); err != nil {
			t.Fatal(err)
		}
		copies := open(t, a, "copies", RefOptions{})
		msgs := resync(t, r).Messages
		if len(msgs) != 2*len(readableSamples) {
			t.Fatalf("there are %d messages", len(msgs))
		}
		if _, err := r.CopyTo(ctx, copies.Mailbox, msgs); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*Ref{r, copies} {
			for _, msg := range r.Snapshot().Messages {
				if n, err := r.Size(ctx, msg); err != nil || n != int64(len(want)) {
					t.Errorf("%s has size %d, %v; want %d", msg.Key(), n, err, len(want))
				}
				if got := readMessage(t, r, msg); got != want {
					t.Errorf("%s reads %.100q of %d bytes", msg.Key(), got, len(got))
				}
			}
			r.saveSizes(ctx)
			l, _, err := r.readList(false)
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range l.records {
				_, named := sizesOf(rec.base)
				if w, _ := rec.field('W'); named < 0 && w != fmt.Sprint(len(want)) || named >= 0 && w != "" {
					t.Errorf("record of %s has W %q", rec.base, w)
				}
			}
		}
		for i, msg := range copies.Snapshot().Messages {
			was, err := r.d.stat(msgs[i].path())
			if err != nil {
				t.Fatal(err)
			}
			if st, err := copies.d.stat(msg.path()); err != nil || st.id != was.id {
				t.Errorf("the copy of %s is another file, %v", msgs[i].Key(), err)
			}
		}
	})
}

// The size of a compressed file with a name that tells it is not found out by unpacking: a client that lists a mailbox
// would wait for that.
func TestCompressedSizeByName(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		for i, name := range slices.Concat(readableSamples[1:], otherSamples) {
			b := sample(t, name)
			deliver(t, r, fmt.Sprintf("%d.x,S=4134,W=4237", i), b[:len(b)/2])
		}
		for _, msg := range resync(t, r).Messages {
			if n, err := r.Size(context.Background(), msg); err != nil || n != 4237 {
				t.Errorf("%s has size %d, %v", msg.Key(), n, err)
			}
		}
	})
}

// What can't be unpacked is an error, which says why, and no message in itself; others are none the worse for it.
func TestCompressedUnreadable(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		plain := sample(t, "plain")
		files := map[string][]byte{
			"0.plain":   plain,
			"1.cut":     sample(t, "gzip")[:100],
			"2.magic":   sample(t, "zstd")[:4],
			"3.garbage": append(sample(t, "dovecot-zstd"), "garbage"...),
		}
		for i, name := range otherSamples {
			files[fmt.Sprintf("%d.%s", 4+i, name)] = sample(t, name)
		}
		for name, b := range files {
			deliver(t, r, name, b)
		}
		for _, msg := range resync(t, r).Messages {
			size, err := r.Size(context.Background(), msg)
			if msg.Key() == "0.plain" {
				if err != nil || readMessage(t, r, msg) != withCRLF(plain) {
					t.Errorf("%s has size %d, %v", msg.Key(), size, err)
				}
				continue
			}
			var ce *CompressedError
			if !errors.As(err, &ce) || !strings.Contains(err.Error(), msg.Key()) {
				t.Errorf("%s has size %d, %v; want a CompressedError that names the file", msg.Key(), size, err)
			}
			c, err := r.Content(context.Background(), msg)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := everything(c); !strings.HasPrefix(withCRLF(plain), got) || !errors.As(err, &ce) {
				t.Errorf("%s reads %.100q, %v", msg.Key(), got, err)
			}
			c.Close()
		}
		problems, err := Check(a.Root(), &a.opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if !p.Serious || !strings.Contains(p.Text, "can't be read") {
				t.Errorf("Check says %v", p)
			}
			delete(files, filepath.Base(p.File))
		}
		if len(files) != 1 {
			t.Errorf("Check says nothing of %v", slices.Sorted(maps.Keys(files)))
		}
	})
}

// From a file that was cut anywhere comes the beginning of the message and an error, and from one in which a byte is
// another one, where the format has a checksum, the message or an error.
func TestCompressedDamage(t *testing.T) {
	want := withCRLF(sample(t, "plain"))
	for _, name := range readableSamples[1:] {
		whole := sample(t, name)
		for n := formatBytes; n < len(whole); n += 3 {
			c := contentOf(t, whole[:n])
			var ce *CompressedError
			if got, err := everything(c); !strings.HasPrefix(want, got) || !errors.As(err, &ce) {
				t.Errorf("the first %d bytes of %s read %.100q of %d bytes, %v", n, name, got, len(got), err)
			}
			if _, err := c.Size(); !errors.As(err, &ce) {
				t.Errorf("the first %d bytes of %s have a size, %v", n, name, err)
			}
			c.Close()
		}
		for n := formatBytes; n < len(whole); n += 3 {
			bad := slices.Clone(whole)
			bad[n] ^= 0x55
			c := contentOf(t, bad)
			got, err := everything(c)
			if err == nil && got != want && name != "dovecot-zstd" { // which has none
				t.Errorf("%s with another byte at %d reads %.100q of %d bytes", name, n, got, len(got))
			}
			c.Close()
		}
	}
}

// A message may begin with letters that a compressed file begins with.
func TestNotCompressed(t *testing.T) {
	for _, text := range []string{
		"\x1f\x8bSubject: a\n\n", "\x1f\x8b\x08Subject: a\n\n", "BZh9: a\n\nb\n", "BZh91AY: a\n", "Dovecot-LZ4: a\n\nb\n", "\xfd7zX: a\n", "(\xb5/: a\n", "\x1f", "",
	} {
		if got, err := everything(contentOf(t, []byte(text))); err != nil || got != withCRLF([]byte(text)) {
			t.Errorf("%q reads %q, %v", text, got, err)
		}
	}
}

// bigMail is a message of about n bytes, with all kinds of line ends.
func bigMail(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d %x%s", i, r.Uint64(), []string{"\n", "\r\n", "\r", "\n\n"}[r.IntN(4)])
	}
	return b.Bytes()
}

func gzipped(t testing.TB, bs ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, b := range bs { // each is a member
		w := gzip.NewWriter(&out)
		w.Write(b)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func zstded(t testing.TB, bs ...[]byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, b := range bs { // each is a frame
		out = w.EncodeAll(b, out)
	}
	return out
}

// Any places are read in any order: those of a message that is larger than what is held of it, too, and of one that
// was compressed in pieces.
func TestCompressedPlaces(t *testing.T) {
	mail := bigMail(3*unzippedBlock + 1000)
	want := withCRLF(mail)
	half := len(mail) / 2
	for name, b := range map[string][]byte{
		"plain": mail, "gzip": gzipped(t, mail), "zstd": zstded(t, mail),
		"members": gzipped(t, mail[:half], mail[half:]), "frames": zstded(t, mail[:half], mail[half:]),
	} {
		c := contentOf(t, b)
		for _, counted := range []bool{false, true} {
			if counted {
				if n, err := c.Size(); err != nil || n != int64(len(want)) {
					t.Errorf("%s has size %d, %v; want %d", name, n, err, len(want))
				}
			}
			r := rand.New(rand.NewPCG(3, 4))
			off := 0
			for range 20 {
				p := make([]byte, r.IntN(100_000))
				n, err := c.ReadAt(p, int64(off))
				if err != nil && err != io.EOF || want[off:off+n] != string(p[:n]) || n < min(len(p), len(want)-off) {
					t.Fatalf("%s has other bytes in the %d at %d, %v", name, n, off, err)
				}
				if off += n; r.IntN(10) == 0 || off == len(want) {
					off = r.IntN(len(want))
				}
			}
		}
	}
}

// A compressed file takes no more memory than the decoder may have, and no more time than the greatest message,
// whatever it says of itself and whatever it would become.
func TestCompressedBombs(t *testing.T) {
	defer func(was int64) { maxUnzipped = was }(maxUnzipped)
	maxUnzipped = 10 << 20
	header := func(descriptor byte, rest ...byte) []byte {
		return append(append([]byte("\x28\xb5\x2f\xfd"), descriptor), rest...)
	}
	raw := []byte{1 | 5<<3, 0, 0, 'S', ':', ' ', 'a', '\n'} // the last block, of 5 bytes
	zeros := make([]byte, 11<<20)
	for name, b := range map[string][]byte{
		"gzip of zeros":                     gzipped(t, zeros),
		"zstd of zeros":                     zstded(t, zeros),
		"zstd with the greatest window":     append(header(0, 0xff), raw...),
		"zstd with a window of 256 MiB":     append(header(0, 18<<3), raw...),
		"zstd that says it is 1 TiB":        append(header(0xe0, binary.LittleEndian.AppendUint64(nil, 1<<40)...), raw...),
		"zstd that says it is 129 MiB":      append(header(0xe0, binary.LittleEndian.AppendUint64(nil, 129<<20)...), raw...),
		"zstd that has a window of 128 MiB": append(header(0, 17<<3), raw...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c := contentOf(t, b)
		n, err := c.Size()
		c.Close()
		runtime.ReadMemStats(&after)
		var ce *CompressedError
		allowed, took := uint64(2<<20), after.TotalAlloc-before.TotalAlloc
		switch {
		case strings.Contains(name, "128 MiB"):
			allowed += maxWindow
			if err != nil || n != 6 {
				t.Errorf("%s has size %d, %v", name, n, err)
			}
		case !errors.As(err, &ce):
			t.Errorf("%s has size %d, %v", name, n, err)
		}
		if strings.Contains(name, "zeros") {
			allowed += 24 << 20 // zstd's encoder chooses a window of 8 MiB
		}
		if took > allowed {
			t.Errorf("%s took %d MiB of memory", name, took>>20)
		}
		t.Logf("%s: %v, %d KiB", name, err, took>>10)
	}
}

// A message that would be unpacked when it is read again is not taken: its client would not get the bytes that it gave.
func TestAppendCompressed(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		r := open(t, a, "INBOX", RefOptions{})
		for _, name := range slices.Concat(readableSamples[1:], otherSamples) {
			if _, _, err := r.Append(context.Background(), bytes.NewReader(sample(t, name)), nil, time.Time{}); err != ErrCompressed {
				t.Errorf("append of %s: %v", name, err)
			}
		}
		if names, err := os.ReadDir(filepath.Join(a.Root(), "tmp")); err != nil || len(names) > 0 {
			t.Errorf("in tmp is left %v, %v", names, err)
		}
		wantDump(t, resync(t, r), "")
	})
}

// Whatever a file has in it: it is read without harm; in pieces as at once; and as it is, if it is not compressed.
func FuzzCompressed(f *testing.F) {
	maxUnzipped = 1 << 20
	for _, name := range slices.Concat(readableSamples, otherSamples) {
		b := sample(f, name)
		f.Add(b, uint16(100))
		f.Add(b[:len(b)/2], uint16(1))
	}
	f.Add(gzipped(f, sample(f, "plain"), nil, []byte("x")), uint16(4000))
	f.Add(append(zstded(f, sample(f, "plain"), nil), "garbage"...), uint16(4000))
	f.Add([]byte("BZh9: a\n"), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		c := contentOf(t, b)
		got, err := everything(c)
		if formatOf(b) == nil && (err != nil || got != string(toCRLF(b))) {
			t.Fatalf("a plain file reads %.100q of %d bytes, %v", got, len(got), err)
		}
		if int64(len(got)) > 2*(maxUnzipped+unzippedBlock) {
			t.Fatalf("%d bytes are unpacked", len(got))
		}
		if n, serr := c.Size(); (serr == nil) != (err == nil) || err == nil && n != int64(len(got)) {
			t.Fatalf("there are %d bytes, %v; Size says %d, %v", len(got), err, n, serr)
		}
		p := make([]byte, int(piece)+1)
		for _, off := range []int{len(got) / 2, len(got) / 3, 0, max(len(got)-10, 0)} {
			n, rerr := c.ReadAt(p, int64(off))
			if string(p[:n]) != got[off:off+n] || n < min(len(p), len(got)-off) || n < len(p) && rerr == nil {
				t.Fatalf("%d bytes at %d are %.100q, %v; want %.100q", len(p), off, p[:n], rerr, got[off:])
			}
		}
	})
}

// toCRLF puts a CR before each LF that has none.
func toCRLF(b []byte) (out []byte) {
	cr := false
	for _, x := range b {
		if x == '\n' && !cr {
			out = append(out, '\r')
		}
		out = append(out, x)
		cr = x == '\r'
	}
	return out
}

// Opening, counting and reading a message, as a FETCH BODY[] does.
func BenchmarkContent(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"2k", 2 << 10}, {"50M", 50 << 20}} {
		mail := bytes.Repeat(sample(b, "plain"), size.n>>12+1)[:size.n]
		for _, format := range []struct {
			name string
			of   func(testing.TB, ...[]byte) []byte
		}{{"plain", func(_ testing.TB, b ...[]byte) []byte { return b[0] }}, {"gzip", gzipped}, {"zstd", zstded}} {
			b.Run(size.name+"/"+format.name, func(b *testing.B) {
				root := fill(b, 0)
				if err := os.WriteFile(filepath.Join(root, "cur", "1.x:2,S"), format.of(b, mail), 0o600); err != nil {
					b.Fatal(err)
				}
				a, err := Open(root, nil)
				if err != nil {
					b.Fatal(err)
				}
				defer a.Close()
				r := selectAll(b, a, 1)
				defer r.Close()
				msg := r.Snapshot().Messages[0]
				b.SetBytes(int64(size.n))
				b.ReportAllocs()
				for b.Loop() {
					c, err := r.Content(context.Background(), msg)
					if err != nil {
						b.Fatal(err)
					}
					n, err := c.Size()
					if err != nil {
						b.Fatal(err)
					}
					if got, err := io.Copy(io.Discard, io.NewSectionReader(c, 0, n)); got != n || err != nil {
						b.Fatalf("%d of %d bytes, %v", got, n, err)
					}
					c.Close()
				}
			})
		}
	}
}
