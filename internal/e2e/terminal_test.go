package e2e

import (
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// A screen is a program in a terminal.
type screen struct {
	io.Writer // the keyboard
	exited    chan struct{}

	mu    sync.Mutex // guards the fields below
	shown string     // all that was written, without control sequences
	read  int        // how much of it was waited for
}

var control = regexp.MustCompile(`\x1b(\[[0-9;?>]*[a-zA-Z]|\([A-Z0-9]|[=>78M]|\][^\x07]*\x07)|[\x00-\x08\x0b-\x1f]`)

// inTerminal starts a program in a terminal of 80 columns and 24 lines, and ends it with the test.
func inTerminal(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{Writer: tty, exited: make(chan struct{})}
	var raw strings.Builder
	go func() {
		defer close(s.exited)
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			raw.Write(b[:n])
			s.mu.Lock()
			s.shown = control.ReplaceAllString(raw.String(), "")
			s.mu.Unlock()
			if err != nil {
				cmd.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-s.exited
		tty.Close()
	})
	return s
}

// wait returns when a text was shown after what the last wait found.
func (s *screen) wait(t *testing.T, text string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s.mu.Lock()
		i := strings.Index(s.shown[s.read:], text)
		if i >= 0 {
			s.read += i + len(text)
		}
		shown := s.shown
		s.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the terminal does not show %q, but\n%s", text, shown)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (s *screen) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(s, keys); err != nil {
		t.Fatal(err)
	}
}
