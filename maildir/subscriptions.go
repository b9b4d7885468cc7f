package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const subsFile = "subscriptions"

// subscriptions are the names in the file of that name, as they are spelled on disk. Version 1 has
// one name a line; version 2 starts with "V<TAB>2" and an empty line, puts a TAB for the hierarchy
// separator and escapes TABs within a part (Dovecot subscription-file.c).
type subscriptions struct {
	version int
	names   []string // storage names, in the file's order
	odd     bool     // the file spells them as encode does not, and maybe Dovecot can't read it
}

// parseSubscriptions reads the file; an empty one counts as version 2. Lines that can be no name are told and left
// out, or what of them can be none. The error is a *FormatError if the file is of another version: what a newer
// program wrote is neither shown wrong nor written over.
func parseSubscriptions(r io.Reader, sep string) (s *subscriptions, problems []*FormatError, err error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, err
	}
	s = &subscriptions{version: 1}
	if len(b) == 0 {
		s.version = 2
	}
	n := 0
	seen := map[string]bool{}
	for line := range strings.SplitSeq(string(b), "\n") {
		n++
		line = strings.TrimRight(line, "\r")
		if version, ok := strings.CutPrefix(line, "V\t"); ok && n == 1 {
			if version != "2" {
				return nil, nil, &FormatError{subsFile, 1, fmt.Sprintf("version %.20q; 1 and 2 are known", version)}
			}
			s.version = 2
			continue
		}
		if name, _, ok := strings.Cut(line, "\x00"); ok { // where the name ends for Dovecot, too
			problems = append(problems, &FormatError{subsFile, n, fmt.Sprintf("%.60q has a NUL", line)})
			line = name
		}
		if len(line) > maxSubscription {
			problems = append(problems, &FormatError{subsFile, n, fmt.Sprintf("%.60q is too long for a name", line)})
			line = ""
		}
		if line == "" {
			continue
		}
		if s.version == 2 {
			parts := strings.Split(line, "\t")
			for i := range parts {
				parts[i] = tabUnescape.Replace(parts[i])
			}
			line = strings.Join(parts, sep)
		}
		if line = storageINBOX(line); !seen[line] {
			seen[line] = true
			s.names = append(s.names, line)
		}
	}
	s.odd = !bytes.Equal(b, s.encode(sep))
	return s, problems, nil
}

// maxSubscription is how long a line may be; Dovecot reads no file with a longer one.
const maxSubscription = 4096

// Dovecot's str_tabescape.
var (
	tabEscape   = strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\n", "\x01n", "\r", "\x01r", "\x00", "\x010")
	tabUnescape = strings.NewReplacer("\x011", "\x01", "\x01t", "\t", "\x01n", "\n", "\x01r", "\r", "\x010", "\x00")
)

func (s *subscriptions) encode(sep string) []byte {
	var b strings.Builder
	if s.version == 2 {
		b.WriteString("V\t2\n\n")
	}
	for _, name := range s.names {
		if s.version == 2 {
			parts := strings.Split(name, sep)
			for i := range parts {
				parts[i] = tabEscape.Replace(parts[i])
			}
			name = strings.Join(parts, "\t")
		}
		b.WriteString(name + "\n")
	}
	return []byte(b.String())
}

func (s *subscriptions) has(name string) bool { return slices.Contains(s.names, storageINBOX(name)) }

func (s *subscriptions) add(name string) {
	if name = storageINBOX(name); !slices.Contains(s.names, name) {
		s.names = append(s.names, name)
	}
}

func (s *subscriptions) remove(name string) {
	name = storageINBOX(name)
	s.names = slices.DeleteFunc(s.names, func(n string) bool { return n == name })
}

func storageINBOX(name string) string {
	if strings.EqualFold(name, "INBOX") {
		return "INBOX"
	}
	return name
}

// readSubscriptions reads the file, and what is wrong there.
func (a *Account) readSubscriptions() (*subscriptions, []*FormatError, error) {
	f, err := a.control.root.openFile(subsFile)
	if fe, ok := errors.AsType[*FormatError](err); ok {
		return &subscriptions{version: 2}, []*FormatError{fe}, nil
	} else if notExist(err) {
		return &subscriptions{version: 2}, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return parseSubscriptions(f, a.opts.storageSeparator())
}

// updateSubscriptions changes the file. Its lock file becomes the new one, as with Dovecot.
func (a *Account) updateSubscriptions(ctx context.Context, change func(*subscriptions)) error {
	acc, err := a.mail.access()
	if err != nil {
		return err
	}
	d, lock := a.control.root, subsFile+".lock"
	l, err := lockDotfile(ctx, d, lock, dotlockOptions{
		guarded: subsFile, wait: 120 * time.Second, stale: 30 * time.Second, noOwner: true, access: acc, waiting: tellLong(ctx),
	})
	if err != nil {
		return err
	}
	s, problems, err := a.readSubscriptions()
	if err == nil {
		old := slices.Clone(s.names)
		if change(s); slices.Equal(old, s.names) && !s.odd && len(problems) == 0 {
			return l.unlock()
		}
		_, err = l.f.Write(s.encode(a.opts.storageSeparator()))
	}
	if err == nil {
		err = l.f.Sync()
	}
	if err == nil && len(problems) > 0 {
		err = mend(a.log(), d, subsFile, problems)
	}
	if err == nil && l.held() {
		if err = d.rename(lock, subsFile); err == nil {
			l.forget()
			return l.f.Close()
		}
	}
	if uerr := l.unlock(); err == nil {
		err = uerr
	}
	return err
}

// Subscriptions are the names that LSUB shows, whether or not there is such a mailbox.
func (a *Account) Subscriptions() ([]string, error) {
	s, problems, err := a.readSubscriptions()
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		if a.control.first(p.Error()) {
			a.log().Warn("damage", "err", p)
		}
	}
	var names []string
	for _, storage := range s.names {
		name, _ := a.opts.mailboxName(storage)
		names = append(names, name)
	}
	return names, nil
}

// Subscribe adds a name to the subscriptions or takes it away; there need not be such a mailbox.
func (a *Account) Subscribe(ctx context.Context, name string, on bool) error {
	storage, err := a.opts.storageName(name)
	if err != nil {
		if found, ferr := a.storageOf(name); ferr == nil {
			storage = found
		} else {
			return err
		}
	}
	return a.updateSubscriptions(ctx, func(s *subscriptions) {
		if on {
			s.add(storage)
		} else {
			s.remove(storage)
		}
	})
}
