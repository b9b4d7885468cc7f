package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Problem is something in a Maildir that is not as it should be.
type Problem struct {
	// Mailbox is the name by which clients know the mailbox; "" for what belongs to none.
	Mailbox string
	// File is the path from the account's root; "." is the root.
	File string
	// Line is the line in File, from 1; 0 is File as a whole.
	Line int
	// Text is what is wrong, and what follows from it.
	Text string
	// Serious is whether mail does not show, can't be changed, or will be numbered again.
	Serious bool
}

// String is a problem on one line: the file, the line, what is wrong.
func (p Problem) String() string {
	s := fmt.Sprintf("%q", p.File)
	if p.Line > 0 {
		s += fmt.Sprintf(" line %d", p.Line)
	}
	if p.Mailbox != "" {
		s = fmt.Sprintf("mailbox %q: %s", p.Mailbox, s)
	}
	return s + ": " + p.Text
}

// tmpAge is how old a file in tmp/ may be; whoever comes by removes older ones. Tests shorten it, since
// the time of a file's last change can't be set.
var tmpAge = 36 * time.Hour

// Check reads an account and tells what is wrong, INBOX first. It changes nothing and takes no
// lock, so it may run beside a server; what is being changed meanwhile may be told as a problem that
// is gone by then. It looks at every file's name, size and first bytes. Of mail it reads only what is compressed, to
// see whether it is whole; otherwise a wrong W= is told only where it is less than S=.
//
// Files that have no UID yet, names in subscriptions without a mailbox, and records of messages
// that are gone are normal and not told.
//
// The error is that the root can't be read at all.
func Check(root string, o *Options) ([]Problem, error) {
	a, err := lookInto(root, o)
	if err != nil {
		return nil, err
	}
	defer a.closeTrees()
	c := &checker{a: a}
	storages, err := a.mailboxes()
	if err != nil {
		return nil, err
	}
	for _, storage := range storages {
		c.mailbox(storage)
	}
	c.name = ""
	c.in, c.rel = a.mail, "."
	c.rootEntries()
	c.in = a.control
	c.validity()
	c.subscriptions()
	return c.problems, nil
}

// lookInto is an account to look at: unlike Open it makes nothing, and sweeps nothing.
func lookInto(root string, o *Options) (*Account, error) {
	a := &Account{}
	if o != nil {
		a.opts = *o
	}
	open := func(where string, log func() *slog.Logger) (*tree, bool, error) {
		t, err := openTree(where, log)
		return t, false, err
	}
	_, err := a.openTrees(root, open)
	return a, err
}

// mailboxes are the storage names of all mailboxes, INBOX first.
func (a *Account) mailboxes() ([]string, error) {
	storages, err := a.storages()
	if err != nil {
		return nil, err
	}
	names := []string{}
	for storage, selectable := range storages {
		if selectable && storage != "INBOX" {
			names = append(names, storage)
		}
	}
	slices.Sort(names)
	return append([]string{"INBOX"}, names...), nil
}

// A checker collects problems.
type checker struct {
	a        *Account
	name     string // of the mailbox that is looked at
	in       *tree  // where what is looked at is
	rel      string // the directory, from there
	problems []Problem
}

// add adds a problem with a file of the directory that is looked at.
func (c *checker) add(serious bool, file string, line int, format string, args ...any) {
	if file = path.Join(c.rel, file); c.in != c.a.mail {
		file = c.in.join(file)
	}
	c.problems = append(c.problems, Problem{
		Mailbox: c.name, File: file, Line: line, Text: fmt.Sprintf(format, args...), Serious: serious,
	})
}

// unreadable adds an error of reading a file.
func (c *checker) unreadable(file string, err error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	c.add(true, file, 0, "cannot be read: %v", err)
}

