package maildir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// quotaLog is an account's log, by the lines of quota files.
type quotaLog struct{ accountLog }

func (l *quotaLog) lines() (lines []string) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, "quota file") {
			lines = append(lines, line)
		}
	}
	return lines
}

// openQuota opens an account whose quota file is text; "-" for none.
func openQuota(t *testing.T, text string, l Layout) (a *Account, file string, log *quotaLog) {
	t.Helper()
	log = &quotaLog{}
	root := filepath.Join(t.TempDir(), "Maildir")
	a, err := Open(root, &Options{Layout: l, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	file = filepath.Join(root, quotaFile)
	if text != "-" {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a, file, log
}

func wantFile(t *testing.T, what, name, want string) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil || string(got) != want {
		t.Errorf("%s: %s is\n%q (%v), not\n%q", what, filepath.Base(name), got, err, want)
	}
}

// One line for each change, in the form that the file has; a command that changes nothing that counts writes none.
func TestQuotaLines(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"as Dovecot", "1000S,10C\n0 0\n", "1000S,10C\n0 0\n10 1\n20 1\n20 2\n-20 -2\n-20 -1\n"},
		{"as Courier", "1000S\n           0            0\n", "1000S\n           0            0\n" +
			"          10            1\n          20            1\n         -10           -1\n          10            1\n" +
			"          20            2\n         -20           -2\n         -20           -1\n"},
		{"limits only", "\n", "\n" +
			"          10            1\n          20            1\n         -10           -1\n          10            1\n" +
			"          20            2\n         -20           -2\n         -20           -1\n"},
		{"other limits", "5X,1000S\n0 0\n", "5X,1000S\n0 0\n10 1\n20 1\n20 2\n-20 -2\n-20 -1\n"},
		{"cut in its last line", "1000S\n0 0\n10 ", "1000S\n0 0\n10 \n10 1\n20 1\n20 2\n-20 -2\n-20 -1\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, file, log := openQuota(t, test.text, LayoutMaildirpp)
			ctx := context.Background()
			if err := a.Create(ctx, "Box", nil); err != nil {
				t.Fatal(err)
			}
			r, box := open(t, a, "INBOX", RefOptions{Selected: true}), open(t, a, "Box", RefOptions{})
			first := appendMail(t, r, "0123456789")
			second := appendMail(t, r, "01234567890123456789", imap.FlagSeen)
			do := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			for _, op := range []imap.StoreFlagsOp{imap.StoreFlagsAdd, imap.StoreFlagsDel} {
				_, err := r.Store(ctx, []imap.UID{first, second}, op, []imap.Flag{imap.FlagSeen, imap.FlagFlagged, "keyword"})
				do("store", err)
				_, err = r.Store(ctx, []imap.UID{first}, op, []imap.Flag{imap.FlagDeleted})
				do("store \\Deleted", err)
			}
			ten := []*Message{r.Snapshot().Find(first), r.Snapshot().Find(first)}
			_, err := r.CopyTo(ctx, box.Mailbox, ten)
			do("copy", err)
			do("delete", a.Delete(ctx, "Box", false))
			do("expunge", r.Expunge(ctx, []imap.UID{second}, 0, true))
			wantFile(t, "in the end", file, test.want)
			if lines := log.lines(); len(lines) > 0 {
				t.Errorf("logged is %q", lines)
			}
		})
	}
}

