package backend_test

import (
	"encoding"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	delivery "github.com/emersion/go-maildir"
	"github.com/fsnotify/fsnotify"
	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/internal/transcript"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// TestTranscripts runs each file of testdata against a server of its own, in both layouts unless it
// names one. What the server is like is said by directives:
//
//	policy KEY=VALUE ...    strategies
//	mailbox NAME COUNT      a mailbox with mail: of message n the subject is n and the body is "n"
//	layout NAME             maildir++ or fs
//	folder NAME ATTRIBUTE   a folder that each account has
//	peer                    Dovecot answers so too (TestDovecot)
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script, err := transcript.Parse(file, string(text))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, layout := range layouts(script) {
			name := strings.TrimSuffix(filepath.Base(file), ".txt") + "/" + layout.String()
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				acct := &backend.Account{Root: filepath.Join(t.TempDir(), "Maildir")}
				acct.Maildir.Layout = layout
				if err := setUp(acct, script); err != nil {
					t.Fatal(err)
				}
				s := serve(t, acct)
				script.Run(t, transcript.Server{Addr: s.addr, User: "mary", Password: "pass", Root: acct.Root, Verbs: map[string]transcript.Verb{
					"until-gone": func(args ...string) error { return untilGone(filepath.Join(acct.Root, args[0])) },
				}})
			})
		}
	}
}

// untilGone waits until no file matches a pattern: what a server does when a client went away no
// response tells.
func untilGone(pattern string) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(pattern)); err != nil {
		return err
	}
	deadline := time.After(30 * time.Second)
	for {
		if files, err := filepath.Glob(pattern); err != nil || len(files) == 0 {
			return err
		}
		select {
		case <-w.Events:
		case <-deadline:
			return fmt.Errorf("%s is still there", pattern)
		}
	}
}

func layouts(s *transcript.Script) []maildir.Layout {
	for _, d := range s.Directives {
		if d.Name == "layout" && d.Args[0] == "fs" {
			return []maildir.Layout{maildir.LayoutFS}
		} else if d.Name == "layout" {
			return []maildir.Layout{maildir.LayoutMaildirpp}
		}
	}
	return []maildir.Layout{maildir.LayoutMaildirpp, maildir.LayoutFS}
}

// setUp does what the directives of a script ask for.
func setUp(acct *backend.Account, s *transcript.Script) error {
	for _, d := range s.Directives {
		var err error
		switch d.Name {
		case "policy":
			if acct.Policy == nil {
				acct.Policy = &policy.Rules{}
			}
			for _, arg := range d.Args {
				if err == nil {
					err = setPolicy(&acct.Policy.Default, arg)
				}
			}
		case "mailbox":
			var n int
			if n, err = strconv.Atoi(d.Args[1]); err == nil {
				err = fill(acct, d.Args[0], n)
			}
		case "folder":
			acct.Folders = append(acct.Folders, backend.Folder{Name: d.Args[0], SpecialUse: "", Subscribe: true})
		case "layout", "peer":
		default:
			err = fmt.Errorf("unknown directive %q", d.Name)
		}
		if err != nil {
			return s.Errorf(d, "%w", err)
		}
	}
	return nil
}

func setPolicy(p *policy.Policy, arg string) error {
	key, value, _ := strings.Cut(arg, "=")
	to, ok := map[string]encoding.TextUnmarshaler{
		"delete":         &p.Delete,
		"rename":         &p.Rename,
		"expunge":        &p.Expunge,
		"fetch_expunged": &p.FetchExpunged,
		"store_expunged": &p.StoreExpunged,
		"copy_expunged":  &p.CopyExpunged,
	}[key]
	if !ok {
		return fmt.Errorf("unknown policy %q", key)
	}
	return to.UnmarshalText([]byte(value))
}

// fill makes a mailbox with n messages, as another program would.
func fill(acct *backend.Account, name string, n int) error {
	dir := acct.Root
	if name != "INBOX" && acct.Maildir.Layout == maildir.LayoutFS {
		dir = filepath.Join(dir, name)
	} else if name != "INBOX" {
		dir = filepath.Join(dir, "."+name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := delivery.Dir(dir).Init(); err != nil {
		return err
	}
	for i := range n {
		d, err := delivery.NewDelivery(dir)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(d, "Subject: %d\n\n%d\n", i+1, i+1); err != nil {
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
	}
	return nil
}
