package main

import (
	"errors"
	"log/slog"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// A counted is a password that counts how often it was checked.
type counted struct {
	text    string
	matches int
}

func (c *counted) Match(text string) bool {
	c.matches++
	return text == c.text
}

// For a user who does not exist the same work is done as for one who does, and even the password of
// the one it is done with does not let anybody in.
func TestUnknownUserTakesAsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := &counted{text: "secret"}
		results := map[string]int{}
		a := &accounts{
			users: &reloaded[*roster]{value: newRoster(users{"alice": {name: "alice", password: check, root: "/mail/alice"}}), next: time.Now().Add(time.Hour)},
			brake: newBrake(),
			count: func(result string) { results[result]++ },
		}
		a.ending, a.end = t.Context(), func() {}
		login := func(user, password string) (*backend.Account, error) {
			return a.Authenticate(t.Context(), &backend.Credentials{Username: user, Password: password, Remote: addr("192.0.2.1:1")})
		}
		begin := time.Now()
		for i, user := range []string{"alice", "mallory", "", "mallory\x00"} {
			password := "wrong"
			if user != "alice" {
				password = "secret"
			}
			if _, err := login(user, password); !errors.Is(err, backend.ErrAuthFailed) {
				t.Errorf("%q: got %v", user, err)
			}
			if check.matches != i+1 {
				t.Errorf("%q: %d checks in all, want %d", user, check.matches, i+1)
			}
		}
		if took := time.Since(begin); took != firstDelay*(1+2+4+8) {
			t.Errorf("the answers took %v", took)
		}
		begin = time.Now()
		got, err := login("ALICE", "secret")
		if took := time.Since(begin); took != 0 {
			t.Errorf("who is right waited %v", took)
		}
		if err != nil || got.User != "alice" || got.Root != "/mail/alice" {
			t.Errorf("got %+v, %v", got, err)
		}
		if results["ok"] != 1 || results["wrong"] != 4 {
			t.Errorf("counted %v", results)
		}
	})
}

// A passwd-file without a single user lets nobody in.
func TestNoUsers(t *testing.T) {
	if newRoster(nil).decoy("alice").Match("") {
		t.Error("the empty password is right")
	}
}

// What the configuration says of mail is what accounts have.
func TestAccountHasConfiguration(t *testing.T) {
	dir := files(t, "users", "alice:{PLAIN}a\n", "maildird.toml", `
listen.imap = "127.0.0.1:0"
auth = {passwd_file = "users", allow_insecure = true}
policy.delete = "ghost"
[mail]
location = "mail/%n"
layout = "fs"
names = "utf-8"
separator = "|"
[[mail.folder]]
name = "Sent"
special_use = '\sent'
subscribe = true
`)
	c, err := readConfig(filepath.Join(dir, "maildird.toml"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAccounts(c, slog.Default(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Authenticate(t.Context(), &backend.Credentials{Username: "alice", Password: "a", Remote: addr("192.0.2.1:1")})
	if err != nil {
		t.Fatal(err)
	}
	if got.Root != filepath.Join(dir, "mail/alice") || got.Maildir != c.maildir || got.Maildir.Layout != 1 || got.Maildir.Names != 1 || got.Maildir.Separator != '|' {
		t.Errorf("got %+v", got)
	}
	if len(got.Folders) != 1 || got.Folders[0] != (backend.Folder{Name: "Sent", SpecialUse: `\Sent`, Subscribe: true}) {
		t.Errorf("folders %+v", got.Folders)
	}
	if p := got.Policy.For("INBOX", '|'); p.Delete.String() != "ghost" {
		t.Errorf("policy %+v", p)
	}
}

// The hashes of maildird passwd are good for Dovecot.
func TestDovecotTakesPasswords(t *testing.T) {
	peers.Need(t, "doveadm")
	for _, scheme := range []string{"ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT"} {
		field, err := hashPassword(scheme, grüße)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("doveadm", "pw", "-t", field, "-p", grüße).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", field, err, out)
		}
	}
}
