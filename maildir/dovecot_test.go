package maildir

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

func login(t *testing.T, d *peers.Dovecot, user string) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialInsecure(d.Addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login(user, "pass").Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

// sees is a mailbox as Dovecot shows it: UIDVALIDITY, then UID, flags, size and bytes of each
// message.
func sees(t *testing.T, c *imapclient.Client, name string) string {
	t.Helper()
	sel, err := c.Select(name, nil).Wait()
	if err != nil {
		t.Fatalf("dovecot: select %s: %v", name, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "UIDVALIDITY %d UIDNEXT %d\n", sel.UIDValidity, sel.UIDNext)
	if sel.NumMessages == 0 {
		return b.String()
	}
	all := imap.SeqSet{}
	all.AddRange(1, 0)
	section := &imap.FetchItemBodySection{Peek: true}
	msgs, err := c.Fetch(all, &imap.FetchOptions{UID: true, Flags: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		t.Fatalf("dovecot: fetch: %v", err)
	}
	for _, m := range msgs {
		fmt.Fprintln(&b, line(m.UID, m.Flags, m.RFC822Size, m.FindBodySection(section)))
	}
	return b.String()
}

func line(uid imap.UID, flags []imap.Flag, size int64, body []byte) string {
	var f []string
	for _, flag := range flags {
		if flag != `\Recent` {
			f = append(f, string(flag))
		}
	}
	slices.Sort(f)
	return fmt.Sprintf("%d %v %d %q", uid, f, size, body)
}

// holds is the same as this package reads it.
func holds(t *testing.T, r *Ref) string {
	t.Helper()
	s := resync(t, r)
	var b strings.Builder
	fmt.Fprintf(&b, "UIDVALIDITY %d UIDNEXT %d\n", s.UIDValidity, s.UIDNext)
	for _, msg := range s.Messages {
		size, err := r.Size(context.Background(), msg)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, line(msg.UID, s.IMAPFlags(msg.Flags), size, []byte(readMessage(t, r, msg))))
	}
	return b.String()
}

func wantSame(t *testing.T, what, ours, dovecot string) {
	t.Helper()
	if ours != dovecot {
		t.Errorf("%s: we have\n%s\nDovecot has\n%s", what, ours, dovecot)
	}
}

// What this package writes, Dovecot reads: UIDs, flags, keywords, folders, subscriptions, bytes.
// What Dovecot changes then, this package reads, in the same open mailbox.
func TestDovecotAgrees(t *testing.T) {
	for layout, location := range map[Layout]string{LayoutMaildirpp: "", LayoutFS: ":LAYOUT=fs"} {
		t.Run(layout.String(), func(t *testing.T) {
			ctx := context.Background()
			d := peers.StartDovecot(t, location)
			a, err := Open(d.Maildir(t, "ours"), &Options{Layout: layout})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { a.Close() })
			sep := string(a.Separator())
			sub := "Lists" + sep + "Entwürfe"
			inbox := open(t, a, "INBOX", RefOptions{Selected: true})
			for i, text := range []string{"Subject: a\r\n\r\nx\r\n", "Subject: b\n\nmixed\r\nends\n\r\r\n", "", "Subject: c\r\n\r\nno end"} {
				appendMail(t, inbox, text, []imap.Flag{imap.FlagSeen, imap.FlagDraft, "Work", "$Later"}[i])
			}
			if err := a.Create(ctx, sub, nil); err != nil {
				t.Fatal(err)
			}
			box := open(t, a, sub, RefOptions{})
			appendMail(t, box, "Subject: here\r\n\r\n", "Later", "Work") // other letters than in INBOX
			if _, err := inbox.CopyTo(ctx, box.Mailbox, inbox.Snapshot().Messages[1:]); err != nil {
				t.Fatal(err)
			}
			if _, err := inbox.MoveTo(ctx, box.Mailbox, inbox.Snapshot(), inbox.Snapshot().Messages[:1], false); err != nil {
				t.Fatal(err)
			}
			if err := inbox.Expunge(ctx, []imap.UID{3}, 0, false); err != nil {
				t.Fatal(err)
			}
			if err := a.Subscribe(ctx, sub, true); err != nil {
				t.Fatal(err)
			}
			c := login(t, d, "ours")
			wantSame(t, "INBOX", holds(t, inbox), sees(t, c, "INBOX"))
			wantSame(t, sub, holds(t, box), sees(t, c, sub))
			subscribed, err := c.List("", "*", &imap.ListOptions{SelectSubscribed: true}).Collect()
			if err != nil || len(subscribed) != 1 || subscribed[0].Mailbox != sub {
				t.Errorf("dovecot: subscriptions %v, %v", subscribed, err)
			}

			// Now Dovecot changes what is open here.
			if _, err := c.Select(sub, nil).Wait(); err != nil {
				t.Fatal(err)
			}
			store := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagAnswered, "Third"}}
			if err := c.Store(imap.SeqSetNum(1, 2), store, nil).Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Copy(imap.SeqSetNum(1), "INBOX").Wait(); err != nil {
				t.Fatal(err)
			}
			if err := c.Store(imap.SeqSetNum(3), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.Expunge().Close(); err != nil {
				t.Fatal(err)
			}
			wantSame(t, "INBOX after Dovecot's changes", holds(t, inbox), sees(t, c, "INBOX"))
			wantSame(t, sub+" after Dovecot's changes", holds(t, box), sees(t, c, sub))
			d.WantNoComplaint(t)
		})
	}
}

// A Maildir that Dovecot made keeps its UIDs, keywords and subscriptions here.
func TestDovecotMailbox(t *testing.T) {
	d := peers.StartDovecot(t, "")
	root := d.Maildir(t, "theirs")
	c := login(t, d, "theirs")
	const appended, n = 100, 300
	for i := range appended {
		text := fmt.Sprintf("Subject: %d\r\n\r\nhello\r\n", i)
		app := c.Append("INBOX", int64(len(text)), &imap.AppendOptions{Flags: []imap.Flag{imap.Flag(fmt.Sprintf("kw%d", i%20))}})
		io.WriteString(app, text)
		if err := app.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := app.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	for i := appended; i < n; i++ {
		name := filepath.Join(root, "new", fmt.Sprintf("%d.delivered", 2000000000+i))
		if err := os.WriteFile(name, []byte("Subject: delivered\n\nhello\n"), 0o660); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, 0o660); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Subscribe("INBOX").Wait(); err != nil {
		t.Fatal(err)
	}
	want := sees(t, c, "INBOX")
	a, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	r := open(t, a, "INBOX", RefOptions{Selected: true})
	wantSame(t, "INBOX", holds(t, r), want)
	if subs, err := a.Subscriptions(); err != nil || !slices.Equal(subs, []string{"INBOX"}) {
		t.Errorf("subscriptions %q, %v", subs, err)
	}
	d.WantNoComplaint(t)
}
