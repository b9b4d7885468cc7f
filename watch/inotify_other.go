//go:build !linux

package watch

import (
	"errors"
	"log/slog"
)

// newInotify fails. fsnotify has kqueue elsewhere, but that needs an open file for each file of a
// directory.
func newInotify(limit int, log *slog.Logger, n *counts) (source, error) {
	return nil, errors.ErrUnsupported
}
