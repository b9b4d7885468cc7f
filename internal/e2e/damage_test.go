package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// Damage of each kind, when maildird has mended it, is none for Dovecot: it says the same of UIDs, keywords
// and subscriptions, and its log complains of nothing. What each mistake becomes is tested in package maildir.
func TestDamageMended(t *testing.T) {
	const guid = "0123456789abcdef0123456789abcdef"
	const list = "3 V1700000000 N10 G" + guid + "\n5 :1000.a\n6 :1001.b\n7 :1002.c\n"
	instead := func(old, now string) string { return strings.Replace(list, old, now, 1) }
	cases := []struct {
		name  string
		files map[string]string
		dir   string // what is a directory
		uids  string // UIDs that there are to be; "": any
		kept  bool   // the UIDVALIDITY is
	}{
		{name: "list-v1", files: map[string]string{"dovecot-uidlist": "1 1700000000 10\n5 1000.a\n6 1001.b\n7 1002.c\n"}, uids: "5 6 7", kept: true},
		{name: "list-v2", files: map[string]string{"dovecot-uidlist": instead("3 V", "2 V")}, uids: "1 2 3"},
		{name: "list-v4", files: map[string]string{"dovecot-uidlist": instead("3 V", "4 V")}, uids: "1 2 3"},
		{name: "list-header", files: map[string]string{"dovecot-uidlist": instead("V1700000000", "V0")}, uids: "1 2 3"},
		{name: "list-low", files: map[string]string{"dovecot-uidlist": instead("N10", "N1")}, uids: "5 6 7", kept: true},
		{name: "list-no-guid", files: map[string]string{"dovecot-uidlist": instead(" G"+guid, "")}, uids: "5 6 7", kept: true},
		{name: "list-keys", files: map[string]string{"dovecot-uidlist": strings.Replace(instead("N10", "N10 Qnew"), "5 :", "5 Znew w6 :", 1)}, uids: "5 6 7", kept: true},
		{name: "list-order", files: map[string]string{"dovecot-uidlist": instead("5 :1000.a\n6 :1001.b\n", "6 :1001.b\n5 :1000.a\n")}, uids: "5 6 7", kept: true},
		{name: "list-zero", files: map[string]string{"dovecot-uidlist": instead("5 :", "0 :")}, uids: "6 7 11", kept: true},
		{name: "list-high", files: map[string]string{"dovecot-uidlist": instead("7 :", "4294967295 :")}, uids: "5 6 11", kept: true},
		{name: "list-last", files: map[string]string{"dovecot-uidlist": instead("7 :", "4294967294 :")}, uids: "1 2 3"},
		{name: "list-twice", files: map[string]string{"dovecot-uidlist": instead("6 :", "5 :")}, uids: "7 11 12", kept: true},
		{name: "list-slash", files: map[string]string{"dovecot-uidlist": instead(":1000.a", ":../1000.a")}, uids: "6 7 11", kept: true},
		{name: "list-crlf", files: map[string]string{"dovecot-uidlist": strings.ReplaceAll(list, "\n", "\r\n")}, uids: "5 6 7", kept: true},
		{name: "list-nuls", files: map[string]string{"dovecot-uidlist": instead("6 :1001.b", strings.Repeat("\x00", 9))}, uids: "5 7 11", kept: true},
		{name: "list-nuls-end", files: map[string]string{"dovecot-uidlist": list + strings.Repeat("\x00", 5000)}, uids: "5 6 7", kept: true},
		{name: "list-cut", files: map[string]string{"dovecot-uidlist": strings.TrimSuffix(list, "002.c\n")}, uids: "5 6 10", kept: true},
		{name: "list-empty", files: map[string]string{"dovecot-uidlist": ""}, uids: "1 2 3"},
		{name: "list-directory", dir: "dovecot-uidlist", uids: "1 2 3"},
		{name: "keywords-twice", files: map[string]string{"dovecot-uidlist": list, "dovecot-keywords": "0 Work\n0 Home\n1 home\n26 x\nno line\n"}, kept: true},
		{name: "keywords-cut", files: map[string]string{"dovecot-uidlist": list, "dovecot-keywords": "0 Work\r\n1 Home"}, kept: true},
		{name: "keywords-nuls", files: map[string]string{"dovecot-uidlist": list, "dovecot-keywords": "0 Wo\x00rk\n1 Home\n\x00\x00\x00"}, kept: true},
		{name: "keywords-directory", files: map[string]string{"dovecot-uidlist": list}, dir: "dovecot-keywords", kept: true},
		{name: "subscriptions-nuls", files: map[string]string{"subscriptions": "INBOX\nNew\x00b\n\x00\x00\x00"}},
		{name: "subscriptions-v2-crlf", files: map[string]string{"subscriptions": "V\t2\r\n\r\nINBOX\r\nNew\tchild\r\n"}},
		{name: "subscriptions-v2-cut", files: map[string]string{"subscriptions": "V\t2\n\nINBOX\nNew\tchi"}},
		{name: "subscriptions-long", files: map[string]string{"subscriptions": "INBOX\n" + strings.Repeat("x", 5000) + "\nNew.child\n"}},
		{name: "subscriptions-directory", dir: "subscriptions"},
		{name: "uidvalidity", files: map[string]string{"dovecot-uidvalidity": "garbage", "dovecot-uidvalidity.ffffffff": "", "dovecot-uidvalidity.65000001": ""}},
	}
	d := peers.StartDovecot(t, "")
	var users []string
	for _, c := range cases {
		root := makeMailbox(t, d.Maildir(t, c.name), ".")
		for name, keyword := range map[string]string{"1000.a": "a", "1001.b": "b", "1002.c": ""} {
			writeFile(t, filepath.Join(root, "cur", name+":2,"+keyword), "Subject: "+name+"\n\n")
		}
		writeFile(t, filepath.Join(root, "dovecot-keywords"), "0 Work\n1 Home\n")
		if c.dir != "" {
			must(t, os.RemoveAll(filepath.Join(root, c.dir)))
			must(t, os.MkdirAll(filepath.Join(root, c.dir, "within"), 0o700))
		}
		for name, text := range c.files {
			writeFile(t, filepath.Join(root, name), text)
		}
		own(t, root)
		users = append(users, c.name)
	}
	s := serveUsers(t, users, d.Location(), "")
	s.tolerate = "set aside and made anew"
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ours := s.client(t, c.name, nil)
			must(t, ours.Create("New.child", nil).Wait())
			must(t, ours.Subscribe("New.child").Wait())
			want, subscribed := lookAtAll(t, ours)
			theirs := client(t, d.Addr, c.name, nil)
			got, gotSubscribed := lookAtAll(t, theirs)
			for _, m := range got { // Dovecot's names for letters without one
				for i := range m.messages {
					m.messages[i].flags = regexp.MustCompile(`unknown-\d+`).ReplaceAllString(m.messages[i].flags, "")
				}
			}
			wantSameMailboxes(t, "Dovecot of what maildird mended", want, got)
			if !slices.Equal(subscribed, gotSubscribed) || !slices.Contains(subscribed, "New.child") {
				t.Errorf("Dovecot: subscribed are %q, and for maildird %q", gotSubscribed, subscribed)
			}
			inbox := want["INBOX"]
			if (inbox.validity == 1700000000) != c.kept {
				t.Errorf("UIDVALIDITY is %d", inbox.validity)
			}
			var uids []string
			for _, m := range inbox.messages {
				uids = append(uids, fmt.Sprint(m.uid))
			}
			if got := strings.Join(uids, " "); c.uids != "" && got != c.uids {
				t.Errorf("UIDs are %s, not %s", got, c.uids)
			}
			// And Dovecot goes on with it.
			_, err := theirs.Select("INBOX", nil).Wait()
			must(t, err)
			store(t, theirs, imap.UIDSet{{Start: 1, Stop: 0}}, imap.StoreFlagsAdd, "third")
			appendMail(t, theirs, "INBOX", otherMail, nil)
			must(t, theirs.Create("Theirs", nil).Wait())
			must(t, theirs.Subscribe("Theirs").Wait())
			want, _ = lookAtAll(t, theirs)
			got, _ = lookAtAll(t, ours)
			wantSameMailboxes(t, "maildird of what Dovecot made of that", want, got)
		})
	}
	d.WantNoComplaint(t)
	for _, line := range regexp.MustCompile(`.*Warning:.*(uidlist|keywords|ubscription).*`).FindAllString(d.Log(t), -1) {
		t.Errorf("dovecot warns: %s", line)
	}
}

// Subscriptions that a newer program wrote are not shown wrong, and not written over: the client is told, and all else
// goes on.
func TestNewerSubscriptions(t *testing.T) {
	_, location := mailDir(t)
	s := serve(t, location, "")
	c := login(t, s.imap, "ada")
	c.ok("CREATE Box")
	const text = "V\t3\n\nBox\x01newer\n"
	file := filepath.Join(s.root("ada"), "subscriptions")
	writeFile(t, file, text)
	c.wantRefused("CORRUPTION", "SUBSCRIBE Box", "UNSUBSCRIBE Box", `LSUB "" *`, `LIST (SUBSCRIBED) "" *`)
	for _, command := range []string{`LIST "" *`, `LIST "" * RETURN (SUBSCRIBED)`} {
		if got := c.ok(command); len(got) != 2 {
			t.Errorf("listed %q", got)
		}
	}
	c.ok("SELECT Box")
	c.ok("CREATE Other")
	c.ok("DELETE Box")
	if got := readFile(t, file); got != text {
		t.Errorf("the file has become %q", got)
	}
}
