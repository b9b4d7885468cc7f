// Command rfc2180 tells of an IMAP server which of the behaviours of RFC 2180 it shows when several
// sessions use one mailbox: it plays the RFC's scenes with the server, in mailboxes that it makes
// and deletes. Package practice holds the scenes; here are the command line and the output.
//
// # Output
//
// Standard output is the table, a line for each question, then the dialogues that prove its lines, under
// the same questions; with -json it is one object. Errors go to standard error. The exit status is 0
// for a table, whatever it says; 1 if the server could not be asked to the end, or could not be left as
// it was; 2 for a command line that can't be understood.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/imapmaildir/imapmaildir/internal/practice"
)

// options is the command line.
type options struct {
	Addr         string        `required:"" placeholder:"HOST:PORT" help:"The server."`
	User         string        `required:"" placeholder:"NAME" help:"As whom to log in."`
	PasswordFile string        `required:"" placeholder:"FILE" help:"The first line of this file is the password."`
	TLS          bool          `name:"tls" xor:"tls" help:"Encrypt from the first byte, as on port 993."`
	StartTLS     bool          `name:"starttls" xor:"tls" help:"Encrypt by STARTTLS, as on port 143."`
	Insecure     bool          `help:"Take any certificate."`
	Timeout      time.Duration `default:"10s" help:"How long the server may take for an answer (${default})."`
	JSON         bool          `name:"json" help:"Print JSON."`
}

const description = `Tell which of the behaviours of RFC 2180 an IMAP server shows when several sessions use one mailbox.

Mailboxes named rfc2180-... are made for that and deleted; nothing else is touched.`

const example = `
Example:
  rfc2180 -addr imap.example.org:993 -tls -user alice -password-file alice.password
`

func main() { os.Exit(run()) }

func run() int {
	var o options
	parser := kong.Must(&o, kong.Name("rfc2180"), kong.Description(description),
		kong.Help(func(ho kong.HelpOptions, ctx *kong.Context) error {
			err := kong.DefaultHelpPrinter(ho, ctx)
			fmt.Fprint(ctx.Stdout, example)
			return err
		}))
	if _, err := parser.Parse(longFlags(os.Args[1:])); err != nil {
		fmt.Fprintf(os.Stderr, "rfc2180: %v; see rfc2180 --help\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	defer stop()
	if err := o.ask(ctx, os.Stdout); err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(os.Stderr, "rfc2180: %s\n", strings.TrimSuffix(line, "\n"))
		}
		return 1
	}
	return 0
}

// longFlags lets long flags have one dash, as in "-addr".
func longFlags(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			arg = "-" + arg
		}
		out[i] = arg
	}
	return out
}

// ask asks the server and prints what it finds out.
func (o *options) ask(ctx context.Context, out io.Writer) error {
	server, err := o.server()
	if err != nil {
		return err
	}
	report, err := server.Ask(ctx)
	if report == nil {
		return err
	}
	write := writeText
	if o.JSON {
		write = writeJSON
	}
	return errors.Join(err, write(out, report))
}

func (o *options) server() (*practice.Server, error) {
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("-addr: %w", err)
	}
	if o.Timeout <= 0 {
		return nil, fmt.Errorf("-timeout: %v is no time to answer in", o.Timeout)
	}
	password, err := os.ReadFile(o.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("-password-file: %w", err)
	}
	first, _, _ := strings.Cut(string(password), "\n")
	s := &practice.Server{
		Addr:     o.Addr,
		StartTLS: o.StartTLS,
		User:     o.User,
		Password: strings.TrimSuffix(first, "\r"),
		Timeout:  o.Timeout,
	}
	if o.TLS || o.StartTLS {
		s.TLS = &tls.Config{ServerName: host, InsecureSkipVerify: o.Insecure}
	}
	return s, nil
}

func writeJSON(w io.Writer, r *practice.Report) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func writeText(w io.Writer, r *practice.Report) error {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, f := range r.Findings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Section, f.Question, f.Says())
	}
	table.Flush()
	for _, f := range r.Findings {
		fmt.Fprintf(&text, "\n%s %s: %s\n", f.Section, f.Question, f.Says())
		for _, line := range f.Proof {
			fmt.Fprintf(&text, "  %s\n", line)
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}
