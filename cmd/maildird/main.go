// Command maildird is an IMAP server for Maildirs that other programs use at the same time. It
// puts the packages of this module together and holds nothing of IMAP itself.
//
// # Commands
//
// There is one file for each: serve.go, demo.go, check.go, courier.go (import and export), passwd.go,
// version.go. main.go reads
// the command line and turns errors into words and an exit status: 0 for success, 1 for failure,
// 2 for a command line that can't be understood.
//
// # What it is made of
//
//	config.go    maildird.toml, read so that all its mistakes are told at once, each with its line
//	location.go  where a user's Maildir is
//	users.go     the passwd-file
//	scheme.go    the forms of passwords in it
//	accounts.go  who may log in: users, and the brake on wrong passwords (brake.go)
//	reload.go    files that are read again when they change: certificates and the passwd-file
//	server.go    listeners and go-imap servers, their begin and end
//	metrics.go   what Prometheus is told
//
// # Output
//
// What a command was asked for goes to standard output; everything else, logs and errors, to
// standard error. Passwords and mail are never written to either.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Serve mail as a configuration file says."`
	Demo    demoCommand    `cmd:"" help:"Serve a small Maildir with sample mail, to try things out."`
	Check   checkCommand   `cmd:"" help:"Tell what is wrong with a configuration and the Maildirs it names; change nothing."`
	Import  importCommand  `cmd:"" help:"Take over what another server knows of Maildirs, before the first login here."`
	Export  exportCommand  `cmd:"" help:"Give another server what is known of Maildirs, to move back to it."`
	Passwd  passwdCommand  `cmd:"" help:"Hash a password for the passwd-file."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

const description = "An IMAP server for Maildirs that other programs use at the same time."

// streams are what a command reads and writes.
type streams struct {
	in       *os.File
	out, err io.Writer
}

func main() { os.Exit(run()) }

func run() int {
	std := &streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	parser := kong.Must(&commands{},
		kong.Name("maildird"), kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Help(help),
		kong.Bind(std))
	command, err := parser.Parse(longFlags(os.Args[1:]))
	if err != nil {
		complain(std.err, fmt.Errorf("%w; see maildird --help", err))
		return 2
	}
	if err := command.Run(); err != nil {
		complain(std.err, err)
		return 1
	}
	return 0
}

// untilSignal is done at the first SIGINT or SIGTERM; the second one ends the process at once.
func untilSignal() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// longFlags lets long flags have one dash, as in "-config". There are no combined short ones.
func longFlags(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if arg == "--" {
			copy(out[i:], args[i:])
			break
		}
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			arg = "-" + arg
		}
		out[i] = arg
	}
	return out
}

// help prints what kong knows about a command, and an example of its use.
func help(o kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(o, ctx); err != nil {
		return err
	}
	example := "maildird demo"
	if node := ctx.Selected(); node != nil {
		if c, ok := node.Target.Addr().Interface().(interface{ example() string }); ok {
			example = c.example()
		}
	}
	_, err := fmt.Fprintf(ctx.Stdout, "\nExample:\n  %s\n", strings.ReplaceAll(example, "\n", "\n  "))
	return err
}

// errSaid is an error whose words were written already.
var errSaid = errors.New("failed")

// complain writes each line of an error.
func complain(w io.Writer, err error) {
	if errors.Is(err, errSaid) {
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "maildird: %s\n", strings.TrimSuffix(line, "\n"))
	}
}
