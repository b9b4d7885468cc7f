package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const grüße = "Grüße 1; 2" // of testdata/users/dovecot-2.3.19

// Dovecot's own hashes, of all schemes that are known.
func TestDovecotPasswords(t *testing.T) {
	users, wrong, err := readUsers("testdata/users/dovecot-2.3.19", places{root: "/mail/%u"})
	if err != nil || len(wrong) > 0 {
		t.Fatal(err, wrong)
	}
	if len(users) != 13 {
		t.Errorf("got %d users, want 13", len(users))
	}
	for name, u := range users {
		if !u.password.Match(grüße) {
			t.Errorf("%s: the password is not taken", name)
		}
		for _, text := range []string{"", grüße + "!"} {
			if u.password.Match(text) {
				t.Errorf("%s: takes %q", name, text)
			}
		}
	}
}

// What maildird passwd makes, the server takes, and so does Dovecot (TestDovecotTakesPasswords).
func TestHashPassword(t *testing.T) {
	for _, scheme := range []string{"ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT"} {
		field, err := hashPassword(scheme, grüße)
		if err != nil {
			t.Fatal(scheme, err)
		}
		p, err := parsePassword(field)
		if err != nil {
			t.Fatal(field, err)
		}
		if !p.Match(grüße) {
			t.Errorf("%s does not hold the password", field)
		}
	}
	if _, err := hashPassword("BLF-CRYPT", strings.Repeat("x", 73)); err == nil {
		t.Error("BLF-CRYPT takes 73 bytes and ignores the last")
	}
}

func TestReadUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	text := strings.Join([]string{
		"# a comment",
		"",
		"alice@example.org:{PLAIN}a:1000:1000::/home/alice::userdb_quota_rule=*:storage=1G",
		"   ",
		"bob@example.org",
		":{PLAIN}x",
		"carol@example.org:{plain}c\r",
		"dave@example.org:{SSHA}abcd",
		"erin@example.org:",
		"frank@example.org:$9$unknown",
		"alice@example.org:{PLAIN}b",
		"grace:{PLAIN}g",
		"heidi@..:{PLAIN}h",
		"ivan@example.org:{PLAIN}i::::::nologin",
		"judy@example.org:{PLAIN}j::::::allow_nets=192.0.2.0/24",
		"kim@example.org:{PLAIN}k::::::userdb_mail=maildir:/other",
		"../lee@example.org:{PLAIN}l",
		"b\xff@example.org:{PLAIN}m",
		"nina@example.org:{PLAIN",
		"olga@example.org:{PBKDF2}$1$salt$5000",
		"last@example.org:{PLAIN}z",
	}, "\n")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	users, wrong, err := readUsers(file, places{root: "/mail/%d/%n"})
	if err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]string{
		"alice@example.org": "/mail/example.org/alice", "carol@example.org": "/mail/example.org/carol", "last@example.org": "/mail/example.org/last",
	} {
		if u := users[name]; u == nil || u.root != root {
			t.Errorf("%s: got %+v, want root %s", name, u, root)
		}
	}
	if len(users) != 3 {
		t.Errorf("got %d users, want 3", len(users))
	}
	if u := users["alice@example.org"]; !u.password.Match("a") {
		t.Error("of two lines the first does not count")
	}
	if u := users["carol@example.org"]; !u.password.Match("c") {
		t.Error("the line break is part of the password")
	}
	want := []string{
		`5: has no colon; a line is name:{SCHEME}hash:uid:gid:gecos:home`,
		`6: user name is empty`,
		`8: user "dave@example.org": unknown password scheme "SSHA"; allowed: CRYPT, ARGON2ID, ARGON2I, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, MD5-CRYPT, PBKDF2, PLAIN`,
		`9: user "erin@example.org": password is empty`,
		`10: user "frank@example.org": password hash of scheme CRYPT can't be read`,
		`11: user "alice@example.org" is on line 3 already`,
		`12: user name "grace" can't be used in the location "/mail/%d/%n": %d is empty`,
		`13: user name "heidi@.." can't be used in the location "/mail/%d/%n": %d begins with a dot`,
		`14: user "ivan@example.org": extra field "nologin" is not supported; allowed: userdb_ fields, which are ignored, except userdb_mail and userdb_home`,
		`15: user "judy@example.org": extra field "allow_nets" is not supported; allowed: userdb_ fields, which are ignored, except userdb_mail and userdb_home`,
		`16: user "kim@example.org": extra field "userdb_mail" is not supported; allowed: userdb_ fields, which are ignored, except userdb_mail and userdb_home`,
		`17: user name "../lee@example.org" can't be used in the location "/mail/%d/%n": %n begins with a dot`,
		`18: user name "b\xff@example.org" is not UTF-8`,
		`19: user "nina@example.org": password scheme has no closing brace`,
		`20: user "olga@example.org": password hash of scheme PBKDF2 is not "$1$salt$rounds$key"`,
	}
	for i, p := range wrong {
		if got := strings.TrimPrefix(p.Error(), file+":"); i >= len(want) || got != want[i] {
			t.Errorf("got %s", got)
		}
	}
	if len(wrong) != len(want) {
		t.Errorf("got %d problems, want %d", len(wrong), len(want))
	}
}

