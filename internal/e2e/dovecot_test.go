package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// layouts are the ways to lay out a Maildir: the separator, what maildird's [mail] says of it, and
// Dovecot's mail_location.
var layouts = []struct{ name, sep, maildird, dovecot string }{
	{"maildir++", ".", "", ""},
	{"fs", "/", `layout = "fs"`, ":LAYOUT=fs"},
}

// settings are the layouts and what else Dovecot's users set: what mailbox names begin with and how they are
// separated, what maildird's [mail] and Dovecot's mail_location say of it, in which HOME and ~ are the user's
// home, what more Dovecot's configuration says, and where INBOX and its control files are.
var settings = []struct{ name, prefix, sep, maildird, dovecot, more, inbox, list string }{
	{"maildir++", "", ".", "", "", "", "Maildir", "Maildir"},
	{"fs", "", "/", `layout = "fs"`, ":LAYOUT=fs", "", "Maildir", "Maildir"},
	{"utf-8", "", ".", `names = "utf-8"`, ":UTF-8", "", "Maildir", "Maildir"},
	{"separator", "", "/", `separator = "/"`, "", "namespace inbox {\n separator = /\n}", "Maildir", "Maildir"},
	{"prefix", "INBOX.", ".", `prefix = "INBOX."`, "", "namespace inbox {\n prefix = INBOX.\n separator = .\n}", "Maildir", "Maildir"},
	{"inbox", "", ".", `inbox = "HOME/inbox"`, ":INBOX=~/inbox", "", "inbox", "inbox"},
	{"inbox among the others", "", "/", `layout = "fs"` + "\n" + `inbox = "HOME/Maildir/INBOX"`, ":LAYOUT=fs:INBOX=~/Maildir/INBOX", "", "Maildir/INBOX", "Maildir/INBOX"},
	{"control", "", ".", `control = "HOME/control"`, ":CONTROL=~/control:INDEX=~/index", "", "Maildir", "control/.INBOX"},
	{"control of fs", "", "/", `layout = "fs"` + "\n" + `control = "HOME/control"`, ":LAYOUT=fs:CONTROL=~/control", "", "Maildir", "control/INBOX"},
	{"all", "INBOX/", "/", `layout = "fs"` + "\n" + `names = "utf-8"` + "\n" + `prefix = "INBOX/"` + "\n" + `inbox = "HOME/Maildir/Inbox"` + "\n" + `control = "HOME/control"`,
		":LAYOUT=fs:UTF-8:INBOX=~/Maildir/Inbox:CONTROL=~/control:INDEX=~/index", "namespace inbox {\n prefix = INBOX/\n separator = /\n}", "Maildir/Inbox", "control/INBOX"},
}

