package main

import (
	"context"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/emersion/go-imap/v2"
	gomaildir "github.com/emersion/go-maildir"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/maildir"
)

type demoCommand struct {
	Dir    string `placeholder:"DIR" type:"path" help:"The Maildir, made if it does not exist and kept. Default: a temporary one, removed at the end."`
	Listen string `default:"127.0.0.1:1143" placeholder:"ADDRESS" help:"Where to listen."`
	Debug  bool   `help:"Log also what is rarely of interest."`
}

func (demoCommand) example() string {
	return "maildird demo -listen 127.0.0.1:2143 -dir /tmp/mail"
}

// The name and the password of the demo's only user.
const demoUser = "demo"

func (d *demoCommand) Run(std *streams) error {
	ctx, stop := untilSignal()
	defer stop()
	root := d.Dir
	if root == "" {
		tmp, err := os.MkdirTemp("", "maildird-demo-")
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		defer os.RemoveAll(tmp)
		root = tmp
	}
	if err := makeDemo(ctx, root); err != nil {
		return fmt.Errorf("demo: %w", err)
	}

	log := newLogger(std.err, false, d.Debug)
	srv, err := newDemoServer(root, d.Listen, log)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("demo: %s is in use by another program; choose another address with -listen, as in\nmaildird demo -listen 127.0.0.1:0", d.Listen)
	} else if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	addr := srv.imap.Addr().String()
	fmt.Fprintf(std.out, `The mail is in %s

Look at it with curl:
  curl --user demo:demo 'imap://%s/INBOX;MAILINDEX=1'

Or with a mail program: IMAP server %s, no encryption,
user name "demo", password "demo".

Ctrl-C ends the demo.
`, root, addr, addr)
	return srv.run(ctx)
}

// newDemoServer makes a server of one account that needs no configuration.
func newDemoServer(root, listen string, log *slog.Logger) (*server, error) {
	s := &server{log: log, metrics: newMetrics()}
	s.start(&backend.Options{Accounts: demoAccounts{root}}, nil, true)
	if err := s.listen(&config{imap: listen}, nil); err != nil {
		return nil, err
	}
	return s, nil
}

// demoAccounts is the one account of the demo.
type demoAccounts struct{ root string }

func (a demoAccounts) Authenticate(_ context.Context, c *backend.Credentials) (*backend.Account, error) {
	if c.Username != demoUser || subtle.ConstantTimeCompare([]byte(c.Password), []byte(demoUser)) != 1 {
		return nil, backend.ErrAuthFailed
	}
	return &backend.Account{User: demoUser, Root: a.root}, nil
}

//go:embed demo/*.eml
var demoMail embed.FS

// demoFolders are the mailboxes of the demo, with the mail in them. The directories are spelled as
// Maildir++ has them, and flags as in file names; "new" stands for mail that nobody has seen, which
// comes last.
var demoFolders = []struct {
	name, dir string
	use       []imap.MailboxAttr
	mail      []struct{ file, flags string }
}{
	{name: "INBOX", dir: ".", mail: []struct{ file, flags string }{
		{"welcome", "F"}, {"plan", "S"}, {"plan-reply", "RS"}, {"plan-floor", "FS"}, {"invoice", ""}, {"lunch", "RS"}, {"forwarded", "new"},
	}},
	{name: "Work", dir: ".Work", mail: []struct{ file, flags string }{{"minutes", "S"}}},
	{name: "Work.2026", dir: ".Work.2026"},
	{name: "Zürich", dir: ".Z&APw-rich", mail: []struct{ file, flags string }{{"zurich", "S"}}},
	{name: "Sent", dir: ".Sent", use: []imap.MailboxAttr{imap.MailboxAttrSent}, mail: []struct{ file, flags string }{{"sent", "S"}}},
	{name: "Drafts", dir: ".Drafts", use: []imap.MailboxAttr{imap.MailboxAttrDrafts}, mail: []struct{ file, flags string }{{"draft", "DS"}}},
	{name: "Trash", dir: ".Trash", use: []imap.MailboxAttr{imap.MailboxAttrTrash}},
}

// makeDemo makes the demo's Maildir. What is a Maildir already stays as it is, and in what is anything
// else nothing is made. Mail comes as from a delivering program, and flags as from another mail program.
func makeDemo(ctx context.Context, root string) error {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && (e.Name() == "cur" || e.Name() == "new") {
			return nil
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is neither empty nor a Maildir; choose another with -dir", root)
	}
	account, err := maildir.Open(root, nil)
	if err != nil {
		return err
	}
	defer account.Close()
	for _, f := range demoFolders {
		dir := filepath.Join(root, f.dir)
		if f.name == "INBOX" {
			err = gomaildir.Dir(dir).Init()
		} else if err = account.Create(ctx, f.name, f.use); err == nil {
			err = account.Subscribe(ctx, f.name, true)
		}
		if err != nil {
			return err
		}
		for _, m := range f.mail {
			if err := deliver(dir, m.file, m.flags); err != nil {
				return err
			}
		}
	}
	return nil
}

// deliver puts a message into new/, and moves it to cur/ if it has flags.
func deliver(dir, file, flags string) error {
	text, err := demoMail.ReadFile("demo/" + file + ".eml")
	if err != nil {
		return err
	}
	d, err := gomaildir.NewDelivery(dir)
	if err != nil {
		return err
	}
	if _, err := d.Write(text); err != nil {
		return errors.Join(err, d.Abort())
	}
	if err := d.Close(); err != nil || flags == "new" {
		return err
	}
	messages, err := gomaildir.Dir(dir).Unseen() // moves them
	if err != nil {
		return err
	}
	for _, m := range messages {
		var letters []gomaildir.Flag
		for _, f := range flags {
			letters = append(letters, gomaildir.Flag(f))
		}
		if err := m.SetFlags(letters); err != nil {
			return err
		}
	}
	return nil
}
