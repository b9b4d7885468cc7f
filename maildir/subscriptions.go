package maildir

import (
	"context"
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
}

// parseSubscriptions reads the file; an empty one counts as version 2.
func parseSubscriptions(r io.Reader, sep string) (*subscriptions, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	s := &subscriptions{version: 1}
	text := string(b)
	if rest, ok := strings.CutPrefix(text, "V\t2\n"); ok {
		s.version, text = 2, strings.TrimPrefix(rest, "\n")
	} else if text == "" {
		s.version = 2
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r")
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
		s.add(line)
	}
	return s, nil
}

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

func readSubscriptions(d *dir, sep string) (*subscriptions, error) {
	f, err := d.open(subsFile)
	if notExist(err) {
		return &subscriptions{version: 2}, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseSubscriptions(f, sep)
}

// updateSubscriptions changes the file. Its lock file becomes the new one, as with Dovecot.
func updateSubscriptions(ctx context.Context, d *dir, sep string, a access, change func(*subscriptions)) error {
	lock := subsFile + ".lock"
	l, err := lockDotfile(ctx, d, lock, dotlockOptions{guarded: subsFile, wait: 120 * time.Second, stale: 30 * time.Second, noOwner: true, access: a})
	if err != nil {
		return err
	}
	s, err := readSubscriptions(d, sep)
	if err == nil {
		old := slices.Clone(s.names)
		if change(s); slices.Equal(old, s.names) {
			return l.unlock()
		}
		_, err = l.f.Write(s.encode(sep))
	}
	if err == nil {
		err = l.f.Sync()
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
