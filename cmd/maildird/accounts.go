package main

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"

	"github.com/imapmaildir/imapmaildir/backend"
)

// accounts tells the backend who may log in; it is its backend.Accounts.
type accounts struct {
	users    *reloaded[*roster]
	brake    *brake
	count    func(result string) // for metrics: "ok", "wrong", "unavailable"
	shared   backend.Account     // what all accounts have in common
	cacheDir string              // "": each account has its cache with the mail

	ending context.Context // done when the server ends: nobody is kept waiting any more
	end    context.CancelFunc
}

// A roster is the users as of one reading of the passwd-file.
type roster struct {
	users  users
	decoys []password // of all users, in an order of their own
	seed   maphash.Seed
}

func newRoster(found users) *roster {
	r := &roster{users: found, seed: maphash.MakeSeed()}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		r.decoys = append(r.decoys, found[name].password)
	}
	return r
}

// decoy is a password to check for a user who doesn't exist, so that it takes as long as for one
// who does. A name has always the same.
func (r *roster) decoy(name string) password {
	if len(r.decoys) == 0 {
		return plain{}
	}
	return r.decoys[maphash.String(r.seed, name)%uint64(len(r.decoys))]
}

// newAccounts reads the passwd-file. What is wrong with its lines is logged, now and whenever it
// changes.
func newAccounts(c *config, log *slog.Logger, count func(result string)) (*accounts, error) {
	load := func() (*roster, error) {
		found, wrong, err := readUsers(c.passwdFile, c.places)
		if err != nil {
			return nil, err
		}
		for _, p := range wrong {
			log.Warn("a line of the passwd-file is broken", "file", p.file, "line", p.line, "err", p.err)
		}
		return newRoster(found), nil
	}
	users, err := newReloaded(log, load, c.passwdFile)
	if err != nil {
		return nil, fmt.Errorf("passwd-file: %w", err)
	}
	a := &accounts{users: users, brake: newBrake(), count: count, shared: c.account(), cacheDir: c.cacheDir}
	a.ending, a.end = context.WithCancel(context.Background())
	return a, nil
}

// Authenticate implements backend.Accounts.
func (a *accounts) Authenticate(ctx context.Context, c *backend.Credentials) (*backend.Account, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ending, cancel)()
	roster := a.users.get()
	u := roster.users.find(c.Username)
	check := roster.decoy(c.Username)
	if u != nil {
		check = u.password
	}
	right, err := a.brake.check(ctx, c.Remote, c.Username, func() bool { return check.Match(c.Password) })
	switch {
	case err != nil:
		a.count("unavailable")
		return nil, fmt.Errorf("authenticate: %w", err)
	case !right || u == nil:
		a.count("wrong")
		a.brake.punish(ctx, c.Remote)
		return nil, backend.ErrAuthFailed
	}
	a.count("ok")
	account := a.shared
	account.User, account.Root = u.name, u.root
	account.Maildir.Inbox, account.Maildir.Control = u.inbox, u.control
	if a.cacheDir != "" {
		account.Cache = filepath.Join(a.cacheDir, url.PathEscape(u.name)+".cache")
	}
	return &account, nil
}
