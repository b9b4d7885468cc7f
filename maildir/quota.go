package maildir

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quotaFile is Maildir++'s quota file, in an account's root or, as Dovecot has it, in that of its control files. Its
	// first line has the limits. The lines after it have bytes and messages each, and their sum is what the account takes:
	// whoever changes mail appends a line.
	// What is done with it here is in docs/coexistence.md.
	quotaFile = "maildirsize"
	// quotaFull is from which size on the file is counted anew, which all programs agree on.
	quotaFull = 5120
	// trashDir is the mailbox that is not part of the quota by Maildir++'s rule.
	trashDir = ".Trash"
)

// quotaQuiet is for how long nothing may have changed before an account is counted. Some programs write their line before
// the mail is there (Courier, maildrop) and some after it (Dovecot, this one): who counts between the two counts it twice, or
// not at all.
var quotaQuiet = 2 * time.Second

// A quotaRule is what counts as part of the quota. Programs differ, and so do their lines: which rule a sum
// was made by tells its first line.
type quotaRule int

const (
	// quotaPlain counts all messages. Dovecot and Exim do, and write "113 1".
	quotaPlain quotaRule = iota
	// quotaPadded leaves out the mailbox Trash (not those below it), and the messages that are to be deleted. Courier and
	// maildrop do, and write "         113            1".
	quotaPadded
)

// counts reports whether the messages of the mailbox at a path from the root are part of the quota.
func (r quotaRule) counts(rel string) bool {
	return !isAside(rel) && (r == quotaPlain || rel != trashDir)
}

// A usage is what messages take.
type usage struct{ bytes, messages int64 }

// line is a usage as a line of the file.
func (r quotaRule) line(u usage) string {
	if r == quotaPadded {
		return fmt.Sprintf("%12d %12d\n", u.bytes, u.messages)
	}
	return fmt.Sprintf("%d %d\n", u.bytes, u.messages)
}

// A tally is how the usage of a mailbox has changed under its lock, by each rule. The mailbox's dir keeps it, since all
// changes pass there, those that are taken back as well. Its fields are guarded by Mailbox.disk; a name outside
// new/ and cur/ never touches them.
type tally struct {
	on bool // there is a quota file
	by [2]usage
}

func (t *tally) begin(on bool) { t.on, t.by = on, [2]usage{} }

// end returns what has changed since begin.
func (t *tally) end() [2]usage {
	by := t.by
	t.begin(false)
	return by
}

// A weight is what one message adds to a tally.
type weight struct {
	t       *tally // nil: nothing
	bytes   int64
	deleted bool
}

func (w weight) add(sign int64) {
	if w.t == nil {
		return
	}
	for rule := range w.t.by {
		if quotaRule(rule) == quotaPadded && w.deleted {
			continue
		}
		w.t.by[rule].bytes += sign * w.bytes
		w.t.by[rule].messages += sign
	}
}

// weigh finds what the message weighs that has a name here, or is to get it. Its file is now at the name file of from.
func (d *dir) weigh(name string, from *dir, file string) weight {
	if d.tally == nil || !inParts(name) || !d.tally.on {
		return weight{}
	}
	w := weight{t: d.tally, bytes: sizeField(name, ",S="), deleted: parseFlags(name)&FlagDeleted != 0}
	if w.bytes < 0 {
		st, err := from.stat(file)
		if err != nil {
			return weight{}
		}
		w.bytes = st.size
	}
	return w
}

// weighRename is weigh for both ends of a rename. One that changes no size and no T weighs nothing, so that to mark many
// messages read costs no more than without a quota file.
func (d *dir) weighRename(from string, other *dir, to string) (left, came weight) {
	if d == other && inParts(from) && inParts(to) && (parseFlags(from)^parseFlags(to))&FlagDeleted == 0 {
		return weight{}, weight{}
	}
	return d.weigh(from, d, from), other.weigh(to, d, from)
}

// inParts reports whether a path in a mailbox's directory is that of a message.
func inParts(name string) bool {
	return strings.HasPrefix(name, "cur/") || strings.HasPrefix(name, "new/")
}

// A quota keeps an account's quota file right: where there is one, and nobody has to wait for it. What is wrong with it is
// logged once and keeps nobody from changing mail.
type quota struct {
	a *Account // immutable

	mu      sync.Mutex  // guards what follows and, in this process, the file; held during I/O
	told    string      // why the file is left alone
	recount *time.Timer // nil: none is planned or under way

	closed   atomic.Bool
	counting sync.WaitGroup // recounts that are planned or under way
}

// root is the directory that the file is in.
func (q *quota) root() *dir { return q.a.control.root }

// isThere reports whether there is a quota file.
func (q *quota) isThere() bool {
	_, err := q.root().stat(quotaFile)
	return err == nil
}

// changed writes down what has changed in the mailbox at a path.
func (q *quota) changed(rel string, by [2]usage) {
	if by == ([2]usage{}) {
		return
	}
	q.update(func(rule quotaRule) (u usage, err error) {
		if rule.counts(rel) {
			u = by[rule]
		}
		return u, nil
	})
}

