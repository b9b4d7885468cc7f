//go:build !linux

package watch

import "errors"

// newInotify fails. fsnotify has kqueue elsewhere, but that needs an open file for each file of a
// directory.
func newInotify(overflow func()) (Source, error) {
	return nil, errors.ErrUnsupported
}