// Where there is no quota file none is made. One that can't be used is left as it is, logged once, and keeps nobody from
// changing mail.
func TestQuotaOdd(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(file string) error // instead of a file
		text string
		says string // in the log
	}{
		{name: "none", text: "-"},
		{name: "empty", says: "no limits"},
		{name: "no limits", text: "hello\n10 1\n", says: "no limits"},
		{name: "a count first", text: "10 1\n", says: "no limits"},
		{name: "NULs", text: "\x00\x00\x00\n", says: "no limits"},
		{name: "a long line", text: strings.Repeat("1", 1<<18) + "\n0 0\n", says: "no limits"},
		{name: "a directory", make: func(file string) error { return os.Mkdir(file, 0o700) }, says: "is a directory"},
		{name: "a symlink", make: func(file string) error { return os.Symlink("/dev/null", file) }, says: "symbolic links"},
		{name: "a FIFO", make: func(file string) error { return syscall.Mkfifo(file, 0o600) }, says: "not a regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := test.text
			if test.make != nil {
				text = "-"
			}
			a, file, log := openQuota(t, text, LayoutMaildirpp)
			if test.make != nil {
				if err := test.make(file); err != nil {
					t.Fatal(err)
				}
			}
			r := open(t, a, "INBOX", RefOptions{})
			for range 3 {
				uid := appendMail(t, r, "mail")
				if err := r.Expunge(context.Background(), []imap.UID{uid}, 0, false); err != nil {
					t.Fatal(err)
				}
			}
			if test.make == nil && test.text != "-" {
				wantFile(t, "in the end", file, test.text)
			}
			if _, err := os.Lstat(file); test.text == "-" && err == nil {
				t.Error("a quota file was made")
			}
			lines := log.lines()
			if test.says == "" && len(lines) > 0 || test.says != "" && (len(lines) != 1 || !strings.Contains(lines[0], test.says)) {
				t.Errorf("logged is %q, not once %q", lines, test.says)
			}
			if test.says == "" {
				return
			}
			if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("1S\n0 0\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			appendMail(t, r, "mail")
			wantFile(t, "when it was mended", file, "1S\n0 0\n4 1\n")
			if lines := log.lines(); len(lines) != 2 || !strings.Contains(lines[1], "kept again") {
				t.Errorf("logged is %q", lines)
			}
		})
	}
}