// moved writes down that the directory of a mailbox has another path now, if that makes a difference.
func (q *quota) moved(from, to string) {
	if !q.isThere() {
		return
	}
	q.update(func(rule quotaRule) (u usage, err error) {
		if rule.counts(from) == rule.counts(to) {
			return u, nil
		}
		u, err = q.a.mail.usageOf(to, rule)
		if rule.counts(from) {
			u = usage{-u.bytes, -u.messages}
		}
		return u, err
	})
}

// update appends a line with what change says.
func (q *quota) update(change func(quotaRule) (usage, error)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, err := q.open()
	if s == nil && err == nil {
		q.told = "" // there is none any more
		return
	} else if err != nil {
		q.tried(err)
		return
	}
	defer s.Close()
	u, err := change(s.rule)
	if err == nil && u != (usage{}) {
		line := s.rule.line(u)
		if !s.ended {
			line = "\n" + line // somebody's last line is cut; that one is lost, ours is not
		}
		_, err = s.Write([]byte(line))
		s.size += int64(len(line))
		s.sum.bytes += u.bytes
		s.sum.messages += u.messages
	}
	q.tried(err)
	if err == nil && s.isStale() && q.recount == nil && !q.closed.Load() {
		q.counting.Add(1)
		q.recount = time.AfterFunc(quotaQuiet, q.countAnew)
	}
}

// tried logs that the file can't be kept, or can be again, once. The caller holds mu.
func (q *quota) tried(err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	if reason == q.told {
		return
	}
	q.told = reason
	if err == nil {
		q.a.log().Info("the quota file is kept again", "root", q.a.Root())
		return
	}
	q.a.log().Warn("the quota file is left alone", "root", q.a.Root(), "err", err)
}

// close ends what is under way.
func (q *quota) close() {
	q.mu.Lock()
	q.closed.Store(true)
	if q.recount != nil && q.recount.Stop() {
		q.counting.Done()
	}
	q.mu.Unlock()
	q.counting.Wait()
}

// A sums is an open quota file and what is in it.
type sums struct {
	*file
	fileStat
	limits string // its first line, as it is
	rule   quotaRule
	sum    usage
	broken bool // a line is not two numbers
	ended  bool // the last line is whole
	// sum and broken are of the first quotaFull bytes.
}

// isStale reports whether the file has to be counted anew.
func (s *sums) isStale() bool {
	return s.size >= quotaFull || s.broken || s.sum.bytes < 0 || s.sum.messages < 0
}

// open opens the file; nil where there is none.
func (q *quota) open() (*sums, error) {
	f, err := q.root().appendTo(quotaFile)
	if notExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	s := &sums{file: f}
	if err := s.read(); err != nil {
		f.Close()
		return nil, err
	}
	if q.a.opts.Layout == LayoutFS {
		s.rule = quotaPlain // the other rule knows no such layout
	}
	return s, nil
}

func (s *sums) read() (err error) {
	if s.fileStat, err = statFile(s.file.File); err != nil {
		return err
	}
	if !s.mode.IsRegular() {
		return &FormatError{File: quotaFile, Reason: "not a regular file"}
	}
	b, err := io.ReadAll(io.NewSectionReader(s.file.File, 0, min(s.size, quotaFull))) // if there is more, its sum is not asked for
	if err != nil {
		return err
	}
	last := b[max(len(b)-1, 0):]
	if s.size > int64(len(b)) {
		last = make([]byte, 1)
		if _, err := s.ReadAt(last, s.size-1); err != nil {
			return err
		}
	}
	s.ended = string(last) == "\n"
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if s.limits = lines[0]; len(b) == 0 || !isQuota(s.limits) {
		return &FormatError{File: quotaFile, Line: 1, Reason: fmt.Sprintf("%.100q are no limits such as 1000000S,100C", s.limits)}
	}
	s.rule = quotaPadded
	for i, line := range lines[1:] {
		if i == 0 && !strings.HasPrefix(line, " ") && !strings.Contains(line, "  ") {
			s.rule = quotaPlain
		}
		u, ok := parseUsage(line)
		s.broken = s.broken || !ok
		s.sum.bytes += u.bytes
		s.sum.messages += u.messages
	}
	return nil
}

// isQuota reports whether a line is one of limits: numbers with a letter each, of which S stands for bytes and C for
// messages. Without limits it is empty.
func isQuota(line string) bool {
	for limit := range strings.SplitSeq(line, ",") {
		if digits := strings.TrimRight(limit, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"); len(limit)-len(digits) != 1 || strings.Trim(digits, "0123456789") != "" {
			return line == ""
		}
	}
	return true
}

func parseUsage(line string) (usage, bool) {
	fields := strings.Fields(line)
	if len(fields) != 2 {
		return usage{}, false
	}
	b, err := strconv.ParseInt(fields[0], 10, 64)
	n, nerr := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || nerr != nil {
		return usage{}, false
	}
	return usage{b, n}, true
}

