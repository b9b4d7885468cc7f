package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

const serveConfig = `
[listen]
imap = "127.0.0.1:0"
imaps = "127.0.0.1:0"
metrics = "127.0.0.1:0"
[tls]
cert = "cert.pem"
key = "key.pem"
[auth]
passwd_file = "users"
[mail]
location = "mail/%d/%n"
[[mail.folder]]
name = "Gesendet"
special_use = '\Sent'
subscribe = true
`

// The passwords of these tests, which may not be in any log.
const (
	alicePassword = "Alice-secret"
	bobPassword   = "Bob-secret"
	wrongPassword = "Mallory-guess"
)

// startServer starts maildird serve on serveConfig. No password may be in its log when the test
// ends.
func startServer(t *testing.T) (p *process, dir string) {
	t.Helper()
	dir = files(t, "maildird.toml", serveConfig, "users", "alice@example.org:{PLAIN}"+alicePassword+"\n")
	makeCertificate(t, dir, 1)
	p = start(t, "serve", "-debug", "-config", filepath.Join(dir, "maildird.toml"))
	p.address("metrics") // the last one
	t.Cleanup(func() {
		for _, s := range []string{alicePassword, bobPassword, wrongPassword} {
			if strings.Contains(p.log(), s) {
				t.Errorf("a password is in the log:\n%s", p.log())
			}
		}
	})
	return p, dir
}

// anyCertificate is for clients that want to see the certificate rather than check it.
var anyCertificate = &tls.Config{InsecureSkipVerify: true}

// A dialogue is a connection on which lines are sent and read.
type dialogue struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr string, encrypted bool) *dialogue {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	if encrypted {
		conn = tls.Client(conn, anyCertificate)
	}
	d := &dialogue{t: t, conn: conn, r: bufio.NewReader(conn)}
	d.want(`^\* OK `)
	return d
}

// want reads lines until one matches.
func (d *dialogue) want(pattern string) string {
	d.t.Helper()
	re := regexp.MustCompile(pattern)
	var seen strings.Builder
	for {
		line, err := d.r.ReadString('\n')
		seen.WriteString(line)
		if err != nil {
			d.t.Fatalf("no line matches %q: %v\n%s", pattern, err, seen.String())
		}
		if re.MatchString(strings.TrimRight(line, "\r\n")) {
			return line
		}
	}
}

// send sends a command and reads until its answer, which has to match.
func (d *dialogue) send(command, pattern string) {
	d.t.Helper()
	if _, err := io.WriteString(d.conn, "t "+command+"\r\n"); err != nil {
		d.t.Fatal(err)
	}
	if line := d.want(`^t `); !regexp.MustCompile(pattern).MatchString(line) {
		d.t.Fatalf("%s: got %s, want %s", strings.Fields(command)[0], line, pattern)
	}
}

// closed wants nothing more to come.
func (d *dialogue) closed() {
	d.t.Helper()
	if b, err := io.ReadAll(d.r); err != nil || len(b) > 0 {
		d.t.Errorf("instead of the end came %q, %v", b, err)
	}
}

