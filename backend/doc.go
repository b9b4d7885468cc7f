// Package backend serves Maildirs to go-imap's imapserver.
package backend
