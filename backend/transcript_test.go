package backend_test

import (
	"encoding"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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
//	mail NAME [COUNT]       a mailbox with messages that have more to them (message), sent by APPEND
//	layout NAME             maildir++ or fs
//	folder NAME ATTRIBUTE   a folder that each account has
//	peer                    Dovecot answers so too (TestDovecot)
//	unmet                   what we should answer and don't, because of go-imap
func TestTranscripts(t *testing.T) {
	eachTranscript(t, func(t *testing.T, layout maildir.Layout, script *transcript.Script) {
		t.Parallel()
		acct := &backend.Account{Root: filepath.Join(t.TempDir(), "Maildir")}
		acct.Maildir.Layout = layout
		if err := setUp(acct, script); err != nil {
			t.Fatal(err)
		}
		s := serve(t, acct)
		server := transcript.Server{Addr: s.addr, User: "mary", Password: "pass", Root: acct.Root, Verbs: map[string]transcript.Verb{
			"until-gone": func(args ...string) error { return untilGone(filepath.Join(acct.Root, args[0])) },
		}}
		sendMail(t, server, script)
		if !script.Has("unmet") {
			script.Run(t, server)
			return
		}
		var f failure
		done := make(chan struct{})
		go func() {
			defer close(done)
			script.Run(&f, server)
		}()
		<-done
		t.Log(f)
		if f == "" {
			t.Error("this holds: its unmet can go")
		}
	})
}

// A failure is what a transcript fails with that is known not to hold.
type failure string

func (f *failure) Helper()             {}
func (f *failure) Logf(string, ...any) {}
func (f *failure) Fatalf(format string, args ...any) {
	*f = failure(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// eachTranscript calls f in a test of its own for each transcript and each layout it is for.
func eachTranscript(t *testing.T, f func(*testing.T, maildir.Layout, *transcript.Script)) {
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
			t.Run(name, func(t *testing.T) { f(t, layout, script) })
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
		case "layout", "peer", "mail", "ignore", "unmet":
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

// sendMail does what the directives "mail" of a script ask for. It goes over IMAP, so that any
// server can be set up.
func sendMail(t *testing.T, server transcript.Server, s *transcript.Script) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "# Mailboxes of %s.\n", s.Name)
	for _, d := range s.Directives {
		if d.Name != "mail" {
			continue
		}
		count, err := 0, error(nil)
		if len(d.Args) == 2 {
			count, err = strconv.Atoi(d.Args[1])
		}
		if len(d.Args) == 0 || len(d.Args) > 2 || err != nil || count > 59 {
			t.Fatal(s.Errorf(d, "want mail NAME [COUNT], of 59 messages at most"))
		}
		if d.Args[0] != "INBOX" {
			fmt.Fprintf(&b, "C1: CREATE %q\n", d.Args[0])
		}
		for n := 1; n <= count; n++ {
			fmt.Fprintf(&b, "C1: APPEND %q \" 2-Feb-2026 10:%02d:00 +0000\" {%q}\n", d.Args[0], n, message(n))
		}
	}
	script, err := transcript.Parse("mail of "+s.Name, b.String())
	if err != nil {
		t.Fatal(err)
	}
	script.Run(t, server)
}

// message is what "mail" makes message n of. Its internal date is that of its header, its size 160 bytes
// and its body's 20 while n has one digit.
func message(n int) string {
	return fmt.Sprintf("From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Message %d\r\n"+
		"Date: Mon, 02 Feb 2026 10:%02d:00 +0000\r\nMessage-ID: <%d@example.org>\r\n\r\nThis is message %d.\r\n", n, n, n, n)
}