// oddTexts are messages whose bytes are easily changed on the way.
var oddTexts = []string{
	"Subject: plain\r\n\r\nHello.\r\n",
	"Subject: mixed\n\nLF\nCRLF\r\nCR\rCRCRLF\r\r\nend\n\r\n",
	"Subject: no end\r\n\r\nno line end",
	"Subject: header only\r\n",
	"\r\n.\r\n..\r\n",
	"Subject: 8 bit Gr\xfc\xdfe \xe2\x82\xac\r\n\r\n\x80\xff\x01\x7f\r\n",
	"Subject: long\r\n\r\n" + strings.Repeat("0123456789abcdef", 10_000) + "\r\n",
	"Subject: trailing\r\n\r\n\r\n\r\n \r\n\t\r\n",
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func store(t *testing.T, c *imapclient.Client, set imap.NumSet, op imap.StoreFlagsOp, flags ...imap.Flag) {
	t.Helper()
	if err := c.Store(set, &imap.StoreFlags{Op: op, Flags: flags}, nil).Close(); err != nil {
		t.Fatalf("store %v: %v", flags, err)
	}
}

// furnish makes an account through any server: mailboxes with odd names, odd messages with flags,
// dates and keywords, copies, gaps, subscriptions.
func furnish(t *testing.T, c *imapclient.Client, prefix, sep string) {
	t.Helper()
	date := time.Date(2001, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600))
	names := []string{"Work", "Work" + sep + "Entwürfe", "日本語", "Only" + sep + "a child", "R&D " + `"*%` + "~"}
	for i, name := range names {
		name = prefix + name
		names[i] = name
		must(t, c.Create(name, nil).Wait())
		if i%2 == 0 {
			must(t, c.Subscribe(name).Wait())
		}
	}
	must(t, c.Subscribe("INBOX").Wait())
	for i, text := range slices.Concat(oddTexts, oddTexts) {
		o := &imap.AppendOptions{}
		if i%2 == 0 {
			o.Flags = []imap.Flag{imap.FlagSeen, imap.FlagDraft, imap.Flag(fmt.Sprintf("kw%d", i%7)), "$Forwarded"}
			o.Time = date.Add(time.Duration(i) * time.Hour)
		}
		appendMail(t, c, "INBOX", text, o)
	}
	// The keywords come in another order, so each has another letter than in INBOX.
	appendMail(t, c, names[1], oddTexts[1], &imap.AppendOptions{Flags: []imap.Flag{"Other", "kw3"}})
	appendMail(t, c, names[1], oddTexts[5], &imap.AppendOptions{Flags: []imap.Flag{"kw2", imap.FlagFlagged}})

	_, err := c.Select("INBOX", nil).Wait()
	must(t, err)
	for _, name := range names {
		_, err := c.Copy(imap.UIDSetNum(1, 2, 3, 5, 7), name).Wait()
		must(t, err)
	}
	_, err = c.Move(imap.UIDSetNum(8, 9), names[1]).Wait()
	must(t, err)
	store(t, c, imap.UIDSetNum(4, 5), imap.StoreFlagsAdd, imap.FlagAnswered, "Late")
	store(t, c, imap.UIDSetNum(1), imap.StoreFlagsDel, "kw0", imap.FlagDraft)
	store(t, c, imap.UIDSetNum(2, 11, 16), imap.StoreFlagsAdd, imap.FlagDeleted)
	must(t, c.Expunge().Close())
	_, err = c.Select(names[1], nil).Wait()
	must(t, err)
	store(t, c, imap.UIDSetNum(1, 4), imap.StoreFlagsAdd, imap.FlagDeleted)
	must(t, c.Expunge().Close())
	must(t, c.Unselect().Wait())
	must(t, c.Rename(names[3], prefix+"Only"+sep+"grown up", nil).Wait())
	must(t, c.Create(prefix+"Gone", nil).Wait())
	must(t, c.Delete(prefix+"Gone").Wait())
}

// change is what changes an account that furnish made, again through any server.
func change(t *testing.T, c *imapclient.Client, prefix, sep string) {
	t.Helper()
	box := prefix + "Work" + sep + "Entwürfe"
	_, err := c.Select(box, nil).Wait()
	must(t, err)
	store(t, c, imap.UIDSetNum(2, 3), imap.StoreFlagsAdd, "New", imap.FlagAnswered)
	store(t, c, imap.UIDSetNum(2), imap.StoreFlagsDel, "kw2")
	_, err = c.Copy(imap.UIDSetNum(2, 3, 5), "INBOX").Wait()
	must(t, err)
	_, err = c.Move(imap.UIDSetNum(5), prefix+"日本語").Wait()
	must(t, err)
	store(t, c, imap.UIDSetNum(6), imap.StoreFlagsAdd, imap.FlagDeleted)
	must(t, c.Expunge().Close())
	for _, text := range oddTexts {
		appendMail(t, c, box, text, &imap.AppendOptions{Flags: []imap.Flag{"New", "Other"}})
	}
	must(t, c.Unselect().Wait())
	must(t, c.Unsubscribe(prefix+"日本語").Wait())
	must(t, c.Subscribe(box).Wait())
	must(t, c.Create(prefix+"Work"+sep+"More", nil).Wait())
}

