package main

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
	"github.com/imapmaildir/imapmaildir/watch"
)

// A config is what a configuration file says, checked and with the defaults filled in. Paths are
// absolute or relative to the working directory. docs/configuration.md tells what each key means.
type config struct {
	imap, imaps, metrics string // addresses; empty: no such listener

	cert, key string // files; both or none

	passwdFile    string
	allowInsecure bool

	places  places
	maildir maildir.Options
	folders []*backend.Folder

	cacheDir string

	watchPoll     bool
	watchInterval time.Duration // 0: the default of package watch
	watchLimit    uint32        // 0: no limit

	policy policy.Rules

	connections           uint32 // 0: no limit
	connectionsPerAddress uint32 // 0: no limit
	messageBytes          uint32

	from *document // nil if there was no file
}

const defaultMessageBytes = 100 << 20

// account is what all accounts have in common.
func (c *config) account() backend.Account {
	a := backend.Account{Maildir: c.maildir, Policy: &c.policy}
	for _, f := range c.folders {
		a.Folders = append(a.Folders, *f)
	}
	return a
}

// watch is how directories are watched.
func (c *config) watch(log *slog.Logger) watch.Options {
	return watch.Options{Poll: c.watchPoll, Interval: c.watchInterval, Limit: int(c.watchLimit), Logger: log}
}

// A key is a key of a table: its name, and where its value goes. That is a pointer to a string,
// bool or uint32, an encoding.TextUnmarshaler, a []key for a table, or a func() []key for an array of
// tables, which is called for each of them.
type key struct {
	name string
	to   any
}

// keys are all keys there are.
func (c *config) keys() []key {
	return []key{
		{"listen", []key{
			{"imap", &c.imap},
			{"imaps", &c.imaps},
			{"metrics", &c.metrics},
		}},
		{"tls", []key{
			{"cert", &c.cert},
			{"key", &c.key},
		}},
		{"auth", []key{
			{"passwd_file", &c.passwdFile},
			{"allow_insecure", &c.allowInsecure},
		}},
		{"mail", []key{
			{"location", &c.places.root},
			{"inbox", (*elsewhere)(&c.places.inbox)},
			{"control", (*elsewhere)(&c.places.control)},
			{"layout", &c.maildir.Layout},
			{"names", &c.maildir.Names},
			{"prefix", &c.maildir.Prefix},
			{"separator", (*separator)(&c.maildir.Separator)},
			{"folder", func() []key {
				f := &backend.Folder{}
				c.folders = append(c.folders, f)
				return []key{
					{"name", &f.Name},
					{"special_use", (*specialUse)(&f.SpecialUse)},
					{"subscribe", &f.Subscribe},
				}
			}},
		}},
		{"cache", []key{
			{"dir", &c.cacheDir},
		}},
		{"watch", []key{
			{"poll", &c.watchPoll},
			{"interval", (*interval)(&c.watchInterval)},
			{"limit", &c.watchLimit},
		}},
		{"policy", []key{
			{"delete", &c.policy.Default.Delete},
			{"rename", &c.policy.Default.Rename},
			{"expunge", &c.policy.Default.Expunge},
			{"fetch_expunged", &c.policy.Default.FetchExpunged},
			{"store_expunged", &c.policy.Default.StoreExpunged},
			{"copy_expunged", &c.policy.Default.CopyExpunged},
			{"mailbox", func() []key {
				c.policy.Exceptions = append(c.policy.Exceptions, policy.Exception{})
				e := &c.policy.Exceptions[len(c.policy.Exceptions)-1]
				return []key{
					{"match", &e.Match},
					{"delete", optional(&e.Delete)},
					{"rename", optional(&e.Rename)},
					{"expunge", optional(&e.Expunge)},
					{"fetch_expunged", optional(&e.FetchExpunged)},
					{"store_expunged", optional(&e.StoreExpunged)},
					{"copy_expunged", optional(&e.CopyExpunged)},
				}
			}},
		}},
		{"limits", []key{
			{"connections", &c.connections},
			{"connections_per_address", &c.connectionsPerAddress},
			{"message_bytes", &c.messageBytes},
		}},
	}
}

