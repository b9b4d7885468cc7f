package main

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

type serveCommand struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration file, TOML."`
	Log    string `enum:"text,json" default:"text" help:"The form of the log on standard error: text or json."`
	Debug  bool   `help:"Log also what is rarely of interest, such as clients that go away."`
}

func (serveCommand) example() string { return "maildird serve -config /etc/maildird/maildird.toml" }

func (s *serveCommand) Run(std *streams) error {
	ctx, stop := untilSignal()
	defer stop()
	log := newLogger(std.err, s.Log == "json", s.Debug)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	c, err := readConfig(s.Config)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		log.Warn("running as root; run it as the user that owns the mail")
	}
	// All that is made gets the mode of its folder. With another umask it has it a moment later, and Dovecot complains
	// of a lock of another user that it may not look at.
	syscall.Umask(0)
	log.Info("starting", "version", version(), "config", s.Config)
	srv, err := newServer(c, log)
	if err != nil {
		return err
	}
	go func() {
		for {
			select {
			case <-hangup:
				srv.reload()
			case <-ctx.Done():
				return
			}
		}
	}()
	return srv.run(ctx)
}

// newLogger makes a log; its lines never hold passwords or mail.
func newLogger(w io.Writer, json, debug bool) *slog.Logger {
	o := &slog.HandlerOptions{}
	if debug {
		o.Level = slog.LevelDebug
	}
	if json {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
