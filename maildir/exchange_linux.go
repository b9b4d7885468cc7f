package maildir

import "golang.org/x/sys/unix"

// exchangeAt is renameat2 with RENAME_EXCHANGE.
func exchangeAt(dir int, a, b string) error {
	return unix.Renameat2(dir, a, dir, b, unix.RENAME_EXCHANGE)
}
