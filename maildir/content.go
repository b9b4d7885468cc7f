package maildir

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"
)

// A Content is the bytes of a message with CRLF line ends, whatever ends its lines in the file, and whether
// or not that is compressed. It is open until Close, also when the message is expunged meanwhile. One goroutine
// may use it.
type Content struct {
	f       *os.File
	zip     *unzipper // nil: the file is not compressed, as far as is known
	stamp   Stamp
	raw     int64            // the size of the message as it is stored; more, as long as it is not known
	size    int64            // with CRLF; -1 as long as nobody has asked
	same    bool             // all lines of the file end in CRLF already, as far as is known
	counted func(size int64) // is told the size

	// Where the last reading stopped: the next one mostly goes on from there.
	at, rawAt int64
	cr        bool // the last byte before rawAt is a CR
	half      bool // the CR of a line end was given, its LF not yet
}

// Content opens a message. If its file was renamed meanwhile, it is found again; if the message
// was expunged, what is kept of it serves. Otherwise it returns ErrExpunged.
func (m *Mailbox) Content(ctx context.Context, msg *Message) (*Content, error) {
	_, f, err := m.locate(ctx, msg)
	if err != nil {
		return nil, err
	}
	st, err := statFile(f)
	if err == nil && !st.mode.IsRegular() {
		err = ErrExpunged
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Content{f: f, stamp: newStamp(st), raw: st.size, size: -1, counted: func(size int64) { m.learn(msg, size) }}, nil
}

// A Stamp tells a message's file from another one that was put in its place, as programs do that
// compress mail: what was found out about a file holds as long as its stamp is the same. Flags and
// directories have no part in it.
type Stamp [24]byte

func newStamp(st fileStat) (s Stamp) {
	binary.BigEndian.PutUint64(s[:], st.id.ino)
	binary.BigEndian.PutUint64(s[8:], uint64(st.size))
	binary.BigEndian.PutUint64(s[16:], uint64(st.mtime.Nano()))
	return s
}

// Stamp is the stamp of the file that was opened.
func (c *Content) Stamp() Stamp { return c.stamp }

// Stamp looks at a message's file. It returns ErrExpunged if that is not found; Content may find it.
func (m *Mailbox) Stamp(msg *Message) (Stamp, error) {
	st, err := m.d.stat(msg.path())
	if notExist(err) {
		var f *os.File
		if _, f, err = m.find(msg); err == nil {
			st, err = statFile(f)
			f.Close()
		}
	}
	return newStamp(st), err
}

// locate opens a message's file like find, and looks at the disk first where that is needed.
func (m *Mailbox) locate(ctx context.Context, msg *Message) (path string, f *os.File, err error) {
	path, f, err = m.find(msg)
	if err != ErrExpunged || m.Err() != nil {
		return path, f, err
	}
	if err := m.disk.lock(ctx, lockWait); err != nil {
		return "", nil, err
	}
	s, err := m.syncLocked(ctx, true)
	m.disk.Unlock()
	if errors.Is(err, ErrGone) {
		return "", nil, ErrExpunged
	} else if err != nil {
		return "", nil, err
	}
	if now := s.Find(msg.UID); now != nil {
		msg = now
	} // else another process may have expunged it and kept it for this one
	return m.find(msg)
}

// find opens a message's file, in its place or kept as a ghost.
func (m *Mailbox) find(msg *Message) (path string, f *os.File, err error) {
	path = msg.path()
	f, err = m.d.open(path)
	if notExist(err) {
		if now := m.Snapshot().Find(msg.UID); now != nil && now.path() != path {
			path = now.path()
			f, err = m.d.open(path)
		}
	}
	if notExist(err) {
		if name, ok := m.ghostOf(msg.UID); ok {
			path = name
			f, err = m.d.open(path)
		}
	}
	if notExist(err) {
		return "", nil, ErrExpunged
	}
	return path, f, err
}

// buffers are for reading files. One that came from a pool need not be cleared for each mail.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// read reads the message as it is stored: the file, or what is compressed in it. It may give fewer bytes without
// an error. Whether the file is compressed shows when its first bytes are read, which are read first.
func (c *Content) read(p []byte, off int64) (int, error) {
	if c.zip == nil {
		n, err := c.f.ReadAt(p[:min(int64(len(p)), max(c.raw-off, 0))], off)
		if off > 0 {
			return n, err
		}
		f := formatOf(p[:n])
		if f == nil {
			return n, err
		}
		c.zip, c.raw = unzip(c.f, c.raw, f), math.MaxInt64
	}
	return c.zip.ReadAt(p, off)
}

// Size is the size in bytes with CRLF line ends (RFC822.SIZE). The first call reads the file: its name
// may tell the size, wrongly, and a FETCH announces it before the bytes.
func (c *Content) Size() (int64, error) {
	if c.size >= 0 {
		return c.size, nil
	}
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	var lone int64
	cr := false
	for at := int64(0); at < c.raw; {
		n, err := c.read(buf[:], at)
		if n == 0 && err == io.EOF && c.zip != nil {
			c.raw = at
			break
		}
		if n == 0 && err != nil {
			return 0, err
		}
		for _, x := range buf[:n] {
			if x == '\n' && !cr {
				lone++
			}
			cr = x == '\r'
		}
		at += int64(n)
	}
	c.size = c.raw + lone
	c.same = lone == 0 && c.zip == nil
	c.counted(c.size)
	return c.size, nil
}

// Close closes the file.
func (c *Content) Close() error {
	if c.zip != nil {
		c.zip.free()
		c.zip = nil
	}
	return c.f.Close()
}

// ReadAt implements io.ReaderAt over the bytes with CRLF line ends. Reading on from where the last
// call stopped costs nothing extra; other places are looked for from the start of the file. An error of a
// compressed file (CompressedError) comes after what could be read before.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	if c.same {
		return c.f.ReadAt(p, off)
	}
	if off < c.at {
		c.at, c.rawAt, c.cr, c.half = 0, 0, false, false
	}
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	n := 0
	for n < len(p) {
		if c.half {
			c.half, c.cr = false, false
			c.rawAt++
			n += c.give(p[n:], off, '\n')
			continue
		}
		k, err := c.read(buf[:], c.rawAt)
		if k == 0 {
			if err == nil || err == io.EOF {
				err = io.EOF
			}
			return n, err
		}
		for _, x := range buf[:k] {
			if x == '\n' && !c.cr {
				n += c.give(p[n:], off, '\r')
				if n == len(p) {
					c.half = true
					break
				}
			}
			n += c.give(p[n:], off, x)
			c.rawAt++
			c.cr = x == '\r'
			if n == len(p) {
				break
			}
		}
	}
	return n, nil
}