func TestFindUser(t *testing.T) {
	u := users{"alice": {name: "alice"}, "Bob": {name: "Bob"}}
	for login, want := range map[string]string{"alice": "alice", "ALICE": "alice", "Bob": "Bob", "bob": "", "": ""} {
		got := ""
		if found := u.find(login); found != nil {
			got = found.name
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", login, got, want)
		}
	}
}

func TestLocation(t *testing.T) {
	for _, c := range []struct{ location, user, home, want, reason string }{
		{"/srv/%d/%n", "a@b.org", "", "/srv/b.org/a", ""},
		{"/srv/%u", "a@b.org", "", "/srv/a@b.org", ""},
		{"/srv/%n", "a", "", "/srv/a", ""},
		{"/srv/100%%/%n", "a", "", "/srv/100%/a", ""},
		{"~/Maildir", "a", "/home/a", "/home/a/Maildir", ""},
		{"%h", "../a", "/home/a", "/home/a", ""},
		{"mail/%n", "a", "", "/etc/x%y/mail/a", ""},
		{"~/Maildir", "a", "", "", `home "" is no absolute path`},
		{"~/Maildir", "a", "a", "", `home "a" is no absolute path`},
		{"/srv/%u", "", "", "", "%u is empty"},
		{"/srv/%u", "..", "", "", "%u begins with a dot"},
		{"/srv/%u", ".a", "", "", "%u begins with a dot"},
		{"/srv/%u", "a/b", "", "", "%u has a slash"},
		{"/srv/%u", "a\x00b", "", "", "%u has a slash or a NUL"},
		{"/srv/%d", "a", "", "", "%d is empty"},
		{"/srv/%d", "a@", "", "", "%d is empty"},
		{"/srv/%n", "@b", "", "", "%n is empty"},
		{"/srv/%d/%n", "a@b/../c", "", "", "%d has a slash"},
	} {
		var l location
		if err := l.UnmarshalText([]byte(c.location)); err != nil {
			t.Fatal(err)
		}
		got, err := l.within("/etc/x%y").of(c.user, c.home)
		if got != c.want || (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s for %q: got %q, %v; want %q, %s", c.location, c.user, got, err, c.want, c.reason)
		}
	}
	for l, want := range map[location]string{
		"/srv/mail/%d/%n": "/srv/mail", "/srv/u-%n/Maildir": "/srv", "%h/Maildir": "", "/srv/100%%/x": "/srv/100%/x", "/srv/100%%x/%n": "/srv/100%x",
	} {
		if got := l.fixed(); got != want {
			t.Errorf("%s: fixed part %q, want %q", l, got, want)
		}
	}
}

// A name never leads to a place that is not below the location's fixed part, nor to another user's.
func FuzzLocation(f *testing.F) {
	for _, s := range []string{"a@b.org", "..@..", "a/../b", "a@b@c", "\x00", "a%nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		const l location = "/srv/mail/%d/%n/Maildir"
		root, err := l.of(name, "")
		if err != nil {
			return
		}
		local, domain, _ := strings.Cut(name, "@")
		if parts := strings.Split(root, "/"); len(parts) != 6 || parts[3] != domain || parts[4] != local || parts[5] != "Maildir" {
			t.Errorf("%q leads to %q", name, root)
		}
	})
}

// No line makes it panic, and no name leads out of its place.
func FuzzParseUser(f *testing.F) {
	b, err := os.ReadFile("testdata/users/dovecot-2.3.19")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f.Add(strings.TrimSuffix(line, "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		u, err := parseUser(line, places{root: "/mail/%u"})
		if err != nil {
			return
		}
		if u.name == "" || u.password == nil || filepath.Dir(u.root) != "/mail" {
			t.Errorf("%q became %+v", line, u)
		}
	})
}