// readConfig reads a configuration file. Its error is of type problems when the file could be read.
func readConfig(file string) (*config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c, d := parseConfig(file, string(text))
	taken := len(d.problems) == 0
	if d.tree != nil {
		c.resolve(filepath.Dir(file))
		c.checkValues(d)
	}
	if taken { // else what was not taken would be said to be missing
		c.checkMissing(d)
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b problem) int { return a.line - b.line })
		return nil, d.problems
	}
	return c, nil
}

// parseConfig reads the text of a configuration file; what was not taken is among the document's
// problems. If it is not TOML the document has no tree.
func parseConfig(file, text string) (*config, *document) {
	d := &document{file: file, text: text}
	c := &config{places: places{root: defaultLocation}, messageBytes: defaultMessageBytes, from: d}
	if _, err := toml.Decode(text, &d.tree); err != nil {
		d.tree = nil
		p := problem{file: file, err: err}
		if perr, ok := errors.AsType[toml.ParseError](err); ok {
			p.line, p.err = perr.Position.Line, errors.New(perr.Message)
		}
		d.problems = problems{p}
		return c, d
	}
	d.read("", d.tree, c.keys())
	return c, d
}

// resolve makes paths relative to the folder of the configuration file.
func (c *config) resolve(dir string) {
	for _, p := range []*string{&c.cert, &c.key, &c.passwdFile, &c.cacheDir} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for _, l := range []*location{&c.places.root, &c.places.inbox, &c.places.control} {
		*l = l.within(dir)
	}
}

// checkValues looks at what each value names: addresses, files and places. Values that were not
// taken are empty.
func (c *config) checkValues(d *document) {
	for _, l := range []struct{ key, addr string }{
		{"listen.imap", c.imap}, {"listen.imaps", c.imaps}, {"listen.metrics", c.metrics},
	} {
		if _, _, err := net.SplitHostPort(l.addr); l.addr != "" && err != nil {
			d.complain(l.key, "%q is no address; allowed: host:port, or :port for all addresses of this machine", l.addr)
		}
	}
	if c.cert != "" && c.key != "" {
		if _, err := loadCertificate(c.cert, c.key); err != nil {
			d.complain("tls", "%w", err)
		}
	}
	if c.passwdFile != "" {
		if f, err := os.Open(c.passwdFile); err != nil {
			d.complain("auth.passwd_file", "%w", err)
		} else {
			f.Close()
		}
	}
	if c.places.control == c.places.root {
		d.complain("mail.control", "is the location itself; leave it out, and control files are with the mail")
	}
	if err := c.maildir.Check(); err != nil {
		d.complain("mail.prefix", "%w", err)
	}
	for _, place := range []struct{ key, dir string }{
		{"mail.location", c.places.root.fixed()}, {"mail.inbox", c.places.inbox.fixed()},
		{"mail.control", c.places.control.fixed()}, {"cache.dir", c.cacheDir},
	} {
		if place.dir == "" {
			continue
		}
		if err := checkPlace(place.dir); err != nil {
			d.complain(place.key, "%w", err)
		}
	}
	names := map[string]bool{}
	for i, f := range c.folders {
		key := fmt.Sprintf("mail.folder[%d].name", i)
		if strings.EqualFold(f.Name, "INBOX") {
			d.complain(key, "INBOX is always there")
		} else if f.Name != "" && names[f.Name] {
			d.complain(key, "%q is there twice", f.Name)
		} else if !strings.HasPrefix(f.Name, c.maildir.Prefix) {
			d.complain(key, "%q does not begin with the prefix, %q", f.Name, c.maildir.Prefix)
		}
		names[f.Name] = true
	}
}

