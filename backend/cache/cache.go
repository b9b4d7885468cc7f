package cache

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	defaultMaxBytes = 1 << 30
	maxWaiting      = 4 << 20     // bytes that wait in memory; as many may be on their way to the disk
	overhead        = 200         // bytes that a change takes itself, about
	linger          = time.Second // how long the first change waits for others, unless there are many
)

// Options are the options of a Cache. The zero value is ready to use.
type Options struct {
	// MaxBytes limits the size of the file; 0 is 1 GiB. A file that would become larger is made
	// anew. A message takes about 2 KB.
	MaxBytes int64
	// Perm are the permissions of a file that is made, whatever the umask; 0 is 0600.
	Perm fs.FileMode
	// Logger hears of files that can't be used or were made anew; nil is slog.Default().
	Logger *slog.Logger
}

// A Cache is one open file. Its methods may be called by several goroutines at once.
type Cache struct {
	path    string        // immutable, as is what follows
	opts    Options       // defaults are filled in
	work    chan struct{} // has a token when something waits
	hurry   chan struct{} // has a token when much waits
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when the writer has ended

	warned bool  // the log was told that nothing can be written; only the writer uses it
	err    error // of the last commit, then of closing; only the writer uses it until done is closed

	mu      sync.Mutex // guards the fields below; not held during I/O
	store   *store     // nil: nothing is remembered
	waiting *batch
	writing *batch // what the writer is committing
	closed  bool
}

// An id names a message.
type id struct{ mailbox, key string }

// A batch is a list of changes, and what Get has to know of them.
type batch struct {
	changes   []func(*bbolt.Tx) error // in the order they were asked for
	size      int                     // bytes, about
	puts      map[id][]byte
	forgotten map[string]bool // mailboxes whose messages in the file don't count any more
}

func newBatch() *batch {
	return &batch{puts: make(map[id][]byte), forgotten: make(map[string]bool)}
}

// Open opens the file at path, or makes it. It never fails: a Cache that can't have its file
// remembers nothing. It waits for no other process and follows no symbolic link. o may be nil.
func Open(path string, o *Options) *Cache {
	c := &Cache{
		path:    path,
		work:    make(chan struct{}, 1),
		hurry:   make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		waiting: newBatch(),
		writing: newBatch(),
	}
	if o != nil {
		c.opts = *o
	}
	if c.opts.MaxBytes <= 0 {
		c.opts.MaxBytes = defaultMaxBytes
	}
	if c.opts.Perm == 0 {
		c.opts.Perm = 0o600
	}
	if c.opts.Logger == nil {
		c.opts.Logger = slog.Default()
	}
	c.opts.Logger = c.opts.Logger.With("cache", path)

	s, err := open(path, &c.opts, false)
	if errors.Is(err, errUnsound) || errors.Is(err, errDamaged) {
		c.opts.Logger.Warn("metadata cache is made anew", "err", err)
		s, err = open(path, &c.opts, true)
	}
	c.logWithout(err)
	c.store = s
	go c.write()
	return c
}

// Get returns what was put under a key of a mailbox, or nil if that isn't known. The bytes belong
// to the caller.
func (c *Cache) Get(mailbox, key string) []byte {
	msg := id{mailbox, key}
	c.mu.Lock()
	for _, b := range []*batch{c.waiting, c.writing} {
		if value, ok := b.puts[msg]; ok || b.forgotten[mailbox] {
			c.mu.Unlock()
			return bytes.Clone(value)
		}
	}
	s := c.store
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	value, err := s.get(msg)
	if errors.Is(err, errDamaged) {
		c.drop(s, err)
	}
	return value
}

// Put remembers value under a key of a mailbox. It does not wait for the disk, and Get finds the
// value at once. Nothing is remembered of an empty key, of keys of 32 KiB, and while 4 MiB wait for
// the disk: what was put before stays then. value is copied.
func (c *Cache) Put(mailbox, key string, value []byte) {
	if key == "" || max(len(key), len(bucketName(mailbox))) > bbolt.MaxKeySize {
		return
	}
	msg := id{mailbox, key}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := overhead + len(mailbox) + len(key) + len(value)
	if !c.roomLocked(size) {
		return
	}
	value = append([]byte{}, value...) // nil would say that it isn't known
	c.waiting.puts[msg] = value
	c.addLocked(size, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketName(mailbox))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), seal(msg, value))
	})
}