// serial is the serial number of the certificate that a server shows.
func serial(t *testing.T, addr string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, anyCertificate)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// eventually repeats f until it is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// One user logs in in both ways, has the configured folder, and all of it is counted and logged.
func TestServe(t *testing.T) {
	p, dir := startServer(t)
	c, err := imapclient.DialStartTLS(p.address("imap"), &imapclient.Options{TLSConfig: anyCertificate})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("alice@example.org", alicePassword).Wait(); err != nil {
		t.Fatal(err)
	}
	boxes, err := c.List("", "*", nil).Collect()
	if err != nil || len(boxes) != 2 {
		t.Fatalf("got %d mailboxes, %v", len(boxes), err)
	}
	if b := boxes[1]; b.Mailbox != "Gesendet" || !strings.Contains(fmt.Sprint(b.Attrs), string(imap.MailboxAttrSent)) {
		t.Errorf("got %+v", b)
	}
	root := filepath.Join(dir, "mail/example.org/alice")
	if _, err := os.Stat(filepath.Join(root, ".Gesendet", "cur")); err != nil {
		t.Error(err)
	}

	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := deliver(root, "lunch", "new"); err != nil {
		t.Fatal(err)
	}
	d := dial(t, p.address("imaps"), true)
	d.send("LOGIN alice@example.org "+wrongPassword, "NO .AUTHENTICATIONFAILED.")
	d.send("LOGIN nobody@example.org "+wrongPassword, "NO .AUTHENTICATIONFAILED.")
	d.send("LOGIN ALICE@example.org "+alicePassword, "OK")
	d.send("SELECT INBOX", "OK")
	d.send("FETCH 1 BODY[HEADER.FIELDS (SUBJECT)]", "OK")
	d.send("FETCH 7 FLAGS", "BAD|NO")

	web := "http://" + p.address("metrics")
	if status, body := get(t, web+"/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", status, body)
	}
	_, body := get(t, web+"/metrics")
	for _, want := range []string{
		`maildird_logins_total{result="ok"} 2`,
		`maildird_logins_total{result="wrong"} 2`,
		`maildird_sessions 2`,
		`maildird_sessions_logged_in 2`,
		`maildird_open_mailboxes 1`,
		`maildird_commands_total{command="FETCH",result="OK"} 1`,
		`maildird_commands_total{command="LOGIN",result="NO"} 2`,
		`maildird_command_duration_seconds_count{command="LOGIN"} 4`,
		`maildird_watches{by="polling"} 0`,
		`maildird_certificate_not_after_timestamp_seconds `,
		`process_open_fds `,
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("metrics: no %s", want)
		}
	}
	if n := regexp.MustCompile(`maildird_scans_total ([1-9]\d*)`).FindString(body); n == "" {
		t.Error("metrics: no scans")
	}
	if t.Failed() {
		t.Log(body)
	}

	// What the documents tell fail2ban finds the failures, and their address.
	failregex := regexp.MustCompile(`failregex = (.*)`).FindStringSubmatch(readDoc(t, "configuration.md"))[1]
	failures := regexp.MustCompile(strings.Replace(failregex, "<HOST>", `(\S+)`, 1)).FindAllStringSubmatch(p.log(), -1)
	if len(failures) != 2 || failures[0][1] != "127.0.0.1" {
		t.Errorf("failures by %s: %v", failregex, failures)
	}
	p.end(syscall.SIGTERM)
}

// The limits of the configuration hold; and allow_insecure lets log in without TLS.
func TestLimits(t *testing.T) {
	for _, limit := range []string{"connections", "connections_per_address"} {
		dir := files(t, "users", "alice:{PLAIN}"+alicePassword, "maildird.toml", `
listen.imap = "127.0.0.1:0"
auth = {passwd_file = "users", allow_insecure = true}
mail.location = "%u"
limits = {message_bytes = 1000, `+limit+` = 2}
`)
		p := start(t, "serve", "-config", filepath.Join(dir, "maildird.toml"))
		addr := p.address("imap")
		d := dial(t, addr, false)
		d.send("LOGIN alice "+alicePassword, "OK")
		d.send("APPEND INBOX {1001}", "NO .TOOBIG.")
		dial(t, addr, false)
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		third := &dialogue{t: t, conn: conn, r: bufio.NewReader(conn)}
		third.want(`^\* BYE Too many connections`)
		third.closed()
	}
}

