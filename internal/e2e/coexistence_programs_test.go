package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creack/pty"

	"github.com/imapmaildir/imapmaildir/internal/peers"
)

// The programs of TestCoexistence. Each does a step at a time and returns when it has done it.

// lmtp delivers by Dovecot's LMTP.
func (st *stress) lmtp(d *peers.Dovecot) worker {
	return worker{name: "lmtp", step: func(w *worker) {
		n := w.letters.next(resting)
		d.SendLMTP(st.t, "ada", textOf(n))
		st.came(n)
	}}
}

// postfix delivers by Postfix.
func (st *stress) postfix(home string) worker {
	p := peers.StartPostfix(st.t, home, "ada")
	sent := 0
	return worker{name: "postfix", step: func(w *worker) {
		n := w.letters.next(resting)
		p.Send(st.t, "ada", textOf(n))
		sent++
		for deadline := time.Now().Add(patience); strings.Count(p.Log(st.t), "status=sent") < sent; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				st.t.Errorf("postfix does not deliver:\n%s", p.Log(st.t))
				return
			}
		}
		st.came(n)
	}}
}

// maildrop delivers by maildrop.
func (st *stress) maildrop() worker {
	return worker{name: "maildrop", step: func(w *worker) {
		n := w.letters.next(resting)
		peers.Maildrop(st.t, st.root, anyOf(w.Rand, staying), textOf(n))
		st.came(n)
	}}
}

// mutt is a mutt or neomutt that opens a mailbox by its directory. It flags, deletes, saves to other mailboxes,
// and writes its changes; now in one go, now with time in between in which others change the same messages. It is told all
// when it starts: keys that are pressed later may meet a question.
func (st *stress) mutt(program string) worker {
	peers.Need(st.t, program)
	home := peers.Dir(st.t)
	rc := filepath.Join(home, "rc")
	writeFile(st.t, rc, fmt.Sprintf(`
set mbox_type=Maildir
set folder=%[1]q
set spoolfile=%[1]q
set record=""
set sort=mailbox-order
set timeout=1
set mail_check=0
set sleep_time=0
set delete=yes
set move=no
set confirmappend=no
set confirmcreate=no
set wait_key=no
set quit=yes
set mark_old=no
set maildir_check_cur=yes
set maildir_trash=no
`, st.root))
	own(st.t, home)
	path := func(name string) string { return filepath.Join(st.root, dirOf(st.prefix, name)) }
	return worker{name: program, step: func(w *worker) {
		box := anyOf(w.Rand, staying)
		var functions strings.Builder
		for range 1 + w.IntN(4) {
			number, ok := st.anyIn(w, box)
			if !ok {
				break
			}
			kind := kindOf(number)
			pattern := fmt.Sprintf("~s \"number %d$\"<enter>", number)
			tag := "<untag-pattern>~A<enter><tag-pattern>" + pattern + "<tag-prefix-cond>"
			switch n := w.IntN(10); {
			case n < 2 && kind >= mortal:
				st.removed(number)
				functions.WriteString("<delete-pattern>" + pattern)
			case n < 4 && kind >= copied:
				// It leaves a copy where another program expunged it meanwhile, and none where that renames it just then; and it
				// saves each copy that is in the mailbox by then.
				st.removed(number)
				st.mu.Lock()
				st.saved[number] = true
				st.mu.Unlock()
				functions.WriteString(tag + "<save-message>" + path(anyOf(w.Rand, staying)) + "<enter><end-cond>")
			case n < 8:
				functions.WriteString(tag + "<flag-message><end-cond>")
			default:
				functions.WriteString(tag + "<toggle-new><end-cond>")
			}
			if w.IntN(3) == 0 {
				functions.WriteString("<shell-escape>sleep 0.1<enter>")
			}
		}
		cmd := exec.Command(program, "-n", "-F", rc, "-f", path(box), "-e", "push '"+functions.String()+"<sync-mailbox><quit>'")
		cmd.Env = []string{"HOME=" + home, "TERM=xterm", "LANG=C.UTF-8", "PATH=/usr/bin:/bin"}
		peers.AsOwner(st.t, cmd)
		tty, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
		if err != nil {
			st.t.Error(err)
			return
		}
		defer tty.Close()
		// What it was told is forgotten where something goes wrong, and then it waits for keys.
		waits := time.AfterFunc(3*time.Second, func() {
			st.t.Logf("%s waits for keys", program)
			cmd.Process.Kill()
		})
		defer waits.Stop()
		io.Copy(io.Discard, tty) // until it ends
		cmd.Wait()
	}}
}

// anyIn is any message of a mailbox.
func (st *stress) anyIn(w *worker, name string) (number int, ok bool) {
	b, _ := st.readBox(name)
	if len(b.numbers) == 0 {
		return 0, false
	}
	return b.numbers[w.IntN(len(b.numbers))], true
}

// mbsync syncs with a server into a Maildir of its own, where messages are delivered, flagged and removed.
func (st *stress) mbsync(p *party) worker {
	peers.Need(st.t, "mbsync")
	local := st.t.TempDir()
	copied := &mbsync{dir: local, expunge: "Both", patterns: "INBOX A B"}
	security := ""
	if p.s != nil {
		security = "SSLType STARTTLS\nCertificateFile " + p.s.cert
	}
	bases := 0
	near := func(name string) string { return filepath.Join(local, name) }
	return worker{name: "mbsync", step: func(w *worker) {
		var delivered []int
		for _, name := range staying {
			if _, err := os.Stat(near(name)); err != nil {
				continue // before the first run
			}
			if w.IntN(2) == 0 {
				n := w.letters.next(resting)
				bases++
				writeFile(st.t, filepath.Join(near(name), "new", fmt.Sprintf("%d.Q%d.near", time.Now().Unix(), bases)), textOf(n))
				delivered = append(delivered, n)
			}
			for _, f := range files(st.t, near(name)) {
				base, flags, _ := strings.Cut(filepath.Base(f), ":2,")
				switch n := w.IntN(40); {
				case n == 0:
					m := numberLine.FindStringSubmatch(readFile(st.t, f))
					if number, _ := strconv.Atoi(m[1]); kindOf(number) >= mortal {
						st.removed(number)
						must(st.t, os.Remove(f))
					}
				case n < 4:
					if strings.Contains(flags, "F") {
						flags = strings.Replace(flags, "F", "", 1)
					} else {
						letters := []byte(flags + "F")
						slices.Sort(letters)
						flags = string(letters)
					}
					must(st.t, os.Rename(f, filepath.Join(near(name), "cur", base+":2,"+flags)))
				}
			}
		}
		out, err := copied.command(st.t, p.addr, security).CombinedOutput()
		for range 20 {
			if err == nil || !wentMeanwhile.Match(out) {
				break
			}
			out, err = copied.command(st.t, p.addr, security).CombinedOutput() // it goes on with the rest
		}
		if err != nil {
			st.t.Errorf("mbsync with %s: %v\n%s", p.name, err, out)
		}
		for _, n := range delivered {
			st.came(n)
		}
	}}
}

// wentMeanwhile is what mbsync says when a message is expunged before it has fetched it: Dovecot shows it as NIL, and
// maildird refuses to.
var wentMeanwhile = regexp.MustCompile(`unable to parse BODY\[\]|NO \[EXPUNGEISSUED\]`)
