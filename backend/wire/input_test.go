package wire

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLiteral(t *testing.T) {
	for _, tt := range []struct {
		line  string
		size  int64
		waits bool
		ok    bool
	}{
		{"a LOGIN {5}\r\n", 5, true, true},
		{"a LOGIN {5}\n", 5, true, true},
		{"a LOGIN {5} \r\n", 5, true, true}, // go-imap takes it
		{"a LOGIN {5+}\r\n", 5, false, true},
		{"a APPEND x ~{0}\r\n", 0, true, true},
		{"a APPEND x UTF8 (~{12+}\r\n", 12, false, true},
		{"{00012}\r\n", 12, true, true},
		{"{9223372036854775807}\r\n", 9223372036854775807, true, true},
		{"{9223372036854775808}\r\n", 0, false, false},
		{"a SEARCH SUBJECT \"{5}\"\r\n", 0, false, false},
		{"a LOGIN {5}  \r\n", 0, false, false},
		{"a LOGIN {5}x\r\n", 0, false, false},
		{"a LOGIN {}\r\n", 0, false, false},
		{"a LOGIN {+}\r\n", 0, false, false},
		{"a LOGIN {-1}\r\n", 0, false, false},
		{"a LOGIN {5-}\r\n", 0, false, false},
		{"a LOGIN {5++}\r\n", 0, false, false},
		{"a LOGIN 5}\r\n", 0, false, false},
		{"}\r\n", 0, false, false},
		{"\n", 0, false, false},
	} {
		size, waits, ok := literal([]byte(tt.line))
		if size != tt.size || waits != tt.waits || ok != tt.ok {
			t.Errorf("literal(%q) = %v, %v, %v, want %v, %v, %v", tt.line, size, waits, ok, tt.size, tt.waits, tt.ok)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, tt := range []struct{ line, tag, name, args string }{
		{"a1 starttls\r\n", "a1", "STARTTLS", ""},
		{"a1 STARTTLS \n", "a1", "STARTTLS", ""},
		{"a1 STARTTLS  \n", "a1", "STARTTLS", " "},
		{"+ LOGIN {3}\r\n", "+", "LOGIN", "{3}"},
		{"a1  STARTTLS\r\n", "a1", "", "STARTTLS"},
		{"a1\r\n", "", "", ""},
		{" STARTTLS\r\n", "", "", ""},
		{"a(1 STARTTLS\r\n", "", "", ""},
		{"\x16\x03\x01 STARTTLS\r\n", "", "", ""},
	} {
		tag, name, args, ok := command([]byte(tt.line))
		if tag != tt.tag || name != tt.name || string(args) != tt.args || ok != (tt.tag != "") {
			t.Errorf("command(%q) = %q, %q, %q, %v, want %q, %q, %q", tt.line, tag, name, args, ok, tt.tag, tt.name, tt.args)
		}
	}
}

// The server of the stream tests reads commands as go-imap does and answers each. A command is
// refused as soon as a line of it has an R and ends with a literal: what follows is not read.
var announcement = regexp.MustCompile(`\{(\d+)(\+?)\} ?\r?\n$`)

func announced(line []byte) (size int64, waits, ok bool) {
	m := announcement.FindSubmatch(line)
	if m == nil {
		return 0, false, false
	}
	size, err := strconv.ParseInt(string(m[1]), 10, 64)
	return size, len(m[2]) == 0, err == nil
}

func refused(line []byte) bool { return bytes.ContainsRune(line, 'R') }

// serve returns everything that the server reads from conn.
func serve(conn net.Conn, bufSize int) ([]byte, error) {
	var got bytes.Buffer
	r := bufio.NewReaderSize(conn, bufSize)
	for {
		line, err := r.ReadBytes('\n')
		got.Write(line)
		if err == io.EOF {
			return got.Bytes(), nil
		} else if err != nil {
			return got.Bytes(), err
		}
		switch size, waits, ok := announced(line); {
		case ok && refused(line):
			io.WriteString(conn, "x NO refused\r\n")
		case ok:
			if waits {
				io.WriteString(conn, "+ go on\r\n")
			}
			if _, err := io.CopyN(&got, r, size); err != nil && err != io.EOF {
				return got.Bytes(), err
			}
		default:
			io.WriteString(conn, "* untagged\r\n")
			io.WriteString(conn, "x OK done\r\n")
		}
	}
}

// wanted says what the server is to read when the client sends stream.
func wanted(stream []byte) []byte {
	var want []byte
	begun, dropping := false, false
	take := func(n int64) {
		n = min(n, int64(len(stream)))
		if !dropping {
			want = append(want, stream[:n]...)
		}
		stream = stream[n:]
	}
	for len(stream) > 0 {
		if !begun && (stream[0] == '\n' || bytes.HasPrefix(stream, []byte("\r\n"))) {
			stream = stream[bytes.IndexByte(stream, '\n')+1:]
			continue
		}
		end := bytes.IndexByte(stream, '\n') + 1
		if end == 0 {
			take(int64(len(stream)))
			break
		}
		line := stream[:end]
		take(int64(end))
		size, waits, ok := announced(line)
		begun = ok
		if !ok || waits && (dropping || refused(line)) {
			begun, dropping = false, false
			continue
		}
		dropping = dropping || refused(line)
		take(size)
	}
	return want
}

// checkStream sends stream in pieces that seed chooses and compares what the server reads with
// what it is to read.
func checkStream(t *testing.T, stream []byte, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	r := readerFunc(func(p []byte) (int, error) {
		if len(stream) == 0 {
			return 0, io.EOF
		}
		n := copy(p, stream[:min(len(stream), 1+rnd.IntN(1+rnd.IntN(5000)))])
		stream = stream[n:]
		return n, nil
	})
	want := wanted(stream)
	got, err := serve(testConn(halfConn{r: r}, nil), 16<<(seed%9))
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if !bytes.Equal(got, want) {
		at := 0 // what is equal is not interesting
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Fatalf("seed %d, after %q:\ngot  %.200q\nwant %.200q", seed, got[max(0, at-200):at], got[at:], want[at:])
	}
}

// A halfConn is a connection to a client that ends its half and then reads what it gets.
type halfConn struct {
	net.Conn // nil
	r        io.Reader
}

func (c halfConn) Read(p []byte) (int, error)         { return c.r.Read(p) }
func (c halfConn) Write(p []byte) (int, error)        { return len(p), nil }
func (c halfConn) SetWriteDeadline(t time.Time) error { return nil }

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// testConn returns a Conn over below, with the options of a Listener.
func testConn(below net.Conn, o *Options) *Conn {
	return newConn(Wrap(nil, o), below, func() {})
}

// TestStream sends random commands, with literals of both kinds, accepted and refused, and empty lines
// everywhere.
func TestStream(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
		var stream strings.Builder
		for range 1 + rnd.IntN(20) {
			for range rnd.IntN(3) {
				stream.WriteString(pick("\r\n", "\n"))
			}
			stream.WriteString(pick("a NOOP", "b LOGIN ", "R APPEND INBOX ", " ", "\r"))
			for range rnd.IntN(4) {
				content := strings.Repeat(pick("x", "\r\n", "\n", "c NOOP\r\n", "{3}\r\n"), rnd.IntN(1+rnd.IntN(3000)))
				size := strconv.Itoa(len(content))
				stream.WriteString("{" + size + pick("}", "+}") + pick("\r\n", "\n", " \r\n") + content)
				stream.WriteString(pick("", " ", " (R)", "\r\n"))
			}
			stream.WriteString(pick("\r\n", "\n"))
		}
		sent := stream.String()
		if seed%4 == 0 { // hangs up in the middle
			sent = sent[:rnd.IntN(len(sent))]
		}
		checkStream(t, []byte(sent), seed)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("\r\n\na NOOP\r\n\r\nb LOGIN {3}\r\nx\r\n {2+}\r\n\r\n\r\n\r\n"), uint64(1))
	f.Add([]byte("R APPEND INBOX {9+}\r\nc NOOP\r\n {2+}\n\r\n{1}\r\n\r\nd"), uint64(2))
	f.Add([]byte("a R {0}\r\n\r\nb R {0+}\n\n\r\r\n\n"), uint64(3))
	f.Add([]byte("a R {3+}\r\nabc d"), uint64(4)) // hangs up in what was refused
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		if len(stream) >= maxCommand {
			t.Skip("may have a line that is too long")
		}
		if bytes.IndexByte(stream, tlsHandshake) >= 0 {
			t.Skip("may end the connection")
		}
		if hasSize(stream) {
			t.Skip("may be rewritten")
		}
		checkStream(t, stream, seed)
	})
}
