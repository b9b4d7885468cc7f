package maildir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
)

// A damagedRoot is an account on a disk that something was done to, opened as by a process that starts.
type damagedRoot struct {
	t    *testing.T
	path string
	log  accountLog
}

// said is what was logged.
func (r *damagedRoot) said() string { return r.log.String() }

// newDamagedRoot makes a root with files in it, by their paths.
func newDamagedRoot(t *testing.T, files map[string]string) *damagedRoot {
	t.Helper()
	r := &damagedRoot{t: t, path: filepath.Join(t.TempDir(), "Maildir")}
	for _, part := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(r.path, part), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		r.write(name, text)
	}
	return r
}

func (r *damagedRoot) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.path, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// replace is write for a file that may be looked at meanwhile.
func (r *damagedRoot) replace(name, text string) {
	r.t.Helper()
	r.write(name+".x", text)
	if err := os.Rename(filepath.Join(r.path, name+".x"), filepath.Join(r.path, name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *damagedRoot) read(name string) string {
	b, err := os.ReadFile(filepath.Join(r.path, name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// start opens the account as a new process does.
func (r *damagedRoot) start() *Account {
	r.t.Helper()
	a, err := Open(r.path, &Options{Logger: slog.New(slog.NewTextHandler(&r.log, nil))})
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// look is what a process that starts sees of INBOX.
func (r *damagedRoot) look() (s *Snapshot, err error) {
	r.t.Helper()
	a := r.start()
	defer a.Close()
	inbox, err := a.Mailbox("INBOX", RefOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer inbox.Close()
	return inbox.Sync(context.Background())
}

// asides are the files that were set aside.
func (r *damagedRoot) asides() (names []string) {
	entries, err := os.ReadDir(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), brokenSuffix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// wantAside checks that a file was set aside as it was, or none, and that the log says so.
func (r *damagedRoot) wantAside(file string, was bool, log string) {
	r.t.Helper()
	asides := r.asides()
	switch {
	case !was && len(asides) > 0:
		r.t.Errorf("set aside are %q", asides)
	case was && (len(asides) != 1 || !strings.HasPrefix(asides[0], file+brokenSuffix)):
		r.t.Errorf("set aside are %q, not %s", asides, file)
	case was && !strings.Contains(r.said(), asides[0]):
		r.t.Errorf("the log does not say that there is %s:\n%s", asides[0], r.said())
	}
	if !regexp.MustCompile(log).MatchString(r.said()) {
		r.t.Errorf("the log does not say %q:\n%s", log, r.said())
	}
}

const (
	someGUID     = "0123456789abcdef0123456789abcdef"
	someValidity = 1700000000
	allUIDs      = "1000.a=5 1001.b=6 1002.c=7" // with the good list
	newUIDs      = "1000.a=1 1001.b=2 1002.c=3" // with none
	goodList     = "3 V1700000000 N10 G" + someGUID + "\n5 :1000.a\n6 :1001.b\n7 :1002.c\n"
)

// A listDamage is one mistake, and what becomes of it.
type listDamage struct {
	name  string
	text  string
	make  func(t *testing.T, path string) // instead of text
	want  string                          // the UIDs
	aside bool                            // it is set aside
	log   string                          // what the log says of it
	keeps string                          // what the file says afterwards
}

func damagedLists() []listDamage {
	instead := func(old, now string) string { return strings.Replace(goodList, old, now, 1) }
	const all, anew = allUIDs, newUIDs
	return []listDamage{
		{name: "good", text: goodList, want: all},
		{name: "version 1", text: "1 1700000000 10\n5 1000.a\n6 1001.b:2,S\n7 1002.c\n", want: all, keeps: `^3 V1700000000 N10 G`},
		{name: "version 1 without next UID", text: "1 1700000000\n5 1000.a\n", want: anew, aside: true, log: "line 1: header of version 1"},
		{name: "version 2", text: instead("3 V", "2 V"), want: anew, aside: true, log: `uidlist line 1: version \\"2\\"`},
		{name: "version 4", text: instead("3 V", "4 V"), want: anew, aside: true, log: `uidlist line 1: version \\"4\\"`},
		{name: "no V", text: instead("V1700000000 ", ""), want: anew, aside: true, log: "line 1: no UIDVALIDITY"},
		{name: "V is 0", text: instead("V1700000000", "V0"), want: anew, aside: true, log: "line 1: no UIDVALIDITY"},
		{name: "V is no number", text: instead("V1700000000", "Vx"), want: anew, aside: true, log: "line 1: no UIDVALIDITY"},
		{name: "V is too large", text: instead("V1700000000", "V4294967296"), want: anew, aside: true, log: "line 1: no UIDVALIDITY"},
		{name: "no N", text: instead("N10 ", ""), want: anew, aside: true, log: "line 1: no UIDVALIDITY or no next UID"},
		{name: "N is 0", text: instead("N10", "N0"), want: anew, aside: true, log: "line 1: no UIDVALIDITY or no next UID"},
		{name: "N is negative", text: instead("N10", "N-1"), want: anew, aside: true, log: "line 1: no UIDVALIDITY or no next UID"},
		{name: "no UID left", text: instead("N10", "N4294967295"), want: anew, aside: true, log: "line 1: no UID is left"},
		{name: "the last UID", text: instead("7 :", "4294967294 :"), want: anew, aside: true, log: "line 1: no UID is left"},
		{name: "N is low", text: instead("N10", "N1"), want: all},
		{name: "no G", text: instead(" G"+someGUID, ""), want: all, keeps: `^3 V1700000000 N10 G[0-9a-f]{32}\n`},
		{name: "G is broken", text: instead(someGUID, "xyz"), want: all, keeps: `^3 V1700000000 N10 G[0-9a-f]{32}\n`},
		{name: "keys of the header", text: instead("N10", "Pxyz z1 N10 Qnew"), want: all, keeps: `^3 V1700000000 Pxyz z1 N10 Qnew G`},
		{name: "keys of a record", text: instead("5 :", "5 S5 W6 Znew :"), want: all, keeps: `\n5 S5 W6 Znew :1000.a\n`},
		{name: "a key that is no capital letter", text: instead("5 :", "5 S5 w6 Znew :"), want: all, aside: true, log: `line 2: .*w6`, keeps: `\n5 S5 Znew :1000.a\n`},
		{name: "out of order", text: instead("5 :1000.a\n6 :1001.b\n", "6 :1001.b\n5 :1000.a\n"), want: all, aside: true, log: "line 3: UID 5 after 6"},
		{name: "UID 0", text: instead("5 :", "0 :"), want: "1001.b=6 1002.c=7 1000.a=11", aside: true, log: `line 2: \\"0\\" is no UID`},
		{name: "UID 4294967295", text: instead("7 :", "4294967295 :"), want: "1000.a=5 1001.b=6 1002.c=11", aside: true, log: `line 4: .*4294967295`},
		{name: "UID is no number", text: instead("5 :", "x :"), want: "1001.b=6 1002.c=7 1000.a=11", aside: true, log: "line 2: .*is no UID"},
		{name: "a UID twice", text: instead("6 :", "5 :"), want: "1002.c=7 1000.a=11 1001.b=12", aside: true, log: "line 3: UID 5 after 5"},
		{name: "a name twice", text: goodList + "8 :1000.a\n", want: "1001.b=6 1002.c=7 1000.a=8", log: "1000.a.* has UID 5 and later 8"},
		{name: "a slash", text: instead(":1000.a", ":../1000.a"), want: "1001.b=6 1002.c=7 1000.a=11", aside: true, log: "line 2: no file name for UID 5"},
		{name: "no name", text: instead(":1000.a", ":"), want: "1001.b=6 1002.c=7 1000.a=11", aside: true, log: "line 2: no file name for UID 5"},
		{name: "no colon", text: instead(":1000.a", "1000.a"), want: "1001.b=6 1002.c=7 1000.a=11", aside: true, log: "line 2: no file name for UID 5"},
		{name: "flags", text: instead(":1000.a", ":1000.a:2,S"), want: all},
		{name: "a space", text: goodList + "8 :1003.d e\n", want: all + " 1003.d e=8"},
		{name: "CRLF", text: strings.ReplaceAll(goodList, "\n", "\r\n"), want: all, aside: true, log: "line 2: ends in CRLF", keeps: `\n7 :1002.c\n$`},
		{name: "NULs at the end", text: goodList + strings.Repeat("\x00", 5000), want: all},
		{name: "NULs in the middle", text: instead("6 :1001.b", strings.Repeat("\x00", 9)), want: "1000.a=5 1002.c=7 1001.b=11", aside: true, log: "line 3: .*is no UID"},
		{name: "a NUL in a name", text: instead("1001.b", "1001\x00b"), want: "1000.a=5 1002.c=7 1001.b=11", aside: true, log: "line 3: no file name for UID 6"},
		{name: "an empty line", text: instead("6 :", "\n6 :"), want: all, aside: true, log: `line 3: \\"\\" is no UID`},
		{name: "no line end", text: strings.TrimSuffix(goodList, "\n"), want: "1000.a=5 1001.b=6 1002.c=10", log: `cut off .*7 :1002.c`},
		{name: "cut in a record", text: strings.TrimSuffix(goodList, "002.c\n"), want: "1000.a=5 1001.b=6 1002.c=10", log: `cut off .*7 :1`},
		{name: "cut in the header", text: goodList[:8], want: anew, aside: true, log: "line 1: no header"},
		{name: "empty", text: "", want: anew, aside: true, log: "line 1: no header"},
		{name: "garbage", text: "\x00\xff\n\x01\n", want: anew, aside: true, log: "line 1: version"},
		{name: "100 MB of NULs", make: func(t *testing.T, path string) {
			os.WriteFile(path, []byte(goodList), 0o600)
			os.Truncate(path, 100<<20)
		}, want: all},
		{name: "more than can be", make: func(t *testing.T, path string) {
			os.WriteFile(path, []byte(goodList), 0o600)
			os.Truncate(path, maxFile+1)
		}, want: anew, aside: true, log: "uidlist: has 1073741825 bytes"},
		{name: "a directory", make: func(t *testing.T, path string) {
			os.MkdirAll(filepath.Join(path, "within"), 0o700)
		}, want: anew, aside: true, log: "uidlist: is a directory"},
		{name: "a symlink", make: func(t *testing.T, path string) {
			os.WriteFile(path+"2", []byte(goodList), 0o600)
			os.Symlink("dovecot-uidlist2", path)
		}, want: anew, aside: true, log: "uidlist: is a symlink"},
		{name: "a pipe", make: func(t *testing.T, path string) { unix.Mkfifo(path, 0o600) }, want: anew, aside: true, log: "uidlist: is neither file"},
	}
}

// What becomes of a dovecot-uidlist with each mistake, for a process that starts.
func TestDamagedUIDList(t *testing.T) {
	for _, c := range damagedLists() {
		t.Run(c.name, func(t *testing.T) {
			r := newDamagedRoot(t, map[string]string{"cur/1000.a:2,": "a\n", "cur/1001.b:2,": "b\n", "cur/1002.c:2,": "c\n"})
			if strings.Contains(c.want, "1003.d e") {
				r.write("cur/1003.d e:2,", "d\n")
			}
			path := filepath.Join(r.path, listFile)
			if c.make != nil {
				c.make(t, path)
			} else {
				r.write(listFile, c.text)
			}
			var validity uint32
			for i := range 3 { // nothing changes any more
				s, err := r.look()
				if err != nil {
					t.Fatal(err)
				}
				var uids []string
				for _, msg := range s.Messages {
					uids = append(uids, fmt.Sprintf("%s=%d", msg.Key(), msg.UID))
				}
				if got := strings.Join(uids, " "); got != c.want {
					t.Fatalf("look %d: UIDs are %s, not %s\n%s", i, got, c.want, r.said())
				}
				if (s.UIDValidity == someValidity) != (c.want != newUIDs) || validity != 0 && s.UIDValidity != validity {
					t.Errorf("look %d: UIDVALIDITY %d", i, s.UIDValidity)
				}
				validity = s.UIDValidity
				if i == 0 {
					r.wantAside(listFile, c.aside, c.log)
				}
			}
			if got := r.read(listFile); !regexp.MustCompile(c.keeps).MatchString(got) {
				t.Errorf("the file says %q, not %q", got, c.keeps)
			}
			asides := r.asides()
			if c.aside && len(asides) == 1 && c.make == nil && r.read(asides[0]) != c.text {
				t.Errorf("set aside is %q", r.read(asides[0]))
			}
			if c.aside && c.make != nil {
				if _, err := os.Lstat(filepath.Join(r.path, asides[0])); len(asides) != 1 || err != nil {
					t.Errorf("set aside are %q, %v", asides, err)
				}
			}
		})
	}
}

// A keywordDamage is one mistake, and what becomes of it.
type keywordDamage struct {
	name  string
	text  string
	make  func(t *testing.T, path string)
	want  string // flags of the two
	aside bool
	log   string
	after string // the file, with a new keyword
}

func damagedKeywords() []keywordDamage {
	return []keywordDamage{
		{name: "good", text: "0 Work\n1 Home\n", want: "Work|Home", after: "0 Work\n1 Home\n2 new\n"},
		{name: "a hole", text: "1 Home\n", want: "|Home", after: "1 Home\n2 new\n"},
		{name: "26", text: "26 Work\n1 Home\n", want: "|Home", aside: true, log: "keywords line 1: .*names no letter", after: "1 Home\n2 new\n"},
		{name: "no number", text: "x Work\n1 Home\n", want: "|Home", aside: true, log: "line 1: ", after: "1 Home\n2 new\n"},
		{name: "no space", text: "0Work\n1 Home\n", want: "|Home", aside: true, log: "line 1: ", after: "1 Home\n2 new\n"},
		{name: "no name", text: "0 \n1 Home\n", want: "|Home", aside: true, log: "line 1: ", after: "1 Home\n2 new\n"},
		{name: "an empty line", text: "\n1 Home\n", want: "|Home", aside: true, log: "line 1: ", after: "1 Home\n2 new\n"},
		{name: "a name twice", text: "0 Work\n1 work\n", want: "Work|", aside: true, log: "line 2: .*has the name of the letter a", after: "0 Work\n2 new\n"},
		{name: "a letter twice", text: "0 Work\n0 Home\n1 b\n", want: "Home|b", aside: true, log: "line 2: .*names a letter that was", after: "0 Home\n1 b\n2 new\n"},
		{name: "no keyword", text: "0 foo bar\n1 (x)\n", want: "|", after: "0 foo bar\n1 (x)\n2 new\n"},
		{name: "not ASCII", text: "0 Büro\n1 Home\n", want: "|Home", after: "0 Büro\n1 Home\n2 new\n"},
		{name: "CRLF", text: "0 Work\r\n1 Home\r\n", want: "Work|Home", after: "0 Work\n1 Home\n2 new\n"},
		{name: "a NUL", text: "0 Wo\x00rk\n1 Home\n", want: "Wo|Home", aside: true, log: "line 1: .*has a NUL", after: "0 Wo\n1 Home\n2 new\n"},
		{name: "NULs at the end", text: "0 Work\n\x00\x00\x00", want: "Work|", aside: true, log: "line 2: ", after: "0 Work\n2 new\n"},
		{name: "no line end", text: "0 Work\n1 Home", want: "Work|Home", aside: true, log: "line 2: .*has no end", after: "0 Work\n1 Home\n2 new\n"},
		{name: "empty", text: "", want: "|", after: "2 new\n"},
		{name: "a directory", make: func(t *testing.T, path string) { os.MkdirAll(filepath.Join(path, "within"), 0o700) }, want: "|", aside: true,
			log: "keywords: is a directory", after: "2 new\n"},
		{name: "a symlink", make: func(t *testing.T, path string) { os.Symlink("elsewhere", path) }, want: "|", aside: true,
			log: "keywords: is a symlink", after: "2 new\n"},
		{name: "more than can be", make: func(t *testing.T, path string) {
			os.WriteFile(path, []byte("0 Work\n"), 0o600)
			os.Truncate(path, maxFile+1)
		}, want: "|", aside: true, log: "keywords: has 1073741825 bytes", after: "2 new\n"},
	}
}

// What becomes of dovecot-keywords with each mistake. Two messages have the letters a and b.
func TestDamagedKeywords(t *testing.T) {
	for _, c := range damagedKeywords() {
		t.Run(c.name, func(t *testing.T) {
			r := newDamagedRoot(t, map[string]string{"cur/1000.a:2,a": "a\n", "cur/1001.b:2,b": "b\n", listFile: goodList})
			if c.make != nil {
				c.make(t, filepath.Join(r.path, keysFile))
			} else {
				r.write(keysFile, c.text)
			}
			for i := range 3 {
				s, err := r.look()
				if err != nil {
					t.Fatal(err)
				}
				var flags []string
				for _, msg := range s.Messages {
					flags = append(flags, strings.Trim(fmt.Sprint(s.IMAPFlags(msg.Flags)), "[]"))
				}
				if got := strings.Join(flags, "|"); got != c.want {
					t.Errorf("look %d: flags are %q, not %q", i, got, c.want)
				}
				r.wantAside(keysFile, c.aside, c.log)
			}
			if asides := r.asides(); len(asides) == 1 && c.make == nil && r.read(asides[0]) != c.text {
				t.Errorf("set aside is %q", r.read(asides[0]))
			}
			a := r.start()
			t.Cleanup(func() { a.Close() }) // after the mailbox
			inbox := open(t, a, "INBOX", RefOptions{})
			if _, err := inbox.Store(t.Context(), []imap.UID{5}, imap.StoreFlagsAdd, []imap.Flag{"new"}); err != nil {
				t.Fatal(err)
			}
			if got := r.read(keysFile); got != c.after {
				t.Errorf("with a new keyword the file is %q, not %q", got, c.after)
			}
			r.wantAside(keysFile, c.aside, "")
		})
	}
}

// A subscriptionDamage is one mistake, and what becomes of it.
type subscriptionDamage struct {
	name  string
	text  string
	make  func(t *testing.T, path string)
	want  string // the names
	err   string // why they can't be known
	aside bool
	log   string
	after string // the file
}

func damagedSubscriptions() []subscriptionDamage {
	return []subscriptionDamage{
		{name: "version 1", text: "a\nb.c\n", want: "a b.c", after: "a\nb.c\nnew\n"},
		{name: "version 2", text: "V\t2\n\na\nb\tc\n", want: "a b.c", after: "V\t2\n\na\nb\tc\nnew\n"},
		{name: "version 2 with escapes", text: "V\t2\n\na\x01tb\tc\x011\n", want: "a\tb.c\x01", after: "V\t2\n\na\x01tb\tc\x011\nnew\n"},
		{name: "version 2 without its empty line", text: "V\t2\na\nb\tc\n", want: "a b.c", after: "V\t2\n\na\nb\tc\nnew\n"},
		{name: "version 3", text: "V\t3\n\na\tx\n", err: `line 1: version "3"`, after: "V\t3\n\na\tx\n"},
		{name: "another version", text: "V\tx", err: `line 1: version "x"`, after: "V\tx"},
		{name: "CRLF", text: "a\r\nb\r\n", want: "a b", after: "a\nb\nnew\n"},
		{name: "CRLF in version 2", text: "V\t2\r\n\r\na\r\nb\tc\r\n", want: "a b.c", after: "V\t2\n\na\nb\tc\nnew\n"},
		{name: "a NUL", text: "a\nb\x00c\n", want: "a b", aside: true, log: "subscriptions line 2: .*has a NUL", after: "a\nb\nnew\n"},
		{name: "NULs at the end", text: "a\n\x00\x00\x00", want: "a", aside: true, log: "line 2: .*has a NUL", after: "a\nnew\n"},
		{name: "no line end", text: "a\nb", want: "a b", after: "a\nb\nnew\n"},
		{name: "no line end in version 2", text: "V\t2\n\na\nb", want: "a b", after: "V\t2\n\na\nb\nnew\n"},
		{name: "cut in the header", text: "V\t2", want: "", after: "V\t2\n\nnew\n"},
		{name: "a long line", text: "a\n" + strings.Repeat("x", 5000) + "\nb\n", want: "a b", aside: true, log: "line 2: .*too long", after: "a\nb\nnew\n"},
		{name: "a name twice", text: "a\na\nInbox\nINBOX\nb\n", want: "a INBOX b", after: "a\nINBOX\nb\nnew\n"},
		{name: "no such mailbox", text: "gone.for.ever\n", want: "gone.for.ever", after: "gone.for.ever\nnew\n"},
		{name: "empty", text: "", want: "", after: "V\t2\n\nnew\n"},
		{name: "a directory", make: func(t *testing.T, path string) { os.MkdirAll(filepath.Join(path, "within"), 0o700) }, want: "", aside: true,
			log: "subscriptions: is a directory", after: "V\t2\n\nnew\n"},
		{name: "a symlink", make: func(t *testing.T, path string) { os.Symlink("elsewhere", path) }, want: "", aside: true,
			log: "subscriptions: is a symlink", after: "V\t2\n\nnew\n"},
	}
}

// What becomes of subscriptions with each mistake, when a name is added.
func TestDamagedSubscriptions(t *testing.T) {
	for _, c := range damagedSubscriptions() {
		t.Run(c.name, func(t *testing.T) {
			r := newDamagedRoot(t, nil)
			if c.make != nil {
				c.make(t, filepath.Join(r.path, subsFile))
			} else {
				r.write(subsFile, c.text)
			}
			a := r.start()
			defer a.Close()
			names, err := a.Subscriptions()
			if c.err != "" {
				var fe *FormatError
				if !errors.As(err, &fe) || !strings.Contains(fe.Error(), c.err) {
					t.Errorf("names %q, %v", names, err)
				}
			} else if got := strings.Join(names, " "); got != c.want || err != nil {
				t.Errorf("names %q, %v; want %q", got, err, c.want)
			}
			if len(r.asides()) > 0 {
				t.Errorf("set aside by looking: %q", r.asides())
			}
			if err := a.Subscribe(t.Context(), "new", true); (err != nil) != (c.err != "") {
				t.Errorf("subscribe: %v", err)
			}
			if got := r.read(subsFile); got != c.after {
				t.Errorf("with a new name the file is %q, not %q", got, c.after)
			}
			r.wantAside(subsFile, c.aside, c.log)
			if asides := r.asides(); len(asides) == 1 && c.make == nil && r.read(asides[0]) != c.text {
				t.Errorf("set aside is %q", r.read(asides[0]))
			}
			if _, err := os.Lstat(filepath.Join(r.path, subsFile+".lock")); !notExist(err) {
				t.Errorf("the lock: %v", err)
			}
		})
	}
}

// What becomes of the counter of UIDVALIDITYs with each mistake.
func TestDamagedUIDValidity(t *testing.T) {
	suffix := validityFile + "."
	for _, c := range []struct {
		name  string
		files map[string]string
		want  uint32 // 0: the time
		aside bool
		log   string
	}{
		{name: "good", files: map[string]string{validityFile: "65000001", suffix + "65000001": ""}, want: 0x65000002},
		{name: "no counter", files: map[string]string{validityFile: "65000001"}, want: 0x65000002},
		{name: "only a counter", files: map[string]string{suffix + "65000001": ""}, want: 0x65000002},
		{name: "several counters", files: map[string]string{suffix + "65000001": "", suffix + "65000009": "", suffix + "65000003": ""}, want: 0x6500000a},
		{name: "odd counters", files: map[string]string{suffix + "65000001": "", suffix + "x": "", suffix + "6500000g": "", suffix + "ffffffff": ""}, want: 0x65000002},
		{name: "garbage", files: map[string]string{validityFile: "garbage", suffix + "65000001": ""}, want: 0x65000002, aside: true,
			log: `uidvalidity line 1: .*garbage.* is no UIDVALIDITY`},
		{name: "garbage alone", files: map[string]string{validityFile: "\x00\x00\x00"}, aside: true, log: "is no UIDVALIDITY"},
		{name: "empty", files: map[string]string{validityFile: ""}, aside: true, log: "is no UIDVALIDITY"},
		{name: "0", files: map[string]string{validityFile: "00000000"}, aside: true, log: "is no UIDVALIDITY"},
		{name: "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newDamagedRoot(t, c.files)
			a := r.start()
			defer a.Close()
			v, err := a.nextUIDValidity()
			if err != nil || v != c.want && (c.want != 0 || v < someValidity) {
				t.Errorf("%08x, %v; want %08x", v, err, c.want)
			}
			if got := r.read(validityFile); got != fmt.Sprintf("%08x", v) {
				t.Errorf("the file says %q", got)
			}
			if again, err := a.nextUIDValidity(); again != v+1 || err != nil {
				t.Errorf("then %08x, %v", again, err)
			}
			r.wantAside(validityFile, c.aside, c.log)
			for name := range c.files { // only the one that counts has another name
				if _, err := os.Lstat(filepath.Join(r.path, name)); err != nil && name != suffixed(c.want-1) {
					t.Error(err)
				}
			}
		})
	}
}

// Two lists that are damaged within a second are both kept, each once however often it is tried, and nothing is lost
// where that fails.
func TestSetAside(t *testing.T) {
	r := newDamagedRoot(t, map[string]string{"cur/1000.a:2,": "a\n"})
	a := r.start()
	t.Cleanup(func() { a.Close() }) // after the mailboxes
	inbox := open(t, a, "INBOX", RefOptions{})
	var want []string
	for i := range 5 {
		text := fmt.Sprintf("garbage %d\n", i)
		want = append(want, text)
		for j, op := range []string{"link", "create"} { // "create": the new list
			setFault(inbox, func(o string, paths ...string) error {
				if o == op && strings.Contains(filepath.Base(paths[0]), listFile) && !strings.HasSuffix(paths[0], ".lock") {
					return unix.ENOSPC
				}
				return nil
			})
			if j == 0 { // not before, since it may be looked at any time
				r.replace(listFile, text)
			}
			for range 3 {
				inbox.Sync(t.Context())
				if got := r.read(listFile); got != text {
					t.Fatalf("where %s fails the list becomes %q", op, got)
				}
			}
		}
		setFault(inbox, nil)
		if s := resync(t, inbox); len(s.Messages) != 1 {
			t.Fatalf("there are %d messages", len(s.Messages))
		}
	}
	var got []string
	for _, name := range r.asides() {
		got = append(got, r.read(name))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("set aside are %q, not %q", got, want)
	}

	// Where there are no links it is copied.
	setFault(inbox, func(op string, paths ...string) error {
		if op == "link" {
			return unix.EPERM
		}
		return nil
	})
	r.replace(listFile, "garbage of another system\n")
	resync(t, inbox)
	if asides := r.asides(); len(asides) != 6 || !slices.ContainsFunc(asides, func(name string) bool { return strings.HasPrefix(r.read(name), "garbage of") }) {
		t.Errorf("set aside are %q", asides)
	}
}

// What a newer program has written beside the mail stays as it is.
func TestNewerProgram(t *testing.T) {
	unknown := map[string]string{}
	for _, name := range []string{
		"dovecot.index", "dovecot.index.log", "dovecot.index.cache9", "dovecot.list.index", "dovecot-uidlist2", "dovecot-keywords.new", "dovecot-sieve",
		"dovecot-acl", "imapmaildir.future", "imapmaildir.inuse2", "maildirsize", "courierimapuiddb", "subscriptions.v3", "newer file", ".hidden",
		"cur/.dotfile", "new/.nfs0001", "tmp/.keep", "maildirfolder/within", "cur/directory/within", "newer directory/cur",
		".Box/dovecot.index.v9", ".Box/imapmaildir.future", ".Box/cur/.dotfile", ".Box/maildirfolder/within", ".Box/.hidden/within",
		".Box/imapmaildir.special-use",
	} {
		unknown[name] = "of a newer program: " + name + "\x00\n"
	}
	unknown[".Box/imapmaildir.special-use"] = "\\Sent\n\\Newer\n"
	r := newDamagedRoot(t, map[string]string{"cur/1000.a:2,": "a\n", "new/1001.b": "b\n"})
	for name, text := range unknown {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(r.path, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		r.write(name, text)
	}
	a := r.start()
	t.Cleanup(func() { a.Close() }) // after the mailboxes
	inbox := open(t, a, "INBOX", RefOptions{Selected: true})
	box := open(t, a, "Box", RefOptions{Selected: true})
	wantDump(t, inbox.Snapshot(), "1; 2")
	wantDump(t, box.Snapshot(), "")
	for _, ref := range []*Ref{inbox, box} {
		uid := appendMail(t, ref, "x\n", "first")
		appendMail(t, ref, "x\n", imap.FlagSeen)
		if _, err := ref.Store(t.Context(), []imap.UID{uid}, imap.StoreFlagsAdd, []imap.Flag{imap.FlagDeleted, "second"}); err != nil {
			t.Fatal(err)
		}
		if err := ref.Expunge(t.Context(), []imap.UID{uid}, FlagDeleted, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := inbox.CopyTo(t.Context(), box.Mailbox, inbox.Snapshot().Messages); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		a.Create(t.Context(), "New", nil), a.Subscribe(t.Context(), "New", true), a.Rename(t.Context(), "New", "Newer"), a.Delete(t.Context(), "Newer", false),
		a.Rename(t.Context(), "Box", "Moved"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	entries, err := a.List()
	if err != nil || len(entries) != 2 { // ".hidden" is no directory
		t.Errorf("there are %v, %v", entries, err)
	}
	for name, text := range unknown {
		now := strings.Replace(name, ".Box", ".Moved", 1)
		if got := r.read(now); got != text {
			t.Errorf("%s has become %q", now, got)
		}
	}
	if asides := r.asides(); len(asides) > 0 {
		t.Errorf("set aside are %q", asides)
	}
}