// What [watch] says holds: no more directories than its limit have events, and with poll none has.
func TestWatch(t *testing.T) {
	for watch, want := range map[string]string{
		"limit = 1":   `maildird_watches{by="events"} 1`,
		"poll = true": `maildird_watches{by="events"} 0`,
	} {
		dir := files(t, "users", "alice:{PLAIN}"+alicePassword, "maildird.toml", `
listen = {imap = "127.0.0.1:0", metrics = "127.0.0.1:0"}
auth = {passwd_file = "users", allow_insecure = true}
mail = {location = "%u", folder = [{name = "Sent"}]}
watch = {`+watch+`}
`)
		p := start(t, "serve", "-config", filepath.Join(dir, "maildird.toml"))
		for _, mailbox := range []string{"INBOX", "Sent"} {
			d := dial(t, p.address("imap"), false)
			d.send("LOGIN alice "+alicePassword, "OK")
			d.send("SELECT "+mailbox, "OK")
		}
		_, body := get(t, "http://"+p.address("metrics")+"/metrics")
		if !strings.Contains(body, want+"\n") || strings.Contains(body, `maildird_watches{by="polling"} 0`) {
			t.Errorf("%s: no %s, or nothing is polled:\n%s", watch, want, body)
		}
		p.end(syscall.SIGTERM)
	}
}

// Before STARTTLS nobody logs in, and it is said before anyone sends a password.
func TestNoPasswordInClear(t *testing.T) {
	p, _ := startServer(t)
	d := dial(t, p.address("imap"), false)
	io.WriteString(d.conn, "c CAPABILITY\r\n")
	if caps := d.want(`^\* CAPABILITY`); !strings.Contains(caps, "LOGINDISABLED") || !strings.Contains(caps, "STARTTLS") || strings.Contains(caps, "AUTH=PLAIN") {
		t.Errorf("got %s", caps)
	}
	d.send("LOGIN alice@example.org "+alicePassword, "NO .PRIVACYREQUIRED.")
	d.send("AUTHENTICATE PLAIN AGEAYg==", "NO .PRIVACYREQUIRED.")
}

