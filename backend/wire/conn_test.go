package wire_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imapmaildir/imapmaildir/backend/wire"
)

// pipe returns a Conn and its client, in memory: what one writes waits until the other reads it.
func pipe(t *testing.T, o *wire.Options) (server, client net.Conn) {
	t.Helper()
	client, below := net.Pipe()
	t.Cleanup(func() { client.Close() })
	return wrap(t, below, o), client
}

func wrap(t *testing.T, below net.Conn, o *wire.Options) net.Conn {
	t.Helper()
	server, err := wire.Wrap(once{below}, o).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

// once is a listener that has one connection.
type once struct{ net.Conn }

func (l once) Accept() (net.Conn, error) { return l.Conn, nil }
func (l once) Addr() net.Addr            { return l.LocalAddr() }

// read reads n bytes.
func read(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHold has a command that takes long after its first line.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pipe(t, nil)
		for range 3 {
			begin := time.Now()
			io.WriteString(server, "* 1 FETCH (UID 1)\r\n")
			io.WriteString(server, "* 2 FETCH (UID 2)\r\n")
			if got := read(t, client, 38); got != "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n" {
				t.Errorf("got %q", got)
			}
			if took := time.Since(begin); took != 10*time.Millisecond {
				t.Errorf("held for %v", took)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestAtOnce writes while the server waits for input, as during IDLE: no time may pass.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pipe(t, nil)
		ended := make(chan error)
		go func() {
			_, err := server.Read(make([]byte, 10))
			ended <- err
		}()
		synctest.Wait()
		begin := time.Now()
		for range 3 {
			io.WriteString(server, "* 1 EXISTS\r\n")
			if got := read(t, client, 12); got != "* 1 EXISTS\r\n" {
				t.Errorf("got %q", got)
			}
		}
		// The client is slow: meanwhile lines are gathered.
		for range 3 {
			io.WriteString(server, "* 1 EXISTS\r\n")
		}
		synctest.Wait()
		reads := 0
		for n := 0; n < 36; reads++ {
			m, err := client.Read(make([]byte, 100))
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if reads > 2 {
			t.Errorf("three lines in %d writes", reads)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v", took)
		}
		server.Close()
		if err := <-ended; err == nil {
			t.Error("Read: no error after Close")
		}
	})
}

// TestFull writes more than is gathered, in pieces of many sizes.
func TestFull(t *testing.T) {
	server, client := pipe(t, nil)
	var want strings.Builder
	for n := 1; n < 1<<20; n = n*3 + 1 {
		want.WriteString(strings.Repeat(string(rune('a'+n%26)), n))
	}
	go func() {
		for n := 1; n < 1<<20; n = n*3 + 1 {
			io.WriteString(server, strings.Repeat(string(rune('a'+n%26)), n))
		}
		server.Close()
	}()
	got, err := io.ReadAll(client)
	if err != nil || string(got) != want.String() {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, want.Len())
	}
}

// TestBackpressure has a client that does not read: the server has to wait, not to gather.
func TestBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _ := pipe(t, nil)
		written := 0
		go func() {
			for {
				n, err := io.WriteString(server, strings.Repeat("x", 999)+"\n")
				if err != nil {
					return
				}
				written += n
			}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if written > 64<<10 {
			t.Errorf("%d bytes written to nobody", written)
		}
	})
}

// TestStuckIdle writes to a client that waits in IDLE and does not read: what goes on meanwhile costs
// one goroutine, not one for each line.
func TestStuckIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _ := pipe(t, nil)
		go server.Read(make([]byte, 10))
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 1000 {
			io.WriteString(server, "* 1 EXISTS\r\n")
			synctest.Wait()
		}
		if n := runtime.NumGoroutine() - before; n > 10 {
			t.Errorf("%d goroutines more", n)
		}
	})
}

// TestWriteTimeout has a client that does not read what it gets during IDLE.
func TestWriteTimeout(t *testing.T) {
	for _, tt := range []struct {
		o    *wire.Options
		want time.Duration
	}{
		{nil, 5 * time.Minute},
		{&wire.Options{WriteTimeout: time.Second}, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			server, _ := pipe(t, tt.o)
			begin := time.Now()
			ended := make(chan error)
			go func() {
				_, err := server.Read(make([]byte, 10))
				ended <- err
			}()
			synctest.Wait()
			if err := server.SetWriteDeadline(begin.Add(time.Millisecond)); err != nil {
				t.Error(err)
			}
			io.WriteString(server, "* 1 EXISTS\r\n")
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read: %v", err)
			}
			if took := time.Since(begin); took != tt.want {
				t.Errorf("took %v, want %v", took, tt.want)
			}
			if _, err := io.WriteString(server, "* 2 EXISTS\r\n"); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write: %v", err)
			}
		})
	}
}

// TestWriteTimeoutOver has a connection that rests for longer than a write may take. TLS writes on its own
// account then, while it reads: the answer to a KeyUpdate (RFC 8446 4.6.3). Were the deadline of the last
// write still set, that would fail, and every write after it.
func TestWriteTimeoutOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pipe(t, nil)
		io.WriteString(server, "* OK hello\r\n")
		read(t, client, 12)
		time.Sleep(time.Hour)
		go client.Read(make([]byte, 10))
		if _, err := server.(*wire.Conn).NetConn().Write([]byte("KeyUpdate")); err != nil {
			t.Errorf("after an hour: %v", err)
		}
	})
}

