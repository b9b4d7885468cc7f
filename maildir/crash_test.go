package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
)

// A disk sees each change before it is made, and lets some of them fail.
type disk struct {
	mode failMode
	n    int // which change fails, from 1, or one after it

	mu     sync.Mutex
	ops    []string
	failed []string
	first  int // which of ops is the first that failed; 0: none

	// What would not survive if the power went now: files that were written to and directories whose
	// entries changed. In tmp/ nothing has to survive, and no lock has.
	dirty, changed map[string]bool
	needless       []string // syncs of what was durable already
}

// A failMode is how the disk fails.
type failMode int

const (
	crash    failMode = iota // the process ends: the change isn't made, and none after it
	once                     // the one change fails
	full                     // from then on there is no space for anything new, for a while
	readOnly                 // from then on nothing can be changed, for a while
)

func (m failMode) String() string { return [...]string{"crash", "once", "full", "read-only"}[m] }

func (m failMode) err() error { return [...]error{errCrash, unix.EIO, unix.ENOSPC, unix.EROFS}[m] }

var errCrash = errors.New("the process ended")

func (k *disk) fault(op string, paths ...string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	what := op + " " + strings.Join(paths, " ")
	k.ops = append(k.ops, what)
	if len(k.ops) >= k.n && k.hits(op) {
		if k.first == 0 {
			k.first = len(k.ops)
		}
		k.failed = append(k.failed, what)
		return k.mode.err()
	}
	k.note(op, paths)
	return nil
}

// hits reports whether it is a change of this sort that fails now.
func (k *disk) hits(op string) bool {
	switch k.mode {
	case crash: // between a sync and what comes before it there is no difference
		return k.first > 0 || op != "sync" && op != "fsync"
	case once:
		return k.first == 0
	case readOnly:
		return true
	}
	return slices.Contains([]string{"create", "write", "link", "mkdir"}, op)
}

// note keeps account of what is durable.
func (k *disk) note(op string, paths []string) {
	file := paths[0]
	change := func(p string) {
		if d := path.Dir(p); path.Base(d) != "tmp" && !strings.HasSuffix(p, ".lock") {
			k.changed[d] = true
		}
	}
	switch op {
	case "write", "truncate":
		k.dirty[file] = true
	case "utimes":
		k.dirty[file] = path.Base(file) != keysFile // that time is for running programs
	case "sync":
		if !k.dirty[file] {
			k.needless = append(k.needless, file)
		}
		delete(k.dirty, file)
	case "fsync":
		if !k.changed[file] {
			k.needless = append(k.needless, file)
		}
		delete(k.changed, file)
	case "rename":
		change(file)
		change(paths[1])
		if k.dirty[file] {
			k.dirty[paths[1]] = true
		}
		delete(k.dirty, file)
	case "link":
		change(paths[1])
	case "remove":
		change(file)
		delete(k.dirty, file)
	default:
		change(file)
	}
}

// volatile is what would be lost: files, and with entries directories too.
func (k *disk) volatile(entries bool) (lost []string) {
	for file, is := range k.dirty {
		// Of the counter the name counts.
		if is && path.Base(path.Dir(file)) != "tmp" && !strings.HasSuffix(file, ".lock") && path.Base(file) != validityFile {
			lost = append(lost, file)
		}
	}
	for dir := range k.changed {
		if entries {
			lost = append(lost, dir)
		}
	}
	return lost
}

// mustTell reports whether a change failed that the command can't do without: what is left behind in tmp/
// or a lock that stays are logged only.
func (k *disk) mustTell() bool {
	return slices.ContainsFunc(k.failed, func(op string) bool {
		if k.mode == full && strings.HasPrefix(op, "write ") && strings.HasSuffix(op, ".lock") {
			return false // a lock holds without its owner's name
		}
		return !strings.HasPrefix(op, "remove ") || !strings.Contains(op, "/tmp/") && !strings.HasSuffix(op, ".lock")
	})
}

