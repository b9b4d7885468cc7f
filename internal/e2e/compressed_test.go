package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/klauspost/compress/zstd"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// zlibSave is what Dovecot's configuration has where mail is saved compressed; "" saves it as it is, and reads
// compressed mail all the same.
func zlibSave(format string) []string {
	if format == "" {
		return []string{"mail_plugins = zlib"}
	}
	return []string{"mail_plugins = zlib", "plugin {\n zlib_save = " + format + "\n}"}
}

// zlibFormats are how files begin that Dovecot saves with a setting of zlib_save.
var zlibFormats = map[string]string{"gz": "\x1f\x8b\x08", "zstd": "\x28\xb5\x2f\xfd", "bz2": "BZh"}

// plainTexts are those of oddTexts of which Dovecot says the same when they are not compressed.
func plainTexts() []string {
	return slices.DeleteFunc(slices.Clone(oddTexts), func(text string) bool { return strings.Contains(text, "8 bit") })
}

// largeMail has an attachment of n bytes, which don't become much fewer when they are compressed.
func largeMail(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	var text strings.Builder
	text.WriteString("From: ada@test.example\r\nSubject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\n\r\nThe needle is before the haystack.\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for line := base64.StdEncoding.EncodeToString(b); line != ""; {
		m := min(len(line), 76)
		text.WriteString(line[:m] + "\r\n")
		line = line[m:]
	}
	text.WriteString("--b--\r\n")
	return text.String()
}

// details is all that a server says of the content of a mailbox's messages, each on a line of its own, and what it finds in them.
func details(t *testing.T, c *imapclient.Client, mailbox string) string {
	t.Helper()
	_, err := c.Select(mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
	must(t, err)
	sections := []*imap.FetchItemBodySection{
		{Peek: true},
		{Peek: true, Specifier: imap.PartSpecifierHeader},
		{Peek: true, Specifier: imap.PartSpecifierText, Partial: &imap.SectionPartial{Offset: 10, Size: 20}},
		{Peek: true, Specifier: imap.PartSpecifierText, Partial: &imap.SectionPartial{Offset: 130_000, Size: 20_000}},
		{Peek: true, Part: []int{2}},
	}
	binary := &imap.FetchItemBinarySection{Peek: true, Part: []int{2}}
	msgs, err := c.Fetch(imap.UIDSet{{Start: 1}}, &imap.FetchOptions{
		UID: true, RFC822Size: true, Envelope: true, InternalDate: true,
		BodySection: sections, BinarySection: []*imap.FetchItemBinarySection{binary},
	}).Collect()
	must(t, err)
	var b strings.Builder
	for _, m := range msgs {
		fmt.Fprintf(&b, "UID %d size %d %v %+v", m.UID, m.RFC822Size, m.InternalDate.UTC(), *m.Envelope)
		for _, s := range sections {
			text := m.FindBodySection(s)
			fmt.Fprintf(&b, " %d %.60q %x", len(text), text, crc32.ChecksumIEEE(text))
		}
		fmt.Fprintf(&b, " binary %x\n", crc32.ChecksumIEEE(m.FindBinarySection(binary)))
	}
	for _, criteria := range []imap.SearchCriteria{
		{Body: []string{"hello"}}, {Body: []string{"needle"}}, {Text: []string{"subject"}}, {Larger: 1000}, {Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "mixed"}}},
	} {
		found, err := c.UIDSearch(&criteria, nil).Wait()
		must(t, err)
		fmt.Fprintf(&b, "%+v: %v\n", criteria, found.AllUIDs())
	}
	return b.String()
}

// wantSameDetails compares what two servers say, line by line.
func wantSameDetails(t *testing.T, what, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		switch {
		case i >= len(w) || i >= len(g):
			t.Fatalf("%s: %d lines, not %d", what, len(g), len(w))
		case w[i] != g[i]:
			t.Errorf("%s:\n%s\nand not\n%s", what, g[i], w[i])
		}
	}
}

