package peers

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A Dovecot is a running Dovecot. Any user may log in with the password "pass".
type Dovecot struct {
	Addr string // of IMAP
	LMTP string // address of LMTP, which takes mail for USER and USER@ any domain
	Conf string // its configuration, for programs such as dovecot-lda and doveadm
	dir  string
	gid  int
	uid  int
}

// StartDovecot starts Debian's Dovecot and ends it with the test. location is what follows
// "maildir:~/Maildir" in mail_location, such as ":LAYOUT=fs"; more is added to the configuration. In both
// DIR stands for a directory of its own, the home of a user is DIR/mail/USER.
func StartDovecot(t testing.TB, location string, more ...string) *Dovecot {
	t.Helper()
	uid, gid := Owner(t)
	return StartDovecotAs(t, uid, gid, location, more...)
}

// StartDovecotAs is StartDovecot with another user and group than the owner of the mail.
func StartDovecotAs(t testing.TB, uid, gid int, location string, more ...string) *Dovecot {
	t.Helper()
	Need(t, "dovecot")
	Need(t, "/usr/lib/dovecot/lmtp")
	needRoot(t, "dovecot")
	dir := Dir(t) // short: it holds the names of sockets
	addrs := freeAddrs(t, 2)
	d := &Dovecot{Addr: addrs[0], LMTP: addrs[1], Conf: filepath.Join(dir, "dovecot.conf"), dir: dir, uid: uid, gid: gid}
	_, port, _ := net.SplitHostPort(d.Addr)
	_, lmtp, _ := net.SplitHostPort(d.LMTP)
	fill := strings.NewReplacer("DIR", dir, "PORT", port, "LMTP", lmtp, "UID", strconv.Itoa(d.uid), "GID", strconv.Itoa(d.gid))
	err := os.WriteFile(d.Conf, []byte(fill.Replace(`
base_dir = DIR/run
state_dir = DIR/state
log_path = DIR/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 0
first_valid_gid = 0
mail_location = maildir:~/Maildir`+location+`
service imap-login {
  chroot =
  inet_listener imap {
    port = PORT
  }
  inet_listener imaps {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    port = LMTP
  }
}
service anvil {
  chroot =
}
passdb {
  driver = static
  args = password=pass
}
userdb {
  driver = static
  args = uid=UID gid=GID home=DIR/mail/%n
}
namespace inbox {
  inbox = yes
}
protocol lmtp {
  postmaster_address = postmaster@test.example
}
`+strings.Join(more, "\n"))), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dovecot", "-F", "-c", d.Conf)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		<-exited
	})
	for _, addr := range []string{d.Addr, d.LMTP} {
		waitListening(t, "dovecot", "tcp", addr, exited, func() string { return out.String() + d.Log(t) })
	}
	return d
}

// Doveadm runs doveadm and returns what it says.
func (d *Dovecot) Doveadm(t testing.TB, args ...string) string {
	t.Helper()
	Need(t, "doveadm")
	out, err := exec.Command("doveadm", append([]string{"-c", d.Conf}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("doveadm %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// Location is where users' Maildirs are, with %u for the user's name.
func (d *Dovecot) Location() string { return filepath.Join(d.dir, "mail", "%u", "Maildir") }

// Homes makes the directory that the homes are in, and users' homes, for the owner of the mail.
func (d *Dovecot) Homes(t testing.TB, users ...string) string {
	t.Helper()
	homes := filepath.Join(d.dir, "mail")
	for _, dir := range append([]string{""}, users...) {
		dir = filepath.Join(homes, dir)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.Chown(dir, d.uid, d.gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return homes
}

// Maildir makes a user's empty mail root. It belongs to Dovecot's user and, by setgid, all in it to
// its group, so that the test, which runs as root, and Dovecot share it as two users do.
func (d *Dovecot) Maildir(t testing.TB, user string) string {
	t.Helper()
	root := filepath.Join(d.dir, "mail", user, "Maildir")
	err := os.MkdirAll(root, 0o755)
	for p := root; err == nil && p != d.dir; p = filepath.Dir(p) {
		err = os.Chown(p, d.uid, d.gid)
	}
	if err == nil {
		err = os.Chmod(root, 0o770|os.ModeSetgid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Log is all that Dovecot logged.
func (d *Dovecot) Log(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, "dovecot.log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

var complaint = regexp.MustCompile(`.*(Broken|Duplicate|duplicate|reappeared|lowered|Corrupt|corrupt|overridden|larger than expected|Error:|Panic:).*`)

// WantNoComplaint fails the test if Dovecot complained of what it found on disk.
func (d *Dovecot) WantNoComplaint(t *testing.T) {
	t.Helper()
	for _, line := range complaint.FindAllString(d.Log(t), -1) {
		t.Errorf("dovecot complains: %s", line)
	}
}