// A crashCase is something a client asks for, and what has to hold then. Messages are known by their
// subject; a state shows each as "mailbox/UID flags".
type crashCase struct {
	name string
	dirs bool // whether it is about directories, so that the layout matters
	// run does it. The others are mailboxes that are selected.
	run func(ctx context.Context, a *Account, inbox, other, plain *Ref) error
	// moves are the subjects that may be elsewhere then, or have other flags, or be gone.
	moves []string
	acked func(s *state) error // what holds when the client was told OK
	any   func(s *state) error // what holds in any case
	// undone is whether nothing has changed when the client was told NO.
	undone bool
	// durable is what was waited for before OK: "all", "files" without entries of directories, or "".
	durable string
}

// A state is what a process finds that starts now.
type state struct {
	at       map[string][]string // where each subject is
	base     map[string]string   // by mailbox/UID
	validity map[string]uint32
	next     map[string]imap.UID
	subs     []string
}

func (s *state) want(subject string, at ...string) error {
	if !slices.Equal(s.at[subject], at) {
		return fmt.Errorf("%s is at %q, want %q", subject, s.at[subject], at)
	}
	return nil
}

// oneOf is for what was under way.
func (s *state) oneOf(subject string, places ...string) error {
	if got := strings.Join(s.at[subject], " and "); !slices.Contains(places, got) {
		return fmt.Errorf("%s is at %q, want one of %q", subject, got, places)
	}
	return nil
}

// once checks that a subject is in one of two mailboxes, and once.
func (s *state) once(subject, one, two string) error {
	at := s.at[subject]
	if len(at) != 1 || !strings.HasPrefix(at[0], one+"/") && !strings.HasPrefix(at[0], two+"/") {
		return fmt.Errorf("%s is at %q, want it once in %s or %s", subject, at, one, two)
	}
	return nil
}

// copied checks that a subject is where it was, and at most once elsewhere; under which UID depends on
// the record that was written.
func (s *state) copied(subject, original, copy string) error {
	places := []string{original}
	for uid := 2; uid <= 4; uid++ {
		places = append(places, original+" and "+fmt.Sprintf(copy, uid))
	}
	return s.oneOf(subject, places...)
}

func (s *state) subscribed(name string) error {
	if !slices.Contains(s.subs, name) {
		return fmt.Errorf("subscriptions are %q, want %s among them", s.subs, name)
	}
	return nil
}

