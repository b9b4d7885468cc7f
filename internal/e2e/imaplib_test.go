package e2e

import (
	"net"
	"testing"
)

// Python's imaplib lives through the life of a mailbox, over STARTTLS.
func TestImaplib(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	host, port, err := net.SplitHostPort(s.imap)
	if err != nil {
		t.Fatal(err)
	}
	run(t, nil, "python3", "testdata/lifecycle.py", host, port, s.cert, "ada", "pass")
}
