package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/imapmaildir/imapmaildir/backend/cache"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/watch"
)

// An account is a root that sessions are logged in to. They share it, and with it each mailbox.
type account struct {
	*maildir.Account
	root     string // the key in Backend.accounts
	places   places
	sessions int // guarded by Backend.mu

	log       *slog.Logger
	cacheFile string

	mu     sync.Mutex      // guards what follows
	cache  *cache.Cache    // nil until it is needed
	tidied map[string]bool // by GUID: the mailboxes that the cache was compared with
}

// places are where an account has what is not in its root.
type places struct{ inbox, control string }

// maxIdle is how many accounts stay open that nobody is logged in to, so that who comes back soon
// finds the mailboxes as they were.
const maxIdle = 32

// open finds or opens the account of a user; release must be called.
func (b *Backend) open(a *Account) (*account, error) {
	root, err := filepath.Abs(a.Root)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	acct := b.accounts[root]
	if acct != nil && !acct.Stands() {
		if err := acct.Away(); err != nil {
			return nil, fmt.Errorf("the account's directory is away: %w", err) // made anew, it would be in the way when that is back
		}
		// Another directory has taken its place. Who is logged in goes on with the old one.
		delete(b.accounts, root)
		if acct.sessions == 0 {
			b.close(acct)
		}
		acct = nil
	}
	if at := (places{a.Maildir.Inbox, a.Maildir.Control}); acct != nil && acct.places != at {
		if acct.sessions > 0 { // whose INBOX is nobody else's
			return nil, fmt.Errorf("it is in use with INBOX in %q and control files in %q, and not in %q and %q",
				acct.places.inbox, acct.places.control, at.inbox, at.control)
		}
		delete(b.accounts, root)
		b.close(acct)
		acct = nil
	}
	if acct == nil {
		o := a.Maildir
		if o.Logger == nil {
			o.Logger = b.opts.Logger.With("root", root)
		}
		if o.Watcher == nil {
			o.Watcher = watcher{b.watcher}
		}
		if o.Locks == nil {
			o.Locks = b.opts.Locks
		}
		m, err := maildir.Open(root, &o)
		if err != nil {
			return nil, err
		}
		acct = &account{
			Account:   m,
			root:      root,
			places:    places{o.Inbox, o.Control},
			log:       o.Logger,
			cacheFile: cmp.Or(a.Cache, filepath.Join(root, cacheFile)),
		}
		b.accounts[root] = acct
	}
	if acct.sessions == 0 {
		b.idle = slices.DeleteFunc(b.idle, func(other *account) bool { return other == acct })
	}
	acct.sessions++
	return acct, nil
}

// A watcher is a watch.Watcher as package maildir wants one.
type watcher struct{ w *watch.Watcher }

func (w watcher) Watch(dir string, hint func(name string)) maildir.Watching {
	return w.w.Watch(dir, func(h watch.Hint) { hint(h.Name) })
}

// release lets an account go.
func (b *Backend) release(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.sessions--
	switch {
	case a.sessions > 0:
	case b.accounts[a.root] != a:
		b.close(a)
	default:
		b.idle = append(b.idle, a)
		b.closeIdle(maxIdle)
	}
}

// closeIdle closes the accounts that have been idle longest, but for the last keep.
func (b *Backend) closeIdle(keep int) {
	for len(b.idle) > keep {
		a := b.idle[0]
		delete(b.accounts, a.root)
		b.close(a)
	}
}

// close closes an account that has no sessions. The caller holds mu.
func (b *Backend) close(a *account) {
	b.idle = slices.DeleteFunc(b.idle, func(other *account) bool { return other == a })
	b.scans += a.Scans()
	a.closeCache()
	if err := a.Close(); err != nil {
		b.opts.Logger.Warn("close account", "root", a.root, "err", err)
	}
}

// makeFolders makes the folders that each account has, where they are missing.
func (a *account) makeFolders(ctx context.Context, folders []Folder) error {
	if len(folders) == 0 {
		return nil
	}
	entries, err := a.List()
	if err != nil {
		return err
	}
	have := make(map[string]bool, len(entries))
	for _, e := range entries {
		have[e.Name] = e.Selectable
	}
	for _, f := range folders {
		if have[f.Name] {
			continue
		}
		err := a.Create(ctx, f.Name, specialUse(f))
		if errors.Is(err, maildir.ErrMailboxExists) {
			continue // another session was faster
		} else if err != nil {
			return err
		}
		if f.Subscribe {
			if err := a.Subscribe(ctx, f.Name, true); err != nil {
				return err
			}
		}
	}
	return nil
}
