package peers

import (
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A Postfix is a running Postfix that delivers mail for anyone at test.example (by virtual) and at
// local.example (by local) to MAIL/user/Maildir/, and nowhere else.
type Postfix struct {
	Addr string // of SMTP
	dir  string
}

// StartPostfix starts Debian's Postfix and ends it with the test. mail is the directory that the
// users' homes are in; it belongs to [Owner], who delivers.
func StartPostfix(t *testing.T, mail string, users ...string) *Postfix {
	t.Helper()
	Need(t, "postfix")
	needRoot(t, "postfix")
	p := &Postfix{Addr: freeAddrs(t, 1)[0], dir: Dir(t)}
	for _, sub := range []string{"etc", "spool", "data"} {
		if err := os.Mkdir(filepath.Join(p.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "postfix", filepath.Join(p.dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	uid, gid := Owner(t)
	owner, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		t.Fatal(err)
	}
	// The users are not the system's: to local they are aliases of Maildirs.
	var boxes, aliases strings.Builder
	for _, user := range users {
		fmt.Fprintf(&boxes, "%s@test.example %s/Maildir/\n", user, user)
		fmt.Fprintf(&aliases, "%s %s/%[1]s/Maildir/\n", user, mail)
	}
	_, port, _ := net.SplitHostPort(p.Addr)
	fill := strings.NewReplacer("DIR", p.dir, "MAIL", mail, "PORT", port, "UID", strconv.Itoa(uid), "GID", strconv.Itoa(gid),
		"OWNER", owner.Username)
	for name, text := range map[string]string{
		"boxes":   boxes.String(),
		"aliases": aliases.String(),
		"main.cf": fill.Replace(`
compatibility_level = 3.6
queue_directory = DIR/spool
data_directory = DIR/data
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.test.example
mydestination = local.example
mynetworks = 127.0.0.0/8
maillog_file = DIR/maillog
maillog_file_prefixes = DIR
virtual_mailbox_domains = test.example
virtual_mailbox_base = MAIL
virtual_mailbox_maps = texthash:DIR/etc/boxes
virtual_uid_maps = static:UID
virtual_gid_maps = static:GID
virtual_minimum_uid = 1
virtual_alias_maps =
alias_maps = texthash:DIR/etc/aliases
local_recipient_maps =
default_privs = OWNER
default_transport = error:nothing leaves the machine
relay_transport = error:nothing leaves the machine
smtpd_relay_restrictions = reject_unauth_destination
`),
		"master.cf": fill.Replace(`
127.0.0.1:PORT inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error   unix - - n - - error
retry   unix - - n - - error
virtual unix - n n - - virtual
local   unix - n n - - local
anvil   unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	etc := filepath.Join(p.dir, "etc")
	cmd := exec.Command("postfix", "-c", etc, "start-fg")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		if out, err := exec.Command("postfix", "-c", etc, "stop").CombinedOutput(); err != nil {
			t.Errorf("postfix stop: %v\n%s", err, out)
			cmd.Process.Kill()
		}
		<-exited
	})
	waitListening(t, "postfix", "tcp", p.Addr, exited, func() string { return out.String() + p.Log(t) })
	return p
}

// Send hands over a message, with any line ends, by SMTP. It is delivered a moment later.
func (p *Postfix) Send(t testing.TB, user, text string) {
	t.Helper()
	p.sendTo(t, user+"@test.example", text)
}

// SendLocal is Send for Postfix's local.
func (p *Postfix) SendLocal(t testing.TB, user, text string) {
	t.Helper()
	p.sendTo(t, user+"@local.example", text)
}

func (p *Postfix) sendTo(t testing.TB, address, text string) {
	t.Helper()
	if err := smtp.SendMail(p.Addr, nil, "sender@test.example", []string{address}, []byte(text)); err != nil {
		t.Errorf("postfix: %v\n%s", err, p.Log(t))
	}
}

// Log is all that Postfix logged.
func (p *Postfix) Log(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "maillog"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}
