package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maildirdPath is the program under test.
var maildirdPath string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "maildird")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755) // the owner of the mail runs it
	}
	if err == nil {
		maildirdPath = filepath.Join(dir, "maildird")
		build := exec.Command("go", "build", "-race", "-o", maildirdPath, "github.com/imapmaildir/imapmaildir/cmd/maildird")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build maildird:", err)
		return 1
	}
	return m.Run()
}