// TestClose closes connections in every state that writing has; it may take a second.
func TestClose(t *testing.T) {
	const bye = "* BYE Shutting down\r\n"
	for _, tt := range []struct {
		name  string
		act   func(server net.Conn) // before Close
		reads bool                  // the client reads
		want  string                // what it reads then
		took  time.Duration
	}{
		{"nothing gathered", func(net.Conn) {}, true, "", 0},
		{"gathered", func(c net.Conn) { io.WriteString(c, bye) }, true, bye, 0},
		{"gathered, client stuck", func(c net.Conn) { io.WriteString(c, bye) }, false, "", time.Second},
		{"writing, client stuck", func(c net.Conn) {
			go c.Read(make([]byte, 10))
			synctest.Wait()
			io.WriteString(c, "* 1 EXISTS\r\n")
			synctest.Wait()
			io.WriteString(c, bye)
		}, false, "", time.Second},
		{"long write, client stuck", func(c net.Conn) {
			go c.Write(make([]byte, 1<<20))
			synctest.Wait()
		}, false, "", time.Second},
	} {
		for _, isTLS := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", tt.name, isTLS), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, below := net.Pipe()
					defer client.Close()
					if isTLS {
						tc := tls.Server(below, serverTLS)
						go tc.Handshake()
						client = tls.Client(client, clientTLS)
						if err := client.(*tls.Conn).Handshake(); err != nil {
							t.Fatal(err)
						}
						below = tc
					}
					server := wrap(t, below, nil)
					var got []byte
					var readErr error
					done := make(chan struct{})
					if tt.reads {
						go func() {
							defer close(done)
							got, readErr = io.ReadAll(client)
						}()
					}
					tt.act(server)
					begin := time.Now()
					err := server.Close()
					if took := time.Since(begin); took != tt.took {
						t.Errorf("Close took %v, want %v", took, tt.took)
					}
					if (err == nil) != tt.reads {
						t.Errorf("Close: %v", err)
					}
					if tt.reads {
						<-done
						if string(got) != tt.want || readErr != nil {
							t.Errorf("got %q, %v, want %q", got, readErr, tt.want)
						}
					}
					if err := server.Close(); !errors.Is(err, net.ErrClosed) {
						t.Errorf("second Close: %v", err)
					}
					if _, err := server.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
						t.Errorf("Write after Close: %v", err)
					}
					synctest.Wait() // for the reader that act started
					if _, err := server.Read(make([]byte, 1)); err == nil {
						t.Error("Read after Close: no error")
					}
				})
			})
		}
	}
}

// TestCloseTLS has a client that does not read the goodbye of TLS.
func TestCloseTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, below := net.Pipe()
		defer client.Close()
		tc := tls.Server(below, serverTLS)
		go tc.Handshake()
		client = tls.Client(client, clientTLS)
		if err := client.(*tls.Conn).Handshake(); err != nil {
			t.Fatal(err)
		}
		server := wrap(t, tc, nil)
		io.WriteString(server, "* BYE Shutting down\r\n")
		go client.Read(make([]byte, 100))
		begin := time.Now()
		server.Close()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

// TestReadDeadline reads on after a timeout that came in the middle of a line.
func TestReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pipe(t, nil)
		go io.WriteString(client, "a NO")
		server.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := server.Read(make([]byte, 100)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %d, %v", n, err)
		}
		server.SetDeadline(time.Time{})
		go io.WriteString(client, "OP\r\n")
		if got := read(t, server, 8); got != "a NOOP\r\n" {
			t.Errorf("got %q", got)
		}
	})
}

// TestConcurrentWrites writes from several goroutines while a Read waits, then closes: each
// goroutine's lines arrive whole and in order.
func TestConcurrentWrites(t *testing.T) {
	server, client := pipe(t, nil)
	readEnded := make(chan struct{})
	go func() {
		defer close(readEnded)
		for {
			if _, err := server.Read(make([]byte, 100)); err != nil {
				return
			}
		}
	}()
	const writers, lines = 4, 500
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range lines {
				fmt.Fprintf(server, "* %d %d\r\n", w, n)
			}
		})
	}
	go func() {
		wg.Wait()
		server.Close()
	}()
	go func() { // and the client says something now and then
		for range 50 {
			io.WriteString(client, "a NOOP\r\n")
		}
	}()
	next := make([]int, writers)
	sc := bufio.NewScanner(client)
	for sc.Scan() {
		var w, n int
		if _, err := fmt.Sscanf(sc.Text(), "* %d %d", &w, &n); err != nil || n != next[w] {
			t.Fatalf("got %q, %v", sc.Text(), err)
		}
		next[w]++
	}
	for w, n := range next {
		if n != lines {
			t.Errorf("writer %d: %d lines", w, n)
		}
	}
	<-readEnded
}