func crashCases(sep string) []crashCase {
	all := func(r *Ref) []*Message { return r.Snapshot().Messages }
	below := "other" + sep + "below"
	movedOnce := func(s *state) error {
		return errors.Join(s.once("m1", "INBOX", "other"), s.once("m2", "INBOX", "other"))
	}
	return []crashCase{{
		name: "append",
		run: func(ctx context.Context, a *Account, inbox, _, _ *Ref) error {
			_, _, err := inbox.Append(ctx, strings.NewReader("Subject: n1\r\n\r\n"), []imap.Flag{"Fresh"}, time.Unix(1e9, 0))
			return err
		},
		acked:   func(s *state) error { return s.want("n1", "INBOX/4 Fresh") },
		any:     func(s *state) error { return s.oneOf("n1", "", "INBOX/4 Fresh") },
		undone:  true,
		durable: "all",
	}, {
		name: "copy",
		run: func(ctx context.Context, a *Account, inbox, other, _ *Ref) error {
			_, err := inbox.CopyTo(ctx, other.Mailbox, all(inbox))
			return err
		},
		moves: []string{"m1", "m2", "m3"},
		acked: func(s *state) error {
			return errors.Join(s.want("m1", `INBOX/1 \Seen Work`, `other/2 \Seen Work`),
				s.want("m2", "INBOX/2", "other/3"), s.want("m3", `INBOX/3 \Flagged`, `other/4 \Flagged`))
		},
		any: func(s *state) error {
			return errors.Join(s.copied("m1", `INBOX/1 \Seen Work`, `other/%d \Seen Work`),
				s.copied("m2", "INBOX/2", "other/%d"), s.copied("m3", `INBOX/3 \Flagged`, `other/%d \Flagged`))
		},
		undone:  true,
		durable: "all",
	}, {
		name: "copy within",
		run: func(ctx context.Context, a *Account, inbox, _, _ *Ref) error {
			_, err := inbox.CopyTo(ctx, inbox.Mailbox, all(inbox)[:1])
			return err
		},
		moves:   []string{"m1"},
		acked:   func(s *state) error { return s.want("m1", `INBOX/1 \Seen Work`, `INBOX/4 \Seen Work`) },
		any:     func(s *state) error { return s.copied("m1", `INBOX/1 \Seen Work`, `INBOX/%d \Seen Work`) },
		undone:  true,
		durable: "all",
	}, {
		name: "move",
		run: func(ctx context.Context, a *Account, inbox, other, _ *Ref) error {
			_, err := inbox.MoveTo(ctx, other.Mailbox, inbox.Snapshot(), all(inbox)[:2], false)
			return err
		},
		moves:   []string{"m1", "m2"},
		acked:   func(s *state) error { return errors.Join(s.want("m1", `other/2 \Seen Work`), s.want("m2", "other/3")) },
		any:     movedOnce,
		durable: "all",
	}, {
		name: "move and keep",
		run: func(ctx context.Context, a *Account, inbox, other, _ *Ref) error {
			_, err := inbox.MoveTo(ctx, other.Mailbox, inbox.Snapshot(), all(inbox)[:2], true)
			return err
		},
		moves:   []string{"m1", "m2"},
		acked:   func(s *state) error { return errors.Join(s.want("m1", `other/2 \Seen Work`), s.want("m2", "other/3")) },
		any:     movedOnce,
		durable: "all",
	}, {
		name: "move within",
		run: func(ctx context.Context, a *Account, inbox, _, _ *Ref) error {
			_, err := inbox.MoveTo(ctx, inbox.Mailbox, inbox.Snapshot(), all(inbox)[:1], false)
			return err
		},
		moves:   []string{"m1"},
		acked:   func(s *state) error { return s.want("m1", `INBOX/4 \Seen Work`) },
		any:     func(s *state) error { return s.oneOf("m1", `INBOX/1 \Seen Work`, `INBOX/4 \Seen Work`) },
		durable: "all",
	}, {
		name: "store",
		run: func(ctx context.Context, a *Account, inbox, _, _ *Ref) error {
			_, err := inbox.Store(ctx, []imap.UID{1, 2}, imap.StoreFlagsAdd, []imap.Flag{"Brand"})
			return err
		},
		moves: []string{"m1", "m2"},
		acked: func(s *state) error {
			return errors.Join(s.want("m1", `INBOX/1 \Seen Work Brand`), s.want("m2", "INBOX/2 Brand"))
		},
		any: func(s *state) error {
			return errors.Join(s.oneOf("m1", `INBOX/1 \Seen Work`, `INBOX/1 \Seen Work Brand`),
				s.oneOf("m2", "INBOX/2", "INBOX/2 Brand"))
		},
		durable: "files",
	}, {
		name: "expunge",
		run: func(ctx context.Context, a *Account, inbox, _, _ *Ref) error {
			return inbox.Expunge(ctx, []imap.UID{1, 2}, 0, false)
		},
		moves: []string{"m1", "m2"},
		acked: func(s *state) error { return errors.Join(s.want("m1"), s.want("m2")) },
		any: func(s *state) error {
			return errors.Join(s.oneOf("m1", "", `INBOX/1 \Seen Work`), s.oneOf("m2", "", "INBOX/2"))
		},
		durable: "files",
	}, {
		name: "expunge and keep",
		run: func(ctx context.Context, a *Account, inbox, _, _ *Ref) error {
			return inbox.Expunge(ctx, []imap.UID{1, 2}, 0, true)
		},
		moves: []string{"m1", "m2"},
		acked: func(s *state) error { return errors.Join(s.want("m1"), s.want("m2")) },
		any: func(s *state) error {
			return errors.Join(s.oneOf("m1", "", `INBOX/1 \Seen Work`), s.oneOf("m2", "", "INBOX/2"))
		},
		durable: "files",
	}, {
		name: "new mail",
		run: func(ctx context.Context, a *Account, inbox, _, _ *Ref) error {
			r := inbox.Again(RefOptions{Selected: true})
			defer r.Close()
			for i, base := range []string{"1000000001.one", "1000000002.two"} {
				mail := fmt.Sprintf("Subject: n%d\n\n", i+1)
				if err := os.WriteFile(filepath.Join(a.Root(), "new", base), []byte(mail), 0o600); err != nil {
					return err
				}
			}
			r.disk.Lock()
			defer r.disk.Unlock()
			_, err := r.syncLocked(ctx, false)
			return cmp.Or(err, r.unwritten) // which the log is told
		},
		acked:   func(s *state) error { return errors.Join(s.want("n1", "INBOX/4"), s.want("n2", "INBOX/5")) },
		any:     func(s *state) error { return errors.Join(s.want("n1", "INBOX/4"), s.want("n2", "INBOX/5")) },
		durable: "files",
	}, {
		name: "append where cur is missing",
		run: func(ctx context.Context, a *Account, _, _, plain *Ref) error {
			if err := os.Remove(plain.d.path("cur")); err != nil {
				return err
			}
			r, err := a.Mailbox("plain", RefOptions{})
			if err != nil {
				return err
			}
			defer r.Close()
			_, _, err = r.Append(ctx, strings.NewReader("Subject: n1\r\n\r\n"), []imap.Flag{imap.FlagSeen}, time.Time{})
			return err
		},
		acked:   func(s *state) error { return s.want("n1", `plain/2 \Seen`) },
		any:     func(s *state) error { return s.oneOf("n1", "", `plain/2 \Seen`) },
		undone:  true,
		durable: "all",
	}, {
		name: "first look",
		run: func(ctx context.Context, a *Account, _, _, _ *Ref) error {
			for _, part := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(a.Root(), ".foreign", part), 0o700); err != nil {
					return err
				}
			}
			if err := os.WriteFile(filepath.Join(a.Root(), ".foreign/new/1.n1"), []byte("Subject: n1\n\n"), 0o600); err != nil {
				return err
			}
			r, err := a.Mailbox("foreign", RefOptions{})
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = r.Sync(ctx)
			return err
		},
		any:     func(s *state) error { return s.want("n1", "foreign/1") },
		durable: "all",
	}, {
		name: "create",
		dirs: true,
		run: func(ctx context.Context, a *Account, _, _, _ *Ref) error {
			return a.Create(ctx, "up"+sep+"third", []imap.MailboxAttr{imap.MailboxAttrSent})
		},
		acked: func(s *state) error {
			if s.validity["up"+sep+"third"] == 0 {
				return errors.New("the mailbox is not there")
			}
			return nil
		},
		durable: "all",
	}, {
		name: "rename",
		dirs: true,
		run: func(ctx context.Context, a *Account, _, _, _ *Ref) error {
			return a.Rename(ctx, "other", "up"+sep+"third")
		},
		moves: []string{"o1", "b1"},
		acked: func(s *state) error {
			if slices.Contains(s.subs, "other") {
				return fmt.Errorf("subscriptions are %q", s.subs)
			}
			return errors.Join(s.want("o1", "up"+sep+"third/1 Later"), s.want("b1", "up"+sep+"third"+sep+"below/1"), s.subscribed("up"+sep+"third"))
		},
		any: func(s *state) error {
			return errors.Join(s.oneOf("o1", "other/1 Later", "up"+sep+"third/1 Later"), s.oneOf("b1", below+"/1", "up"+sep+"third"+sep+"below/1"))
		},
	}, {
		name:  "rename INBOX",
		dirs:  true,
		run:   func(ctx context.Context, a *Account, _, _, _ *Ref) error { return a.Rename(ctx, "INBOX", "old") },
		moves: []string{"m1", "m2", "m3"},
		acked: func(s *state) error {
			return errors.Join(s.want("m1", `old/1 \Seen Work`), s.want("m2", "old/2"), s.want("m3", `old/3 \Flagged`))
		},
		any: func(s *state) error {
			return errors.Join(s.once("m1", "INBOX", "old"), s.once("m2", "INBOX", "old"), s.once("m3", "INBOX", "old"))
		},
		durable: "all",
	}, {
		name:    "delete",
		dirs:    true,
		run:     func(ctx context.Context, a *Account, _, _, _ *Ref) error { return a.Delete(ctx, "plain", false) },
		moves:   []string{"p1"},
		acked:   func(s *state) error { return s.want("p1") },
		any:     func(s *state) error { return s.oneOf("p1", "", "plain/1") },
		durable: "all",
	}, {
		name:  "delete and keep",
		dirs:  true,
		run:   func(ctx context.Context, a *Account, _, _, _ *Ref) error { return a.Delete(ctx, "plain", true) },
		moves: []string{"p1"},
		acked: func(s *state) error { return s.want("p1") },
		any:   func(s *state) error { return s.oneOf("p1", "", "plain/1") },
		// The entry in tmp/ is not among what is looked at.
		durable: "all",
	}, {
		name:    "delete above others",
		dirs:    true,
		run:     func(ctx context.Context, a *Account, _, _, _ *Ref) error { return a.Delete(ctx, "other", false) },
		moves:   []string{"o1"},
		acked:   func(s *state) error { return s.want("o1") },
		any:     func(s *state) error { return s.oneOf("o1", "", "other/1 Later") },
		durable: "files",
	}, {
		name:    "subscribe",
		run:     func(ctx context.Context, a *Account, _, _, _ *Ref) error { return a.Subscribe(ctx, "INBOX", true) },
		acked:   func(s *state) error { return s.subscribed("INBOX") },
		any:     func(s *state) error { return s.subscribed("other") },
		durable: "files",
	}}
}

