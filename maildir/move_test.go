package maildir

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// snapshotOf is what is in a Maildir: each file's name and content.
func snapshotOf(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		fmt.Fprintf(&b, "%s: %q\n", path, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// ImportCourier and ExportCourier say what they do, and leave alone what they can't do right.
func TestMoveCourier(t *testing.T) {
	wait := moveLockWait
	moveLockWait = time.Millisecond
	t.Cleanup(func() { moveLockWait = wait })
	const guid = "0123456789abcdef0123456789abcdef"
	imports, exports := ImportCourier, ExportCourier
	two := all(write("cur/1.a:2,S", ""), write("new/2.b", ""))
	keywords := func(names ...string) step {
		return all(mkdir(courierKeys), write(courierKeys+"/:list", strings.Join(names, "\n")))
	}
	var letters []string
	for i := range 30 {
		letters = append(letters, fmt.Sprintf("k%02d", i))
	}
	for _, c := range []struct {
		name    string
		prepare func(root string) error
		move    func(context.Context, string, *Options, bool) ([]Move, error)
		o       Options
		says    []string // of the moves, or the error
		refused bool     // the last of them
		files   []string // that are there afterwards, as snapshotOf tells; nil: nothing changes
	}{
		{"nothing", two, imports, Options{}, []string{`mailbox "INBOX": there is no courierimapuiddb`}, false, nil},
		{"UIDs", all(two, write(courierList, "1 5 9\n3 1.a\n4 gone\n")), imports, Options{},
			[]string{`mailbox "INBOX": UIDVALIDITY 5; 1 of 2 messages get Courier's UIDs, 0 get its keywords`}, false,
			[]string{`dovecot-uidlist: "3 V5 N9 G`, `\n3 :1.a\n4 :gone\n"`, `courierimapuiddb: "1 5 9\n3 1.a\n4 gone\n"`}},
		{"control files apart", all(two, mkdir("control"), write(courierList, "1 5 9\n3 1.a\n"), keywords("One", "", "1.a:0", "")), imports, Options{Control: "control"},
			[]string{`1 of 2 messages get Courier's UIDs, 1 get its keywords`}, false,
			[]string{`control/.INBOX/dovecot-uidlist: "3 V5 N9 G`, `control/.INBOX/dovecot-keywords: "0 One\n"`}},
		{"UIDs that came since", all(two, write(courierList, "1 5 9\n3 1.a\n8 2.b\n"), write(listFile, "3 V5 N7 G"+guid+" Pp\n3 W7 :1.a\n")), imports, Options{},
			[]string{`1 of 2 messages get`}, false,
			[]string{`dovecot-uidlist: "3 V5 N9 G` + guid + ` Pp\n3 W7 :1.a\n8 :2.b\n"`}},
		{"again", all(two, write(courierList, "1 5 9\n3 1.a\n"), write(listFile, "3 V5 N9 G"+guid+"\n3 :1.a\n9 :2.b\n")), imports, Options{},
			[]string{`has Courier's UIDs already (UIDVALIDITY 5)`}, false, nil},
		{"another UIDVALIDITY", all(two, write(courierList, "1 5 9\n3 1.a\n"), write(listFile, "3 V6 N9 G"+guid+"\n")), imports, Options{},
			[]string{`left as it is: dovecot-uidlist has UIDVALIDITY 6, and courierimapuiddb 5`}, true, nil},
		{"one UID for two", all(two, write(courierList, "1 5 9\n3 1.a\n4 2.b\n"), write(listFile, "3 V5 N9 G"+guid+"\n3 :2.b\n")), imports, Options{},
			[]string{`left as it is: UID 3 is of "2.b" in dovecot-uidlist and of "1.a" in courierimapuiddb`}, true, nil},
		{"two UIDs for one", all(two, write(courierList, "1 5 9\n3 1.a\n"), write(listFile, "3 V5 N5 G"+guid+"\n4 :1.a\n")), imports, Options{},
			[]string{`left as it is: "1.a" has UID 4 in dovecot-uidlist and 3 in courierimapuiddb`}, true, nil},
		{"broken", all(two, write(courierList, "1 5\n")), imports, Options{}, []string{`left as it is: courierimapuiddb line 1: header of version 1`}, true, nil},
		{"broken line", all(two, write(courierList, "1 5 9\nx\n")), imports, Options{}, []string{`left as it is: courierimapuiddb line 2: "x" is no UID`}, true, nil},
		{"Courier runs", all(two, write(courierList, "1 5 9\n"), write(courierLock, "1:"+hostName)), imports, Options{}, []string{`left as it is: a server runs on it: `}, true, nil},
		{"Dovecot runs", all(two, write(courierList, "1 5 9\n"), write(listLock, "1:"+hostName)), imports, Options{}, []string{`left as it is: a server runs on it: `}, true, nil},
		{"keywords", all(two, write(courierList, "1 5 9\n3 1.a\n4 2.b\n"), keywords("One", "Two", "", "1.a:1 0", "2.b:1 7", "3.c:0", ""), write("cur/0.z:2,b", "")), imports, Options{},
			[]string{`2 of 3 messages get Courier's UIDs, 2 get its keywords`}, false,
			[]string{`dovecot-keywords: "0 Two\n2 One\n"`, "\ncur/1.a:2,Sac:", "\ncur/2.b:2,a:", "\ncur/0.z:2,b:"}}, // b means something else
		{"keywords since", all(two, write(courierList, "1 5 9\n3 1.a\n4 2.b\n"), keywords("One", "", "1.a:0", ""), write(courierKeys+"/.9.1.a", "Old\n"),
			write(courierKeys+"/.10.1.a", "New\n"), write(courierKeys+"/.11.2.b", "Old\n"), write(courierKeys+"/2.b", "New\n"), write(courierKeys+"/.tmp.1", "x")), imports, Options{},
			[]string{`2 get its keywords`}, false, []string{`dovecot-keywords: "0 New\n"`, "\ncur/1.a:2,Sa:", "\ncur/2.b:2,a:"}},
		{"too many keywords", all(two, write(courierList, "1 5 9\n3 1.a\n4 2.b\n"), keywords(slices.Concat(letters, []string{"", "1.a:0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26", "2.b:26", ""})...)), imports, Options{},
			[]string{`1 messages lose the keyword "k25": file names hold 26, and they are used up`, "2 get its keywords"}, false, []string{`dovecot-keywords: "0 k26\n1 k00\n`}},
		{"bad keyword", all(two, write(courierList, "1 5 9\n3 1.a\n"), keywords("a%", "", "1.a:0", "")), imports, Options{},
			[]string{`1 messages lose the keyword "a%", which IMAP does not allow`, "1 of 2"}, false, []string{"\ncur/1.a:2,S:"}},
		{"subscriptions", write(courierSubs, "INBOX.a.b\nINBOX\n#shared.x\n"), imports, Options{},
			[]string{"there is no", `subscriptions: "#shared.x" is left out: it is not the account's own`, "subscriptions: 2 names"}, false, []string{`subscriptions: "V\t2\n\na\tb\nINBOX\n"`}},
		{"subscriptions that are there", all(write(courierSubs, "INBOX.a\n"), write(subsFile, "b\n")), imports, Options{}, []string{"there is no", "subscriptions: there is one, it stays"}, false, nil},
		{"UTF-8 names", sub(".Entwürfe"), imports, Options{}, []string{`".Entwürfe": Courier spells names in UTF-8; the folders have to be named so, and names set to "utf-8"`}, true, nil},
		{"fs", two, imports, Options{Layout: LayoutFS}, []string{`layout "fs": Courier has only "maildir++"`}, true, nil},

		{"export nothing", two, exports, Options{}, []string{`there is no dovecot-uidlist`}, false, nil},
		{"export", all(two, write(listFile, "3 V5 N1 G"+guid+"\n3 W9 :1.a\n7 :2.b\n"), write(keysFile, "1 Two\n3 Four\n"), write("cur/4.d:2,bd", ""), write(subsFile, "a.b\nINBOX\n")), exports, Options{},
			[]string{`UIDVALIDITY 5; Courier has UIDs of 2 of 3 messages, and keywords of 1`, "courierimapsubscribed: 2 names"}, false,
			[]string{`courierimapuiddb: "1 5 8\n3 1.a\n7 2.b\n"`, `courierimapkeywords/:list: "Two\nFour\n\n4.d:0 1\n"`, `courierimapsubscribed: "INBOX.a.b\nINBOX\n"`}},
		{"export again", all(two, write(listFile, "3 V5 N1 G"+guid+"\n3 W9 :1.a\n7 :2.b\n"), write(courierList, "1 5 8\n3 1.a\n7 2.b\n")), exports, Options{},
			[]string{`Courier has UIDs of 2 of 2`}, false, nil},
		{"export over another UIDVALIDITY", all(two, write(listFile, "3 V5 N1 G"+guid+"\n3 :1.a\n"), write(courierList, "1 6 8\n9 1.a\n")), exports, Options{},
			[]string{"courierimapuiddb is kept as courierimapuiddb.before-", `Courier has UIDs of 1 of 2`}, false,
			[]string{`courierimapuiddb: "1 5 4\n3 1.a\n"`, `: "1 6 8\n9 1.a\n"`}},
		{"export of both that ran", all(two, write(listFile, "3 V5 N1 G"+guid+"\n3 :1.a\n"), write(courierList, "1 5 8\n3 2.b\n")), exports, Options{},
			[]string{`left as it is: UID 3 is of`}, true, nil},
		{"export of UTF-7 names", sub(".Entw&APw-rfe"), exports, Options{}, []string{`".Entw&APw-rfe": Courier spells names in UTF-8`}, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			if err := sub("")(root); err != nil {
				t.Fatal(err)
			}
			if err := c.prepare(root); err != nil {
				t.Fatal(err)
			}
			if c.o.Control != "" {
				c.o.Control = filepath.Join(root, c.o.Control)
			}
			before := snapshotOf(t, root)
			dry, err := c.move(t.Context(), root, &c.o, true)
			if got := snapshotOf(t, root); got != before {
				t.Fatalf("a dry run makes\n%sof\n%s", got, before)
			}
			moves, rerr := c.move(t.Context(), root, &c.o, false)
			if (err == nil) != (rerr == nil) {
				t.Errorf("dry: %v, then %v", err, rerr)
			}
			if rerr != nil {
				moves = []Move{{Text: rerr.Error(), Refused: true}}
			} else if !strings.HasSuffix(c.name, "runs") && len(dry) != len(moves) {
				t.Errorf("dry: %q, then %q", dry, moves)
			}
			if len(moves) != len(c.says) {
				t.Fatalf("says %q, not %q", moves, c.says)
			}
			for i, want := range c.says {
				if got := moves[i].String(); !strings.Contains(got, want) {
					t.Errorf("says %q, not %q", got, want)
				}
			}
			if got := moves[len(moves)-1].Refused; got != c.refused {
				t.Errorf("refused is %v: %q", got, moves)
			}
			after := snapshotOf(t, root)
			if c.files == nil && after != before {
				t.Errorf("has\n%safterwards, and before\n%s", after, before)
			}
			for _, want := range c.files {
				if !strings.Contains("\n"+after, want) {
					t.Errorf("no %q in\n%s", want, after)
				}
			}
		})
	}
}
