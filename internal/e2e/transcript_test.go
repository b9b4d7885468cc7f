package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	delivery "github.com/emersion/go-maildir"
	"github.com/fsnotify/fsnotify"

	"github.com/imapmaildir/imapmaildir/internal/peers"
	"github.com/imapmaildir/imapmaildir/internal/transcript"
)

// A scenario is a transcript in one layout.
type scenario struct {
	*transcript.Script
	user   string // the file's name, mostly: each scenario has an account of its own
	layout string
	apart  bool // C2 has another process than the others
}

// scenarios are the files of transcripts, each in both layouts unless it names one, and with one
// process and with two if it says so.
func scenarios(t *testing.T) (all []scenario) {
	t.Helper()
	files, err := filepath.Glob("transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script, err := transcript.Parse(file, string(text))
		if err != nil {
			t.Error(err)
			continue
		}
		layouts := []string{"maildir++", "fs"}
		for _, d := range script.Directives {
			if d.Name == "layout" {
				layouts = d.Args
			}
		}
		user := strings.TrimSuffix(filepath.Base(file), ".txt")
		for _, layout := range layouts {
			all = append(all, scenario{script, user, layout, false})
			if script.Has("processes") {
				all = append(all, scenario{script, user + "-apart", layout, true})
			}
		}
	}
	return all
}

func (s scenario) name() string { return s.user + "/" + s.layout }

// TestTranscripts runs each file of transcripts against maildird. What maildird is like is said by
// directives:
//
//	policy [MATCH] KEY=VALUE ...   strategies, for all mailboxes or for those that MATCH
//	mailbox NAME COUNT             a mailbox with mail: of message n the subject is n and the body is "n"
//	mail NAME [COUNT]              a mailbox with messages that have more to them (message), sent by APPEND
//	layout NAME                    maildir++ or fs
//	folder NAME                    a folder that each account has
//	processes                      it holds as well when C2 has another maildird than the others
//	peer                           Dovecot answers so too (TestDovecotTranscripts)
//	unmet                          what we should answer and don't, because of go-imap
func TestTranscripts(t *testing.T) { runTranscripts(t, "") }

// All holds as well where directories are polled.
func TestTranscriptsPolled(t *testing.T) {
	runTranscripts(t, "\n[watch]\npoll = true\ninterval = '100ms'\n")
}

func runTranscripts(t *testing.T, more string) {
	all := scenarios(t)
	var users []string
	for _, s := range all {
		users = append(users, s.user)
	}
	slices.Sort(users)
	users = slices.Compact(users)

	servers := map[string]*server{} // by configuration; those of a layout share the Maildirs
	locations := map[string]string{}
	serve := func(process int, layout, config string) *server {
		if locations[layout] == "" {
			_, locations[layout] = mailDir(t)
		}
		key := fmt.Sprint(process, config)
		if servers[key] == nil {
			servers[key] = serveUsers(t, users, locations[layout], config)
		}
		return servers[key]
	}
	for _, s := range all {
		t.Run(s.name(), func(t *testing.T) {
			config, err := s.config()
			if err != nil {
				t.Fatal(err)
			}
			config += more
			first := serve(1, s.layout, config)
			server := transcript.Server{Addr: first.imap, User: s.user, Password: "pass", Root: first.root(s.user)}
			if s.apart {
				server.Others = []string{serve(2, s.layout, config).imap}
			}
			t.Parallel()
			server.Made = func() error { own(t, server.Root); return nil }
			server.Verbs = map[string]transcript.Verb{
				"until-gone": func(args ...string) error { return untilGone(filepath.Join(server.Root, args[0])) },
			}
			if err := s.fill(server.Root); err != nil {
				t.Fatal(err)
			}
			own(t, filepath.Dir(server.Root))
			s.sendMail(t, server)
			if !s.Has("unmet") {
				s.Run(t, server)
			} else if f := failing(s, server); f == "" {
				t.Error("this holds: its unmet can go")
			} else {
				t.Log(f)
			}
		})
	}
}

// What we take for the protocol, Dovecot takes for it as well.
func TestDovecotTranscripts(t *testing.T) {
	servers := map[string]*peers.Dovecot{
		"maildir++": peers.StartDovecot(t, ""),
		"fs":        peers.StartDovecot(t, ":LAYOUT=fs"),
	}
	for _, d := range servers {
		t.Cleanup(func() { d.WantNoComplaint(t) })
	}
	for _, s := range scenarios(t) {
		if !s.Has("peer") || s.apart {
			continue
		}
		t.Run(s.name(), func(t *testing.T) {
			t.Parallel()
			d := servers[s.layout]
			server := transcript.Server{Addr: d.Addr, User: s.user, Password: "pass", Root: d.Maildir(t, s.user)}
			s.sendMail(t, server)
			s.Run(t, server)
		})
	}
}

