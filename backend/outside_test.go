package backend_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/watch"
)

// A testWatcher is a watch.Watcher for maildir.Options.
type testWatcher struct{ *watch.Watcher }

func (w testWatcher) Watch(dir string, hint func(name string)) maildir.Watching {
	return w.Watcher.Watch(dir, func(h watch.Hint) { hint(h.Name) })
}

// An outsider is a program that changes a Maildir in all ways there are.
type outsider struct {
	*rand.Rand
	t    *testing.T
	root string
	n    int
	gone []string // base names of files that were removed
}

func (o *outsider) path(name string) string { return filepath.Join(o.root, filepath.FromSlash(name)) }

func (o *outsider) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *outsider) write(name string) string {
	o.t.Helper()
	o.must(os.WriteFile(o.path(name), []byte("Subject: "+filepath.Base(name)+"\n\n"), 0o600))
	return "write " + name
}

func (o *outsider) rename(from, to string) string {
	o.t.Helper()
	o.must(os.Rename(o.path(from), o.path(to)))
	return "rename " + from + " " + to
}

func (o *outsider) flags() string {
	var b strings.Builder
	for _, c := range "DFRSTab" {
		if o.IntN(3) == 0 {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// base is a base name that was never there, or was there before and is not now.
func (o *outsider) base() string {
	if i := len(o.gone); i > 0 && o.IntN(4) == 0 {
		i = o.IntN(i)
		base := o.gone[i]
		o.gone = append(o.gone[:i], o.gone[i+1:]...)
		return base
	}
	o.n++
	return fmt.Sprintf("%d.x%d", 1700000000+o.n, o.n)
}

// file is a message, "cur/x" or "new/x".
func (o *outsider) file() string {
	var all []string
	for _, part := range []string{"cur", "new"} {
		entries, err := os.ReadDir(o.path(part))
		o.must(err)
		for _, e := range entries {
			if e.Type().IsRegular() && e.Name()[0] != '.' && !strings.Contains(e.Name(), "\n") {
				all = append(all, part+"/"+e.Name())
			}
		}
	}
	if len(all) == 0 {
		name := "new/" + o.base()
		o.write(name)
		return name
	}
	return all[o.IntN(len(all))]
}

func base(file string) string {
	name, _, _ := strings.Cut(file[len("cur/"):], ":")
	return name
}

// change makes one change and tells which.
func (o *outsider) change() string {
	o.t.Helper()
	switch o.IntN(14) {
	case 0, 1:
		return o.write("new/" + o.base())
	case 2:
		return o.write("cur/" + o.base() + ":2," + o.flags())
	case 3:
		return o.write("cur/" + o.base()) // without flags
	case 4, 5, 6:
		f := o.file()
		return o.rename(f, "cur/"+base(f)+":2,"+o.flags())
	case 7, 8:
		f := o.file()
		o.gone = append(o.gone, base(f))
		o.must(os.Remove(o.path(f)))
		return "remove " + f
	case 9: // mbsync adds the UID of the other side
		f := o.file()
		o.gone = append(o.gone, base(f))
		o.n++
		return o.rename(f, fmt.Sprintf("cur/%s,U=%d:2,%s", base(f), o.n, o.flags()))
	case 10: // with a link, as some do where a rename could overwrite
		f := o.file()
		to := "cur/" + base(f) + ":2,P" + o.flags()
		if to == f {
			return "nothing"
		}
		o.must(os.Link(o.path(f), o.path(to)))
		o.must(os.Remove(o.path(f)))
		return "link " + f + " " + to
	case 11: // the same name, another file
		f := o.file()
		o.must(os.WriteFile(o.path("tmp/x"), []byte("Subject: other\n\n"), 0o600))
		return o.rename("tmp/x", f)
	case 12: // there and back
		f := o.file()
		o.rename(f, "tmp/away")
		return "and back: " + o.rename("tmp/away", f)
	default: // nothing that is mail
		name := o.path([]string{"cur/.hidden", "cur/line\nbreak", "new/dir", "cur/..."}[o.IntN(4)])
		if o.IntN(2) == 0 {
			os.RemoveAll(name)
		} else if strings.HasSuffix(name, "dir") {
			os.MkdirAll(name, 0o700)
		} else {
			os.WriteFile(name, nil, 0o600)
		}
		return "no mail: " + name
	}
}

// dump is what a session could tell of a snapshot.
func dump(s *maildir.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "UIDVALIDITY %d UIDNEXT %d\n", s.UIDValidity, s.UIDNext)
	for _, msg := range s.Messages {
		fmt.Fprintf(&b, "%d %s %v new %v\n", msg.UID, msg.Key(), s.IMAPFlags(msg.Flags), msg.InNew)
	}
	return b.String()
}

// TestOutsideByEvents changes a mailbox in all ways there are, one or many at a time, and after each step
// what was learned from events, without reading a directory, is what one finds who reads all.
func TestOutsideByEvents(t *testing.T) {
	steps := 1500
	if testing.Short() {
		steps = 200
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	root := filepath.Join(t.TempDir(), "Maildir")
	quiet := slog.New(slog.DiscardHandler)
	w := watch.New(watch.Options{})
	defer w.Close()
	a, err := maildir.Open(root, &maildir.Options{Watcher: testWatcher{w}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ctx := context.Background()
	inbox, err := a.Mailbox("INBOX", maildir.RefOptions{Selected: true, ReadOnly: seed%2 == 0})
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.Close()
	if _, err := inbox.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	o := &outsider{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, root: root}
	before := a.Scans()
	for step := range steps {
		var acts []string
		for range 1 + o.IntN(1+o.IntN(20)) {
			acts = append(acts, o.change())
		}
		prev := inbox.Snapshot()
		switch msgs := prev.Messages; {
		case len(msgs) == 0 || o.IntN(5) > 0:
		case o.IntN(2) == 0: // our own changes come in between
			acts = append(acts, "STORE")
			_, err = inbox.Store(ctx, []imap.UID{msgs[o.IntN(len(msgs))].UID}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagSeen, "$x"})
		default:
			acts = append(acts, "APPEND")
			_, _, err = inbox.Append(ctx, strings.NewReader("Subject: x\r\n\r\n"), nil, time.Time{})
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := inbox.Sync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := maildir.Open(root, &maildir.Options{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		again, err := fresh.Mailbox("INBOX", maildir.RefOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all, err := again.Sync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := dump(s), dump(all); got != want {
			t.Fatalf("step %d: %s\nby events:\n%s\nby reading:\n%s\nbefore:\n%s", step, strings.Join(acts, "\n"), got, want, dump(prev))
		}
		for i := 1; i < len(s.Messages); i++ {
			if s.Messages[i].UID <= s.Messages[i-1].UID {
				t.Fatalf("step %d: UID %d after %d", step, s.Messages[i].UID, s.Messages[i-1].UID)
			}
		}
		again.Close()
		fresh.Close()
	}
	if n := a.Scans() - before; n > 0 {
		t.Errorf("%d directories were read", n)
	}
}