// prepareCrash makes the account that all cases start from.
func prepareCrash(t *testing.T, o *Options) (root string) {
	t.Helper()
	ctx := context.Background()
	root = filepath.Join(t.TempDir(), "Maildir")
	a, err := Open(root, o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	put := func(mailbox, subject string, flags ...imap.Flag) {
		t.Helper()
		if err := a.Create(ctx, mailbox, nil); err != nil && err != ErrMailboxExists {
			t.Fatal(err)
		}
		r, err := a.Mailbox(mailbox, RefOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		appendMail(t, r, "Subject: "+subject+"\r\n\r\n", flags...)
	}
	put("INBOX", "m1", imap.FlagSeen, "Work")
	put("INBOX", "m2")
	put("INBOX", "m3", imap.FlagFlagged)
	put("other", "o1", "Later")
	put("other"+string(a.Separator())+"below", "b1")
	put("plain", "p1")
	if err := a.Subscribe(ctx, "other", true); err != nil {
		t.Fatal(err)
	}
	return root
}

// try runs a case on a copy of an account, on a disk that fails.
func (c *crashCase) try(t *testing.T, template string, before *state, o *Options, k *disk) {
	t.Helper()
	ctx := context.Background()
	root := filepath.Join(memDir(t), "Maildir")
	if err := os.CopyFS(root, os.DirFS(template)); err != nil {
		t.Fatal(err)
	}
	a, err := Open(root, o)
	if err != nil {
		t.Fatal(err)
	}
	var refs [3]*Ref
	for i, name := range []string{"INBOX", "other", "plain"} {
		if refs[i], err = a.Mailbox(name, RefOptions{Selected: true, ReadOnly: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := refs[i].Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	setFaults := func(f func(op string, paths ...string) error) {
		a.mail.root.fault = f
		for _, r := range refs {
			setFault(r, f)
		}
	}
	closeAll := func() {
		for _, r := range refs {
			r.Close()
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	k.dirty, k.changed = map[string]bool{}, map[string]bool{}
	setFaults(k.fault)
	err = c.run(ctx, a, refs[0], refs[1], refs[2])
	problem := func(format string, args ...any) {
		t.Helper()
		text := fmt.Sprintf(format+"\nthe client was told %v after\n\t%s\nof which failed\n\t%s", append(args, err,
			strings.Join(k.ops, "\n\t"), strings.Join(k.failed, "\n\t"))...)
		t.Errorf("%v at %d: %s", k.mode, k.n, strings.ReplaceAll(text, root, ""))
	}
	switch {
	case err != nil && !errors.Is(err, k.mode.err()):
		problem("the error is %v, want %v", err, k.mode.err())
	case err == nil && k.mustTell():
		problem("nobody was told")
	case err == nil && len(k.failed) == 0:
		if lost := k.volatile(c.durable == "all"); c.durable != "" && len(lost) > 0 {
			problem("told OK before these are durable: %q", lost)
		}
		if c.durable == "all" && !c.dirs && len(k.needless) > 0 {
			problem("needless syncs of %q", k.needless)
		}
	}
	known := map[string]string{} // that clients may have heard of
	for name, base := range before.base {
		known[name] = base
	}
	for _, r := range refs {
		s := r.Snapshot()
		if r.Err() != nil || r.Deleted() || s.UIDValidity != before.validity[r.Name()] {
			continue
		}
		if r.withoutCur() {
			continue // half deleted
		}
		list, _, lerr := r.readList(false)
		if lerr != nil || list == nil {
			t.Fatalf("the list of %s: %v", r.Name(), lerr)
		}
		for _, msg := range s.Messages {
			known[fmt.Sprintf("%s/%d", r.Name(), msg.UID)] = msg.Key()
			if !slices.Contains(list.records, uidRecord{uid: msg.UID, base: msg.Key()}) {
				problem("UID %d of %s is shown and not on disk", msg.UID, r.Name())
			}
		}
	}
	if k.mode == crash {
		closeAll() // nothing is written any more
	} else {
		setFaults(nil) // the process lives on
	}
	after := lookAt(t, root, o)

	if err == nil && c.acked != nil {
		if herr := c.acked(after); herr != nil {
			problem("acknowledged, and %v", herr)
		}
	}
	if c.any != nil {
		if herr := c.any(after); herr != nil {
			problem("%v", herr)
		}
	}
	if err != nil && c.undone && (k.mode == once || k.mode == full) && fmt.Sprint(before.at) != fmt.Sprint(after.at) {
		problem("told NO, and %v became %v", before.at, after.at)
	}
	for subject, at := range before.at {
		if !slices.Contains(c.moves, subject) && !slices.Equal(at, after.at[subject]) {
			problem("%s was at %q and is at %q", subject, at, after.at[subject])
		}
	}
	for name, base := range known {
		mailbox := path.Dir(name)
		if now, ok := after.base[name]; ok && now != base && before.validity[mailbox] == after.validity[mailbox] {
			problem("%s was %s and is %s", name, base, now)
		}
	}
	for name, next := range before.next {
		if after.next[name] != 0 && after.validity[name] == before.validity[name] && after.next[name] < next {
			problem("UIDNEXT of %s went from %d to %d", name, next, after.next[name])
		}
	}
	problems, cerr := Check(root, o)
	if cerr != nil {
		t.Error(cerr)
	}
	for _, p := range problems {
		if !strings.Contains(p.Text, "was left behind by") { // a lock that who needs it takes over
			problem("Check: %s", p)
		}
	}
	if k.mode != crash {
		for _, r := range refs {
			s, err := r.Sync(ctx)
			if errors.Is(err, ErrGone) || r.Deleted() {
				continue
			} else if err != nil {
				problem("sync: %v", err)
				continue
			}
			if got, want := shown(t, r, s), after.in(r.Name()); !slices.Equal(got, want) {
				problem("this process sees %q in %s, others see %q", got, r.Name(), want)
			}
		}
		if _, _, err := refs[0].Append(ctx, strings.NewReader("Subject: later\r\n\r\n"), nil, time.Time{}); err != nil {
			problem("an APPEND afterwards: %v", err)
		}
		closeAll()
	}
	if a, err = Open(root, o); err != nil { // takes away what was deleted
		t.Fatal(err)
	}
	a.Close()
	for _, file := range leftovers(t, root, k.mode) {
		problem("left behind: %s", file)
	}
}

// memDir is a scratch directory in memory where there is such a place: hundreds are filled, and what they
// are on does not matter.
func memDir(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	if unix.Access(shm, unix.W_OK) != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "maildir-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// shown are the messages of a snapshot, as a state has them, after their subjects.
func shown(t *testing.T, r *Ref, s *Snapshot) (lines []string) {
	t.Helper()
	for _, msg := range s.Messages {
		subject := strings.TrimPrefix(strings.TrimSpace(readMessage(t, r, msg)), "Subject: ")
		flags := strings.Trim(fmt.Sprint(s.IMAPFlags(msg.Flags)), "[]")
		lines = append(lines, fmt.Sprintf("%s %s/%s", subject, r.Name(), strings.TrimSpace(fmt.Sprintf("%d %s", msg.UID, flags))))
	}
	slices.Sort(lines)
	return lines
}

// in are the messages of a mailbox.
func (s *state) in(mailbox string) (lines []string) {
	for subject, places := range s.at {
		for _, place := range places {
			if name, _, _ := strings.Cut(place, " "); path.Dir(name) == mailbox {
				lines = append(lines, subject+" "+place)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// leftovers are the files that are of no use to anybody. What a crash leaves in tmp/ is swept there, and
// so is what could not be removed.
func leftovers(t *testing.T, root string, mode failMode) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dir := filepath.Dir(file)
		inTmp := filepath.Base(dir) == "tmp"
		parent := dir // the mailbox
		if isMaildirPart(filepath.Base(dir)) {
			parent = filepath.Dir(dir)
		}
		_, nocur := os.Stat(filepath.Join(parent, "cur"))
		switch {
		case d.IsDir() && strings.HasSuffix(d.Name(), asideSuffix):
		case d.Name() == asideFile && (mode == once || mode == full):
		case inTmp && mode == full:
		case strings.HasSuffix(d.Name(), ".lock"):
			return nil // who needs it takes it over
		case nocur != nil && file != root && (!d.IsDir() || isMaildirPart(d.Name())):
		default:
			return nil
		}
		files = append(files, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// lookAt is what a process that starts now finds, after it recovered what it had to.
func lookAt(t *testing.T, root string, o *Options) *state {
	t.Helper()
	ctx := context.Background()
	a, err := Open(root, o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s := &state{at: map[string][]string{}, base: map[string]string{}, validity: map[string]uint32{}, next: map[string]imap.UID{}}
	entries, err := a.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Selectable {
			continue
		}
		r, err := a.Mailbox(e.Name, RefOptions{})
		if err != nil {
			t.Fatalf("open %s: %v", e.Name, err)
		}
		snap, err := r.Sync(ctx)
		if err != nil {
			t.Fatalf("sync %s: %v", e.Name, err)
		}
		s.validity[e.Name], s.next[e.Name] = snap.UIDValidity, snap.UIDNext
		for _, line := range shown(t, r, snap) {
			subject, place, _ := strings.Cut(line, " ")
			s.at[subject] = append(s.at[subject], place)
		}
		for _, msg := range snap.Messages {
			s.base[fmt.Sprintf("%s/%d", e.Name, msg.UID)] = msg.Key()
		}
		r.Close()
	}
	if s.subs, err = a.Subscriptions(); err != nil {
		t.Fatal(err)
	}
	return s
}

// Each command is tried again and again, and each time the disk fails one change later: the process
// ends there, or the change fails and the process lives on. What was acknowledged is there, nothing is
// lost or twice, no UID names two messages, who asked is told, and what this process shows is what others
// find.
func TestFailingDisk(t *testing.T) {
	for _, l := range []Layout{LayoutMaildirpp, LayoutFS} {
		o := &Options{Layout: l, Logger: slog.New(slog.DiscardHandler)}
		template := prepareCrash(t, o)
		before := lookAt(t, template, o)
		for _, c := range crashCases(string(o.separator())) {
			if l == LayoutFS && !c.dirs {
				continue // what happens in a mailbox is the same in both
			}
			for _, mode := range []failMode{crash, once, full, readOnly} {
				t.Run(fmt.Sprintf("%v/%s/%v", l, c.name, mode), func(t *testing.T) {
					t.Parallel()
					for n, more := 1, true; more && !t.Failed(); {
						k := &disk{mode: mode, n: n}
						c.try(t, template, before, o, k)
						n, more = k.first+1, k.first > 0
					}
				})
			}
		}
	}
}

// A RENAME that fails half way leaves all names as they were.
func TestRenameIsUndone(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		ctx := context.Background()
		sep := string(a.Separator())
		names := []string{"a", "a" + sep + "b", "a" + sep + "b" + sep + "c"}
		for _, name := range names {
			if err := a.Create(ctx, name, nil); err != nil {
				t.Fatal(err)
			}
		}
		r := open(t, a, names[0], RefOptions{Selected: true})
		renames := 0
		a.mail.root.fault = func(op string, paths ...string) error {
			if op != "rename" {
				return nil
			}
			if renames++; renames == 2 || a.opts.Layout == LayoutFS {
				return unix.EIO
			}
			return nil
		}
		err := a.Rename(ctx, "a", "z")
		a.mail.root.fault = nil
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("rename: %v", err)
		}
		for _, name := range names {
			open(t, a, name, RefOptions{})
		}
		if resync(t, r); r.Name() != "a" {
			t.Errorf("the open mailbox is called %s", r.Name())
		}
		if now, ok := a.NewName("a"); ok {
			t.Errorf("a is told to be %s", now)
		}
	})
}

// A DELETE that can neither go on nor back is finished by the next process: nothing of the mailbox comes
// back with the next one of its name.
func TestDeleteIsFinished(t *testing.T) {
	o := &Options{Layout: LayoutFS, Logger: slog.New(slog.DiscardHandler)}
	root := prepareCrash(t, o)
	a, err := Open(root, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Mailbox("other", RefOptions{})
	if err != nil {
		t.Fatal(err)
	}
	appendMail(t, r, "Subject: o2\r\n\r\n") // o1 is in cur, this one in new
	renames := 0
	fault := func(op string, paths ...string) error {
		if op != "rename" || strings.HasPrefix(path.Base(paths[0]), asideFile) {
			return nil
		}
		if renames++; renames > 1 {
			return unix.EIO
		}
		return nil
	}
	setFault(r, fault)
	a.mail.root.fault = fault
	err = a.Delete(context.Background(), "other", false)
	if !errors.Is(err, unix.EIO) {
		t.Fatalf("delete: %v", err)
	}
	r.Close()
	a.Close()
	if got := lookAt(t, root, o).in("other"); len(got) > 0 {
		t.Errorf("half of it is there: %q", got)
	}
	if got := leftovers(t, root, once); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
}
