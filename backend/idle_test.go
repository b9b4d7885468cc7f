package backend_test

import (
	"io"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-maildir"
)

// A mail that another program delivers reaches a client in IDLE.
func TestIdleDelivery(t *testing.T) {
	s := serve(t, nil)
	exists := make(chan uint32, 10)
	c, err := imapclient.DialInsecure(s.addr, &imapclient.Options{
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(data *imapclient.UnilateralDataMailbox) {
				if data.NumMessages != nil {
					exists <- *data.NumMessages
				}
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("mary", "pass").Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatal(err)
	}
	d, err := maildir.NewDelivery(s.root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(d, "Subject: Hello\n\nWorld\n"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := <-exists; n != 1 {
		t.Errorf("told of %d messages", n)
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Wait(); err != nil {
		t.Error(err)
	}
}