// compressedFiles are the files of a mailbox that begin as those of a format, and how many others there are.
func compressedFiles(t *testing.T, dir, magic string) (compressed []string, others int) {
	t.Helper()
	for _, name := range files(t, dir) {
		if strings.HasPrefix(readFile(t, name), magic) {
			compressed = append(compressed, name)
		} else {
			others++
		}
	}
	return compressed, others
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	must(t, err)
	must(t, w.Close())
	return b.String()
}

// A mailbox in which Dovecot compresses what it saves is the same in maildird, which does not, and in Dovecot after that.
func TestCompressed(t *testing.T) {
	for format, magic := range zlibFormats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			d := peers.StartDovecot(t, "", zlibSave(format)...)
			root := d.Maildir(t, "ada")
			s := serve(t, d.Location(), "")
			theirs, ours := client(t, d.Addr, "ada", nil), s.client(t, "ada", nil)
			must(t, theirs.Create("Copies", nil).Wait())
			n := 0
			texts := append(plainTexts(), attachment)
			if format != "bz2" { // which takes long, with the race detector
				texts = append(texts, largeMail(120_000))
			}
			for _, text := range texts {
				appendMail(t, theirs, "INBOX", text, &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
				n++
			}
			d.SendLMTP(t, "ada", "From: ben@test.example\nSubject: by LMTP\n\nHello from outside.\n")
			n++
			files, others := compressedFiles(t, root, magic)
			if len(files) != n || others != 0 {
				t.Fatalf("Dovecot compressed %d files and %d not", len(files), others)
			}
			// Beside them are one without sizes in its name, and what is not compressed.
			writeFile(t, filepath.Join(root, "cur", "1700000000.script.host:2,S"), zipped(t, "Subject: by a script\n\nHello, one\nand two.\n"))
			writeFile(t, filepath.Join(root, "new", "1700000001.plain.host"), "Subject: plain\n\nHello.\n")
			appendMail(t, ours, "INBOX", "Subject: by maildird\r\n\r\nHello.\r\n", nil)
			if _, others := compressedFiles(t, root, magic); format != "gz" && others != 3 || format == "gz" && others != 2 {
				t.Errorf("%d files are not compressed", others)
			}

			files, _ = compressedFiles(t, root, magic)
			want := details(t, theirs, "INBOX")
			if lines := strings.Count(want, "UID "); lines < n+3 {
				t.Fatalf("Dovecot shows %d messages of %d:\n%s", lines, n+3, want)
			}
			wantSameDetails(t, "maildird", want, details(t, ours, "INBOX"))
			wantSameDetails(t, "maildird, of what it knows", want, details(t, ours, "INBOX"))

			for _, c := range []*imapclient.Client{ours, theirs} {
				_, err := c.Select("INBOX", nil).Wait()
				must(t, err)
				_, err = c.Copy(imap.UIDSet{{Start: 1}}, "Copies").Wait()
				must(t, err)
			}
			_, err := ours.Move(imap.UIDSetNum(2, 8), "Copies").Wait()
			must(t, err)
			must(t, theirs.Noop().Wait())
			_, err = theirs.Move(imap.UIDSetNum(3, 9), "Copies").Wait()
			must(t, err)
			copies, _ := compressedFiles(t, filepath.Join(root, ".Copies"), magic)
			if n := 2*len(files) + 4; len(copies) != n {
				t.Errorf("%d files are compressed in the other mailbox, not %d", len(copies), n)
			}
			for _, name := range copies {
				fi, err := os.Stat(name)
				must(t, err)
				if links := fi.Sys().(*syscall.Stat_t).Nlink; links < 2 {
					t.Errorf("the copy %s is no link", name)
				}
			}
			for _, mailbox := range []string{"INBOX", "Copies"} {
				wantSameDetails(t, "maildird of "+mailbox, details(t, theirs, mailbox), details(t, ours, mailbox))
			}
			wantAll, _ := lookAtAll(t, ours)
			s.stop(t)
			again, _ := lookAtAll(t, serve(t, d.Location(), "").client(t, "ada", nil))
			wantSameMailboxes(t, "another maildird", wantAll, again)
			dovecot, _ := lookAtAll(t, client(t, d.Addr, "ada", nil))
			wantSameMailboxes(t, "Dovecot after maildird ended", wantAll, dovecot)
			d.WantNoComplaint(t)
		})
	}
}