// In the layout fs Trash counts as any other, whatever form the file has.
func TestQuotaFS(t *testing.T) {
	a, file, _ := openQuota(t, "1000S\n           0            0\n", LayoutFS)
	ctx := context.Background()
	if err := a.Create(ctx, "Trash/Old", nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Create(ctx, "Trash", nil); err != nil {
		t.Fatal(err)
	}
	trash, old := open(t, a, "Trash", RefOptions{}), open(t, a, "Trash/Old", RefOptions{})
	appendMail(t, trash, "four")
	appendMail(t, old, "seven..", imap.FlagDeleted)
	if err := a.Rename(ctx, "Trash", "Gone"); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(ctx, "Gone", false); err != nil { // what is below stays
		t.Fatal(err)
	}
	wantFile(t, "in the end", file, "1000S\n           0            0\n4 1\n7 1\n-4 -1\n")
}

// A deleted mailbox that is kept for who has it open is not counted any more, and what becomes of its mail is not either.
func TestQuotaKept(t *testing.T) {
	a, file, _ := openQuota(t, "1000S\n0 0\n", LayoutMaildirpp)
	ctx := context.Background()
	if err := a.Create(ctx, "Box", nil); err != nil {
		t.Fatal(err)
	}
	r, inbox := open(t, a, "Box", RefOptions{Selected: true}), open(t, a, "INBOX", RefOptions{})
	first, second := appendMail(t, r, "four"), appendMail(t, r, "seven..")
	if err := a.Delete(ctx, "Box", true); err != nil {
		t.Fatal(err)
	}
	if !r.Deleted() {
		t.Fatal("nothing was kept")
	}
	if err := r.Expunge(ctx, []imap.UID{first}, 0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.MoveTo(ctx, inbox.Mailbox, r.Snapshot(), []*Message{r.Snapshot().Find(second)}, false); err != nil {
		t.Fatal(err)
	}
	wantFile(t, "in the end", file, "1000S\n0 0\n4 1\n7 1\n-11 -2\n7 1\n")
}

// Who counts anew loses no line of others, and counts no mail that came meanwhile: it leaves the file to the next try.
func TestQuotaCountedMeanwhile(t *testing.T) {
	quiet := quotaQuiet
	quotaQuiet = 0
	t.Cleanup(func() { quotaQuiet = quiet })
	long := "1000S\n" + strings.Repeat("1 1\n", quotaFull/4)
	a, file, _ := openQuota(t, long, LayoutMaildirpp)
	deliver := func(name string) {
		if err := os.WriteFile(filepath.Join(a.Root(), "new", name), []byte("mail"), 0o600); err != nil {
			t.Error(err)
		}
	}
	line := func() {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString("7 1\n")
			f.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	deliver("one")
	for _, test := range []struct {
		what   string
		op, at string // before which change
		f      func()
		err    error
		want   string
	}{
		{"mail comes", "create", "tmp", func() { deliver("two") }, errNotQuiet, long},
		{"mail and its line come", "create", "tmp", func() { deliver("three"); line() }, errNotQuiet, long + "7 1\n"},
		{"a line comes", "create", "tmp", line, errNotQuiet, long + "7 1\n7 1\n"},
		{"a line comes at the last moment", "rename", quotaFile, line, nil, "1000S\n12 3\n7 1\n"},
	} {
		a.mail.root.fault = func(op string, paths ...string) error {
			if op == test.op && strings.Contains(paths[len(paths)-1], test.at) {
				test.f()
			}
			return nil
		}
		if err := a.quota.tryCount(); err != test.err {
			t.Errorf("%s: %v, not %v", test.what, err, test.err)
		}
		wantFile(t, test.what, file, test.want)
		if left, err := os.ReadDir(filepath.Join(a.Root(), "tmp")); err != nil || len(left) > 0 {
			t.Errorf("%s: left in tmp are %v, %v", test.what, left, err)
		}
	}
	a.mail.root.fault = nil
}

// What a command that fails takes back is not counted, whichever change it fails at.
func TestQuotaTakenBack(t *testing.T) {
	a, file, _ := openQuota(t, "1000S\n0 0\n", LayoutMaildirpp)
	ctx := context.Background()
	if err := a.Create(ctx, "Box", nil); err != nil {
		t.Fatal(err)
	}
	r, box := open(t, a, "INBOX", RefOptions{}), open(t, a, "Box", RefOptions{})
	var msgs []*Message
	for range 3 {
		appendMail(t, r, "mail")
	}
	msgs = resync(t, r).Messages
	failed := 0
	for n := 1; ; n++ {
		left := n
		setFault(box, func(op string, paths ...string) error {
			if op != "rename" && op != "sync" && op != "write" || strings.HasSuffix(paths[0], ".lock") {
				return nil
			}
			if left--; left == 0 {
				return errors.New("the disk failed")
			}
			return nil
		})
		_, err := r.CopyTo(ctx, box.Mailbox, msgs)
		setFault(box, nil)
		if err == nil {
			break
		}
		failed++
	}
	if failed < 4 {
		t.Errorf("the disk failed %d times only", failed)
	}
	wantFile(t, "in the end", file, "1000S\n0 0\n4 1\n4 1\n4 1\n12 3\n")
}

// A rename that changes no T weighs nothing, so that no size is looked up for it.
func TestQuotaMarkRead(t *testing.T) {
	a, _, _ := openQuota(t, "1000S\n0 0\n", LayoutMaildirpp)
	r := open(t, a, "INBOX", RefOptions{})
	if err := os.WriteFile(filepath.Join(a.Root(), "new", "x"), []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.disk.Lock()
	defer r.disk.Unlock()
	r.d.tally.begin(true)
	for _, test := range []struct {
		to         string
		left, came weight
	}{
		{"cur/x:2,", weight{}, weight{}},
		{"cur/x:2,FSa", weight{}, weight{}},
		{"cur/x:2,ST", weight{r.d.tally, 4, false}, weight{r.d.tally, 4, true}},
		{"tmp/x", weight{r.d.tally, 4, false}, weight{}},
	} {
		if left, came := r.d.weighRename("new/x", r.d, test.to); left != test.left || came != test.came {
			t.Errorf("new/x to %s: %v and %v, not %v and %v", test.to, left, came, test.left, test.came)
		}
	}
}

// BenchmarkQuota marks 10 000 messages, read and to be deleted, and appends one, without a quota file and with one of either
// form.
func BenchmarkQuota(b *testing.B) {
	ctx := context.Background()
	for _, quota := range []struct{ name, text string }{{"none", ""}, {"plain", "0S\n0 0\n"}, {"padded", "\n           0            0\n"}} {
		root := fill(b, 10_000)
		if quota.text != "" {
			if err := os.WriteFile(filepath.Join(root, quotaFile), []byte(quota.text), 0o600); err != nil {
				b.Fatal(err)
			}
		}
		a := openAccount(b, root)
		r := selectAll(b, a, 10_000)
		var uids []imap.UID
		for _, msg := range r.Snapshot().Messages {
			uids = append(uids, msg.UID)
		}
		for _, flag := range []imap.Flag{imap.FlagFlagged, imap.FlagDeleted} {
			b.Run(strings.ToLower(string(flag[1:]))+"/"+quota.name, func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					op := []imap.StoreFlagsOp{imap.StoreFlagsAdd, imap.StoreFlagsDel}[i%2]
					if _, err := r.Store(ctx, uids, op, []imap.Flag{flag}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run("append/"+quota.name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := r.Append(ctx, strings.NewReader("Subject: x\r\n\r\n"), nil, time.Time{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		r.Close()
		a.Close()
	}
}
