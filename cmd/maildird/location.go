package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// A location says where users have something, their Maildirs first of all: a path in which
//
//	%u  is the user's name
//	%n  what is before its @, or all of it
//	%d  what is behind its @
//	%h  the user's home of the passwd-file; "~/" at the start is "%h/"
//	%%  a percent sign
type location string

// places are where a user's mail is.
type places struct {
	root    location // the Maildir
	inbox   location // of INBOX; empty: the Maildir
	control location // of control files; empty: with the mail
}

const defaultLocation location = "~/Maildir"

const (
	locationVariables = "%u, %n, %d, %h, %%"
	locationLetters   = "undh%"
)

// UnmarshalText refuses what has other variables, and what is Dovecot's, with the words to write instead.
func (l *location) UnmarshalText(b []byte) error {
	s := string(b)
	if s == "" {
		return errors.New("is empty")
	}
	if err := dovecotLocation(s); err != nil {
		return err
	}
	if ours, unknown := oursOf(s); len(unknown) > 0 {
		return fmt.Errorf("unknown variable %q; allowed: %s", unknown[0], locationVariables)
	} else if ours != s {
		return fmt.Errorf("%q has Dovecot's variables; write %q", s, ours)
	}
	*l = location(s)
	return nil
}

// elsewhere is a location that need not be given.
type elsewhere location

func (e *elsewhere) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*e = ""
		return nil
	}
	return (*location)(e).UnmarshalText(b)
}

// within resolves a relative location against a directory.
func (l location) within(dir string) location {
	if l == "" {
		return ""
	}
	if strings.HasPrefix(string(l), "~/") {
		return "%h/" + l[2:]
	}
	if strings.HasPrefix(string(l), "%h") || filepath.IsAbs(string(l)) {
		return l
	}
	return location(filepath.Join(strings.ReplaceAll(dir, "%", "%%"), string(l)))
}

// fixed is the directory that the places of all users are in, as far as it is the same for all: empty if
// that is nothing.
func (l location) fixed() string {
	var b strings.Builder
	for i := 0; i < len(l); i++ {
		if l[i] == '%' {
			if l[i+1] != '%' {
				return strings.TrimSuffix(b.String()[:strings.LastIndex(b.String(), "/")+1], "/")
			}
			i++
		}
		b.WriteByte(l[i])
	}
	return b.String()
}

// of is where the place of one user is, "" if there is none. It fails for a name that would lead to another place
// than one of this user's own, and if the user lacks what the location asks for.
func (l location) of(user, home string) (string, error) {
	if l == "" {
		return "", nil
	}
	name, domain, _ := strings.Cut(user, "@")
	var b strings.Builder
	for i := 0; i < len(l); i++ {
		if l[i] != '%' {
			b.WriteByte(l[i])
			continue
		}
		i++
		var value string
		switch l[i] {
		case '%':
			b.WriteByte('%')
			continue
		case 'h':
			if !filepath.IsAbs(home) {
				return "", fmt.Errorf("home %q is no absolute path, and the location %q asks for one", home, string(l))
			}
			b.WriteString(home)
			continue
		case 'u':
			value = user
		case 'n':
			value = name
		case 'd':
			value = domain
		}
		if err := checkPart(value); err != nil {
			return "", fmt.Errorf("user name %q can't be used in the location %q: %%%c %w", user, string(l), l[i], err)
		}
		b.WriteString(value)
	}
	return filepath.Clean(b.String()), nil
}

// checkPart tells what is wrong with a part of a user's name that becomes part of a path.
func checkPart(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case s[0] == '.':
		return errors.New("begins with a dot")
	case strings.ContainsAny(s, "/\x00"):
		return errors.New("has a slash or a NUL in it")
	}
	return nil
}