func (c *checker) mailbox(storage string) {
	var canonical bool
	c.name, canonical = c.a.opts.mailboxName(storage)
	c.in, c.rel = c.a.at(storage)
	if storage != "INBOX" && !canonical {
		c.add(false, "", 0, "is not spelled as this server spells names (%s): shown as %q", c.a.opts.Names, c.name)
	}
	d, err := c.in.openDir(c.rel)
	if err != nil {
		c.unreadable("", err)
		return
	}
	defer d.close()
	st, err := d.stat("")
	if err != nil {
		c.unreadable("", err)
		return
	}
	c.permissions("", st)
	used := c.messages(d)
	c.tmp(d)
	if _, err := d.stat(courierList); err == nil {
		if _, err := c.a.statList(storage); notExist(err) {
			c.add(false, courierList, 0, "has UIDs that clients know from Courier: without \"maildird import courier\" they get others")
		}
	}
	if c.a.apart() {
		c.in, c.rel = c.a.control, c.a.opts.controlPath(storage)
		control, err := c.in.openDir(c.rel)
		if notExist(err) {
			return
		} else if err != nil {
			c.unreadable("", err)
			return
		}
		defer control.close()
		d = control
	}
	c.list(d)
	c.keywords(d, used)
	c.lock(d, listLock, dotlockOptions{guarded: listFile, stale: 120 * time.Second})
	c.lock(d, keysFile+".lock", dotlockOptions{guarded: keysFile, stale: 120 * time.Second})
}

// permissions tells what the owner, as whom the server runs, may not do.
func (c *checker) permissions(file string, st fileStat) {
	switch {
	case st.mode.IsDir() && st.mode&0o700 != 0o700:
		c.add(true, file, 0, "has mode %04o: its owner can't read and change it", st.mode.Perm())
	case st.mode.IsRegular() && st.mode&0o400 == 0:
		c.add(true, file, 0, "has mode %04o: its owner can't read it", st.mode.Perm())
	}
}

// messages looks at new/ and cur/ and counts the letters in the names.
func (c *checker) messages(d *dir) (used [26]int) {
	type place struct {
		file string
		id   fileID
	}
	first := map[string]place{} // by base name
	for _, sub := range []string{"new", "cur", "tmp"} {
		st, err := d.stat(sub)
		switch {
		case notExist(err):
			c.add(false, sub, 0, "is missing; it is made when the mailbox is opened")
			continue
		case err != nil:
			c.unreadable(sub, err)
			continue
		case !st.mode.IsDir():
			c.add(true, sub, 0, "is not a directory: the mailbox can't be opened")
			continue
		}
		c.permissions(sub, st)
		if sub == "tmp" {
			continue
		}
		err = eachName(d, sub, func(name string) {
			file := sub + "/" + name
			switch {
			case strings.HasPrefix(name, "."):
				return
			case strings.ContainsAny(name, "\r\n"):
				c.add(true, file, 0, "has a line break in its name: not shown")
				return
			case !listedName(name):
				c.add(true, file, 0, "begins with a colon: not shown")
				return
			}
			st, err := d.stat(file)
			if notExist(err) {
				return // renamed meanwhile
			} else if err != nil {
				c.unreadable(file, err)
				return
			}
			if !st.mode.IsRegular() {
				c.add(false, file, 0, "is %s: not a message", kind(st.mode))
				return
			}
			c.permissions(file, st)
			base, _ := splitName(name)
			if other, ok := first[base]; !ok {
				first[base] = place{file, st.id}
			} else if _, err := d.stat(other.file); err == nil { // else it was renamed meanwhile
				same := "another file"
				if other.id == st.id {
					same = "the same file"
				}
				c.add(other.id != st.id, file, 0, "has the base name of %q, which is %s: only one of them is shown", other.file, same)
			}
			c.sizes(d, file, base, st)
			f := parseFlags(name)
			for i := range used {
				if f&keywordFlag(i) != 0 {
					used[i]++
				}
			}
		})
		if err != nil {
			c.unreadable(sub, err)
		}
	}
	return used
}

// sizes compares the sizes in the name of a message with the file. What can't be opened was told before.
func (c *checker) sizes(d *dir, file, base string, st fileStat) {
	s, w := sizesOf(base)
	f, err := d.open(file)
	if err != nil {
		return
	}
	content := &Content{f: f, raw: st.size, size: -1, counted: func(int64) {}}
	defer content.Close()
	format, err := formatOfFile(f)
	switch {
	case err != nil:
		c.unreadable(file, err)
		return
	case format == nil:
		if s >= 0 && s != st.size {
			c.add(false, file, 0, "is named for %d bytes (S=) and has %d", s, st.size)
		} else if s >= 0 && w >= 0 && w < s {
			c.add(false, file, 0, "is named for %d bytes with CRLF line ends (W=) and has %d without", w, s)
		}
		return
	}
	size, err := content.Size()
	var ce *CompressedError
	switch {
	case errors.As(err, &ce):
		c.add(true, file, 0, "is compressed (%s) and can't be read: %v", ce.Format, ce.Err)
	case err != nil:
		c.unreadable(file, err)
	case s >= 0 && s != content.raw:
		c.add(false, file, 0, "is named for %d bytes (S=) and has %d that are compressed: Dovecot can't show it", s, content.raw)
	case w >= 0 && w != size:
		c.add(false, file, 0, "is named for %d bytes with CRLF line ends (W=) and has %d that are compressed", w, size)
	}
}

