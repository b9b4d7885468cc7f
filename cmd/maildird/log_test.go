package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// Only what needs someone's attention is an error.
func TestIMAPLogger(t *testing.T) {
	for format, want := range map[string]string{
		"panic handling command: %v\n%s":  "ERROR",
		"panic idling: %v\n%s":            "ERROR",
		"handling %v command: %v":         "DEBUG",
		"failed to read command: %v [%v]": "DEBUG",
	} {
		var b bytes.Buffer
		imapLogger{slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))}.Printf(format, "IDLE", "something")
		if !strings.Contains(b.String(), "level="+want) || !strings.Contains(b.String(), "something") {
			t.Errorf("%s: logged %s", format, b.String())
		}
	}
}