// A changed certificate is in use within a second; one that is broken never is.
func TestCertificateReload(t *testing.T) {
	p, dir := startServer(t)
	addr := p.address("imaps")
	if n := serial(t, addr); n != 1 {
		t.Fatalf("serial %d", n)
	}
	makeCertificate(t, dir, 2)
	eventually(t, "the second certificate", func() bool { return serial(t, addr) == 2 })

	// Half of a renewal: the certificate without its key.
	cert, key := newPair(t, 3, time.Now().Add(time.Hour))
	write(t, filepath.Join(dir, "cert.pem"), cert)
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.wait(1, `stays in use.*private key does not match`)
	if n := serial(t, addr); n != 2 {
		t.Errorf("serial %d", n)
	}
	write(t, filepath.Join(dir, "key.pem"), key)
	eventually(t, "the third certificate", func() bool { return serial(t, addr) == 3 })

	// The same for STARTTLS.
	c, err := imapclient.DialStartTLS(p.address("imap"), &imapclient.Options{TLSConfig: &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if n := s.PeerCertificates[0].SerialNumber.Int64(); n != 3 {
				t.Errorf("STARTTLS: serial %d", n)
			}
			return nil
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// Users come and go without a restart; a broken line keeps nobody else out.
func TestUsersReload(t *testing.T) {
	p, dir := startServer(t)
	addr := p.address("imaps")
	users := filepath.Join(dir, "users")
	open := dial(t, addr, true)
	open.send("LOGIN alice@example.org "+alicePassword, "OK")

	write(t, users, "broken\nbob@example.org:{PLAIN}"+bobPassword+"\n")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.wait(1, `level=WARN .*line=1 err="has no colon`)
	p.wait(2, `msg=reloaded`) // the first is the certificate
	d := dial(t, addr, true)
	d.send("LOGIN alice@example.org "+alicePassword, "NO")
	d.send("LOGIN bob@example.org "+bobPassword, "OK")
	open.send("SELECT INBOX", "OK") // who is in stays in

	write(t, users, "alice@example.org:{PLAIN}"+alicePassword+"\n")
	eventually(t, "alice let in again", func() bool {
		d := dial(t, addr, true)
		io.WriteString(d.conn, "t LOGIN alice@example.org "+alicePassword+"\r\n")
		return strings.HasPrefix(d.want("^t "), "t OK")
	})
}

// SIGTERM tells all sessions BYE, whatever they are doing, and the exit status is 0.
func TestShutdown(t *testing.T) {
	p, _ := startServer(t)
	var sessions []*dialogue
	for _, addr := range []string{"imap", "imaps", "imaps"} {
		sessions = append(sessions, dial(t, p.address(addr), addr == "imaps"))
	}
	idle := sessions[2]
	idle.send("LOGIN alice@example.org "+alicePassword, "OK")
	idle.send("SELECT INBOX", "OK")
	io.WriteString(idle.conn, "t IDLE\r\n")
	idle.want(`^\+ `)
	p.cmd.Process.Signal(syscall.SIGTERM)
	for _, d := range sessions {
		d.want(`^\* BYE `)
		d.closed()
	}
	p.ended(0)
}

// What is being written when SIGTERM comes is finished; meanwhile nobody new is let in, and /healthz says
// so.
func TestShutdownFinishesAppend(t *testing.T) {
	p, dir := startServer(t)
	web := "http://" + p.address("metrics") + "/healthz"
	d := dial(t, p.address("imaps"), true)
	d.send("LOGIN alice@example.org "+alicePassword, "OK")
	io.WriteString(d.conn, "t APPEND INBOX {21}\r\n")
	d.want(`^\+ `)
	io.WriteString(d.conn, "Subject: ")
	p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "healthz that says it is ending", func() bool {
		status, _ := get(t, web)
		return status == http.StatusServiceUnavailable
	})
	eventually(t, "no new connections", func() bool {
		conn, err := net.Dial("tcp", p.address("imaps"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	io.WriteString(d.conn, "last\r\n\r\nHi\r\n")
	d.want(`^\* BYE `)
	p.ended(0)
	mail, err := filepath.Glob(filepath.Join(dir, "mail/example.org/alice/new/*"))
	if err != nil || len(mail) != 1 {
		t.Errorf("kept: %v, %v", mail, err)
	}
}

// Who waits to be told of a wrong password does not keep the server from ending.
func TestShutdownAfterWrongPassword(t *testing.T) {
	p, _ := startServer(t)
	var late []*dialogue
	for i := range 8 { // the last delay is the longest
		d := dial(t, p.address("imaps"), true)
		io.WriteString(d.conn, "t LOGIN alice@example.org "+wrongPassword+"\r\n")
		late = append(late, d)
		if i < 2 {
			d.want("^t NO")
		}
	}
	begin := time.Now()
	p.end(syscall.SIGTERM)
	if took := time.Since(begin); took > lastDelay/2 {
		t.Errorf("it took %v", took)
	}
	late[7].want(`^\* BYE `)
}

func TestLogJSON(t *testing.T) {
	dir := files(t, "maildird.toml", "[listen]\nimap = \"127.0.0.1:0\"\n[auth]\npasswd_file = \"users\"\nallow_insecure = true\n[mail]\nlocation = \"%u\"", "users", "")
	p := start(t, "serve", "-log=json", "-config", filepath.Join(dir, "maildird.toml"))
	p.wait(1, `^{"time":.*"msg":"listening","for":"imap"`)
	p.end(os.Interrupt)
}

// With a thousand wrong passwords on the way for one user, another logs in from the same address.
func TestThousandWrongPasswords(t *testing.T) {
	p, dir := startServer(t)
	hash, err := hashPassword("ARGON2ID", alicePassword)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "users"), "alice@example.org:"+hash+"\nbob@example.org:"+hash+"\n")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.wait(2, `msg=reloaded`)
	addr := p.address("imaps")
	for range 1000 {
		d := dial(t, addr, true)
		io.WriteString(d.conn, "t LOGIN alice@example.org "+wrongPassword+"\r\n")
	}
	d := dial(t, addr, true)
	begin := time.Now()
	d.send("LOGIN bob@example.org "+alicePassword, "OK")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("bob waited %v", took)
	}
}
