// Package peers starts the real programs that tests talk to, on loopback, for as long as a test
// runs.
package peers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Need skips a test whose peer is not there; where MAILDIR_PEERS is "require", as in make test,
// it fails.
func Need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		missing(t, err)
	}
}

func needRoot(t testing.TB, program string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, fmt.Errorf("%s can only be started by root", program))
	}
}

func missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("MAILDIR_PEERS") == "require" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// Owner is the user that owns the mail: Debian's "mail", or whoever runs the test if that is not
// root.
func Owner(t testing.TB) (uid, gid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid()
	}
	owner, err := user.Lookup("mail")
	if err != nil {
		t.Fatal(err)
	}
	if uid, err = strconv.Atoi(owner.Uid); err == nil {
		gid, err = strconv.Atoi(owner.Gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// AsOwner lets a program run as the [Owner].
func AsOwner(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if os.Geteuid() == 0 {
		uid, gid := Owner(t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
}

// Dir is a directory that every user may enter, removed with the test. [testing.T.TempDir] is for
// one user alone.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// freeAddrs are as many addresses, no two of them the same.
func freeAddrs(t testing.TB, n int) (addrs []string) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // not before all are chosen
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs
}

// waitListening returns when a program takes connections. It fails the test with what the program
// said if it ends before that.
func waitListening(t testing.TB, program, network, addr string, exited chan error, said func() string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial(network, addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("%s ended: %v\n%s", program, err, said())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v\n%s", program, err, said())
		}
	}
}
