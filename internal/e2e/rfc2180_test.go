package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/imapmaildir/imapmaildir/internal/peers"
	"github.com/imapmaildir/imapmaildir/internal/practice"
)

var update = flag.Bool("update", false, "write the tables that tests make into docs/")

// rfc2180 is the command, for a user whose password is "pass".
func rfc2180(t *testing.T, addr string, args ...string) *exec.Cmd {
	t.Helper()
	password := filepath.Join(t.TempDir(), "password")
	writeFile(t, password, "pass\n")
	cmd := exec.Command(rfc2180Path, append([]string{"-addr", addr, "-user", "ada", "-password-file", password, "-timeout", "5s"}, args...)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return cmd
}

// ask is what the command reports of a server.
func ask(t *testing.T, addr string, args ...string) *practice.Report {
	t.Helper()
	cmd := rfc2180(t, addr, append(args, "-json")...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, errs.String())
	}
	r := &practice.Report{}
	if err := json.Unmarshal([]byte(out.String()), r); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return r
}

// shown is what maildird's default strategies show.
var shown = map[string]practice.Answer{
	"delete":         practice.Disconnect,
	"delete-name":    practice.NotAsked,
	"rename":         practice.Follow,
	"rename-name":    practice.NewName,
	"fetch":          practice.Ghost,
	"fetch-gone":     practice.Ghost,
	"fetch-envelope": practice.Ghost,
	"fetch-flags":    practice.Ghost,
	"fetch-told":     practice.No,
	"expunge":        practice.Allow,
	"store-silent":   practice.OK,
	"store-gone":     practice.No,
	"store":          practice.Partial,
	"search":         practice.LeftOut,
	"search-body":    practice.LeftOut,
	"copy":           practice.Refuse,
	"move":           practice.Refuse,
	"uid-fetch":      practice.Ghost,
	"uid-store":      practice.LeftOut,
	"uid-copy":       practice.LeftOut,
	"expunge-told":   practice.Never,
	"numbers":        practice.Kept,
	"noop":           practice.Told,
	"idle-expunge":   practice.Told,
	"idle-new":       practice.Told,
}

// strategies are all others, and what is shown under each that is not shown by default.
var strategies = []struct {
	setting string
	shown   map[string]practice.Answer
}{
	{`delete = "refuse"`, map[string]practice.Answer{"delete": practice.Refuse}},
	{`delete = "ghost"`, map[string]practice.Answer{"delete": practice.Ghost, "delete-name": practice.Reserved}},
	{`rename = "refuse"`, map[string]practice.Answer{"rename": practice.Refuse, "rename-name": practice.NotAsked}},
	{`rename = "disconnect"`, map[string]practice.Answer{"rename": practice.Disconnect, "rename-name": practice.NotAsked}},
	{`expunge = "refuse"`, map[string]practice.Answer{
		"fetch": practice.NotAsked, "fetch-gone": practice.NotAsked, "fetch-envelope": practice.NotAsked,
		"fetch-flags": practice.NotAsked, "fetch-told": practice.NotAsked,
		"expunge":      practice.Refuse,
		"store-silent": practice.NotAsked, "store-gone": practice.NotAsked, "store": practice.NotAsked,
		"search": practice.NotAsked, "search-body": practice.NotAsked,
		"copy": practice.NotAsked, "move": practice.NotAsked,
		"uid-fetch": practice.NotAsked, "uid-store": practice.NotAsked, "uid-copy": practice.NotAsked,
		"expunge-told": practice.NotAsked, "numbers": practice.NotAsked,
		"noop": practice.NotAsked, "idle-expunge": practice.NotAsked,
	}},
	{`fetch_expunged = "no"`, map[string]practice.Answer{
		"fetch": practice.No, "fetch-gone": practice.No, "fetch-envelope": practice.No, "fetch-flags": practice.No,
		"uid-fetch": practice.LeftOut,
	}},
	{`fetch_expunged = "nil"`, map[string]practice.Answer{
		"fetch": practice.Nil, "fetch-gone": practice.No, "fetch-envelope": practice.Nil, "fetch-flags": practice.Nil,
		"uid-fetch": practice.LeftOut,
	}},
	{`store_expunged = "refuse"`, map[string]practice.Answer{"store": practice.Refuse}},
	{`copy_expunged = "ghost"`, map[string]practice.Answer{
		"copy": practice.Ghost, "move": practice.Ghost, "uid-copy": practice.Ghost,
	}},
}