// compressScript compresses the messages of a Maildir as Dovecot's documentation asks for it: in tmp/, with the same time, and
// moved over the message under Dovecot's lock if that is still there; then a letter Z says that it is done.
const compressScript = `
set -e
cd "$1"
for f in $(cd cur; ls | grep ',S=' | grep -v ':2,[^,]*Z'); do
	gzip -c "cur/$f" > "tmp/$f"
	touch -r "cur/$f" "tmp/$f"
	chown --reference="cur/$f" "tmp/$f"
	chmod --reference="cur/$f" "tmp/$f"
done
pid=$(/usr/lib/dovecot/maildirlock . 10)
trap 'kill $pid' EXIT
for f in $(ls tmp); do
	[ -f "cur/$f" ]
	mv "tmp/$f" "cur/$f"
	mv "cur/$f" "cur/${f}Z"
	echo "$f"
done
`

// Mail that an administrator compresses while it is looked at stays the same mail in both servers.
func TestCompressedByScript(t *testing.T) {
	peers.Need(t, "/usr/lib/dovecot/maildirlock")
	d := peers.StartDovecot(t, "", zlibSave("")...)
	root := d.Maildir(t, "ada")
	s := serve(t, d.Location(), "")
	theirs, ours := client(t, d.Addr, "ada", nil), s.client(t, "ada", nil)
	for i, text := range append(plainTexts(), attachment, largeMail(120_000)) {
		c := []*imapclient.Client{theirs, ours}[i%2]
		appendMail(t, c, "INBOX", text, &imap.AppendOptions{Flags: []imap.Flag{imap.FlagFlagged}})
	}
	want := details(t, theirs, "INBOX")
	wantSameDetails(t, "maildird before", want, details(t, ours, "INBOX"))
	before, _ := lookAtAll(t, ours)

	watcher := login(t, s.imap, "ada")
	watcher.ok("SELECT INBOX")
	watcher.ok("FETCH 1:* (FLAGS RFC822.SIZE ENVELOPE)")
	done, _ := run(t, nil, "bash", "-c", compressScript, "bash", root)
	files, others := compressedFiles(t, root, zlibFormats["gz"])
	if n := strings.Count(done, "\n"); n != len(plainTexts())+2 || len(files) != n || others > 0 {
		t.Fatalf("the script compressed %d files of %d:\n%s", len(files), len(files)+others, done)
	}
	if told := watcher.ok("NOOP"); len(told) > 0 {
		t.Errorf("a session was told %q", told)
	}
	wantSameDetails(t, "maildird", want, details(t, ours, "INBOX"))
	wantSameDetails(t, "Dovecot", want, details(t, client(t, d.Addr, "ada", nil), "INBOX"))

	// Both keep the letter when they change flags.
	_, err := ours.Select("INBOX", nil).Wait()
	must(t, err)
	store(t, ours, imap.UIDSetNum(1), imap.StoreFlagsAdd, imap.FlagAnswered)
	store(t, ours, imap.UIDSetNum(1), imap.StoreFlagsDel, imap.FlagAnswered)
	s.stop(t)
	after, _ := lookAtAll(t, serve(t, d.Location(), "").client(t, "ada", nil))
	wantSameMailboxes(t, "another maildird", before, after)
	names, err := filepath.Glob(filepath.Join(root, "cur", "*:2,FZ"))
	if err != nil || len(names) != len(files) {
		t.Errorf("%d of %d files have the letters FZ, %v", len(names), len(files), err)
	}
	if done, _ := run(t, nil, "bash", "-c", compressScript, "bash", root); done != "" {
		t.Errorf("the script found in its second run\n%s", done)
	}
	d.WantNoComplaint(t)
}

