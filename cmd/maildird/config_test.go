package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imapmaildir/imapmaildir/policy"
	"github.com/imapmaildir/imapmaildir/watch"
)

var update = flag.Bool("update", false, "write the expected messages of testdata/bad anew")

// Each file in testdata/bad is a configuration with mistakes, and beside it stands what is said.
func TestBadConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files:", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			_, err := readConfig(file)
			if err == nil {
				t.Fatal("is taken")
			}
			var got strings.Builder
			complain(&got, err)
			golden := strings.TrimSuffix(file, ".toml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%swant\n%s", got.String(), want)
			}
		})
	}
}

// Each exception is kept, in its order, with what it sets and no more.
func TestPolicyExceptions(t *testing.T) {
	c, d := parseConfig("maildird.toml", `
policy.rename = "refuse"
[[policy.mailbox]]
match = "Shared.*"
delete = "refuse"
[[policy.mailbox]]
match = "*"
delete = "ghost"
fetch_expunged = "nil"
`)
	if len(d.problems) > 0 {
		t.Fatal(d.problems)
	}
	for name, want := range map[string]policy.Policy{
		"Shared.a": {Rename: policy.RenameRefuse, Delete: policy.DeleteRefuse, FetchExpunged: policy.FetchNil},
		"other":    {Rename: policy.RenameRefuse, Delete: policy.DeleteGhost, FetchExpunged: policy.FetchNil},
	} {
		if got := c.policy.For(name, '.'); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

// What [watch] says is kept, and an interval that would do harm is refused.
func TestWatchConfig(t *testing.T) {
	c, d := parseConfig("maildird.toml", `watch = {poll = true, interval = "1m30s", limit = 7}`)
	if got, want := c.watch(nil), (watch.Options{Poll: true, Interval: 90 * time.Second, Limit: 7}); len(d.problems) > 0 || got != want {
		t.Errorf("got %+v, %v, want %+v", got, d.problems, want)
	}
	for value, ok := range map[string]bool{
		"100ms": true, "99ms": false, "1h": true, "61m": false, "0s": false, "-5s": false, "": false, "often": false,
	} {
		_, d := parseConfig("maildird.toml", `watch.interval = "`+value+`"`)
		if (len(d.problems) == 0) != ok {
			t.Errorf("%q: %v", value, d.problems)
		}
	}
}

// Whatever a file says, it is taken or told of with a line, and what is taken is what a file can say.
func FuzzParseConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, d := parseConfig("maildird.toml", text)
		for _, p := range d.problems {
			if p.line < 1 || p.line > strings.Count(text, "\n")+1 {
				t.Errorf("%v: there is no such line", p)
			}
		}
		c.places.root.within("/etc").fixed()
		if s := c.maildir.Separator; s != 0 && (s < '!' || s > '~') {
			t.Errorf("separator %q", s)
		}
	})
}
