package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io/fs"
	"math"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096
	version  = "1"
)

var (
	formatBucket = []byte("format")
	versionKey   = []byte("version")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

var (
	errInUse   = errors.New("in use")
	errUnsound = errors.New("unsound file")
	errDamaged = errors.New("damaged file") // bbolt panicked; its locks may be held
)

// A store is an open database and the file that it is in.
type store struct {
	*bbolt.DB
	file *os.File
}

// open opens the file at path, or makes it; anew empties it. It returns errInUse if another has it,
// errUnsound or errDamaged if it has to be opened anew.
func open(path string, o *Options, anew bool) (*store, error) {
	s := new(store)
	err := guard(func() (err error) {
		s.DB, err = bbolt.Open(path, o.Perm, &bbolt.Options{
			PageSize:     pageSize,
			MaxSize:      int(min(o.MaxBytes, math.MaxInt)),
			FreelistType: bbolt.FreelistMapType,
			NoStatistics: true,
			Timeout:      1, // ns: one try, though openFile has locked it already; 0 would wait for ever
			OpenFile: func(path string, flag int, perm fs.FileMode) (_ *os.File, err error) {
				s.file, err = openFile(path, flag, perm)
				if err == nil && anew {
					err = s.file.Truncate(0)
				}
				if err == nil {
					err = sound(s.file, o.MaxBytes)
				}
				return s.file, err
			},
		})
		if err != nil {
			return err
		}
		return s.checkVersion()
	})
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, errDamaged):
		s.abandon()
	case s.DB != nil:
		s.Close()
	}
	return nil, err
}

// abandon gives the file back after bbolt panicked. The database stays mapped, for Gets that use it
// and because to close it could take for ever: bbolt's locks may be held.
func (s *store) abandon() {
	unix.Flock(int(s.file.Fd()), unix.LOCK_UN) // the mapping would keep the lock
	s.file.Close()
}

// openFile opens a regular file under an exclusive lock, or returns errInUse. It follows no symbolic
// link.
func openFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	flag |= unix.O_NOFOLLOW
	f, err := os.OpenFile(path, flag|os.O_EXCL, perm)
	if err == nil {
		err = f.Chmod(perm) // whatever the umask
	} else if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(path, flag&^os.O_CREATE, 0)
	}
	if err == nil {
		err = lock(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lock takes the lock that bbolt takes too, so that nobody changes the file while it is looked at.
func lock(f *os.File) error {
	if info, err := f.Stat(); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return errInUse
	}
	return os.NewSyscallError("flock", err)
}

// sound returns errUnsound unless f is empty, or a bbolt file that has all pages which its meta
// pages promise: mapped pages that are not there would be a SIGBUS.
func sound(f *os.File, maxBytes int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	if info.Size() > maxBytes {
		return fmt.Errorf("%w: larger than %d bytes", errUnsound, maxBytes)
	}
	var pages [2 * pageSize]byte
	if _, err := f.ReadAt(pages[:], 0); err != nil {
		return fmt.Errorf("%w: %w", errUnsound, err)
	}
	valid := false
	for _, page := range [][]byte{pages[:pageSize], pages[pageSize:]} {
		// bbolt internal/common/meta.go, behind a page header of 16 bytes: magic, version, page size,
		// flags; root (16 bytes), freelist, number of pages, transaction; FNV-64a of all that.
		meta := page[16:80]
		h := fnv.New64a()
		h.Write(meta[:56])
		ne := binary.NativeEndian
		if ne.Uint32(meta) != 0xED0CDAED || ne.Uint32(meta[4:]) != 2 || ne.Uint32(meta[8:]) != pageSize || ne.Uint64(meta[56:]) != h.Sum64() {
			continue // bbolt does with the other one
		}
		valid = true
		if ne.Uint64(meta[40:]) > uint64(info.Size()/pageSize) {
			return fmt.Errorf("%w: truncated", errUnsound)
		}
	}
	if !valid {
		return fmt.Errorf("%w: no bbolt file", errUnsound)
	}
	return nil
}

// checkVersion returns errUnsound for the file of another program or version, and writes ours into
// an empty one.
func (s *store) checkVersion() error {
	empty := false
	err := s.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(formatBucket)
		first, _ := tx.Cursor().First()
		empty = first == nil
		if !empty && (b == nil || string(b.Get(versionKey)) != version) {
			return fmt.Errorf("%w: foreign or of another version", errUnsound)
		}
		return nil
	})
	if err != nil || !empty {
		return err
	}
	return s.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(formatBucket)
		if err != nil {
			return err
		}
		return b.Put(versionKey, []byte(version))
	})
}

// get returns a copy of the value of a message, or nil.
func (s *store) get(msg id) (value []byte, err error) {
	err = guard(func() error {
		return s.View(func(tx *bbolt.Tx) error {
			if b := tx.Bucket(bucketName(msg.mailbox)); b != nil {
				value = unseal(msg, b.Get([]byte(msg.key)))
			}
			return nil
		})
	})
	return value, err
}

func (s *store) commit(b *batch) error {
	return guard(func() error {
		return s.Update(func(tx *bbolt.Tx) error {
			for _, change := range b.changes {
				if err := change(tx); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// guard calls f and returns errDamaged if it panics or touches memory that isn't there, which is
// what bbolt does on damaged pages.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return f()
}

func bucketName(mailbox string) []byte { return []byte("mailbox " + mailbox) }

func sum(msg id, value []byte) uint32 {
	sum := crc32.Checksum([]byte(msg.mailbox), castagnoli)
	sum = crc32.Update(sum, castagnoli, []byte(msg.key))
	return crc32.Update(sum, castagnoli, value)
}

// seal returns value as it is in the file.
func seal(msg id, value []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, sum(msg, value)), value...)
}

// unseal returns a copy of the value that was sealed, or nil if it isn't whole.
func unseal(msg id, sealed []byte) []byte {
	if len(sealed) < 4 || binary.LittleEndian.Uint32(sealed) != sum(msg, sealed[4:]) {
		return nil
	}
	return append([]byte{}, sealed[4:]...)
}
