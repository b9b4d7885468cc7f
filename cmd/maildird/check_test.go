package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// check tells of certificates that are not valid now.
func TestCheckCertificate(t *testing.T) {
	for want, notAfter := range map[string]time.Time{
		"all is well":                     time.Now().Add(time.Hour),
		"the certificate ended on ":       time.Now().Add(-time.Hour),
		"the certificate is not valid be": time.Now().Add(48 * time.Hour),
	} {
		dir := files(t, "maildird.toml", serveConfig, "users", "")
		cert, key := newPair(t, 1, notAfter)
		write(t, filepath.Join(dir, "cert.pem"), cert)
		write(t, filepath.Join(dir, "key.pem"), key)
		out, err := exec.Command("maildird", "check", "-config", filepath.Join(dir, "maildird.toml")).CombinedOutput()
		if !strings.Contains(string(out), want) || (err == nil) != (want == "all is well") {
			t.Errorf("says %s (%v), want %s", out, err, want)
		}
	}
}

// check tells of a Maildir that is not a directory.
func TestCheckRoot(t *testing.T) {
	dir := files(t, "file", "")
	for root, ok := range map[string]bool{dir: true, filepath.Join(dir, "later/mail"): true, filepath.Join(dir, "file"): false, filepath.Join(dir, "file/mail"): false} {
		if _, err := checkRoot(root, nil); (err == nil) != ok {
			t.Errorf("%s: %v", root, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "later")); err == nil {
		t.Error("check made a directory")
	}
}