// eachName calls visit for each name in a directory, in order.
func eachName(d *dir, sub string, visit func(name string)) error {
	f, err := d.openat(sub, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	for _, name := range names {
		visit(name)
	}
	return err
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symlink"
	}
	return "neither file nor directory"
}

// list looks at dovecot-uidlist.
func (c *checker) list(d *dir) {
	text, ok := c.read(d, listFile)
	if !ok {
		return
	}
	l, problems, err := parseUIDList(text)
	var fe *FormatError
	if errors.As(err, &fe) {
		c.add(true, listFile, fe.Line, "%s: all messages will get new UIDs", fe.Reason)
		return
	}
	for _, p := range problems {
		// Dovecot throws the file away for all but a name that comes twice, which has no line.
		c.add(p.Line > 0, listFile, p.Line, "%s: left out", p.Reason)
	}
	if n := strings.LastIndexByte(text, '\n') + 1; n < len(text) {
		c.add(false, listFile, strings.Count(text, "\n")+1, "has no end: counts as not there, and is cut off by whoever writes next")
	}
	if n := len(l.records); l.version == 1 && n > 0 && l.records[n-1].uid >= l.next {
		c.add(true, listFile, 1, "says that the next UID is %d, and there is UID %d", l.next, l.records[n-1].uid)
	}
}

// read reads a small file whole; ok is whether there is one.
func (c *checker) read(d *dir, file string) (text string, ok bool) {
	st, err := d.stat(file)
	if notExist(err) {
		return "", false
	}
	if err == nil && !st.mode.IsRegular() {
		c.add(true, file, 0, "is %s and should be a file", kind(st.mode))
		return "", false
	}
	if err == nil && st.mode&0o600 != 0o600 {
		c.add(true, file, 0, "has mode %04o: its owner can't read and write it", st.mode.Perm())
	}
	f, err := d.open(file)
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = io.ReadAll(f); err == nil {
			return string(b), true
		}
	}
	c.unreadable(file, err)
	return "", false
}

// keywords looks at dovecot-keywords; used is how many messages use each letter.
func (c *checker) keywords(d *dir, used [26]int) {
	var k keywords
	if text, ok := c.read(d, keysFile); ok {
		var problems []*FormatError
		k, problems, _ = parseKeywords(strings.NewReader(text))
		for _, p := range problems {
			c.add(false, keysFile, p.Line, "%s: left out", p.Reason)
		}
	}
	for i, name := range k {
		if name != "" && !validKeyword(name) {
			c.add(false, keysFile, 0, "calls the letter %q %.60q, which can be no keyword: it is kept and not shown", 'a'+rune(i), name)
		}
	}
	for i, n := range used {
		if n > 0 && k[i] == "" {
			c.add(false, keysFile, 0, "has no name for the letter %q that %d messages use: it is kept and not shown", 'a'+rune(i), n)
		}
	}
}

// lock tells of a lock file that was left behind.
func (c *checker) lock(d *dir, file string, o dotlockOptions) {
	s, err := lookAtLock(d, file, o.guarded)
	if notExist(err) {
		return
	} else if err != nil {
		c.unreadable(file, err)
		return
	}
	defer s.close()
	s.since = later(s.lock.mtime, s.guarded.mtime)
	if s.leftBehind(o) {
		c.add(false, file, 0, "was left behind by %q: who needs the lock takes it over", string(s.holder))
	}
}

// tmp tells of old files in tmp/.
func (c *checker) tmp(d *dir) {
	old := 0
	eachName(d, "tmp", func(name string) { // what is wrong with tmp/ itself was told before
		st, err := d.stat("tmp/" + name)
		if err == nil && st.leftBehind() {
			old++
		}
	})
	if old > 0 {
		c.add(false, "tmp", 0, "has %d files that are older than 36 hours: left behind, and nobody's mail", old)
	}
}

