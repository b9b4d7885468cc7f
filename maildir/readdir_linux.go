package maildir

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// eachEntry calls visit for each entry of an open directory and tells whether it is a regular
// file, and its inode. The names are cut from large strings: who keeps one copies it. os.File.ReadDir, as in
// readdir_other.go, makes two allocations for each entry.
func eachEntry(f *os.File, visit func(name string, regular bool, ino uint64)) error {
	// struct linux_dirent64 (getdents64(2)): inode 8 bytes, offset 8, length of the record 2,
	// type 1, name with a NUL after it.
	const lengthAt, typeAt, nameAt = 16, 18, 19
	buf := make([]byte, 64<<10)
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Getdents(int(f.Fd()), buf)
			return err
		})
		if err != nil {
			return &os.PathError{Op: "getdents", Path: f.Name(), Err: err}
		}
		if n <= 0 {
			return nil
		}
		text := string(buf[:n])
		for at := 0; at < n; {
			end := at + int(binary.NativeEndian.Uint16(buf[at+lengthAt:]))
			name, _, _ := strings.Cut(text[at+nameAt:end], "\x00")
			regular := buf[at+typeAt] == unix.DT_REG
			if buf[at+typeAt] == unix.DT_UNKNOWN { // not every file system tells
				var st unix.Stat_t
				err := retry(func() error { return unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
				regular = err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
			}
			if name != "." && name != ".." {
				visit(name, regular, binary.NativeEndian.Uint64(buf[at:]))
			}
			at = end
		}
	}
}
