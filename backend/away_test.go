package backend_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// A directory of an account that is away for a while is not made anew by who logs in meanwhile: it would be in
// the way when it comes back, with other UIDs than clients know.
func TestPlaceAway(t *testing.T) {
	for _, place := range []string{"Maildir", "inbox", "control"} {
		t.Run(place, func(t *testing.T) {
			dir := t.TempDir()
			s := serve(t, &backend.Account{Root: filepath.Join(dir, "Maildir"), Maildir: maildir.Options{
				Inbox: filepath.Join(dir, "inbox"), Control: filepath.Join(dir, "control"),
			}})
			dial(t, s.addr).do("SELECT INBOX")
			path := filepath.Join(dir, place)
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			c := connect(t, s.addr)
			if _, tagged, err := c.exchange("LOGIN mary pass"); err != nil || tagged != "NO [UNAVAILABLE] Mail can't be read now" {
				t.Errorf("login meanwhile: %q, %v", tagged, err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s was made anew: %v", place, err)
			}
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
			dial(t, s.addr).do("SELECT INBOX")
		})
	}
}

// Who has the root of another user and an INBOX of his own never gets the other's INBOX.
func TestOneRootTwoInboxes(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, &backend.Account{Root: filepath.Join(dir, "Maildir"), Maildir: maildir.Options{Inbox: filepath.Join(dir, "%u")}})
	ada, ben := connect(t, s.addr), connect(t, s.addr)
	ada.do("LOGIN ada pass")
	if _, tagged, err := ben.exchange("LOGIN ben pass"); err != nil || tagged != "NO [UNAVAILABLE] Mail can't be read now" {
		t.Errorf("login beside the other: %q, %v", tagged, err)
	}
	ada.do("UNAUTHENTICATE")
	ben.do("LOGIN ben pass")
	ben.do("SELECT INBOX")
	if _, err := os.Stat(filepath.Join(dir, "ben", "cur")); err != nil {
		t.Error(err)
	}
}
