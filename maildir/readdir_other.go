//go:build !linux

package maildir

import (
	"io"
	"os"
)

// eachEntry calls visit for each entry of an open directory and tells whether it is a regular
// file. The inodes are not told.
func eachEntry(f *os.File, visit func(name string, regular bool, ino uint64)) error {
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			visit(e.Name(), e.Type().IsRegular(), 0)
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
