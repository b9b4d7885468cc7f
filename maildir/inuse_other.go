//go:build !linux

package maildir

import "os"

// There are no locks of open file descriptions here: processes don't know of each other.

func lockByte(*os.File, int64) error { return nil }

func lockedBytes(*os.File) ([]int64, error) { return nil, nil }
