package maildir

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// What a program makes whose umask takes everything away is as what is made without a umask.
func TestUmask(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		old := syscall.Umask(0o777)
		defer syscall.Umask(old)
		const mode = 0o750
		if err := os.Chmod(a.Root(), mode); err != nil {
			t.Fatal(err)
		}
		os.RemoveAll(filepath.Join(a.Root(), "tmp")) // Open has made it for its owner alone
		if err := a.Create(t.Context(), "Box", nil); err != nil {
			t.Fatal(err)
		}
		if err := a.Subscribe(t.Context(), "Box", true); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"INBOX", "Box"} {
			r := open(t, a, name, RefOptions{Selected: true})
			for _, flags := range [][]imap.Flag{nil, {imap.FlagSeen, "first"}} {
				appendMail(t, r, "Subject: x\r\n\r\n", flags...)
			}
		}
		if err := a.MakeFile("imapmaildir.cache"); err != nil {
			t.Fatal(err)
		}
		made := 0
		look := func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == a.opts.Control { // Open has made that
				return err
			}
			fi, err := e.Info()
			want := fs.FileMode(mode & 0o666)
			rel, _ := filepath.Rel(a.Root(), path)
			switch {
			case slices.Contains([]string{"cur", "new"}, rel): // Open has made them
				want = fs.ModeDir | 0o700
			case e.IsDir():
				want = fs.ModeDir | mode
			case strings.HasPrefix(e.Name(), validityFile+"."):
				want = 0o444
			}
			if fi.Mode() != want {
				t.Errorf("%s has mode %v, not %v", path, fi.Mode(), want)
			}
			made++
			return err
		}
		err := filepath.WalkDir(a.Root(), look)
		if err == nil && a.apart() {
			err = filepath.WalkDir(a.opts.Control, look)
		}
		if err != nil || made < 20 {
			t.Errorf("%d files, %v", made, err)
		}
	})
}
