package backend_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/imapmaildir/imapmaildir/internal/peers"
	"github.com/imapmaildir/imapmaildir/internal/transcript"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// What we take for the protocol, Dovecot takes for it as well.
func TestDovecot(t *testing.T) {
	servers := map[maildir.Layout]*peers.Dovecot{
		maildir.LayoutMaildirpp: peers.StartDovecot(t, ""),
		maildir.LayoutFS:        peers.StartDovecot(t, ":LAYOUT=fs"),
	}
	for _, d := range servers {
		t.Cleanup(func() { d.WantNoComplaint(t) })
	}
	eachTranscript(t, func(t *testing.T, layout maildir.Layout, s *transcript.Script) {
		if !s.Has("peer") {
			return
		}
		t.Parallel()
		d := servers[layout]
		user := strings.TrimSuffix(filepath.Base(s.Name), ".txt")
		root := d.Maildir(t, user)
		server := transcript.Server{Addr: d.Addr, Root: root, User: user, Password: "pass"}
		sendMail(t, server, s)
		s.Run(t, server)
	})
}
