package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A program is one of those that change the Maildir of TestStress from outside: a process that knows
// nothing of the server, renames and removes without any lock, and tells the test on its standard output
// what it did. It is the binary of these tests (TestMain).
type program struct {
	*rand.Rand
	root    string
	prefix  string // of the names of directories
	out     *bufio.Writer
	letters numbering
	bases   int
	known   map[string]int // numbers of messages, by base name
}

// programKinds are what programs there are, each with its chances to do this or that.
var programKinds = map[string]func(*program) error{
	"deliver": (*program).deliver, // as postfix does
	"mutt":    (*program).mutt,
	"mv":      (*program).mv,
}

// Each message has a number in its subject. What may happen to it is said by the number, so that the test
// knows what has to be there.
const (
	resting   = iota // its flags change, and it goes from new/ to cur/
	wandering        // it is moved from mailbox to mailbox, too
	copied           // and copied
	mortal           // and removed
	removable        // and is in mailboxes that are removed
	numKinds
)

func kindOf(number int) int { return number % numKinds }

// A numbering hands out numbers of messages. Only the first are of those that are never removed.
type numbering struct{ first, n int }

func (l *numbering) next(least int) int {
	for {
		n := l.first + l.n
		l.n++
		if kind := kindOf(n); kind >= least && (kind >= mortal || l.n < 100) {
			return n
		}
	}
}

// The mailboxes: some stay, some are moved about under these names, some come and go.
var (
	staying = []string{"INBOX", "A", "B"}
	moving  = []string{"F1", "F2", "F3"} // of two mailboxes
	passing = []string{"N1", "N2"}
)

// dirOf is a mailbox's directory, from the root. prefix is "." in Maildir++, "" in the layout fs.
func dirOf(prefix, name string) string {
	if name == "INBOX" {
		return "."
	}
	return prefix + name
}

// anyOf is one of all names.
func anyOf(r *rand.Rand, names ...[]string) string {
	all := slices.Concat(names...)
	return all[r.IntN(len(all))]
}

func isPassing(name string) bool { return slices.Contains(passing, name) }

func isMoving(name string) bool { return slices.Contains(moving, name) }

// textOf is a message.
func textOf(number int) string {
	return fmt.Sprintf("From: ada@localhost\nSubject: number %d\n\n%s\n", number, strings.Repeat("x", number%200))
}

var numberLine = regexp.MustCompile(`Subject: number (\d+)\r?\n`)

// runProgram is the whole program: env is its kind, root, prefix, seed, first number, user and group.
func runProgram(env string) error {
	f := strings.Split(env, " ")
	var args [4]int
	for i := range args {
		args[i], _ = strconv.Atoi(f[3+i])
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(args[3]), syscall.Setuid(args[2])); err != nil {
			return err
		}
	}
	p := &program{
		Rand:    rand.New(rand.NewPCG(uint64(args[0]), uint64(args[1]))),
		root:    f[1],
		prefix:  f[2],
		out:     bufio.NewWriter(os.Stdout),
		letters: numbering{first: args[1]},
		known:   map[string]int{},
	}
	orders := make(chan string)
	go func() {
		defer close(orders)
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			orders <- in.Text()
		}
	}()
	for act := programKinds[f[0]]; ; {
		select {
		case _, more := <-orders:
			fmt.Fprintln(p.out, "held")
			if err := p.out.Flush(); err != nil || !more {
				return err
			}
			if _, more = <-orders; !more {
				return nil
			}
		default:
			err := act(p)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
				return err
			}
			if p.IntN(2) == 0 { // now at full speed, now not
				time.Sleep(time.Duration(p.IntN(5000)) * time.Microsecond)
			}
		}
	}
}

func (p *program) dirOf(name string) string { return dirOf(p.prefix, name) }

func (p *program) path(parts ...string) string {
	return filepath.Join(append([]string{p.root}, parts...)...)
}

func (p *program) base(number int) string {
	p.bases++
	base := fmt.Sprintf("%d.P%dQ%d.outside", time.Now().Unix(), os.Getpid(), p.bases)
	p.known[base] = number
	return base
}

// deliver delivers a message.
func (p *program) deliver() error {
	time.Sleep(time.Duration(p.IntN(10)) * time.Millisecond)
	name, least := anyOf(p.Rand, staying, moving, passing), resting
	if isPassing(name) {
		least = removable
	}
	n := p.letters.next(least)
	base := p.base(n)
	tmp := p.path(p.dirOf(name), "tmp", base)
	if err := os.WriteFile(tmp, []byte(textOf(n)), 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, p.path(p.dirOf(name), "new", base)); err != nil {
		return err // the mailbox was moved or removed
	}
	fmt.Fprintln(p.out, "delivered", n)
	return nil
}