// usageOf counts the messages of the mailbox at a path.
func (t *tree) usageOf(rel string, rule quotaRule) (u usage, err error) {
	d, err := t.openDir(rel)
	if err != nil {
		return u, err
	}
	defer d.close()
	for _, part := range []string{"new", "cur"} {
		f, err := d.openat(part, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if notExist(err) {
			continue
		} else if err != nil {
			return u, err
		}
		err = eachEntry(f, func(name string, regular bool, _ uint64) {
			if !regular || name[0] == '.' || rule == quotaPadded && parseFlags(name)&FlagDeleted != 0 {
				return
			}
			size := sizeField(name, ",S=")
			if size < 0 {
				st, err := d.stat(part + "/" + name)
				if err != nil {
					return // gone meanwhile
				}
				size = st.size
			}
			u.bytes += size
			u.messages++
		})
		f.Close()
		if err != nil {
			return u, err
		}
	}
	return u, nil
}

// errNotQuiet is why an account can't be counted now.
var errNotQuiet = errors.New("its mail is being changed")

// countAnew replaces the file by one with a single line, as soon as the account was quiet. Nobody waits for it, and it
// holds no lock while it counts.
func (q *quota) countAnew() {
	err := q.tryCount()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == errNotQuiet && !q.closed.Load() {
		q.recount = time.AfterFunc(quotaQuiet, q.countAnew)
		return
	}
	q.recount = nil
	if err != errNotQuiet {
		q.tried(err)
	}
	q.counting.Done()
}

func (q *quota) tryCount() error {
	q.mu.Lock()
	s, err := q.open()
	q.mu.Unlock()
	if s == nil {
		return err
	}
	defer s.Close()
	if !s.isStale() {
		return nil // another program was faster
	}
	before, err := q.a.quotaTimes(s)
	if err != nil {
		return err
	}
	sum := usage{}
	for rel := range before {
		if q.closed.Load() {
			return errNotQuiet
		}
		t := q.a.mail
		if rel == "." {
			t = q.a.inbox
		}
		u, err := t.usageOf(rel, s.rule)
		if notExist(err) {
			return errNotQuiet
		} else if err != nil {
			return err
		}
		sum.bytes += u.bytes
		sum.messages += u.messages
	}
	return q.replace(s, before, sum)
}

// replace puts a new file in the place of s, unless something has changed since before.
func (q *quota) replace(s *sums, before map[string]scanState, sum usage) error {
	root := q.root()
	acc, err := q.a.mail.access()
	if err != nil {
		return err
	}
	tmp := quotaFile + "." + newBase(time.Now()) // among control files, where Dovecot puts it, is no tmp/
	if !q.a.apart() {
		if err := q.a.makeAsides(); err != nil {
			return err
		}
		tmp = "tmp/" + newBase(time.Now())
	}
	f, err := root.create(tmp, acc)
	if err != nil {
		return err
	}
	defer root.remove(tmp) // where it is still there
	_, err = f.Write([]byte(s.limits + "\n" + s.rule.line(sum)))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now, err := q.a.quotaTimes(s)
	if err != nil {
		return err
	}
	if len(now) != len(before) {
		return errNotQuiet
	}
	for rel, then := range before {
		if st, ok := now[rel]; !ok || !st.sameTimes(then) {
			return errNotQuiet
		}
	}
	if st, err := root.stat(quotaFile); err != nil || !sameFile(st, s.fileStat) {
		return errNotQuiet
	}
	if err := root.rename(tmp, quotaFile); err != nil {
		return err
	}
	// Who had opened the old file before may have written to it since it was looked at.
	late, err := io.ReadAll(io.NewSectionReader(s.file.File, s.size, quotaFull))
	if err != nil || len(late) == 0 {
		return err
	}
	f, err = root.appendTo(quotaFile)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(late)
	return err
}

// quotaTimes are the times of the mailboxes that count. All that is counted, and the file, must have been left alone for a while.
func (a *Account) quotaTimes(s *sums) (map[string]scanState, error) {
	storages, err := a.storages()
	if err != nil {
		return nil, err
	}
	storages["INBOX"] = true
	now := time.Now()
	times := map[string]scanState{}
	newest := s.mtime
	for storage := range storages {
		t, rel := a.at(storage)
		st, err := t.root.stat(rel)
		if notExist(err) {
			return nil, errNotQuiet
		} else if err != nil {
			return nil, err
		}
		if !st.mode.IsDir() || !s.rule.counts(rel) {
			continue // a symlink is another name of one that counts
		}
		var parts scanState
		for sub, changed := range map[string]*unix.Timespec{"new": &parts.new, "cur": &parts.cur} {
			if st, err := t.root.stat(rel + "/" + sub); err == nil {
				*changed = st.ctime
			} else if !notExist(err) {
				return nil, err
			}
			if changed.Nano() > newest.Nano() {
				newest = *changed
			}
		}
		times[rel] = parts
	}
	if now.Sub(time.Unix(newest.Unix())) < quotaQuiet {
		return nil, errNotQuiet
	}
	return times, nil
}
