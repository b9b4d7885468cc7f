package maildir

import "testing"

// Names under a prefix, as Dovecot has them in a namespace with one.
func TestPrefix(t *testing.T) {
	inbox := Options{Prefix: "INBOX."}
	mail := Options{Prefix: "Mail/", Layout: LayoutFS}
	for _, c := range []struct {
		o             *Options
		name, storage string // "": refused
	}{
		{&inbox, "INBOX", "INBOX"},
		{&inbox, "inbox", "INBOX"},
		{&inbox, "INBOX.INBOX", "INBOX"},
		{&inbox, "INBOX.", "INBOX"},
		{&inbox, "INBOX.Work", "Work"},
		{&inbox, "inbox.Work", "Work"},
		{&inbox, "INBOX.INBOX.y", "INBOX.y"},
		{&inbox, "INBOX.inbox", "inbox"},
		{&inbox, "Work", ""},
		{&inbox, "INBOXX.Work", ""},
		{&inbox, "INBOX..Work", ""},
		{&mail, "INBOX", "INBOX"},
		{&mail, "INBOX/x", ""},
		{&mail, "Mail/INBOX/x", "INBOX/x"},
		{&mail, "Mail/a/b", "a/b"},
		{&mail, "mail/a", ""},
		{&mail, "Mail", ""},
		{&mail, "Mail/", ""},
	} {
		got, err := c.o.storageName(c.name)
		if got != c.storage || (err != nil) != (c.storage == "") {
			t.Errorf("%q with the prefix %q is %q, %v; want %q", c.name, c.o.Prefix, got, err, c.storage)
		}
	}
	for _, c := range []struct {
		o             *Options
		storage, name string
	}{
		{&inbox, "INBOX", "INBOX"},
		{&inbox, "Work.x", "INBOX.Work.x"},
		{&inbox, "INBOX.y", "INBOX.INBOX.y"},
		{&inbox, "inbox", "INBOX.inbox"},
		{&mail, "INBOX/z", "Mail/INBOX/z"},
	} {
		if name, canonical := c.o.mailboxName(c.storage); name != c.name || !canonical {
			t.Errorf("%q is shown as %q (%t), want %q", c.storage, name, canonical, c.name)
		}
	}
	for prefix, ok := range map[string]bool{"": true, "INBOX.": true, "a.b.": true, "INBOX": false, ".": false, "a..": false, "~a.": false} {
		o := Options{Prefix: prefix}
		if err := o.Check(); (err == nil) != ok {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}