// leftBehind reports whether a file in tmp/ is so old that nobody writes it any more.
func (st fileStat) leftBehind() bool {
	return st.mode.IsRegular() && time.Since(later(st.ctime, st.mtime)) > tmpAge
}

func later(a, b unix.Timespec) time.Time {
	if a.Nano() > b.Nano() {
		return time.Unix(a.Unix())
	}
	return time.Unix(b.Unix())
}

// rootEntries looks at what lies in the root besides mailboxes.
func (c *checker) rootEntries() {
	err := eachName(c.a.mail.root, ".", func(name string) {
		st, err := c.a.mail.root.stat(name)
		if err != nil || c.a.opts.Layout == LayoutMaildirpp && !strings.HasPrefix(name, ".") || strings.HasPrefix(name, "..") {
			return
		}
		switch {
		case st.mode&fs.ModeSymlink != 0:
			if _, err := c.a.mail.fsys.Stat(name); err != nil {
				c.add(false, name, 0, "is a symlink that leads nowhere or out of the root: not shown")
			}
		case c.a.opts.Layout == LayoutMaildirpp && !st.mode.IsDir():
			c.add(false, name, 0, "is named as a mailbox and is no directory: not shown")
		}
	})
	if err != nil {
		c.unreadable("", err)
	}
}

// validity looks at dovecot-uidvalidity and its counter.
func (c *checker) validity() {
	var counters []string
	var highest uint64
	err := eachName(c.in.root, ".", func(name string) {
		suffix, ok := strings.CutPrefix(name, validityFile+".")
		if !ok {
			return
		}
		v, err := strconv.ParseUint(suffix, 16, 32)
		if err != nil || len(suffix) != 8 {
			c.add(false, name, 0, "does not end in 8 hexadecimal digits: not counted")
			return
		}
		counters = append(counters, name)
		highest = max(highest, v)
	})
	if err != nil {
		c.unreadable("", err)
	}
	if len(counters) > 1 {
		c.add(false, validityFile, 0, "has several counters (%s): the highest counts", strings.Join(counters, ", "))
	}
	text, ok := c.read(c.in.root, validityFile)
	if !ok {
		return
	}
	v, err := strconv.ParseUint(strings.TrimSpace(text), 16, 32)
	switch {
	case err != nil || len(strings.TrimSpace(text)) != 8:
		c.add(false, validityFile, 1, "%.20q is not 8 hexadecimal digits", text)
	case len(counters) > 0 && v > highest:
		c.add(true, validityFile, 1, "is at %08x and its counter at %08x: a new mailbox may get the UIDVALIDITY of a deleted one", v, highest)
	}
}

// subscriptions looks at the file of that name.
func (c *checker) subscriptions() {
	c.lock(c.in.root, subsFile+".lock", dotlockOptions{guarded: subsFile, stale: 30 * time.Second})
	text, ok := c.read(c.in.root, subsFile)
	if !ok {
		return
	}
	sep := c.a.opts.storageSeparator()
	s, problems, err := parseSubscriptions(strings.NewReader(text), sep)
	if fe, ok := errors.AsType[*FormatError](err); ok {
		c.add(true, subsFile, fe.Line, "%s: not shown, and not changed", fe.Reason)
		return
	}
	for _, p := range problems {
		c.add(false, subsFile, p.Line, "%s: left out", p.Reason)
	}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || s.version == 2 && i == 0 {
			continue
		}
		one := line
		if s.version == 2 {
			one = "V\t2\n\n" + line
		}
		named, _, err := parseSubscriptions(strings.NewReader(one), sep)
		if err != nil || len(named.names) != 1 {
			continue
		}
		if storage := named.names[0]; !c.subscribable(storage) {
			c.add(false, subsFile, i+1, "%.80q: no mailbox can have this name", line)
		}
	}
}

// subscribable reports whether there is or can be a mailbox of a storage name.
func (c *checker) subscribable(storage string) bool {
	if _, canonical := c.a.opts.mailboxName(storage); canonical {
		return true
	}
	t, rel := c.a.at(storage)
	_, err := t.fsys.Stat(rel)
	return err == nil
}
