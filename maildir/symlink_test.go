package maildir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dirOf is where a mailbox of one part is.
func dirOf(a *Account, name string) string { return a.mail.join(a.opts.path(name)) }

func symlinkTo(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// A symlink that leads out of the root is no mailbox, and nothing is made, moved or removed through
// it.
func TestSymlinkOut(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		var log accountLog
		a.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		ctx := context.Background()
		sep := string(a.Separator())
		outside := t.TempDir()
		if err := all(sub("Sub"), sub(".Sub"), sub(""))(outside); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Mail", "Half", "Tree", "Tree" + sep + "Leaf"} {
			if err := a.Create(ctx, name, nil); err != nil {
				t.Fatal(err)
			}
		}
		symlinkTo(t, outside, dirOf(a, "Out"))
		cur := filepath.Join(dirOf(a, "Half"), "cur")
		if err := os.Remove(cur); err != nil {
			t.Fatal(err)
		}
		symlinkTo(t, filepath.Join(outside, "cur"), cur)
		before := listing(t, outside)

		bad := []string{"Out", "Half"}
		if a.opts.Layout == LayoutFS {
			bad = append(bad, "Out"+sep+"Sub", "Out"+sep+"None", "Out"+sep+"Sub"+sep+"None")
		}
		for _, name := range bad {
			_, err := a.Mailbox(name, RefOptions{})
			for what, err := range map[string]error{"open": err, "delete": a.Delete(ctx, name, false)} {
				if !errors.Is(err, ErrBadPlace) {
					t.Errorf("%s %s: %v", what, name, err)
				}
			}
			for what, err := range map[string]error{"create": a.Create(ctx, name, nil), "rename to": a.Rename(ctx, "Mail", name)} {
				if !errors.Is(err, ErrBadPlace) && (name != "Half" && name != "Out" || !errors.Is(err, ErrMailboxExists)) {
					t.Errorf("%s %s: %v", what, name, err)
				}
			}
			if name == "Half" {
				continue
			}
			if err := a.Rename(ctx, name, "New"); err == nil {
				t.Errorf("%s was renamed", name)
			}
		}
		if err := os.Remove(a.mail.join("tmp")); err != nil {
			t.Fatal(err)
		}
		symlinkTo(t, outside, a.mail.join("tmp"))
		for _, name := range []string{"Mail", "Tree"} {
			if err := a.Delete(ctx, name, false); !errors.Is(err, ErrBadPlace) {
				t.Errorf("delete %s into a tmp that is elsewhere: %v", name, err)
			}
		}
		if after := listing(t, outside); after != before {
			t.Errorf("outside was\n%sand is\n%s", before, after)
		}
		for _, path := range []string{a.opts.path("Out"), a.opts.path("Half") + "/cur"} {
			if n := strings.Count(log.String(), "level=WARN msg=\"no mailbox can be there\" path="+path+" "); n != 1 {
				t.Errorf("the log tells %d times of %s:\n%s", n, path, log.String())
			}
		}
	})
}

// A symlink inside the root is another name of a mailbox.
func TestSymlinkInside(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		if err := a.Create(ctx, "Mail", nil); err != nil {
			t.Fatal(err)
		}
		if err := a.Create(ctx, "Mail"+string(a.Separator())+"Below", nil); err != nil {
			t.Fatal(err)
		}
		symlinkTo(t, filepath.Base(dirOf(a, "Mail")), dirOf(a, "Link"))
		link := open(t, a, "Link", RefOptions{Selected: true})
		appendMail(t, link, "Subject: one\r\n\r\n")
		mail := open(t, a, "Mail", RefOptions{})
		appendMail(t, mail, "Subject: two\r\n\r\n")
		wantDump(t, resync(t, link), "1; 2")
		name := "Link"
		if a.opts.Layout == LayoutMaildirpp { // LayoutFS doesn't show it, so it isn't renamed either
			name = "Other"
			if err := a.Rename(ctx, "Link", name); err != nil {
				t.Fatal(err)
			}
			wantDump(t, resync(t, link), "1; 2")
		}
		if err := a.Delete(ctx, name, true); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Mailbox(name, RefOptions{}); err != ErrNoMailbox {
			t.Errorf("open a link that was deleted: %v", err)
		}
		wantDump(t, resync(t, open(t, a, "Mail", RefOptions{})), "1; 2")
	})
}

// A mailbox that is replaced by a symlink to the outside is gone, whatever that leads to.
func TestSymlinkInstead(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		if err := a.Create(context.Background(), "Mail", nil); err != nil {
			t.Fatal(err)
		}
		r := open(t, a, "Mail", RefOptions{Selected: true})
		away := filepath.Join(t.TempDir(), "away")
		if err := os.Rename(dirOf(a, "Mail"), away); err != nil {
			t.Fatal(err)
		}
		symlinkTo(t, away, dirOf(a, "Mail"))
		if _, err := r.Sync(context.Background()); !errors.Is(err, ErrGone) {
			t.Errorf("sync: %v", err)
		}
		if _, _, err := r.Append(context.Background(), strings.NewReader("x"), nil, time.Time{}); !errors.Is(err, ErrGone) {
			t.Errorf("append: %v", err)
		}
	})
}

// The root itself may be a symlink.
func TestSymlinkRoot(t *testing.T) {
	dir := t.TempDir()
	symlinkTo(t, "real", filepath.Join(dir, "link"))
	if err := sub("real")(dir); err != nil {
		t.Fatal(err)
	}
	a, err := Open(filepath.Join(dir, "link"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Create(context.Background(), "Mail", nil); err != nil {
		t.Fatal(err)
	}
	r := open(t, a, "Mail", RefOptions{})
	appendMail(t, r, "Subject: one\r\n\r\n")
	if !a.Stands() {
		t.Error("the account doesn't stand")
	}
	r.Close()
}

// A symlink that leads to itself is no mailbox, either.
func TestSymlinkLoop(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		symlinkTo(t, a.opts.path("Loop"), dirOf(a, "Loop"))
		_, err := a.Mailbox("Loop", RefOptions{})
		for what, err := range map[string]error{
			"open":   err,
			"create": a.Create(ctx, "Loop", nil),
			"delete": a.Delete(ctx, "Loop", false),
		} {
			if !errors.Is(err, ErrBadPlace) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