// A mailFile is a message as it was when the directory was read.
type mailFile struct {
	dir, part, base, flags string
	number                 int
}

func (f mailFile) path() string { return filepath.Join(f.dir, f.part, f.name()) }

func (f mailFile) name() string {
	if f.part == "new" && f.flags == "" {
		return f.base
	}
	return f.base + ":2," + f.flags
}

// some are up to n files of a mailbox, in no order.
func (p *program) some(name string, n int) ([]mailFile, error) {
	var files []mailFile
	dir := p.dirOf(name)
	for _, part := range []string{"cur", "new"} {
		entries, err := os.ReadDir(p.path(dir, part))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			base, flags, _ := strings.Cut(e.Name(), ":2,")
			files = append(files, mailFile{dir, part, base, flags, 0})
		}
	}
	p.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	var some []mailFile
	for _, f := range files[:min(n, len(files))] {
		number, ok := p.known[f.base]
		if !ok {
			b, err := os.ReadFile(p.path(f.path()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // renamed meanwhile
			} else if err != nil {
				return nil, err
			}
			m := numberLine.FindSubmatch(b)
			if m == nil {
				return nil, fmt.Errorf("%s has no number: %q", f.path(), b)
			}
			number, _ = strconv.Atoi(string(m[1])) // digits
			p.known[f.base] = number
		}
		f.number = number
		some = append(some, f)
	}
	return some, nil
}

// mark gives a message other flags, as a mail program does.
func (p *program) mark(f mailFile) error {
	flag := anyOf(p.Rand, strings.Split("DFRS", ""))
	to := f
	to.part = "cur"
	if strings.Contains(f.flags, flag) {
		to.flags = strings.Replace(f.flags, flag, "", 1)
	} else {
		b := []byte(f.flags + flag)
		slices.Sort(b)
		to.flags = string(b)
	}
	return os.Rename(p.path(f.path()), p.path(to.path()))
}

func (p *program) remove(f mailFile) error {
	err := os.Remove(p.path(f.path()))
	if err == nil {
		fmt.Fprintln(p.out, "removed", f.number)
	}
	return err
}

// move moves a message to another mailbox, without its keywords: letters mean others there.
func (p *program) move(f mailFile, base string) error {
	name := anyOf(p.Rand, staying, moving)
	if kindOf(f.number) == removable {
		name = anyOf(p.Rand, staying, moving, passing)
	}
	to := mailFile{dir: p.dirOf(name), part: "cur", base: base}
	for _, c := range f.flags {
		if c < 'a' {
			to.flags += string(c)
		}
	}
	err := os.Rename(p.path(f.path()), p.path(to.path()))
	if err == nil {
		fmt.Fprintln(p.out, "moved", f.number)
	}
	return err
}

// mutt does to some messages of a mailbox what mail programs do.
func (p *program) mutt() error {
	files, err := p.some(anyOf(p.Rand, staying, staying, moving, passing), 1+p.IntN(40))
	if err != nil {
		return err
	}
	for _, f := range files {
		kind := kindOf(f.number)
		switch n := p.IntN(20); {
		case n == 0 && kind >= copied:
			err = p.move(f, p.base(f.number)) // mail programs name it anew
		case n < 5 && kind >= mortal:
			err = p.remove(f)
		case n < 8 && f.part == "new":
			to := f
			to.part = "cur"
			err = os.Rename(p.path(f.path()), p.path(to.path()))
		default:
			err = p.mark(f)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// mv is mv, rm and mkdir.
func (p *program) mv() error {
	switch p.IntN(40) {
	case 0:
		return os.Rename(p.path(p.dirOf(anyOf(p.Rand, moving))), p.path(p.dirOf(anyOf(p.Rand, moving))))
	case 1:
		return os.RemoveAll(p.path(p.dirOf(anyOf(p.Rand, passing))))
	case 2, 3:
		dir := p.dirOf(anyOf(p.Rand, passing))
		for _, part := range []string{"", "tmp", "new", "cur"} {
			if err := os.Mkdir(p.path(dir, part), 0o700); err != nil && (part == "" || !errors.Is(err, fs.ErrExist)) {
				return err
			}
		}
		return nil
	}
	files, err := p.some(anyOf(p.Rand, staying, moving, passing), 10)
	if err != nil {
		return err
	}
	for _, f := range files {
		switch kind := kindOf(f.number); {
		case kind == wandering:
			err = p.move(f, f.base)
		case kind >= mortal && p.IntN(2) == 0:
			err = p.remove(f)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
