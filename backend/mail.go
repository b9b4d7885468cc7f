package backend

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/imapmaildir/imapmaildir/backend/cache"
	"github.com/imapmaildir/imapmaildir/backend/message"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// cacheFile is the metadata cache in an account's root, unless Account.Cache says otherwise.
const cacheFile = "imapmaildir.cache"

// A mail is one message as a command reads it. What is known of its structure comes from the
// account's cache, and what was found out is put there by close.
type mail struct {
	s   *Session
	msg *maildir.Message

	content *message.Message // nil: not needed yet
	file    *maildir.Content // nil: not opened
	keep    bool             // it stays open: there are pieces of it to come
	cache   *cache.Cache     // nil: it is not to be used
	guid    string
	cached  *message.Structure // nil: it was not in the cache
}

func (s *Session) mail(msg *maildir.Message) *mail { return &mail{s: s, msg: msg} }

// open is the content. Its file is opened only when more is asked for than is known.
func (m *mail) open() *message.Message {
	if m.content != nil {
		return m.content
	}
	if snap := m.s.sel.Snapshot(); snap.GUID != "" { // else the mailbox can't be told from others
		m.guid = snap.GUID
		m.cache = m.s.acct.metadata(snap)
		m.cached = m.find()
	}
	m.content = message.With(func() (message.Source, error) {
		c, err := m.s.sel.open(m.s, m.msg)
		if err != nil {
			return nil, err
		}
		m.file = c
		return c, nil
	}, m.cached)
	return m.content
}

// find is what the cache has of the file that is there now, or nil.
func (m *mail) find() *message.Structure {
	b := m.cache.Get(m.guid, m.msg.Key())
	if b == nil {
		return nil
	}
	stamp, err := m.s.sel.Stamp(m.msg)
	if err != nil || !bytes.HasPrefix(b, stamp[:]) {
		return nil
	}
	st := new(message.Structure)
	if st.UnmarshalBinary(b[len(stamp):]) != nil { // it is another version's
		return nil
	}
	return st
}

func (m *mail) close() {
	if m.content == nil {
		return
	}
	if st := m.content.Parsed(); st != nil && st != m.cached && m.cache != nil {
		if b, err := st.MarshalBinary(); err == nil {
			stamp := m.file.Stamp()
			m.cache.Put(m.guid, m.msg.Key(), append(stamp[:], b...))
		}
	}
	if m.keep && m.file != nil {
		m.s.sel.keepOpen(m.msg, m.file)
		return
	}
	m.content.Close()
}

// unreadable logs that a message can't be read. Others are none the worse for it.
func (s *Session) unreadable(msg *maildir.Message, err error) {
	if !errors.Is(err, maildir.ErrExpunged) {
		s.log.Error("message can't be read", "uid", msg.UID, "err", err)
	}
}

// metadata is the account's cache, opened when it is first needed. It is to forget those messages of
// a mailbox that went while nobody looked: that is seen to once for each mailbox.
func (a *account) metadata(s *maildir.Snapshot) *cache.Cache {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cache == nil {
		a.cache = a.openCache()
		a.tidied = map[string]bool{}
	}
	if !a.tidied[s.GUID] {
		a.tidied[s.GUID] = true
		keys := sync.OnceValue(func() map[string]bool {
			keys := make(map[string]bool, len(s.Messages))
			for _, msg := range s.Messages {
				keys[msg.Key()] = true
			}
			return keys
		})
		a.cache.Retain(s.GUID, func(key string) bool { return keys()[key] })
	}
	return a.cache
}

func (a *account) openCache() *cache.Cache {
	o := &cache.Options{Logger: a.log}
	dir := filepath.Dir(a.cacheFile)
	if dir == a.root { // which is there, or away and not to be made again
		if err := a.MakeFile(filepath.Base(a.cacheFile)); err != nil {
			a.log.Debug("make the file of the metadata cache", "err", err) // the cache complains
		}
	} else {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			a.log.Warn("make the directory of the metadata cache", "err", err)
		}
		if fi, err := os.Stat(dir); err == nil {
			o.Perm = fi.Mode().Perm() & 0o666 // files take the mode of their folder
		}
	}
	return cache.Open(a.cacheFile, o)
}

// forgetMailbox makes the cache forget a mailbox that was deleted.
func (a *account) forgetMailbox(guid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cache != nil && guid != "" {
		a.cache.Forget(guid)
	}
}

func (a *account) closeCache() {
	if a.cache != nil {
		a.cache.Close() // what could not be written is found out again
	}
}
