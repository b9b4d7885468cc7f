package peers

import (
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These run a program that delivers, as the [Owner], and return when it has delivered. root is the user's Maildir, mailbox the name
// of one in Maildir++, "INBOX" for the root itself. Texts have LF line ends.

// mailboxDir is a mailbox's directory.
func mailboxDir(root, mailbox string) string {
	if mailbox == "INBOX" {
		return root
	}
	return filepath.Join(root, "."+mailbox)
}

// deliver runs a program, again if that is what it asks for, as the owner of the mail, in a directory of its own, with the message as its input. DIR in files
// and arguments is that directory; the files are there before.
func deliver(t testing.TB, files map[string]string, text, program string, args ...string) (said string) {
	t.Helper()
	Need(t, program)
	dir := Dir(t)
	uid, gid := Owner(t)
	fill := strings.NewReplacer("DIR", dir)
	err := os.Chown(dir, uid, gid)
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(name, []byte(fill.Replace(content)), 0o600)
		}
		if err == nil {
			err = os.Chown(name, uid, gid)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string(nil), args...)
	for i := range args {
		args[i] = fill.Replace(args[i])
	}
	for try := 1; ; try++ {
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir}
		cmd.Stdin = strings.NewReader(text)
		AsOwner(t, cmd)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState.ExitCode() == tempFail && try < 20 {
			continue
		} else if err != nil {
			t.Errorf("%s %q: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
}

// tempFail is what a program says by its exit status that can't deliver now (sysexits.h, EX_TEMPFAIL): a mail server tries
// again. maildrop says so of a Maildir that another program is about to make.
const tempFail = 75

// Maildrop delivers by maildrop, whose filter makes a mailbox that isn't there: for a Maildir that isn't there it would make
// an mbox.
func Maildrop(t testing.TB, root, mailbox, text string) {
	t.Helper()
	Need(t, "maildirmake.maildrop")
	folder := ""
	if mailbox != "INBOX" {
		folder = "-f " + mailbox
	}
	deliver(t, map[string]string{"filter": fmt.Sprintf(`SHELL="/bin/sh"
`+"`test -d %[1]q || maildirmake.maildrop %[2]q; test -d %[3]q || maildirmake.maildrop %[4]s %[2]q`"+`
to %[3]q
`, root, root, mailboxDir(root, mailbox), folder)}, text, "maildrop", "DIR/filter")
}

// MaildropOnly delivers by maildrop as it is. Where there is no directory at root, that makes an mbox.
func MaildropOnly(t testing.TB, root, text string) {
	t.Helper()
	deliver(t, map[string]string{"filter": fmt.Sprintf("to %q\n", root)}, text, "maildrop", "DIR/filter")
}

// DeliverQuota delivers by maildrop's deliverquota, which refuses what is over quota. With a quota, such as
// "1000000S,1000C", it makes maildirsize, and counts for that.
func DeliverQuota(t testing.TB, root, mailbox, quota, text string) {
	t.Helper()
	args := []string{"-c", mailboxDir(root, mailbox)}
	if quota != "" {
		args = append(args, quota)
	}
	deliver(t, nil, text, "deliverquota.maildrop", args...)
}

// Procmail delivers by procmail.
func Procmail(t testing.TB, root, mailbox, text string) {
	t.Helper()
	deliver(t, map[string]string{"rc": fmt.Sprintf("MAILDIR=DIR\nLOGFILE=DIR/log\nDEFAULT=%s/\n", mailboxDir(root, mailbox))},
		text, "procmail", "-m", "DIR/rc")
}

// Script delivers as scripts do: into tmp/ under a name nobody else uses, by a link to new/, and without the first name then.
func Script(t testing.TB, root, mailbox, text string) {
	t.Helper()
	deliver(t, nil, text, "sh", "-ec", `
mkdir -p "$1/cur" "$1/new" "$1/tmp"
name=$(date +%s).$$_1.$(uname -n)
cat >"$1/tmp/$name"
ln "$1/tmp/$name" "$1/new/$name"
rm "$1/tmp/$name"
`, "script", mailboxDir(root, mailbox))
}

// Fdm fetches all mail of a user of an IMAP server to INBOX by fdm, and deletes it there.
func Fdm(t testing.TB, root, addr, user string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	deliver(t, map[string]string{"fdm.conf": fmt.Sprintf(`
set lock-file "DIR/lock"
set no-received
account "there" imap server %q port %q user %q pass "pass"
action "here" maildir %q
match all action "here"
`, host, port, user, root)}, "", "fdm", "-f", "DIR/fdm.conf", "fetch")
}

// Getmail fetches all mail of a user of an IMAP server to INBOX by getmail, and deletes it there. It makes no Maildir.
func Getmail(t testing.TB, root, addr, user string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	said := deliver(t, map[string]string{"rc": fmt.Sprintf(`
[retriever]
type = SimpleIMAPRetriever
server = %s
port = %s
username = %s
password = pass
[destination]
type = Maildir
path = %s/
[options]
read_all = true
delete = true
`, host, port, user, root)}, "", "getmail", "--getmaildir=DIR", "--rcfile=DIR/rc")
	if strings.Contains(said, " 0 messages ") {
		t.Errorf("getmail fetched nothing:\n%s", said)
	}
}

// LDA delivers by dovecot-lda, which makes a mailbox that isn't there. It is started by root.
func (d *Dovecot) LDA(t testing.TB, user, mailbox, text string) {
	t.Helper()
	const lda = "/usr/lib/dovecot/dovecot-lda"
	Need(t, lda)
	cmd := exec.Command(lda, "-c", d.Conf, "-d", user, "-m", mailbox, "-o", "lda_mailbox_autocreate=yes", "-o", "postmaster_address=postmaster@test.example")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("dovecot-lda: %v\n%s%s", err, out, d.Log(t))
	}
}

// SendLMTP delivers by Dovecot's LMTP.
func (d *Dovecot) SendLMTP(t testing.TB, user, text string) {
	t.Helper()
	c, err := textproto.Dial("tcp", d.LMTP)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	want := func(code int) {
		if err != nil {
			return
		}
		_, _, err = c.ReadResponse(code)
	}
	say := func(line string, code int) {
		if err == nil {
			err = c.PrintfLine("%s", line)
		}
		want(code)
	}
	want(220)
	say("LHLO test.example", 250)
	say("MAIL FROM:<sender@test.example>", 250)
	say("RCPT TO:<"+user+"@test.example>", 250)
	say("DATA", 354)
	if err == nil {
		w := c.DotWriter()
		w.Write([]byte(text)) // an error stays with Close
		err = w.Close()
	}
	want(250)
	say("QUIT", 221)
	if err != nil {
		t.Errorf("LMTP: %v\n%s", err, d.Log(t))
	}
}
