package main

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/imapmaildir/imapmaildir/maildir"
)

type checkCommand struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration file, TOML."`
}

func (checkCommand) example() string { return "maildird check -config /etc/maildird/maildird.toml" }

// Run prints what is wrong, a line each, and fails if there is something. It changes nothing.
func (k *checkCommand) Run(std *streams) error {
	found := 0
	say := func(err error) {
		found++
		fmt.Fprintln(std.out, err)
	}
	c, err := readConfig(k.Config)
	if wrong, ok := errors.AsType[problems](err); ok {
		for _, p := range wrong {
			say(p)
		}
		return errSaid
	} else if err != nil {
		return err
	}
	if c.cert != "" {
		if err := checkCertificate(c, time.Now()); err != nil {
			say(err)
		}
	}
	users, wrong, err := readUsers(c.passwdFile, c.places)
	if err != nil {
		return err
	}
	for _, p := range wrong {
		say(p)
	}
	for root, u := range roots(users) {
		o := c.maildir
		o.Inbox, o.Control = u.inbox, u.control
		wrong, err := checkRoot(root, &o)
		if err != nil {
			say(err)
		}
		for _, p := range wrong {
			say(fmt.Errorf("%s: %v", root, p))
		}
	}
	if found > 0 {
		return errSaid
	}
	_, err = fmt.Fprintf(std.out, "%s: all is well, %d users\n", k.Config, len(users))
	return err
}

// roots are the Maildirs of all users, each once, and one whose it is.
func roots(users users) iter.Seq2[string, *user] {
	seen := map[string]*user{}
	for _, u := range users {
		seen[u.root] = u
	}
	return func(yield func(string, *user) bool) {
		for _, root := range slices.Sorted(maps.Keys(seen)) {
			if !yield(root, seen[root]) {
				return
			}
		}
	}
}

// checkCertificate tells that the certificate is not valid at a time.
func checkCertificate(c *config, now time.Time) error {
	pair, err := loadCertificate(c.cert, c.key)
	if err != nil {
		return err
	}
	leaf := pair.Leaf
	switch {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("%s: the certificate is not valid before %s", c.cert, leaf.NotBefore.Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("%s: the certificate ended on %s", c.cert, leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// checkRoot tells what is wrong with a Maildir. One that does not exist is made when its user logs
// in for the first time.
func checkRoot(root string, o *maildir.Options) ([]maildir.Problem, error) {
	wrong, err := maildir.Check(root, o)
	if errors.Is(err, os.ErrNotExist) {
		return nil, checkPlace(root)
	}
	return wrong, err
}