// checkMissing looks for what ought to be there and isn't; all that is there was taken.
func (c *config) checkMissing(d *document) {
	if c.imap == "" && c.imaps == "" {
		d.complain("listen", "there is nothing to serve; set imap, imaps or both")
	}
	switch {
	case (c.cert == "") != (c.key == ""):
		d.complain("tls", "cert and key belong together, and one is missing")
	case c.cert == "" && c.imaps != "":
		d.complain("listen.imaps", "needs a certificate; set cert and key in [tls]")
	case c.cert == "" && c.imap != "" && !c.allowInsecure:
		d.complain("listen.imap", "nobody could log in without TLS; set cert and key in [tls], or allow_insecure in [auth] for tests")
	}
	if c.passwdFile == "" {
		d.complain("auth.passwd_file", "is missing: without it nobody can log in")
	}
	for i, f := range c.folders {
		if f.Name == "" {
			d.complain(fmt.Sprintf("mail.folder[%d]", i), "name is missing")
		}
	}
	for i, e := range c.policy.Exceptions {
		if e.Match == "" {
			d.complain(fmt.Sprintf("policy.mailbox[%d]", i), "match is missing")
		}
	}
	for _, v := range c.policy.Vains() {
		table := fmt.Sprintf("policy.mailbox[%d]", v.Exception)
		if v.Key == "" {
			d.complain(table, "sets nothing; set one of the keys of [policy], or leave it out")
			continue
		}
		d.complain(table+"."+v.Key, "can have no effect: policy.mailbox[%d], match = %q, sets it before, and the first that matches wins",
			v.By, c.policy.Exceptions[v.By].Match)
	}
}

// checkPlace tells why files can't be made in a directory, which is made itself if it does not
// exist.
func checkPlace(dir string) error {
	for {
		fi, err := os.Stat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir:
			dir = filepath.Dir(dir)
			continue
		case err != nil:
			return err
		case !fi.IsDir():
			return fmt.Errorf("%s is not a directory", dir)
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return fmt.Errorf("this user may not write in %s: %w", dir, err)
		}
		return nil
	}
}

// A document is a configuration file that is being read.
type document struct {
	file, text string
	tree       map[string]any
	problems   problems
	lines      map[string]int // where each key is; nil until someone asks
}

// read puts the values of a table where they go; path is the table's name, empty for the file.
func (d *document) read(path string, table map[string]any, keys []key) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		where := name
		if path != "" {
			where = path + "." + name
		}
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		if i < 0 {
			allowed := make([]string, len(keys))
			for i, k := range keys {
				allowed[i] = k.name
			}
			d.complain(where, "unknown key; allowed: %s", strings.Join(allowed, ", "))
			continue
		}
		d.readValue(where, table[name], keys[i].to)
	}
}

func (d *document) readValue(where string, v, to any) {
	ok := false
	want := ""
	switch to := to.(type) {
	case []key:
		want = "a table"
		var table map[string]any
		if table, ok = v.(map[string]any); ok {
			d.read(where, table, to)
		}
	case func() []key:
		want = "an array of tables"
		var list []map[string]any
		if list, ok = tables(v); ok {
			for i, table := range list {
				d.read(fmt.Sprintf("%s[%d]", where, i), table, to())
			}
		}
	case *bool:
		want = "true or false"
		*to, ok = v.(bool)
	case *uint32:
		want = "a whole number from 0 to 4294967295"
		var n int64
		if n, ok = v.(int64); ok {
			*to = uint32(n)
			ok = int64(*to) == n
		}
	case *string:
		want = "a string"
		*to, ok = v.(string)
	case encoding.TextUnmarshaler:
		want = "a string"
		var s string
		if s, ok = v.(string); ok {
			if err := to.UnmarshalText([]byte(s)); err != nil {
				d.complain(where, "%w", err)
			}
		}
	}
	if !ok {
		d.complain(where, "has to be %s", want)
	}
}

// tables is the value of an array of tables, be it written with [[ ]] or inline.
func tables(v any) ([]map[string]any, bool) {
	switch v := v.(type) {
	case []map[string]any:
		return v, true
	case []any:
		list := make([]map[string]any, len(v))
		for i := range v {
			table, ok := v[i].(map[string]any)
			if !ok {
				return nil, false
			}
			list[i] = table
		}
		return list, true
	}
	return nil, false
}

// complain notes a problem with a key.
func (d *document) complain(where, format string, args ...any) {
	d.problems = append(d.problems, d.problem(where, fmt.Errorf(format, args...)))
}

// problem finds the line of what is wrong with a key. One that is not in the file has that of the
// table that it belongs to.
func (d *document) problem(where string, err error) problem {
	p := problem{file: d.file, key: unindexed(where), err: err}
	if d.lines == nil {
		d.findLines()
	}
	for at, ok := where, true; ok && p.line == 0; {
		p.line = d.lines[at]
		i := strings.LastIndexByte(at, '.')
		ok = i >= 0
		at = at[:max(i, 0)]
	}
	return p
}