// Retain forgets the keys of a mailbox that keep returns false for. It returns at once: keep is
// called later, on another goroutine, for keys that were put before Retain was called, perhaps more
// than once; it must not wait for a call of Close. While 4 MiB wait for the disk, Retain does nothing.
func (c *Cache) Retain(mailbox string, keep func(key string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := overhead + len(mailbox)
	if !c.roomLocked(size) {
		return
	}
	c.addLocked(size, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketName(mailbox))
		if b == nil {
			return nil
		}
		var gone [][]byte // a cursor loses its way when its bucket changes
		err := b.ForEach(func(key, _ []byte) error {
			if !keep(string(key)) {
				gone = append(gone, bytes.Clone(key))
			}
			return nil
		})
		for _, key := range gone {
			err = cmp.Or(err, b.Delete(key))
		}
		return err
	})
}

// Forget forgets all keys of a mailbox.
func (c *Cache) Forget(mailbox string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.roomLocked(0) {
		return
	}
	maps.DeleteFunc(c.waiting.puts, func(msg id, _ []byte) bool { return msg.mailbox == mailbox })
	c.waiting.forgotten[mailbox] = true
	c.addLocked(0, func(tx *bbolt.Tx) error {
		err := tx.DeleteBucket(bucketName(mailbox))
		if errors.Is(err, bolterrors.ErrBucketNotFound) {
			return nil
		}
		return err
	})
}

// Close writes what waits and closes the file, after which nothing is remembered. It returns why
// that could not be done, which the caller need not care about. A second Close returns the same.
func (c *Cache) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.closing)
	}
	c.mu.Unlock()
	<-c.done
	return c.err
}

// roomLocked reports whether a change of a size can be taken.
func (c *Cache) roomLocked(size int) bool {
	return c.store != nil && !c.closed && c.waiting.size+size <= maxWaiting
}

func (c *Cache) addLocked(size int, change func(*bbolt.Tx) error) {
	c.waiting.changes = append(c.waiting.changes, change)
	c.waiting.size += size
	give(c.work)
	if c.waiting.size > maxWaiting/2 {
		give(c.hurry)
	}
}

func give(token chan struct{}) {
	select {
	case token <- struct{}{}:
	default: // there is one
	}
}

// write is the goroutine that writes the file. What goes wrong there ends in less being remembered.
func (c *Cache) write() {
	defer close(c.done)
	for closing := false; !closing; {
		select {
		case <-c.work:
			select {
			case <-time.After(linger):
			case <-c.hurry:
			case <-c.closing:
			}
		case <-c.closing:
			closing = true
		}
		c.flush()
	}
	c.mu.Lock()
	s := c.store
	c.store = nil
	c.mu.Unlock()
	if s != nil {
		c.err = cmp.Or(c.err, s.Close())
	}
}

// flush commits what waits. What can't be committed is forgotten.
func (c *Cache) flush() {
	c.mu.Lock()
	s, b := c.store, c.waiting
	c.writing, c.waiting = b, newBatch()
	c.mu.Unlock()

	if s != nil && len(b.changes) > 0 {
		c.commit(s, b)
	}
	c.mu.Lock()
	c.writing = newBatch()
	c.mu.Unlock()
}

func (c *Cache) commit(s *store, b *batch) {
	c.err = s.commit(b)
	if errors.Is(c.err, bolterrors.ErrMaxSizeReached) {
		c.opts.Logger.Info("metadata cache is full; it is made anew", "bytes", c.opts.MaxBytes)
		if s, c.err = c.renew(s); s == nil {
			return
		}
		c.err = s.commit(b)
	}
	switch {
	case errors.Is(c.err, errDamaged):
		c.drop(s, c.err)
	case c.err != nil && !c.warned:
		c.warned = true
		c.opts.Logger.Warn("metadata cache can't be written; what is new is not remembered", "err", c.err)
	}
}

// renew puts an empty store in the place of s.
func (c *Cache) renew(s *store) (*store, error) {
	s.Close() // waits for each Get that uses it
	s, err := open(c.path, &c.opts, true)
	c.logWithout(err)
	c.mu.Lock()
	c.store = s
	c.mu.Unlock()
	return s, err
}

// drop removes a damaged store and goes on without.
func (c *Cache) drop(s *store, err error) {
	c.mu.Lock()
	first := c.store == s
	if first {
		c.store = nil
	}
	c.mu.Unlock()
	if first {
		c.opts.Logger.Warn("metadata cache is damaged; it is removed, going on without", "err", err)
		os.Remove(c.path)
		s.abandon()
	}
}

// logWithout tells why there is no store.
func (c *Cache) logWithout(err error) {
	switch {
	case errors.Is(err, errInUse):
		c.opts.Logger.Info("metadata cache is in use elsewhere; going on without")
	case err != nil:
		c.opts.Logger.Warn("metadata cache can't be used; going on without", "err", err)
	}
}