// What can't be unpacked is refused by itself, and the log says why; whatever else a session does goes on. Dovecot ends the
// connection.
func TestCompressedBad(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	s.tolerate = "message can't be read"
	c := login(t, s.imap, "ada")
	c.ok("CREATE Copies")
	c.ok("APPEND INBOX {}", "Subject: good\r\n\r\nA good neighbour.\r\n")
	root := s.root("ada")
	text := strings.ReplaceAll(largeMail(200_000), "\r\n", "\n")
	crlf := len(strings.ReplaceAll(text, "\n", "\r\n"))
	gz := zipped(t, text)
	flipped := []byte(gz)
	flipped[len(gz)/2] ^= 0x55
	bad := []string{
		gz[:len(gz)/2],
		string(flipped),
		gz[:5],
		"\x28\xb5\x2f\xfd",
		"\xfd7zXZ\x00\x00\x04 and so on",
		"Dovecot-LZ4\r\x2a\x9b\xc5 and so on",
	}
	for i, b := range bad {
		writeFile(t, filepath.Join(root, "cur", fmt.Sprintf("%d.bad.host:2,", 1700000000+i)), b)
	}
	// Its size is told, as Dovecot does.
	writeFile(t, filepath.Join(root, "cur", fmt.Sprintf("1700000009.named.host,S=%d,W=%d:2,", len(text), crlf)), gz[:len(gz)/2])
	writeFile(t, filepath.Join(root, "cur", "1700000010.good.host:2,"), zipped(t, "Subject: good\n\nAnother good neighbour.\n"))
	named, last := len(bad)+2, len(bad)+3

	c.ok("SELECT INBOX")
	if got := c.ok("UID FETCH 1:* FLAGS"); len(got) != last {
		t.Errorf("FETCH FLAGS answers %q", got)
	}
	fetched := func(command string, want ...int) {
		t.Helper()
		a := c.do(command)
		var got []int
		for _, line := range a.untagged {
			var n int
			fmt.Sscanf(line, "* %d FETCH", &n)
			got = append(got, n)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || !strings.HasPrefix(a.tagged, "NO [UNAVAILABLE]") {
			t.Errorf("%s answers for %v with %s, not for %v", command, got, a.tagged, want)
		}
	}
	fetched("FETCH 1:* RFC822.SIZE", 1, named, last)
	fetched("FETCH 1:* BODY.PEEK[]", 1, last)
	fetched("FETCH 1:* BODYSTRUCTURE", 1, last)
	fetched("FETCH 1:* BINARY.PEEK[1]", 1, last)
	fetched("FETCH 1:* BODY.PEEK[]<0.10>", 1, last)
	fetched("FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]", 1, 2, 3, named, last) // as far as it can be read
	if got := c.ok(fmt.Sprintf("FETCH %d RFC822.SIZE", named)); len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf("RFC822.SIZE %d)", crlf)) {
		t.Errorf("the size in a name is told as %q, not %d", got, crlf)
	}
	for command, want := range map[string]string{
		`SEARCH BODY "good neighbour"`: fmt.Sprintf("* SEARCH 1 %d", last),
		"SEARCH SUBJECT large":         fmt.Sprintf("* SEARCH 2 3 %d", named),
		"SEARCH TEXT needle":           "* SEARCH", // it needs the whole
	} {
		if got := c.ok(command); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, not %q", command, got, want)
		}
	}
	c.ok("STATUS Copies (SIZE)")
	c.ok(`STORE 1:* +FLAGS.SILENT (\Flagged kw)`)
	c.ok("COPY 1:* Copies")
	c.ok("MOVE 2 Copies")
	c.ok(`STORE 2:* +FLAGS.SILENT (\Deleted)`)
	c.ok("EXPUNGE")
	if got := c.ok("STATUS Copies (MESSAGES)"); len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf("MESSAGES %d", last+1)) {
		t.Errorf("of the copies there is %q", got)
	}
	c.refused("APPEND INBOX {}", zipped(t, "Subject: compressed by its sender\r\n\r\n"))
	s.waitLog(t, regexp.QuoteMeta("compressed (xz): this server reads gzip, zstd, bzip2 only"))
	s.waitLog(t, regexp.QuoteMeta("compressed (gzip): unexpected EOF"))

	out, err := exec.Command(maildirdPath, "check", "-config", filepath.Join(filepath.Dir(s.cert), "maildird.toml")).CombinedOutput()
	for _, want := range []string{"is compressed (xz) and can't be read: this server reads gzip, zstd, bzip2 only", "is compressed (gzip) and can't be read: unexpected EOF"} {
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("maildird check says\n%s%v\nand not %q", out, err, want)
		}
	}
}

