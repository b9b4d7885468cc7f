package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// A message is all that every server should say alike of a message.
type message struct {
	uid   imap.UID
	flags string // sorted, without \Recent
	date  string
	size  int64
	text  string
}

// A mailbox is all that every server should say alike of a mailbox.
type mailbox struct {
	validity uint32
	next     imap.UID
	messages []message
}

// messages are those of a mailbox, which is opened read-only.
func messages(t *testing.T, c *imapclient.Client, name string) []message {
	t.Helper()
	return look(t, c, name).messages
}

func look(t *testing.T, c *imapclient.Client, name string) mailbox {
	t.Helper()
	sel, err := c.Select(name, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		t.Fatalf("examine %s: %v", name, err)
	}
	m := mailbox{validity: sel.UIDValidity, next: sel.UIDNext}
	if sel.NumMessages == 0 {
		return m
	}
	var all imap.SeqSet
	all.AddRange(1, 0)
	section := &imap.FetchItemBodySection{Peek: true}
	got, err := c.Fetch(all, &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		t.Fatalf("fetch from %s: %v", name, err)
	}
	for _, g := range got {
		flags := slices.DeleteFunc(slices.Clone(g.Flags), func(f imap.Flag) bool { return f == `\Recent` })
		slices.Sort(flags)
		m.messages = append(m.messages, message{
			uid:   g.UID,
			flags: fmt.Sprint(flags),
			date:  g.InternalDate.UTC().Format("2006-01-02 15:04:05"),
			size:  g.RFC822Size,
			text:  string(g.FindBodySection(section)),
		})
	}
	return m
}

// lookAtAll is every mailbox of an account, and the names that are subscribed.
func lookAtAll(t *testing.T, c *imapclient.Client) (mailboxes map[string]mailbox, subscribed []string) {
	t.Helper()
	mailboxes = map[string]mailbox{}
	list, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if !slices.ContainsFunc(l.Attrs, func(a imap.MailboxAttr) bool {
			return a == imap.MailboxAttrNoSelect || a == imap.MailboxAttrNonExistent
		}) {
			mailboxes[l.Mailbox] = look(t, c, l.Mailbox)
		}
	}
	list, err = c.List("", "*", &imap.ListOptions{SelectSubscribed: true}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		subscribed = append(subscribed, l.Mailbox)
	}
	slices.Sort(subscribed)
	return mailboxes, subscribed
}

// wantSameMailboxes compares what two servers, or one at two times, say of all mailboxes. UIDNEXT
// may have grown.
func wantSameMailboxes(t *testing.T, what string, want, got map[string]mailbox) {
	t.Helper()
	if w, g := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(w, g) {
		t.Errorf("%s: mailboxes are %q, not %q", what, g, w)
	}
	for name, w := range want {
		g := got[name]
		if w.validity != g.validity || w.next > g.next {
			t.Errorf("%s: %s has UIDVALIDITY %d UIDNEXT %d, not %d and at least %d", what, name, g.validity, g.next, w.validity, w.next)
		}
		if !slices.Equal(w.messages, g.messages) {
			t.Errorf("%s: %s has\n%sand not\n%s", what, name, dump(g.messages), dump(w.messages))
		}
	}
}

func dump(messages []message) string {
	var b strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&b, "  UID %d %s %s %d bytes %.80q\n", m.uid, m.flags, m.date, m.size, m.text)
	}
	return b.String()
}