// An account that maildird made is the same for Dovecot, which serves it at the same time, and
// then alone.
func TestDovecotAgrees(t *testing.T) {
	for _, setting := range settings {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			d := peers.StartDovecot(t, setting.dovecot, setting.more)
			root := d.Maildir(t, "ada")
			mail := strings.ReplaceAll(setting.maildird, "HOME", filepath.Dir(d.Location()))
			s := serve(t, d.Location(), mail)
			ours := s.client(t, "ada", nil)
			furnish(t, ours, setting.prefix, setting.sep)
			writeFile(t, filepath.Join(filepath.Dir(root), setting.inbox, "new", "1700000000.delivered.host"), "Subject: delivered\n\nHere.\n")
			want, subscribed := lookAtAll(t, ours)

			theirs := client(t, d.Addr, "ada", nil)
			got, gotSubscribed := lookAtAll(t, theirs)
			wantSameMailboxes(t, "Dovecot of what maildird made", want, got)
			if !slices.Equal(subscribed, gotSubscribed) {
				t.Errorf("Dovecot: subscribed are %q, not %q", gotSubscribed, subscribed)
			}

			change(t, theirs, setting.prefix, setting.sep)
			want, subscribed = lookAtAll(t, theirs)
			got, gotSubscribed = lookAtAll(t, ours)
			wantSameMailboxes(t, "maildird of what Dovecot changed", want, got)
			if !slices.Equal(subscribed, gotSubscribed) {
				t.Errorf("maildird: subscribed are %q, not %q", gotSubscribed, subscribed)
			}

			s.stop(t)
			got, _ = lookAtAll(t, client(t, d.Addr, "ada", nil))
			wantSameMailboxes(t, "Dovecot after maildird ended", want, got)
			d.WantNoComplaint(t)
		})
	}
}

// An account that Dovecot made keeps all it has when maildird takes it, changes it, and gives it
// back.
func TestDovecotMadeIt(t *testing.T) {
	for _, setting := range settings {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			d := peers.StartDovecot(t, setting.dovecot, setting.more)
			root := d.Maildir(t, "ada")
			mail := strings.ReplaceAll(setting.maildird, "HOME", filepath.Dir(d.Location()))
			theirs := client(t, d.Addr, "ada", nil)
			furnish(t, theirs, setting.prefix, setting.sep)
			want, subscribed := lookAtAll(t, theirs)
			header, _, _ := strings.Cut(readFile(t, filepath.Join(filepath.Dir(root), setting.list, "dovecot-uidlist")), "\n")

			s := serve(t, d.Location(), mail)
			ours := s.client(t, "ada", nil)
			got, gotSubscribed := lookAtAll(t, ours)
			wantSameMailboxes(t, "maildird of what Dovecot made", want, got)
			if !slices.Equal(subscribed, gotSubscribed) {
				t.Errorf("maildird: subscribed are %q, not %q", gotSubscribed, subscribed)
			}

			change(t, ours, setting.prefix, setting.sep)
			want, subscribed = lookAtAll(t, ours)
			s.stop(t)
			theirs = client(t, d.Addr, "ada", nil)
			got, gotSubscribed = lookAtAll(t, theirs)
			wantSameMailboxes(t, "Dovecot of what maildird changed", want, got)
			if !slices.Equal(subscribed, gotSubscribed) {
				t.Errorf("Dovecot: subscribed are %q, not %q", gotSubscribed, subscribed)
			}
			guid := func(header string) string { return header[strings.Index(header, " G"):] }
			if now, _, _ := strings.Cut(readFile(t, filepath.Join(filepath.Dir(root), setting.list, "dovecot-uidlist")), "\n"); guid(now) != guid(header) {
				t.Errorf("INBOX had the header %q and has %q", header, now)
			}
			d.WantNoComplaint(t)
		})
	}
}
