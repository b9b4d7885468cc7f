package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/imapmaildir/imapmaildir/backend"
	"github.com/imapmaildir/imapmaildir/maildir"
)

func request(m *metrics, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w
}

func TestMetricsOfCommands(t *testing.T) {
	m := newMetrics()
	for _, err := range []error{
		nil,
		&imap.Error{Type: imap.StatusResponseTypeOK},
		&imap.Error{Type: imap.StatusResponseTypeNo},
		fmt.Errorf("wrapped: %w", &imap.Error{Type: imap.StatusResponseTypeBad}),
		&imap.Error{Type: imap.StatusResponseTypeBye},
		errors.New("SERVERBUG"),
	} {
		m.command(backend.Command{Name: "STORE", Err: err, Took: 3 * time.Millisecond})
	}
	m.command(backend.Command{Name: "IDLE", Took: time.Hour})
	m.ObserveLock(maildir.LockUse{Waited: 3 * time.Millisecond, Held: 7 * time.Millisecond})
	m.ObserveLock(maildir.LockUse{Waited: time.Minute, Err: maildir.ErrLocked})
	body := request(m, "/metrics").Body.String()
	for _, want := range []string{
		`maildird_commands_total{command="STORE",result="OK"} 2`,
		`maildird_commands_total{command="STORE",result="NO"} 2`,
		`maildird_commands_total{command="STORE",result="BAD"} 1`,
		`maildird_commands_total{command="STORE",result="BYE"} 1`,
		`maildird_commands_total{command="IDLE",result="OK"} 1`,
		`maildird_command_duration_seconds_bucket{command="STORE",le="0.0025"} 0`,
		`maildird_command_duration_seconds_bucket{command="STORE",le="0.005"} 6`,
		`maildird_lock_wait_seconds_bucket{result="ok",le="0.0025"} 0`,
		`maildird_lock_wait_seconds_bucket{result="ok",le="0.005"} 1`,
		`maildird_lock_wait_seconds_sum{result="no"} 60`,
		`maildird_lock_held_seconds_count 1`,
		`maildird_lock_held_seconds_bucket{le="0.01"} 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, `duration_seconds_count{command="IDLE"}`) {
		t.Error("the time of IDLE counts")
	}
}

func TestHealthz(t *testing.T) {
	m := newMetrics()
	if got := request(m, "/healthz").Code; got != http.StatusOK {
		t.Errorf("got %d", got)
	}
	m.ending.Store(true)
	if got := request(m, "/healthz").Code; got != http.StatusServiceUnavailable {
		t.Errorf("at the end: got %d", got)
	}
}
