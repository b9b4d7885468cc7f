package transcript

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/emersion/go-maildir"
)

// A maildirRoot is a user's mail directory as other programs find it.
type maildirRoot string

func diskVerbs(root string) map[string]Verb {
	d := maildirRoot(root)
	return map[string]Verb{
		"deliver": d.deliver,
		"rm":      d.rm,
		"mv":      d.mv,
		"touch":   d.touch,
		"flags":   d.flags,
		"shell":   d.shell,
	}
}

func wrongArguments(usage string) error { return fmt.Errorf("want arguments %s", usage) }

// dir is the directory of a mailbox.
func (d maildirRoot) dir(mailbox string) string {
	if mailbox == "" || mailbox == "INBOX" {
		return string(d)
	}
	nested := filepath.Join(string(d), mailbox)
	if fi, err := os.Stat(nested); err == nil && fi.IsDir() {
		return nested
	}
	return filepath.Join(string(d), "."+mailbox)
}

// path is where a file is or shall be.
func (d maildirRoot) path(p string) string {
	dir, name := filepath.Split(p)
	dir = filepath.Clean(dir)
	switch sub := filepath.Base(dir); sub {
	case "cur", "new", "tmp":
		mailbox := filepath.Dir(dir)
		if mailbox == "." {
			mailbox = ""
		}
		return filepath.Join(d.dir(mailbox), sub, name)
	}
	if dir == "." {
		dir = ""
	}
	return filepath.Join(d.dir(dir), name)
}

// files are the files that a path names, one at least.
func (d maildirRoot) files(p string) ([]string, error) {
	path := d.path(p)
	name := filepath.Base(path)
	if strings.Trim(name, "0123456789") == "" {
		base, err := uidBase(filepath.Join(filepath.Dir(filepath.Dir(path)), "dovecot-uidlist"), name)
		if err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if b, _, _ := strings.Cut(e.Name(), ":"); b == base {
				return []string{filepath.Join(filepath.Dir(path), e.Name())}, nil
			}
		}
		return nil, fmt.Errorf("%s: the message is not there", p)
	}
	files, err := filepath.Glob(path)
	if err == nil && files == nil {
		err = fmt.Errorf("%s: no such file", p)
	}
	return files, err
}

// uidBase is the base name of the message with a UID.
func uidBase(uidlist, uid string) (string, error) {
	f, err := os.Open(uidlist)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		fields, name, ok := strings.Cut(in.Text(), " :")
		if first, _, _ := strings.Cut(fields, " "); ok && first == uid {
			base, _, _ := strings.Cut(name, ":")
			return base, nil
		}
	}
	return "", fmt.Errorf("UID %s is not in dovecot-uidlist", uid)
}

func (d maildirRoot) deliver(args ...string) error {
	if len(args) > 2 {
		return wrongArguments("[MAILBOX [SUBJECT]]")
	}
	mailbox, text := "", "Delivered"
	if len(args) > 0 {
		mailbox = args[0]
	}
	if len(args) > 1 {
		text = args[1]
	}
	if !strings.Contains(text, "\n") {
		text = "From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: " + text + "\r\n\r\nHello\r\n"
	}
	del, err := maildir.NewDelivery(d.dir(mailbox))
	if err != nil {
		return err
	}
	// Delivery agents write the line ends of their system.
	if _, err := io.WriteString(del, strings.ReplaceAll(text, "\r\n", "\n")); err != nil {
		del.Abort()
		return err
	}
	return del.Close()
}

func (d maildirRoot) rm(args ...string) error {
	if len(args) == 0 {
		return wrongArguments("PATH ...")
	}
	for _, a := range args {
		files, err := d.files(a)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d maildirRoot) mv(args ...string) error {
	if len(args) != 2 {
		return wrongArguments("PATH NEWPATH")
	}
	files, err := d.files(args[0])
	if err != nil {
		return err
	}
	for _, f := range files {
		to := args[1]
		if strings.HasSuffix(to, "/") {
			to += filepath.Base(f)
		}
		if err := os.Rename(f, d.path(to)); err != nil {
			return err
		}
	}
	return nil
}

func (d maildirRoot) touch(args ...string) error {
	if len(args) == 0 {
		return wrongArguments("PATH ...")
	}
	for _, a := range args {
		files, err := d.files(a)
		if err != nil {
			f, err := os.OpenFile(d.path(a), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
			if err != nil {
				return err
			}
			f.Close()
			continue
		}
		for _, f := range files {
			now := time.Now()
			if err := os.Chtimes(f, now, now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d maildirRoot) flags(args ...string) error {
	if len(args) != 2 {
		return wrongArguments("PATH LETTERS")
	}
	files, err := d.files(args[0])
	if err != nil {
		return err
	}
	for _, f := range files {
		base, _, _ := strings.Cut(filepath.Base(f), ":")
		to := filepath.Join(filepath.Dir(filepath.Dir(f)), "cur", base+":2,"+args[1])
		if err := os.Rename(f, to); err != nil {
			return err
		}
	}
	return nil
}

func (d maildirRoot) shell(args ...string) error {
	if len(args) != 1 {
		return wrongArguments("COMMAND, as one Go string")
	}
	cmd := exec.Command("sh", "-ec", args[0])
	cmd.Dir = string(d)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
