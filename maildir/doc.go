// Package maildir keeps mailboxes as Maildirs that other programs use at the same time.
package maildir
