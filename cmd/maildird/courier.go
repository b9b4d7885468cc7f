package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/imapmaildir/imapmaildir/maildir"
)

type importCommand struct {
	Courier importCourierCommand `cmd:"" help:"Take over UIDs, keywords and subscriptions from Courier-IMAP."`
}

type exportCommand struct {
	Courier exportCourierCommand `cmd:"" help:"Give Courier-IMAP UIDs, keywords and subscriptions."`
}

type importCourierCommand struct{ moveFlags }
type exportCourierCommand struct{ moveFlags }

func (importCourierCommand) example() string {
	return "maildird import courier -config /etc/maildird/maildird.toml -n"
}

func (exportCourierCommand) example() string {
	return "maildird export courier -config /etc/maildird/maildird.toml -n"
}

func (i *importCourierCommand) Run(std *streams) error { return i.run(std, maildir.ImportCourier) }
func (e *exportCourierCommand) Run(std *streams) error { return e.run(std, maildir.ExportCourier) }

// moveFlags say which Maildirs are moved.
type moveFlags struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration file, TOML."`
	User   string `placeholder:"NAME" help:"Only this user's; else those of all users."`
	DryRun bool   `short:"n" help:"Only tell what would be done."`
}

// A moveFunc is maildir.ImportCourier or its like.
type moveFunc func(ctx context.Context, root string, o *maildir.Options, dry bool) ([]maildir.Move, error)

// run prints what is done, a line each, and fails if something was left out.
func (f *moveFlags) run(std *streams, move moveFunc) error {
	ctx, stop := untilSignal()
	defer stop()
	c, err := readConfig(f.Config)
	if err != nil {
		return err
	}
	users, wrong, err := readUsers(c.passwdFile, c.places)
	if err != nil {
		return err
	}
	u := users.find(f.User)
	switch {
	case f.User != "" && u != nil:
		users = map[string]*user{u.name: u}
	case len(wrong) > 0:
		return wrong
	case f.User != "":
		return fmt.Errorf("%s: no user %q", c.passwdFile, f.User)
	}
	refused := false
	for root, u := range roots(users) {
		o := c.maildir
		o.Inbox, o.Control = u.inbox, u.control
		moves, err := f.moveOne(ctx, root, &o, move)
		for _, m := range moves {
			fmt.Fprintf(std.out, "%s: %s\n", root, m)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			fmt.Fprintf(std.out, "%s: left as it is: %v\n", root, err)
		}
		refused = refused || err != nil || slices.ContainsFunc(moves, func(m maildir.Move) bool { return m.Refused })
	}
	if f.DryRun {
		fmt.Fprintln(std.out, "Nothing was changed.")
	}
	if refused {
		return errSaid
	}
	return nil
}

// moveOne moves one Maildir. Whoever does that owns what is made in it, which has to be the owner of the mail.
func (f *moveFlags) moveOne(ctx context.Context, root string, o *maildir.Options, move moveFunc) ([]maildir.Move, error) {
	fi, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if owner := int(fi.Sys().(*syscall.Stat_t).Uid); owner != os.Geteuid() && !f.DryRun {
		return nil, fmt.Errorf("it belongs to the user with uid %d: run this as that user, such as with sudo -u '#%[1]d'", owner)
	}
	return move(ctx, root, o, f.DryRun)
}
