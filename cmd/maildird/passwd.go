package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"golang.org/x/term"
)

type passwdCommand struct {
	Scheme string `enum:"ARGON2ID,BLF-CRYPT,SHA512-CRYPT" default:"ARGON2ID" help:"How to hash: ${enum}."`
	File   string `placeholder:"FILE" help:"Put the hash into this passwd-file, for the user named by -user."`
	User   string `placeholder:"NAME" help:"Whose password it is, with -file."`
}

func (passwdCommand) example() string {
	return "maildird passwd\nmaildird passwd -file /etc/maildird/users -user alice@example.org"
}

func (p *passwdCommand) Run(std *streams) error {
	if (p.File == "") != (p.User == "") {
		return errors.New("passwd: -file and -user belong together")
	}
	text, err := readPassword(std)
	if err != nil {
		return fmt.Errorf("passwd: %w", err)
	}
	field, err := hashPassword(p.Scheme, text)
	if err != nil {
		return fmt.Errorf("passwd: %w", err)
	}
	if p.File == "" {
		_, err = fmt.Fprintln(std.out, field)
		return err
	}
	if err := setPassword(p.File, p.User, field); err != nil {
		return fmt.Errorf("passwd: %w", err)
	}
	_, err = fmt.Fprintf(std.out, "The password of %s is changed.\n", p.User)
	return err
}

// readPassword asks twice on a terminal, and else reads a line.
func readPassword(std *streams) (string, error) {
	fd := int(std.in.Fd())
	if !term.IsTerminal(fd) {
		line, err := bufio.NewReader(std.in).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", err
		}
		return checkText(strings.TrimRight(line, "\r\n"))
	}
	state, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	ctx, stop := untilSignal()
	defer stop()
	defer context.AfterFunc(ctx, func() { // the terminal shows what is typed again
		term.Restore(fd, state)
		os.Exit(1)
	})()
	var texts [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(std.err, prompt)
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(std.err)
		if err != nil {
			return "", err
		}
		texts[i] = string(b)
	}
	if texts[0] != texts[1] {
		return "", errors.New("the two are not the same")
	}
	return checkText(texts[0])
}

func checkText(s string) (string, error) {
	if s == "" {
		return "", errors.New("the password is empty")
	}
	return s, nil
}

// hashPassword makes the second field of a passwd-file.
func hashPassword(scheme, text string) (string, error) {
	var hash algorithm.Hash
	var err error
	switch scheme {
	case "ARGON2ID":
		// 19 MiB, two passes, one lane: the least that OWASP's password storage cheat sheet
		// recommends. The server computes a few at once, also on small machines.
		hash, err = argon2.New(argon2.WithVariantID(), argon2.WithM(19<<10), argon2.WithT(2), argon2.WithP(1))
	case "BLF-CRYPT":
		hash, err = bcrypt.New(bcrypt.WithCost(10))
		if len(text) > bcrypt.PasswordInputSizeMax {
			err = fmt.Errorf("BLF-CRYPT takes passwords of at most %d bytes", bcrypt.PasswordInputSizeMax)
		}
	case "SHA512-CRYPT":
		hash, err = shacrypt.New(shacrypt.WithSHA512(), shacrypt.WithRounds(100_000))
	}
	if err != nil {
		return "", err
	}
	digest, err := hash.Hash(text)
	if err != nil {
		return "", err
	}
	return "{" + scheme + "}" + digest.Encode(), nil
}

// setPassword replaces the password in one line of a passwd-file. At any time the file is the old
// one or the new one; mode and owner stay, and so does every other byte.
func setPassword(file, name, field string) error {
	file, err := filepath.EvalSymlinks(file) // the link stays
	if err != nil {
		return err
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var text strings.Builder
	found := false
	for line := range strings.Lines(string(old)) {
		rest, ok := strings.CutPrefix(line, name+":")
		if !ok || found {
			text.WriteString(line)
			continue
		}
		found = true
		end := strings.IndexAny(rest, ":\r\n")
		if end < 0 {
			end = len(rest)
		}
		text.WriteString(name + ":" + field + rest[end:])
	}
	if !found {
		return fmt.Errorf("%s has no user %q; to add it, put this line into it:\n%s:%s", file, name, name, field)
	}
	return replaceFile(file, text.String())
}

// replaceFile puts a new file in the place of an old one, with its mode and owner.
func replaceFile(file, text string) (err error) {
	fi, err := os.Stat(file)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := keepOwner(f, fi); err != nil {
		return err
	}
	if err := f.Chmod(fi.Mode().Perm()); err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// keepOwner gives a new file the owner and group of the old one.
func keepOwner(f *os.File, old os.FileInfo) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	was, is := old.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
	if was.Uid == is.Uid && was.Gid == is.Gid {
		return nil
	}
	return f.Chown(int(was.Uid), int(was.Gid))
}
