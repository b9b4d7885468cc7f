package peers

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A Courier is Debian's courier-imap behind a listener of ours, for its own login is one for the whole
// machine. Connections begin logged in (PREAUTH), all as the same user.
type Courier struct {
	Addr string // of IMAP

	t    *testing.T
	root string // where its packages are
	home string // the user's
}

// StartCourier gives each connection to a process of Courier's, until the test ends.
func StartCourier(t *testing.T) *Courier {
	t.Helper()
	needRoot(t, "courier-imap")
	c := &Courier{t: t, root: unpackCourier(t), home: Dir(t)}
	uid, gid := Owner(t)
	for _, name := range []string{"", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"} {
		dir := filepath.Join(c.home, name)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.Chown(dir, uid, gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.startGamin()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			socket, err := conn.(*net.TCPConn).File()
			conn.Close()
			if err == nil {
				err = syscall.SetNonblock(int(socket.Fd()), false) // as a child expects it
			}
			if err != nil {
				t.Error(err)
				return
			}
			running.Go(func() {
				defer socket.Close()
				// The configuration is a script that sets variables.
				cmd := c.command(ctx, "sh", "-c", fmt.Sprintf("set -a; . %s/etc/courier/imapd; exec %[1]s/usr/bin/imapd Maildir", c.root))
				cmd.Stdin, cmd.Stdout = socket, socket
				cmd.Run() // its log says what there is to say
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		cancel()
		running.Wait()
	})
	return c
}

// Maildir is the user's mail root.
func (c *Courier) Maildir() string { return filepath.Join(c.home, "Maildir") }

// startGamin starts the server that imapd watches files by. It would start one itself that outlives
// the test.
func (c *Courier) startGamin() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := c.command(ctx, c.root+"/usr/libexec/gam_server", "--notimeout", c.home)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	c.t.Cleanup(func() {
		cancel()
		<-exited
	})
	name := "@/tmp/fam-mail-" + c.home // it names its socket so, and fills up with NUL
	waitListening(c.t, "gam_server", "unix", name+strings.Repeat("\x00", 108-len(name)), exited, func() string { return "" })
}

// command is a program of Courier's, run for the user whose mail it is.
func (c *Courier) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	libs, _ := filepath.Glob(c.root + "/usr/lib/*-linux-*") // the pattern is good
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = c.home
	cmd.Env = []string{
		"PATH=/usr/bin:/bin",
		"LD_LIBRARY_PATH=" + strings.Join(append(libs, c.root+"/usr/lib"), ":"),
		"GAM_CLIENT_ID=" + c.home,
		"HOME=" + c.home,
		"AUTHENTICATED=ada", // as Courier's login would have it
		"TCPREMOTEIP=127.0.0.1",
	}
	cmd.Stderr = c.t.Output()
	AsOwner(c.t, cmd)
	return cmd
}

// unpackCourier unpacks the packages that make peers downloads, and returns where.
func unpackCourier(t *testing.T) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	pattern := filepath.Join(filepath.Dir(file), "../../build/courier/*.deb")
	packages, err := filepath.Glob(pattern)
	if err == nil && len(packages) == 0 {
		err = fmt.Errorf("there is no %s; make peers downloads them", pattern)
	}
	if err != nil {
		missing(t, err)
	}
	root := Dir(t)
	for _, p := range packages {
		if out, err := exec.Command("dpkg-deb", "-x", p, root).CombinedOutput(); err != nil {
			t.Fatalf("unpack %s: %v\n%s", p, err, out)
		}
	}
	return root
}
