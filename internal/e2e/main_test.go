package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The programs under test.
var maildirdPath, rfc2180Path string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	if env := os.Getenv(programEnv); env != "" {
		if err := runProgram(env); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if err := readSource(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "maildird")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755) // the owner of the mail runs it
	}
	if err == nil {
		maildirdPath, rfc2180Path = filepath.Join(dir, "maildird"), filepath.Join(dir, "rfc2180")
		build := exec.Command("go", "build", "-race", "-o", dir, "../../cmd/maildird", "../../cmd/rfc2180")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return m.Run()
}

// readSource looks at all directories of maildird's source. The program is built here and not
// imported: go test knows only by this that a result is not to be taken from its cache when the
// source has changed.
func readSource() error {
	return filepath.WalkDir(filepath.Join("..", ".."), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	})
}