// findLines finds the line of each key. The parser does not tell, for arrays of tables. So the
// first line is read, the first two, and so on; what is new is on the line behind the last that
// could be read.
func (d *document) findLines() {
	d.lines = map[string]int{}
	read, end := 0, 0
	n := 0
	for line := range strings.Lines(d.text) {
		n++
		end += len(line)
		var tree map[string]any
		if _, err := toml.Decode(d.text[:end], &tree); err != nil {
			continue // in the middle of a value
		}
		d.note("", tree, read+1)
		read = n
	}
}

// note notes the line of all keys that have none yet.
func (d *document) note(path string, v any, line int) {
	if _, ok := d.lines[path]; !ok && path != "" {
		d.lines[path] = line
	}
	if table, ok := v.(map[string]any); ok {
		for name, v := range table {
			d.note(strings.TrimPrefix(path+"."+name, "."), v, line)
		}
	} else if list, ok := tables(v); ok {
		for i, table := range list {
			d.note(fmt.Sprintf("%s[%d]", path, i), table, line)
		}
	}
}

// unindexed is a key without the numbers of tables.
func unindexed(where string) string {
	for {
		before, rest, ok := strings.Cut(where, "[")
		_, after, closed := strings.Cut(rest, "]")
		if !ok || !closed {
			return where
		}
		where = before + after
	}
}

// A problem is something wrong in a file.
type problem struct {
	file string
	line int    // from 1; 0: the file as a whole
	key  string // of a configuration; empty if there is none
	err  error
}

func (p problem) Error() string {
	s := p.file + ":"
	if p.line > 0 {
		s += fmt.Sprintf("%d:", p.line)
	}
	if p.key != "" {
		s += " " + p.key + ":"
	}
	return s + " " + p.err.Error()
}

func (p problem) Unwrap() error { return p.err }

// problems are all that is wrong in a file, a line for each.
type problems []problem

func (ps problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// optional is a value that is nil until there is a text for it.
func optional[T any, P interface {
	*T
	encoding.TextUnmarshaler
}](to **T) encoding.TextUnmarshaler {
	return unmarshalFunc(func(b []byte) error {
		v := new(T)
		if err := P(v).UnmarshalText(b); err != nil {
			return err
		}
		*to = v
		return nil
	})
}

type unmarshalFunc func([]byte) error

func (f unmarshalFunc) UnmarshalText(b []byte) error { return f(b) }

// A separator is a hierarchy separator.
type separator rune

func (s *separator) UnmarshalText(b []byte) error {
	r, size := utf8.DecodeRune(b)
	if size != len(b) || r < '!' || r > '~' || strings.ContainsRune(`"\*%&`, r) {
		return fmt.Errorf(`unknown value %q; allowed: one printable ASCII character, such as "." or "/", but not one of "\*%%&`, b)
	}
	*s = separator(r)
	return nil
}

// An interval is the time between two looks at a directory.
type interval time.Duration

func (i *interval) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil || d < 100*time.Millisecond || d > time.Hour {
		return fmt.Errorf(`unknown value %q; allowed: a time from "100ms" to "1h", such as "5s"`, b)
	}
	*i = interval(d)
	return nil
}

// A specialUse is what a folder is for (RFC 6154 section 2).
type specialUse imap.MailboxAttr

var specialUses = []string{
	string(imap.MailboxAttrAll), string(imap.MailboxAttrArchive), string(imap.MailboxAttrDrafts), string(imap.MailboxAttrFlagged),
	string(imap.MailboxAttrJunk), string(imap.MailboxAttrSent), string(imap.MailboxAttrTrash),
}

func (u *specialUse) UnmarshalText(b []byte) error {
	i := slices.IndexFunc(specialUses, func(s string) bool { return strings.EqualFold(s, string(b)) })
	if i < 0 {
		return fmt.Errorf(`unknown value '%s'; allowed: %s`, b, strings.Join(specialUses, ", "))
	}
	*u = specialUse(specialUses[i])
	return nil
}
