//go:build unix && !linux

package maildir

import "golang.org/x/sys/unix"

func exchangeAt(int, string, string) error { return unix.ENOSYS }
