package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// A user is one line of the passwd-file, in Dovecot's form:
//
//	name:{SCHEME}hash:uid:gid:gecos:home:shell:extra fields
//
// What is behind the password may be missing. uid, gid, gecos and shell are not used: the server
// runs as the one user that owns the mail. Empty lines and those that begin with "#" say nothing.
type user struct {
	name     string
	password password
	home     string
	root     string // the Maildir
	inbox    string // of INBOX; "": root
	control  string // of control files; "": with the mail
	line     int    // in the file
}

// users are the users of a passwd-file by name.
type users map[string]*user

// find looks for the name as it is, and then in lower case, as Dovecot's default does.
func (u users) find(name string) *user {
	if found := u[name]; found != nil {
		return found
	}
	return u[strings.ToLower(name)]
}

// readUsers reads a passwd-file. A broken line is a problem and no user; it does not keep the others
// from being read. The error says that there is nothing at all.
func readUsers(file string, p places) (users, problems, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	found := users{}
	var wrong problems
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		u, err := parseUser(line, p)
		if err == nil && found[u.name] != nil {
			err = fmt.Errorf("user %q is on line %d already", u.name, found[u.name].line)
		}
		if err != nil {
			wrong = append(wrong, problem{file: file, line: n, err: err})
			continue
		}
		u.line = n
		found[u.name] = u
	}
	return found, wrong, nil
}

func parseUser(line string, p places) (*user, error) {
	fields := strings.SplitN(line, ":", 8)
	name := fields[0]
	switch {
	case len(fields) < 2:
		return nil, errors.New("has no colon; a line is name:{SCHEME}hash:uid:gid:gecos:home")
	case name == "":
		return nil, errors.New("user name is empty")
	case !utf8.ValidString(name):
		return nil, fmt.Errorf("user name %q is not UTF-8", name)
	}
	u := &user{name: name}
	var err error
	if u.password, err = parsePassword(fields[1]); err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	if len(fields) > 5 {
		u.home = fields[5]
	}
	if len(fields) > 7 {
		if err := checkExtra(fields[7]); err != nil {
			return nil, fmt.Errorf("user %q: %w", name, err)
		}
	}
	for _, place := range []struct {
		of location
		to *string
	}{{p.root, &u.root}, {p.inbox, &u.inbox}, {p.control, &u.control}} {
		if *place.to, err = place.of.of(name, u.home); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// checkExtra refuses extra fields that would be wrong to ignore: those that say who may not log in
// ("nologin", "allow_nets"), and those that say where the mail is.
func checkExtra(extra string) error {
	for _, field := range strings.Fields(extra) {
		name, _, _ := strings.Cut(field, "=")
		if !strings.HasPrefix(name, "userdb_") || name == "userdb_mail" || name == "userdb_home" {
			return fmt.Errorf("extra field %q is not supported; allowed: userdb_ fields, which are ignored, except userdb_mail and userdb_home", name)
		}
	}
	return nil
}
