package main

import (
	"strings"
	"testing"
)

// What is Dovecot's mail_location is told of with what to write instead; nothing else is.
func TestDovecotLocation(t *testing.T) {
	for _, c := range []struct{ location, want string }{
		{"~/Maildir", ""},
		{"/srv/mail/%d/%n", ""},
		{"/srv/mail: all/%u", ""},
		{"mail/%u", ""},
		{"100%%/%u", ""},

		{"maildir:~/Maildir", `"maildir:~/Maildir" is Dovecot's mail_location; write instead: location = "~/Maildir"`},
		{"maildir:~/Maildir:LAYOUT=fs", `; write instead: location = "~/Maildir", layout = "fs"`},
		{"maildir:~/Maildir:LAYOUT=Maildir++", `; write instead: location = "~/Maildir", layout = "maildir++"`},
		{"maildir:/srv/mail/%u:UTF-8", `; write instead: location = "/srv/mail/%u", names = "utf-8"`},
		{"maildir:/srv/%d/%n:CONTROL=/var/control/%u:INDEX=/var/index/%u",
			`; write instead: location = "/srv/%d/%n", control = "/var/control/%u"; left out: INDEX=/var/index/%u: Dovecot's indexes are its own`},
		{"maildir:~/Maildir:INBOX=~/Maildir/.INBOX", `; write instead: location = "~/Maildir", inbox = "~/Maildir/.INBOX"`},
		{"maildir:~/Maildir:INDEX=MEMORY", `; left out: INDEX=MEMORY: Dovecot's`},
		{"maildir:~/Maildir:VOLATILEDIR=/tmp/%u:LISTINDEX=x:NO-NOSELECT:KEEP-NOSELECT", `; left out: VOLATILEDIR=/tmp/%u: `},
		{"/srv/mail/%u:LAYOUT=fs", `; write instead: location = "/srv/mail/%u", layout = "fs"`},
		{"maildir:/srv/%{domain}/%{user | username | lower}", `; write instead: location = "/srv/%d/%n"`},
		{"maildir:/srv/%Ld/%Ln", `; write instead: location = "/srv/%d/%n"`},
		{"maildir:", `"maildir:" is Dovecot's mail_location`},

		{"maildir:~/Maildir:DIRNAME=mail", `; not supported: DIRNAME=mail: mailboxes are found by their cur`},
		{"maildir:~/Maildir:LAYOUT=index", `; not supported: LAYOUT=index: allowed are maildir++ and fs`},
		{"maildir:~/Maildir:SUBSCRIPTIONS=subs", `; not supported: SUBSCRIPTIONS=subs: the file's name is subscriptions`},
		{"maildir:~/Maildir:INDEXPVT=~/private", `; not supported: INDEXPVT=~/private: flags are`},
		{"maildir:~/Maildir:FUTURE=1", `; not supported: FUTURE=1: unknown`},
		{"maildir:/srv/%2.26Hn/%1n", `; not supported: %2.26Hn: allowed are %u, %n, %d, %h, %%, %1n: allowed are`},
		{"mbox:~/mail:INBOX=/var/mail/%u", `"mbox:" is no Maildir; let Dovecot convert it first (doveadm backup)`},
		{"mdbox:~/mdbox", `"mdbox:" is no Maildir`},
		{"sdbox:~/sdbox", `"sdbox:" is no Maildir`},
		{"imapc:", `"imapc:" is no Maildir`},

		{"/srv/mail/%{user}", `has Dovecot's variables; write "/srv/mail/%u"`},
		{"%{home}/mail/%Lu", `has Dovecot's variables; write "%h/mail/%u"`},
		{"/srv/%1n", `unknown variable "%1n"; allowed: %u, %n, %d, %h, %%`},
		{"/srv/%{user|sha1}", `unknown variable "%{user|sha1}"; allowed: `},
		{"/srv/%{user", `unknown variable "%{user"`},
		{"/srv/%U", `unknown variable "%U"`},
		{"/srv/%H/%u", `unknown variable "%H"`},
		{"/srv/%", `unknown variable "%"`},
		{"/srv/%/", `unknown variable "%/"`},
		{"/srv/%\n", `unknown variable "%\n"`},
	} {
		var l location
		err := l.UnmarshalText([]byte(c.location))
		switch {
		case err == nil && c.want != "":
			t.Errorf("%q is taken", c.location)
		case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q:\n got %v\nwant %s", c.location, err, c.want)
		case err == nil && string(l) != c.location:
			t.Errorf("%q is taken as %q", c.location, l)
		}
	}
}
