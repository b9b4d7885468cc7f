package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"
)

// Traps in the names of files: flags, keywords, and what is no message.

// Trap 9: letters that mean nothing here, and what follows a second comma, are lost when flags are changed; or
// letters are copied to a mailbox where they mean other keywords. maildird leaves the same file name as
// Dovecot does after each change.
func TestTrap09UnknownLetters(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	servers := map[string]*conn{"Dovecot": login(t, d.Addr, "ada"), "maildird": login(t, s.imap, "ada")}
	odd := []string{"dov.1:2,SdovX,ext", "dov.2:2,PSdT", "dov.3:2,zaXS", "dov.4,S=13:2,ovP,a,b", "dov.5:2,,ext", "dov.6:1,ext", "dov.7", "dov.8:2,FXF"}
	dirs := map[string]string{}
	for who := range servers {
		dirs[who] = makeMailbox(t, root, "."+who)
		for _, name := range odd {
			writeFile(t, filepath.Join(dirs[who], "cur", name), "Subject: x\n\n\n")
		}
		writeFile(t, filepath.Join(dirs[who], "dovecot-keywords"), "3 three\n14 fourteen\n21 twenty-one\n")
	}
	for who, c := range servers {
		c.ok("SELECT " + who)
	}
	for _, store := range []string{
		`1:* +FLAGS (\Flagged)`, `1:* -FLAGS (\Seen)`, `1:* +FLAGS (fourteen new)`, `2:4 FLAGS (\Answered)`,
		`1:* -FLAGS (three)`, `1:* +FLAGS ()`, `1:* FLAGS (\Deleted TWENTY-ONE)`, `1:* FLAGS ()`,
	} {
		for _, c := range servers {
			c.ok("STORE " + store)
		}
		ours, theirs := readDir(t, filepath.Join(dirs["maildird"], "cur")), readDir(t, filepath.Join(dirs["Dovecot"], "cur"))
		if !slices.Equal(ours, theirs) {
			t.Errorf("after STORE %s maildird has\n%q, Dovecot\n%q", store, ours, theirs)
		}
	}

	// In the other mailbox other letters stand for the keywords, and one of them for another keyword.
	copies := makeMailbox(t, root, ".Copies")
	writeFile(t, filepath.Join(copies, "dovecot-keywords"), "3 other\n4 three\n")
	for who, c := range servers {
		c.ok("STORE 1 FLAGS (three twenty-one)")
		c.ok("COPY 1 Copies")
		c.ok("MOVE 1 Copies")
		c.ok("SELECT Copies")
		for _, line := range c.ok("FETCH 1:* (FLAGS)") {
			if !strings.Contains(line, "three") || !strings.Contains(line, "twenty-one") || strings.Contains(line, "other") {
				t.Errorf("%s: copied is %s", who, line)
			}
		}
	}
	if got := readDir(t, filepath.Join(copies, "cur")); len(got) != 4 || slices.ContainsFunc(got, func(name string) bool { return !strings.HasSuffix(name, ":2,ae") }) {
		t.Errorf("the copies are %q, with the keywords\n%s", got, readFile(t, filepath.Join(copies, "dovecot-keywords")))
	}
	wantSameMail(t, d, s, "ada")
	d.WantNoComplaint(t)
}

// Trap 10: a keyword's letter is used before dovecot-keywords has it, or that file changes twice in a second: a
// Dovecot that has the mailbox open gives the letter a name of its own, for good. maildird makes many
// keywords within a second, while Dovecot polls.
func TestTrap10KeywordsWithinASecond(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	ours, theirs := login(t, s.imap, "ada"), login(t, d.Addr, "ada")
	for range 26 {
		ours.ok("APPEND INBOX (\\Seen) {}", otherMail)
	}
	ours.ok("SELECT INBOX")
	theirs.ok("SELECT INBOX")
	for i := 1; i <= 26; i++ {
		if i%3 == 0 {
			ours.ok(fmt.Sprintf("APPEND INBOX (kw%d) {}", i), otherMail)
		}
		ours.ok(fmt.Sprintf("STORE %d +FLAGS (kw%d)", i, i))
		theirs.ok("NOOP")
		want := fmt.Sprintf(`^\* %d FETCH \(FLAGS \(\\Seen kw%d\)\)`, i, i)
		if got := theirs.ok(fmt.Sprintf("FETCH %d (FLAGS)", i)); find(got, want) == nil {
			t.Errorf("Dovecot sees %q, not %s", got, want)
		}
	}
	if keywords := readFile(t, filepath.Join(root, "dovecot-keywords")); strings.Contains(keywords, "unknown") || strings.Count(keywords, "\n") != 26 {
		t.Errorf("keywords are\n%s", keywords)
	}
	wantSameMail(t, d, s, "ada")
	d.WantNoComplaint(t)
}