// A failure is what a transcript fails with that is known not to hold.
type failure string

func (f *failure) Helper()             {}
func (f *failure) Logf(string, ...any) {}
func (f *failure) Fatalf(format string, args ...any) {
	*f = failure(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// failing runs a scenario and returns why it fails, "" if it doesn't.
func failing(s scenario, server transcript.Server) (f failure) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(&f, server)
	}()
	<-done
	return f
}

// config is what the directives say, for the configuration file. It begins in the table [mail].
func (s scenario) config() (string, error) {
	mail, folders := fmt.Sprintf("layout = %q\n", s.layout), ""
	general, exceptions := "", ""
	for _, d := range s.Directives {
		switch d.Name {
		case "policy":
			table := &general
			args := d.Args
			if !strings.Contains(args[0], "=") {
				table = &exceptions
				exceptions += fmt.Sprintf("[[policy.mailbox]]\nmatch = %q\n", args[0])
				args = args[1:]
			}
			for _, arg := range args {
				key, value, _ := strings.Cut(arg, "=")
				*table += fmt.Sprintf("%s = %q\n", key, value)
			}
		case "folder":
			folders += fmt.Sprintf("[[mail.folder]]\nname = %q\nsubscribe = true\n", d.Args[0])
		case "mailbox", "layout", "peer", "mail", "ignore", "unmet", "processes":
		default:
			return "", s.Errorf(d, "unknown directive %q", d.Name)
		}
	}
	return mail + folders + "[policy]\n" + general + exceptions, nil
}

// fill does what the directives "mailbox" ask for, as another program would.
func (s scenario) fill(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	for _, d := range s.Directives {
		if d.Name != "mailbox" {
			continue
		}
		dir := root
		if name := d.Args[0]; name != "INBOX" && s.layout == "fs" {
			dir = filepath.Join(root, name)
		} else if name != "INBOX" {
			dir = filepath.Join(root, "."+name)
		}
		n, err := strconv.Atoi(d.Args[1])
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err == nil {
			err = delivery.Dir(dir).Init()
		}
		for i := 1; i <= n && err == nil; i++ {
			err = deliver(dir, fmt.Sprintf("Subject: %d\n\n%d\n", i, i))
		}
		if err != nil {
			return s.Errorf(d, "%w", err)
		}
	}
	return nil
}

func deliver(dir, mail string) error {
	d, err := delivery.NewDelivery(dir)
	if err != nil {
		return err
	}
	if _, err := d.Write([]byte(mail)); err != nil {
		return err
	}
	return d.Close()
}

// sendMail does what the directives "mail" ask for. It goes over IMAP, so that any server can be
// set up.
func (s scenario) sendMail(t *testing.T, server transcript.Server) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "# Mailboxes of %s.\n", s.Name)
	for _, d := range s.Directives {
		if d.Name != "mail" {
			continue
		}
		count, err := 0, error(nil)
		if len(d.Args) == 2 {
			count, err = strconv.Atoi(d.Args[1])
		}
		if len(d.Args) == 0 || len(d.Args) > 2 || err != nil || count > 59 {
			t.Fatal(s.Errorf(d, "want mail NAME [COUNT], of 59 messages at most"))
		}
		if d.Args[0] != "INBOX" {
			fmt.Fprintf(&b, "C1: CREATE %q\n", d.Args[0])
		}
		for n := 1; n <= count; n++ {
			fmt.Fprintf(&b, "C1: APPEND %q \" 2-Feb-2026 10:%02d:00 +0000\" {%q}\n", d.Args[0], n, mail(n))
		}
	}
	script, err := transcript.Parse("mail of "+s.Name, b.String())
	if err != nil {
		t.Fatal(err)
	}
	script.Run(t, server)
}

// mail is what "mail" makes message n of. Its internal date is that of its header, its size 160 bytes
// and its body's 20 while n has one digit.
func mail(n int) string {
	return fmt.Sprintf("From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Message %d\r\n"+
		"Date: Mon, 02 Feb 2026 10:%02d:00 +0000\r\nMessage-ID: <%d@example.org>\r\n\r\nThis is message %d.\r\n", n, n, n, n)
}

// untilGone waits until no file matches a pattern: what a server does when a client went away no
// response tells.
func untilGone(pattern string) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(pattern)); err != nil {
		return err
	}
	deadline := time.After(patience)
	for {
		if files, err := filepath.Glob(pattern); err != nil || len(files) == 0 {
			return err
		}
		select {
		case <-w.Events:
		case <-deadline:
			return fmt.Errorf("%s is still there", pattern)
		}
	}
}
