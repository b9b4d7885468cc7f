package maildir

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Check names each thing that is wrong, and changes nothing.
func TestCheck(t *testing.T) {
	old := time.Now().Add(-48 * time.Hour)
	const guid = "0123456789abcdef0123456789abcdef"
	zipped := string(sample(t, "gzip"))
	for _, c := range []struct {
		name    string
		prepare func(root string) error
		want    string // of the only problem; "" for none
		serious bool
	}{
		{"nothing", func(root string) error { return nil }, "", false},
		{"not numbered", write("new/1.a", "x"), "", false},
		{"bad record", write(listFile, "3 V1 N1 G"+guid+"\nx :bad\n"), `mailbox "INBOX": "dovecot-uidlist" line 2: "x" is no UID: left out`, true},
		{"order", write(listFile, "3 V1 N1 G"+guid+"\n3 :a\n2 :b\n"), `"dovecot-uidlist" line 3: UID 2 after 3`, true},
		{"doubled UID", write(listFile, "3 V1 N1 G"+guid+"\n3 :a\n3 :b\n"), `"dovecot-uidlist" line 3: UID 3 after 3`, true},
		{"doubled name", write(listFile, "3 V1 N1 G"+guid+"\n3 :a\n4 :a\n"), `"a" has UID 3 and later 4`, false},
		{"unfinished", write(listFile, "3 V1 N1 G"+guid+"\n3 :a\n4 :b"), `line 3: has no end`, false},
		{"no UIDVALIDITY", write(listFile, "3 N1 G"+guid+"\n"), `no UIDVALIDITY or no next UID: all messages will get new UIDs`, true},
		{"version 1", write(listFile, "1 5 3\n3 a\n"), `the next UID is 3, and there is UID 3`, true},
		{"list is a directory", mkdir(listFile), "is a directory and should be a file", true},
		{"twins", all(write("cur/1.a:2,", "x"), write("cur/1.a:2,S", "y")), `"cur/1.a:2,S": has the base name of "cur/1.a:2,", which is another file`, true},
		{"new and cur", all(write("new/1.a", "x"), write("cur/1.a:2,S", "y")), `has the base name of "new/1.a"`, true},
		{"line break", write("cur/1\n2", "x"), `"cur/1\n2": has a line break`, true},
		{"directory in cur", mkdir("cur/sub"), `"cur/sub": is a directory`, false},
		{"symlink in new", symlink("/etc/passwd", "new/link"), `"new/link": is a symlink`, false},
		{"FIFO in cur", func(root string) error { return unix.Mkfifo(filepath.Join(root, "cur/fifo"), 0o600) }, `"cur/fifo": is neither`, false},
		{"wrong S", write("cur/1.a,S=5:2,", "x"), `is named for 5 bytes (S=) and has 1`, false},
		{"wrong W", write("cur/1.a,S=1,W=0:2,", "x"), `is named for 0 bytes`, false},
		{"compressed", write("cur/1.a,S=4134,W=4237:2,", zipped), "", false},
		{"S of the compressed file", write("cur/1.a,S=334,W=4237:2,", zipped), `is named for 334 bytes (S=) and has 4134 that are compressed`, false},
		{"W of the compressed file", write("cur/1.a,S=4134,W=334:2,", zipped), `is named for 334 bytes with CRLF line ends (W=) and has 4237`, false},
		{"cut compressed file", write("cur/1.a,S=4134,W=4237:2,", zipped[:300]), `is compressed (gzip) and can't be read: unexpected EOF`, true},
		{"compressed file of another format", write("cur/1.a", string(sample(t, "xz"))), `is compressed (xz) and can't be read: this server reads gzip, zstd, bzip2 only`, true},
		{"unreadable", mode("cur/1.a:2,", 0), `"cur/1.a:2,": has mode 0000`, true},
		{"list not writable", all(write(listFile, "3 V1 N1 G"+guid+"\n"), func(root string) error { return os.Chmod(filepath.Join(root, listFile), 0o400) }), "has mode 0400", true},
		{"directory not writable", func(root string) error { return os.Chmod(filepath.Join(root, "cur"), 0o500) }, `"cur": has mode 0500`, true},
		{"keyword line", write(keysFile, "0 Work\n26 x\n"), `"dovecot-keywords" line 2: "26 x\n" names no letter`, false},
		{"keyword without a name", write("cur/1.a:2,Sb", "x"), `has no name for the letter 'b' that 1 messages use`, false},
		{"Courier's list", write(courierList, "1 5 1\n"), `"courierimapuiddb": has UIDs that clients know from Courier`, false},
		{"Courier's list, imported", all(write(courierList, "1 5 1\n"), write(listFile, "3 V5 N1 G"+guid+"\n")), "", false},
		{"dead lock", all(write(listLock, fmt.Sprintf("%d:%s", 1<<22+1, hostName)), age(listLock, old)), `"dovecot-uidlist.lock": was left behind by`, false},
		{"living lock", all(write(listLock, "1:"+hostName), age(listLock, old)), "", false},
		{"other host's lock", all(write(listLock, "1:elsewhere"), age(listLock, old)), `was left behind by "1:elsewhere"`, false},
		{"other host's fresh lock", write(listLock, "1:elsewhere"), "", false},
		{"subscriptions lock", all(write("subscriptions.lock", ""), age("subscriptions.lock", old)), `"subscriptions.lock": was left behind`, false},
		{"missing tmp", func(root string) error { return os.Remove(filepath.Join(root, "tmp")) }, `"tmp": is missing`, false},
		{"file for new", all(func(root string) error { return os.Remove(filepath.Join(root, "new")) }, write("new", "")), `"new": is not a directory`, true},
		{"symlink out of the root", symlink("/etc", ".out"), `".out": is a symlink that leads nowhere or out`, false},
		{"symlink to a mailbox", all(sub(".Mail"), symlink(".Mail", ".in")), "", false},
		{"file for a mailbox", write(".file", ""), `".file": is named as a mailbox`, false},
		{"name", sub(".Bad&x"), `mailbox "Bad&x": ".Bad&x": is not spelled as this server spells names (utf-7)`, false},
		{"subscription", write(subsFile, "V\t2\n\nWork\nBad&x\n"), `"subscriptions" line 4: "Bad&x": no mailbox`, false},
		{"subscriptions v1", write(subsFile, "Work\n/etc\n"), `"subscriptions" line 2: "/etc": no mailbox`, false},
		{"validity text", write(validityFile, "xyz"), `"dovecot-uidvalidity" line 1: "xyz" is not 8`, false},
		{"validity counters", all(write(suffixed(5), ""), write(suffixed(6), "")), "has several counters", false},
		{"validity suffix", write(validityFile+".xx", ""), "does not end in 8 hex", false},
		{"validity went back", all(write(suffixed(5), ""), write(validityFile, "00000006")), "at 00000006 and its counter at 00000005", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			if err := sub("")(root); err != nil {
				t.Fatal(err)
			}
			if err := c.prepare(root); err != nil {
				t.Fatal(err)
			}
			before := listing(t, root)
			problems, err := Check(root, nil)
			if err != nil {
				t.Fatal(err)
			}
			if after := listing(t, root); after != before {
				t.Errorf("Check changed\n%sto\n%s", before, after)
			}
			switch {
			case c.want == "" && len(problems) == 0:
			case c.want == "" || len(problems) != 1:
				t.Errorf("problems %q, want one with %q", problems, c.want)
			case !strings.Contains(problems[0].String(), c.want) || problems[0].Serious != c.serious:
				t.Errorf("%s (serious: %v), want %s (%v)", problems[0], problems[0].Serious, c.want, c.serious)
			}
		})
	}
}

