package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// patience is how long anything may take that a test waits for.
const patience = 30 * time.Second

// users are all users; each has the password "pass".
var users = []string{"ada", "ben"}

// A server is a running maildird.
type server struct {
	imap, imaps string // addresses; imap has STARTTLS and takes passwords without it
	metrics     string // where its metrics are
	cert        string // the file of its certificate, for "localhost" and 127.0.0.1

	as       *runner // nil: the owner of the mail
	location string
	tolerate string // what may be in the log although it is an error
	cmd      *exec.Cmd
	exited   chan struct{} // closed when cmd has been waited for

	mu      sync.Mutex // guards the fields below
	log     []string
	logged  chan struct{} // closed and made anew with each line
	stopped bool
}

// serve starts maildird for users and ends it with the test. location is where Maildirs are, with %u
// for the user; more is added to the configuration.
func serve(t testing.TB, location, more string) *server {
	t.Helper()
	return serveUsers(t, users, location, more)
}

func serveUsers(t testing.TB, users []string, location, more string) *server {
	t.Helper()
	return serveAs(t, nil, users, location, more)
}

// A runner is as whom maildird runs, and with which umask.
type runner struct {
	syscall.Credential
	umask string // in octal
}

// serveAs is serveUsers for a maildird that runs as somebody else than the owner of the mail.
func serveAs(t testing.TB, as *runner, users []string, location, more string) *server {
	t.Helper()
	dir := peers.Dir(t)
	own(t, dir)
	s := &server{
		as:       as,
		cert:     filepath.Join(dir, "cert.pem"),
		location: location,
		exited:   make(chan struct{}),
		logged:   make(chan struct{}),
	}
	writeCert(t, s.cert, filepath.Join(dir, "key.pem"))
	var passwd strings.Builder
	for _, user := range users {
		passwd.WriteString(user + ":{PLAIN}pass\n")
	}
	writeFile(t, filepath.Join(dir, "users"), passwd.String())
	config := filepath.Join(dir, "maildird.toml")
	writeFile(t, config, `
[listen]
imap = "127.0.0.1:0"
imaps = "127.0.0.1:0"
metrics = "127.0.0.1:0"

[tls]
cert = "cert.pem"
key = "key.pem"

[auth]
passwd_file = "users"
allow_insecure = true

[mail]
location = "`+location+`"
`+more)
	s.start(t, "serve", "-config", config)
	s.imap = s.waitLog(t, `listening for=imap address=(\S+)`)[1]
	s.imaps = s.waitLog(t, `listening for=imaps address=(\S+)`)[1]
	s.metrics = "http://" + s.waitLog(t, `listening for=metrics address=(\S+)`)[1] + "/metrics"
	return s
}

// start runs maildird.
func (s *server) start(t testing.TB, args ...string) {
	t.Helper()
	s.cmd = exec.Command(maildirdPath, args...)
	s.cmd.Dir = "/"
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else it takes a second to end
	if s.as != nil {
		s.cmd.Path, s.cmd.Args = "/bin/sh", append([]string{"sh", "-c", `umask "$0" && exec "$@"`, s.as.umask}, s.cmd.Args...)
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &s.as.Credential}
	} else {
		peers.AsOwner(t, s.cmd)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr, s.cmd.Stdout = w, w
	err = s.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.exited)
		defer r.Close()
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			s.mu.Lock()
			if line != "" {
				s.log = append(s.log, strings.TrimSuffix(line, "\n"))
			}
			close(s.logged)
			s.logged = make(chan struct{})
			s.mu.Unlock()
			if err != nil {
				s.cmd.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("maildird's log:\n%s", strings.Join(s.log, "\n"))
		}
	})
}

// stop ends maildird, which has to end well. It may be called twice.
func (s *server) stop(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	again := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if again {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.cmd.Process.Signal(syscall.SIGQUIT) // tells where its goroutines are
		<-s.exited
		t.Errorf("maildird does not end")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("maildird: %v", s.cmd.ProcessState)
	}
	for _, line := range s.log {
		if s.tolerate != "" && regexp.MustCompile(s.tolerate).MatchString(line) {
			continue
		}
		if strings.Contains(line, "DATA RACE") || strings.Contains(line, "panic") || strings.Contains(line, "level=ERROR") {
			t.Errorf("maildird's log: %s", line)
		}
	}
}

// kill ends maildird as a crash would.
func (s *server) kill(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.cmd.Process.Kill()
	<-s.exited
}

// waitLog returns when a line of the log matches, with its submatches.
func (s *server) waitLog(t testing.TB, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for read := 0; ; {
		s.mu.Lock()
		lines, more := s.log[read:], s.logged
		s.mu.Unlock()
		for _, line := range lines {
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		}
		read += len(lines)
		select {
		case <-more:
		case <-s.exited:
			t.Fatalf("maildird ended without a log line like %q", pattern)
		case <-timeout:
			t.Fatalf("maildird logs nothing like %q", pattern)
		}
	}
}

// metric is the value of a metric, which is called by its name and its labels.
func (s *server) metric(t testing.TB, name string) float64 {
	t.Helper()
	resp, err := http.Get(s.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// root is a user's Maildir.
func (s *server) root(user string) string { return strings.ReplaceAll(s.location, "%u", user) }

// client is a go-imap client, logged in; o may be nil.
func (s *server) client(t *testing.T, user string, o *imapclient.Options) *imapclient.Client {
	t.Helper()
	return client(t, s.imap, user, o)
}

// client logs in at any server of these tests, unless that begins with PREAUTH.
func client(t *testing.T, addr, user string, o *imapclient.Options) *imapclient.Client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	hangs := time.AfterFunc(3*patience, func() { conn.Close() })
	c := imapclient.New(&heardConn{conn, hangs}, o)
	t.Cleanup(func() {
		hangs.Stop()
		c.Close()
	})
	err = c.WaitGreeting()
	if err == nil && c.State() == imap.ConnStateNotAuthenticated {
		err = c.Login(user, "pass").Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A heardConn puts off what is to be done when nothing is read for long. The client sets deadlines of its own.
type heardConn struct {
	net.Conn
	silence *time.Timer
}

func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.silence.Reset(3 * patience)
	}
	return n, err
}

// mailDir is a directory for users' homes that the server may write to, and the location of the
// Maildirs in it.
func mailDir(t testing.TB) (dir, location string) {
	t.Helper()
	dir = peers.Dir(t)
	own(t, dir)
	return dir, filepath.Join(dir, "%u", "Maildir")
}

// own gives a file or directory, and what is in it, to the owner of the mail. What is his already is left
// alone: who watches it would hear of it.
func own(t testing.TB, path string) {
	t.Helper()
	uid, gid := peers.Owner(t)
	err := filepath.WalkDir(path, func(path string, e os.DirEntry, err error) error {
		var fi os.FileInfo
		if err == nil {
			fi, err = e.Info()
		}
		if err == nil {
			if st := fi.Sys().(*syscall.Stat_t); int(st.Uid) != uid || int(st.Gid) != gid {
				err = os.Lchown(path, uid, gid)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // the server's lock, which came and went
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	own(t, name)
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// writeCert makes a certificate that signs itself.
func writeCert(t testing.TB, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// run runs a program to its end and returns what it said on standard output and standard error. It
// has to end well.
func run(t *testing.T, in io.Reader, program string, args ...string) (stdout, stderr string) {
	t.Helper()
	peers.Need(t, program)
	cmd := exec.CommandContext(t.Context(), program, args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", program, args, err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}