// FETCH of the same mail, as it is and compressed, from maildird and from Dovecot: many small messages; a large one; and a
// large one in pieces, as many clients get it.
func BenchmarkCompressed(b *testing.B) {
	withoutRace(b)
	d := peers.StartDovecot(b, "", zlibSave("")...)
	root := d.Maildir(b, "ada")
	var small strings.Builder
	small.WriteString("From: ada@test.example\r\nTo: ben@test.example\r\nSubject: small\r\n\r\n")
	for i := range 60 {
		fmt.Fprintf(&small, "Line %d is %x and so on.\r\n", i, rand.Uint64())
	}
	pack := map[string]func(string) string{
		"plain": func(text string) string { return text },
		"gzip":  func(text string) string { return zipped(b, text) },
		"zstd":  func(text string) string { return zstded(b, text) },
	}
	formats := []string{"plain", "gzip", "zstd"}
	for _, set := range []struct {
		name string
		text string
		n    int
	}{{"small", small.String(), 10_000}, {"large", largeMail(36 << 20), 1}} {
		lf := strings.ReplaceAll(set.text, "\r\n", "\n")
		for _, format := range formats {
			dir := filepath.Join(root, "."+set.name+"-"+format)
			for _, part := range []string{"new", "cur", "tmp"} {
				must(b, os.MkdirAll(filepath.Join(dir, part), 0o755))
			}
			for i := range set.n {
				name := fmt.Sprintf("%d.M%dP1.host,S=%d,W=%d:2,S", 1700000000+i, i, len(lf), len(set.text))
				must(b, os.WriteFile(filepath.Join(dir, "cur", name), []byte(pack[format](lf)), 0o644))
			}
		}
	}
	own(b, root)
	s := serve(b, d.Location(), "")
	for _, work := range []struct {
		name, set string
		commands  func() []string
	}{
		{"sizes", "small", func() []string { return []string{"FETCH 1:* (UID RFC822.SIZE)"} }},
		{"small", "small", func() []string { return []string{"FETCH 1:* BODY.PEEK[]"} }},
		{"large", "large", func() []string { return []string{"FETCH 1 BODY.PEEK[]"} }},
		{"pieces", "large", func() (commands []string) {
			for off := 0; off < 10<<20; off += 256 << 10 {
				commands = append(commands, fmt.Sprintf("FETCH 1 BODY.PEEK[]<%d.%d>", off, 256<<10))
			}
			return commands
		}},
	} {
		for _, format := range formats {
			for _, server := range []struct{ name, addr string }{{"maildird", s.imap}, {"Dovecot", d.Addr}} {
				b.Run(work.name+"/"+format+"/"+server.name, func(b *testing.B) {
					for b.Loop() {
						b.StopTimer()
						c := login(b, server.addr, "ada")
						c.ok("SELECT " + work.set + "-" + format)
						b.StartTimer()
						for _, command := range work.commands() {
							c.ok(command)
						}
						b.StopTimer()
						c.ok("LOGOUT")
						b.StartTimer()
					}
				})
			}
		}
	}
}

func zstded(t testing.TB, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	must(t, err)
	return string(w.EncodeAll([]byte(text), nil))
}
