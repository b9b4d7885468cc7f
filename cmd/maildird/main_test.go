package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is also maildird, under that name in $PATH.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"maildird": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"mode":   scriptMode,
			"listen": scriptListen,
		},
	})
}

// mode FILE OCTAL checks the mode of a file.
func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	fi, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", fi.Mode().Perm()); got != args[1] {
		ts.Fatalf("mode of %s is %s, want %s", args[0], got, args[1])
	}
}

// listen VARIABLE takes a port until the script ends, and puts its address into a variable.
func scriptListen(ts *testscript.TestScript, neg bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
	ts.Setenv(args[0], ln.Addr().String())
}

// patience is how long tests wait for what has to come.
const patience = 20 * time.Second

// A process is a maildird that runs.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *os.File // standard output

	exited chan struct{} // closed when it has ended, and stderr is read

	mu    sync.Mutex // guards the fields below
	lines []string   // of standard error
	more  chan struct{}
}

// start starts maildird; it is killed with the test if it runs then.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command("maildird", args...), exited: make(chan struct{}), more: make(chan struct{})}
	var err error
	if p.out, err = os.Create(filepath.Join(t.TempDir(), "stdout")); err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = p.out
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
		p.out.Close()
		if t.Failed() {
			t.Logf("maildird %s\n%s", strings.Join(args, " "), strings.Join(p.lines, "\n"))
		}
	})
	return p
}

// wait returns the submatches of the n-th line of standard error that matches, n from 1.
func (p *process) wait(n int, pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		p.mu.Lock()
		lines, more := slices.Clone(p.lines), p.more
		p.mu.Unlock()
		found := 0
		for _, line := range lines {
			if m := re.FindStringSubmatch(line); m != nil {
				if found++; found == n {
					return m
				}
			}
		}
		select {
		case <-more:
		case <-p.exited:
			p.t.Fatalf("maildird ended without saying %q", pattern)
		case <-timeout:
			p.t.Fatalf("maildird does not say %q", pattern)
		}
	}
}

// address is where the listener of a name listens.
func (p *process) address(name string) string {
	p.t.Helper()
	return p.wait(1, `msg=listening for=`+name+` address=(\S+)`)[1]
}

// end sends a signal and wants the process to end well.
func (p *process) end(signal os.Signal) {
	p.t.Helper()
	p.cmd.Process.Signal(signal)
	p.ended(0)
}

// ended waits until the process has ended.
func (p *process) ended(status int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatal("maildird does not end")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		p.t.Errorf("exit status %d, want %d", got, status)
	}
}

// log is what the process has said on standard error so far.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// files writes files into a new directory, from pairs of a name and a text.
func files(t *testing.T, namesAndTexts ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for i := 0; i < len(namesAndTexts); i += 2 {
		write(t, filepath.Join(dir, namesAndTexts[i]), namesAndTexts[i+1])
	}
	return dir
}

// write puts a file in place, whole.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".tmp", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
}