func TestCheckOldTmp(t *testing.T) {
	defer func(age time.Duration) { tmpAge = age }(tmpAge)
	root := t.TempDir()
	if err := all(sub(""), write("tmp/1.x", ""))(root); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		age  time.Duration
		want int
	}{{time.Hour, 0}, {0, 1}} {
		tmpAge = c.age
		problems, err := Check(root, nil)
		if err != nil || len(problems) != c.want {
			t.Errorf("older than %v: problems %q, %v", c.age, problems, err)
		}
	}
}

// A problem is told with the mailbox that has it.
func TestCheckEachMailbox(t *testing.T) {
	eachLayout(t, func(t *testing.T, a *Account) {
		if err := a.Create(context.Background(), "Sub", nil); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(a.opts.path("Sub"), "cur", "1.a,S=7:2,")
		if err := write(file, "x")(a.Root()); err != nil {
			t.Fatal(err)
		}
		problems, err := Check(a.Root(), &a.opts)
		if err != nil || len(problems) != 1 || problems[0].Mailbox != "Sub" || problems[0].File != file {
			t.Errorf("problems %q, %v", problems, err)
		}
		os.Remove(filepath.Join(a.Root(), file))
	})
	if _, err := Check(filepath.Join(t.TempDir(), "missing"), nil); err == nil {
		t.Error("a root that is not there has no problem")
	}
}

type step = func(root string) error

func all(steps ...step) step {
	return func(root string) error {
		for _, do := range steps {
			if err := do(root); err != nil {
				return err
			}
		}
		return nil
	}
}

func write(name, text string) step {
	return func(root string) error { return os.WriteFile(filepath.Join(root, name), []byte(text), 0o600) }
}

func mode(name string, perm fs.FileMode) step {
	return all(write(name, "x"), func(root string) error { return os.Chmod(filepath.Join(root, name), perm) })
}

func mkdir(name string) step {
	return func(root string) error { return os.Mkdir(filepath.Join(root, name), 0o700) }
}

func symlink(to, name string) step {
	return func(root string) error { return os.Symlink(to, filepath.Join(root, name)) }
}

func age(name string, at time.Time) step {
	return func(root string) error { return os.Chtimes(filepath.Join(root, name), at, at) }
}

// sub makes a Maildir.
func sub(name string) step {
	return func(root string) error {
		for _, part := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(root, name, part), 0o700); err != nil {
				return err
			}
		}
		return nil
	}
}

// listing lists everything below a directory, with times.
func listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
