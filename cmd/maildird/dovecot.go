package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// dovecotDrivers are the formats of mail that Dovecot's mail_location begins with.
var dovecotDrivers = []string{"maildir", "mbox", "mdbox", "sdbox", "dbox", "imapc", "pop3c", "cydir"}

// dovecotOptions are what may follow the path in mail_location, and what is to be done about it: "key", a
// key of [mail] with the same value; or why there is none.
var dovecotOptions = map[string]struct{ key, refused, leftOut string }{
	"CONTROL":       {key: "control"},
	"INBOX":         {key: "inbox"},
	"LAYOUT":        {key: "layout"},
	"UTF-8":         {key: "names"},
	"INDEX":         {leftOut: "Dovecot's indexes are its own"},
	"LISTINDEX":     {leftOut: "Dovecot's indexes are its own"},
	"INDEXCACHE":    {leftOut: "Dovecot's indexes are its own"},
	"VOLATILEDIR":   {leftOut: "the locks there are Dovecot's own"},
	"NO-NOSELECT":   {leftOut: "directories without a mailbox stay"},
	"KEEP-NOSELECT": {leftOut: "directories without a mailbox stay"},
	"BROKENCHAR":    {leftOut: "names that can't be read are shown in their own way"},
	"DIRNAME":       {refused: "mailboxes are found by their cur, without a directory between"},
	"FULLDIRNAME":   {refused: "mailboxes are found by their cur, without a directory between"},
	"MAILBOXDIR":    {refused: "mailboxes are in the root"},
	"SUBSCRIPTIONS": {refused: "the file's name is subscriptions"},
	"INDEXPVT":      {refused: "flags are the same for all users of a mailbox"},
	"ALT":           {refused: "a mailbox is in one place"},
}

// dovecotLocation tells what to write instead of a mail_location of Dovecot's; nil where it is none.
func dovecotLocation(s string) error {
	parts := strings.Split(s, ":")
	driver := ""
	if slices.Contains(dovecotDrivers, parts[0]) {
		driver, parts = parts[0], parts[1:]
	}
	option := func(part string) (name, value string, known bool) {
		name, value, _ = strings.Cut(part, "=")
		_, known = dovecotOptions[name]
		return name, value, known
	}
	if driver == "" && !slices.ContainsFunc(parts[1:], func(p string) bool { _, _, known := option(p); return known }) {
		return nil
	}
	if driver != "" && driver != "maildir" {
		return fmt.Errorf("%q is no Maildir; let Dovecot convert it first (doveadm backup), and name the Maildir", driver+":")
	}
	var write, leftOut, refused []string
	put := func(key, value string) {
		value, unknown := oursOf(value)
		write = append(write, fmt.Sprintf("%s = %q", key, value))
		for _, v := range unknown {
			refused = append(refused, fmt.Sprintf("%s: allowed are %s", v, locationVariables))
		}
	}
	if len(parts) > 0 && parts[0] != "" {
		put("location", parts[0])
	}
	for _, part := range parts[1:] {
		name, value, known := option(part)
		o := dovecotOptions[name]
		switch {
		case part == "":
		case !known:
			refused = append(refused, part+": unknown")
		case o.refused != "":
			refused = append(refused, part+": "+o.refused)
		case o.leftOut != "":
			leftOut = append(leftOut, part+": "+o.leftOut)
		case name == "UTF-8":
			put(o.key, "utf-8")
		case name == "LAYOUT" && value != "fs" && !strings.EqualFold(value, "maildir++"):
			refused = append(refused, part+": allowed are maildir++ and fs")
		case name == "LAYOUT":
			put(o.key, strings.ToLower(value))
		default:
			put(o.key, value)
		}
	}
	text := "is Dovecot's mail_location"
	for _, l := range []struct {
		title string
		list  []string
	}{{"not supported", refused}, {"write instead", write}, {"left out", leftOut}} {
		if len(l.list) > 0 {
			text += "; " + l.title + ": " + strings.Join(l.list, ", ")
		}
	}
	return fmt.Errorf("%q %s", s, text)
}

// dovecotVariable is one of Dovecot's variables: %u, %Lu, %2.1n, %{user}, %{user|lower}.
var dovecotVariable = regexp.MustCompile(`(?s)%(?:\{[^}]*\}?|-?[0-9.]*[LUERXHNMDT]*[a-zA-Z%]|.|$)`)

// ourVariables are our names of Dovecot's variables, without spaces. The names of users are those of the
// passwd-file, which Dovecot reads in lower case.
var ourVariables = map[string]string{
	"%Lu": "%u", "%Ln": "%n", "%Ld": "%d",
	"%{user}": "%u", "%{username}": "%n", "%{domain}": "%d", "%{home}": "%h",
	"%{user|username}": "%n", "%{user|domain}": "%d",
	"%{user|lower}": "%u", "%{user|username|lower}": "%n", "%{user|domain|lower}": "%d",
}

// oursOf is a path with our variables instead of Dovecot's, and those that have no counterpart.
func oursOf(path string) (ours string, unknown []string) {
	ours = dovecotVariable.ReplaceAllStringFunc(path, func(v string) string {
		if our, ok := ourVariables[strings.ReplaceAll(v, " ", "")]; ok {
			return our
		} else if len(v) != 2 || !strings.Contains(locationLetters, v[1:]) {
			unknown = append(unknown, v)
		}
		return v
	})
	return ours, unknown
}