// maildird shows the strategy that is set, and docs/strategies.md says so.
func TestStrategies(t *testing.T) {
	t.Parallel()
	reports := make([]*practice.Report, 1+len(strategies)) // the first one is of the default
	t.Run("each", func(t *testing.T) {
		for i := range reports {
			name, want, policy := "default", shown, ""
			if i > 0 {
				name, policy = strategies[i-1].setting, "[policy]\n"+strategies[i-1].setting
				want = maps.Clone(shown)
				maps.Copy(want, strategies[i-1].shown)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				reports[i] = askMaildird(t, policy)
				for _, f := range reports[i].Findings {
					if f.Answer != want[f.Scene] {
						t.Errorf("%s %s: %q, want %q %s\n\t%s", f.Section, f.Question, f.Answer, want[f.Scene], f.Detail, strings.Join(f.Proof, "\n\t"))
					}
				}
				if len(reports[i].Findings) != len(shown) {
					t.Errorf("%d questions were asked, not %d", len(reports[i].Findings), len(shown))
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	var table strings.Builder
	table.WriteString("| section | question | by default | otherwise |\n|---|---|---|---|\n")
	for i, f := range reports[0].Findings {
		var others []string
		for j, r := range reports[1:] {
			if g := r.Findings[i]; g.Answer != f.Answer && g.Answer != practice.NotAsked {
				others = append(others, fmt.Sprintf("`%s`: %s", strategies[j].setting, g.Says()))
			}
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", f.Section, f.Question, f.Says(), strings.Join(others, "<br>"))
	}
	wantInDoc(t, "maildird", table.String())
}

// askMaildird asks a maildird with a policy, and checks that nothing is left of it.
func askMaildird(t *testing.T, policy string) *practice.Report {
	t.Helper()
	_, location := mailDir(t)
	s := serve(t, location, policy)
	r := ask(t, s.imap)
	s.stop(t)
	wantNoScratch(t, s.root("ada"))
	return r
}

// wantNoScratch fails the test if a mailbox of the command is left, or a message of one.
func wantNoScratch(t *testing.T, root string) {
	t.Helper()
	for _, pattern := range []string{"*rfc2180*", "tmp/*", "cur/*", "new/*"} {
		if left, _ := filepath.Glob(filepath.Join(root, pattern)); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

// docs/strategies.md says what others do.
func TestStrategiesOfOthers(t *testing.T) {
	t.Parallel()
	dovecot, courier := peers.StartDovecot(t, ""), peers.StartCourier(t)
	dovecot.Maildir(t, "ada")
	servers := []struct {
		name string
		ask  func(t *testing.T) *practice.Report
	}{
		{"maildird", func(t *testing.T) *practice.Report { return askMaildird(t, "") }},
		{"Dovecot", func(t *testing.T) *practice.Report { return ask(t, dovecot.Addr) }},
		{"Courier", func(t *testing.T) *practice.Report { return ask(t, courier.Addr) }},
	}
	reports := make([]*practice.Report, len(servers))
	t.Run("each", func(t *testing.T) {
		for i, s := range servers {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				reports[i] = s.ask(t)
			})
		}
	})
	if t.Failed() {
		return
	}
	var table strings.Builder
	table.WriteString("| section | question | maildird | Dovecot | Courier |\n|---|---|---|---|---|\n")
	for i, f := range reports[0].Findings {
		fmt.Fprintf(&table, "| %s | %s |", f.Section, f.Question)
		for _, r := range reports {
			fmt.Fprintf(&table, " %s |", r.Findings[i].Says())
		}
		table.WriteString("\n")
	}
	wantInDoc(t, "others", table.String())
}

// doc guards what tests write into docs/: they run at once.
var doc sync.Mutex

// wantInDoc compares a table with the one that stands in docs/strategies.md between two markers, or
// writes it there.
func wantInDoc(t *testing.T, name, table string) {
	t.Helper()
	if is := inDoc(t, "strategies", name, table); is != table {
		t.Errorf("docs/strategies.md: the table %s is out of date; make strategies writes\n%s", name, table)
	}
}

// inDoc is the table that stands in a document between the markers of a name, after it was written there with -update.
// The document is called as what make makes.
func inDoc(t *testing.T, document, name, table string) string {
	t.Helper()
	doc.Lock()
	defer doc.Unlock()
	file := "../../docs/" + document + ".md"
	text := readFile(t, file)
	begin, end := "<!-- "+name+": made by make "+document+" -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(text, begin)
	is, after, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Errorf("%s has no place for the table %s", file, name)
	case *update:
		must(t, os.WriteFile(file, []byte(before+begin+table+end+after), 0o644))
		return table
	}
	return is
}

// The command speaks TLS, and does not take any certificate.
func TestRFC2180Encrypted(t *testing.T) {
	t.Parallel()
	_, location := mailDir(t)
	s := serve(t, location, "")
	for _, c := range []struct{ addr, flag string }{{s.imap, "-starttls"}, {s.imaps, "-tls"}} {
		wantFailure(t, rfc2180(t, c.addr, c.flag), 1, "x509: certificate signed by unknown authority")
		if r := ask(t, c.addr, c.flag, "-insecure"); len(r.Findings) != len(shown) {
			t.Errorf("%s: %d questions were asked", c.flag, len(r.Findings))
		}
	}
	wantFailure(t, rfc2180(t, s.imap, "-tls"), 1, "first record does not look like a TLS handshake")
	wantFailure(t, rfc2180(t, s.imap, "-starttls", "-tls"), 2, "--tls and --starttls can't be used together")
	wantFailure(t, rfc2180(t, s.imap, "-user", "nobody"), 1, "rfc2180: log in at "+s.imap+": server says NO [AUTHENTICATIONFAILED]")
	s.tolerate = "handshake"
}

// wantFailure runs a program to its end.
func wantFailure(t *testing.T, cmd *exec.Cmd, status int, says string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != status || !strings.Contains(string(out), says) {
		t.Errorf("%v: %v; it should say %q and says\n%s", cmd.Args, err, says, out)
	}
}

// What the command made is deleted when it is interrupted as well.
func TestRFC2180Interrupted(t *testing.T) {
	t.Parallel()
	_, location := mailDir(t)
	s := serve(t, location, "[policy]\ndelete = \"refuse\"\n")
	cmd := rfc2180(t, s.imap)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := login(t, s.imap, "ada")
	for {
		status := c.ok(`LIST "" "rfc2180-*-5-FOO"`)
		if len(status) > 0 {
			break
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || errs.String() != "rfc2180: interrupt signal received\n" {
		t.Errorf("exit status %d, and it says %s", code, errs.String())
	}
	if !strings.HasPrefix(out.String(), "3.1-3.3") {
		t.Errorf("what was found out is not told:\n%s", out.String())
	}
	if left := c.ok(`LIST "" "rfc2180*"`); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	s.stop(t)
	wantNoScratch(t, s.root("ada"))
}

// The table is for people: aligned, with the dialogues below.
func TestRFC2180Text(t *testing.T) {
	t.Parallel()
	_, location := mailDir(t)
	out, err := rfc2180(t, serve(t, location, "").imap).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	if i := slices.Index(lines, ""); i != len(shown) {
		t.Errorf("the table has %d lines, not %d", i, len(shown))
	}
	row := "3.4             the old name, when the other session uses it                           NEWNAME"
	if !slices.Contains(lines, row) {
		t.Errorf("there is no line %q", row)
	}
	proof := "\n4.2.2 STORE of expunged messages only: NO [EXPUNGEISSUED]\n  C1: A001 SELECT "
	if !strings.Contains(string(out), proof) || !strings.Contains(string(out), "\n  S2: B002 NO [EXPUNGEISSUED] ") {
		t.Errorf("there is no dialogue %q", proof)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
