package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
)

// Clients that go away are no errors of the server.
func TestIMAPLogger(t *testing.T) {
	for _, c := range []struct {
		format string
		err    error
		want   string
	}{
		{"handling %v command: %v", errors.New("disk on fire"), "ERROR"},
		{"handling %v command: %v", io.EOF, "DEBUG"},
		{"handling %v command: %v", &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}, "DEBUG"},
		{"handling %v command: %v", errors.New("utf7: invalid UTF-7"), "DEBUG"},
		{"failed to read command %v: %v", errors.New("in command: expected atom"), "DEBUG"},
	} {
		var b bytes.Buffer
		imapLogger{slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))}.Printf(c.format, "IDLE", c.err)
		if !strings.Contains(b.String(), "level="+c.want) {
			t.Errorf("%v: logged %s", c.err, b.String())
		}
	}
}