// give passes one byte on if it is at or after off, and counts it.
func (c *Content) give(p []byte, off int64, x byte) int {
	c.at++
	if c.at <= off {
		return 0
	}
	p[0] = x
	return 1
}

// learn keeps a size that was counted.
func (m *Mailbox) learn(msg *Message, size int64) {
	if msg.size.Swap(size+1) != size+1 {
		if _, w := sizesOf(msg.Key()); w != size {
			m.mu.Lock()
			m.computed = true
			m.mu.Unlock()
		}
	}
}

// Size is a message's size with CRLF line ends. It is told by the file name (when the size of the
// file there agrees with the file, or only unpacking a compressed one could tell), by dovecot-uidlist, or counted.
func (m *Mailbox) Size(ctx context.Context, msg *Message) (int64, error) {
	if n := msg.size.Load(); n > 0 {
		return n - 1, nil
	}
	s, w := sizesOf(msg.Key())
	named := s >= 0 && w >= s
	if named {
		if st, err := m.d.stat(msg.path()); err == nil && st.size == s {
			msg.size.Store(w + 1)
			return w, nil
		}
	}
	c, err := m.Content(ctx, msg)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if named {
		if f, err := formatOfFile(c.f); err != nil {
			return 0, err
		} else if f != nil {
			msg.size.Store(w + 1)
			return w, nil
		}
	}
	return c.Size()
}

// Date is a message's internal date: its file's modification time, in whole seconds as IMAP has it.
func (m *Mailbox) Date(ctx context.Context, msg *Message) (time.Time, error) {
	if n := msg.date.Load(); n != 0 {
		return time.Unix(int64(n), 0), nil
	}
	_, f, err := m.find(msg)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	st, err := statFile(f)
	if err != nil {
		return time.Time{}, err
	}
	date := time.Unix(st.mtime.Unix()).Truncate(time.Second)
	if n := uint32(date.Unix()); int64(n) == date.Unix() { // others are looked up again
		msg.date.Store(n)
	}
	return date, nil
}

// saveSizes writes sizes that were counted to dovecot-uidlist, so that they are counted once.
func (m *Mailbox) saveSizes(ctx context.Context) {
	m.mu.Lock()
	todo := m.computed && m.gone == nil
	m.computed = false
	m.mu.Unlock()
	if !todo {
		return
	}
	if !m.disk.lockUnlessStuck(ctx) {
		return
	}
	defer m.disk.Unlock()
	err := m.locked(ctx, time.Second, func() error {
		l, found, err := m.readList(true)
		if err != nil || l == nil || l.guid == "" || l.damaged { // which the next look mends
			return err
		}
		s := m.Snapshot()
		for i, rec := range l.records {
			msg := s.Find(rec.uid)
			if msg == nil || msg.size.Load() == 0 {
				continue
			}
			if _, w := sizesOf(rec.base); w != msg.size.Load()-1 {
				l.records[i] = rec.withField('W', fmt.Sprint(msg.size.Load()-1))
			}
		}
		if err := m.writeList(l); err != nil || found != m.list {
			return err // what another process has added is still to be read
		}
		return m.knowList()
	})
	if err != nil {
		m.acct.log().Warn("sizes are not kept", "mailbox", m.Name(), "err", err)
	}
}