// Trap 21: files in new/ that have flags, files in cur/ that have none, and names with several colons. maildird
// reads them as Dovecot does, and leaves the same names.
func TestTrap21OddNames(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	servers := map[string]*conn{"Dovecot": login(t, d.Addr, "ada"), "maildird": login(t, s.imap, "ada")}
	clients := map[string]*imapclient.Client{"Dovecot": client(t, d.Addr, "ada", nil), "maildird": s.client(t, "ada", nil)}
	odd := []string{
		"new/1700000001.a:2,FS", "new/1700000002.a,U=2:2,", "new/1700000003.a", "new/1700000004.a:2,TSDRFP", "new/1700000005.a:1,",
		"cur/1700000006.a", "cur/1700000007.a:2,S:2,F", "cur/1700000008.a:2,", "cur/1700000009.a:2", "cur/1700000010.a:", "cur/1700000011.a:1,S",
		"cur/1700000012.a:2,TSF", "cur/1700000013.a:2,SS", "cur/1700000014.a:2,S,F", "cur/1700000015.a:3,S", "cur/1700000016.a b:2,S",
		"cur/1700000017.ü:2,S", "cur/1700000018.a,S=14,W=17:2,D", "cur/1700000019.M7P8.h:2,R", "cur/1700000019.M10P8.h:2,R", "cur/x:2,S", "cur/99.a:2,F",
		"cur/1700000020.a:2,s", "cur/1700000021.a:2,S ", "cur/1700000022.a,:2,F", "new/1700000023.a:2,S:2,F",
		"cur/.hidden:2,S",
	}
	dirs := map[string]string{}
	for who := range servers {
		dirs[who] = makeMailbox(t, root, "."+who)
		writeFile(t, filepath.Join(dirs[who], "dovecot-keywords"), "18 eighteen\n")
		for i, name := range odd {
			writeFile(t, filepath.Join(dirs[who], name), fmt.Sprintf("Subject: %02d\n\n\n", i))
		}
	}
	shows := func(who, box string) []message {
		servers[who].ok("SELECT " + box)
		servers[who].ok("UNSELECT")
		got := messages(t, clients[who], box)
		for i := range got {
			got[i].date = "" // each mailbox was made a moment later
		}
		return got
	}
	want := shows("Dovecot", "Dovecot")
	for _, box := range []string{"maildird", "Dovecot"} { // and what Dovecot has numbered
		if got := shows("maildird", box); !slices.Equal(got, want) {
			t.Errorf("maildird shows in %s\n%sand Dovecot\n%s", box, dump(got), dump(want))
		}
	}
	all := func(who string) (files []string) {
		for _, sub := range []string{"new", "cur"} {
			for _, name := range readDir(t, filepath.Join(dirs[who], sub)) {
				files = append(files, sub+"/"+name)
			}
		}
		return files
	}
	if ours, theirs := all("maildird"), all("Dovecot"); !slices.Equal(ours, theirs) {
		t.Errorf("maildird left\n%q, Dovecot\n%q", ours, theirs)
	}
	d.WantNoComplaint(t)
}

// Trap 22: mail is moved from new/ to cur/ when it was only looked at, by link and unlink, or over a file that is
// there. maildird moves it at SELECT alone, by a rename, and loses neither of two files of one name.
func TestTrap22NewToCur(t *testing.T) {
	t.Parallel()
	d, s, root := beside(t, "")
	mail := filepath.Join(root, "new", "1700000001.a")
	writeFile(t, mail, "Subject: moved\n\n")
	was := inode(t, mail)
	c := login(t, s.imap, "ada")
	for _, command := range []string{"STATUS INBOX (MESSAGES UNSEEN RECENT)", "EXAMINE INBOX", "FETCH 1 BODY[]", "SEARCH ALL", "NOOP", "CLOSE", `LIST "" * RETURN (STATUS (MESSAGES))`} {
		c.ok(command)
		if inode(t, mail) != was {
			t.Errorf("%s moved mail", command)
		}
	}
	c.ok("SELECT INBOX")
	if got := filepath.Join(root, "cur", "1700000001.a:2,"); inode(t, got) != was || len(readDir(t, filepath.Join(root, "new"))) > 0 {
		t.Errorf("SELECT left %q in new, %q in cur", readDir(t, filepath.Join(root, "new")), readDir(t, filepath.Join(root, "cur")))
	}

	// Two files of one base name, of which one comes later; in cur/, and in new/ so that it would be moved over the
	// other; heard of, and found by who reads all.
	for _, twin := range []struct {
		second   string
		selected bool
	}{{"cur/1700000001.a:2,S", true}, {"new/1700000001.a", true}, {"cur/1700000001.a:2,S", false}, {"new/1700000001.a", false}} {
		what := fmt.Sprint(twin)
		if !twin.selected {
			c.ok("UNSELECT")
		}
		writeFile(t, filepath.Join(root, "tmp", "second"), "Subject: second\n\n")
		must(t, os.Rename(filepath.Join(root, "tmp", "second"), filepath.Join(root, twin.second)))
		if twin.selected {
			c.ok("NOOP")
		} else {
			c.ok("SELECT INBOX")
		}
		c.ok("NOOP")
		c.ok(`STORE 1:* +FLAGS (\Seen)`)
		c.ok(`STORE 1:* -FLAGS (\Seen)`)
		if got := c.ok("FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])"); len(got) != 2 || find(got, `^\* 1 FETCH \(UID 1 (?s:.*)moved`) == nil || find(got, "second") == nil {
			t.Errorf("%s: what is there is %q", what, got)
		}
		wantSameMail(t, d, s, "ada")
		uid := find(c.ok("UID SEARCH SUBJECT second"), `SEARCH (\d+)$`)[1]
		c.ok("UID STORE " + uid + ` +FLAGS.SILENT (\Deleted)`)
		c.ok("EXPUNGE")
	}
	d.WantNoComplaint(t)
}
