package backend_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imapmaildir/imapmaildir/backend"
)

// A message that is got in pieces is opened once for all of them, and closed with the next command of another kind.
func TestPieces(t *testing.T) {
	var text strings.Builder
	text.WriteString("Subject: long\n\n")
	for i := range 3000 {
		fmt.Fprintf(&text, "This is line %d.\n", i)
	}
	want := strings.ReplaceAll(text.String(), "\n", "\r\n")
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write([]byte(text.String()))
	w.Close()
	for name, file := range map[string]string{"plain": text.String(), "gzip": zipped.String()} {
		t.Run(name, func(t *testing.T) {
			root := bigMailbox(t, 1)
			path := filepath.Join(root, "cur", "1800000000.long.host:2,S")
			put := func(text string) {
				t.Helper()
				tmp := filepath.Join(root, "tmp", "x")
				if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(tmp, path); err != nil {
					t.Fatal(err)
				}
			}
			put(file)
			c := dial(t, serve(t, &backend.Account{Root: root}).addr)
			c.do("SELECT INBOX")
			piece := func(off, n int) string {
				t.Helper()
				untagged, tagged, err := c.exchange(fmt.Sprintf("FETCH 2 BODY.PEEK[]<%d.%d>", off, n))
				if err != nil || !strings.HasPrefix(tagged, "OK") || len(untagged) != 1 {
					t.Fatalf("%q, %s, %v", untagged, tagged, err)
				}
				return regexp.MustCompile(`(?s)^\* 2 FETCH \(BODY\[\]<\d+> \{?"?(.*?)\}?"?\)$`).FindStringSubmatch(untagged[0])[1]
			}
			open := func() (files []string) {
				t.Helper()
				fds, err := os.ReadDir("/proc/self/fd")
				if err != nil {
					t.Fatal(err)
				}
				for _, fd := range fds {
					if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, root+"/cur/") {
						files = append(files, filepath.Base(to))
					}
				}
				return files
			}
			wantOpen := func(when string, want ...string) {
				t.Helper()
				if got := open(); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s there are open %q, not %q", when, got, want)
				}
			}

			got := ""
			for len(got) < len(want) {
				got += piece(len(got), 1001)
				wantOpen("after a piece", filepath.Base(path))
			}
			if got != want {
				t.Errorf("the pieces are %.100q of %d bytes", got, len(got))
			}
			for _, off := range []int{20_000, 10_000, 0, len(want) - 5} {
				if got := piece(off, 100); got != want[off:min(off+100, len(want))] {
					t.Errorf("at %d there is %q", off, got)
				}
			}
			c.do("NOOP")
			c.do(`STORE 2 +FLAGS (\Flagged)`)
			wantOpen("after another command")
			piece(0, 10)
			c.do("FETCH 1 BODY.PEEK[]")
			wantOpen("after another message")
			piece(0, 10)
			c.do("UNSELECT")
			wantOpen("after UNSELECT")

			c.do("SELECT INBOX")
			piece(0, 10)
			path = onlyFile(t, root+"/cur/1800000000.long.host:2,*")
			put("Subject: another\n\n")
			if got := piece(9, 100); got != "another\r\n\r\n" {
				t.Errorf("of another file there is %q", got)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if untagged, tagged, err := c.exchange("FETCH 2 BODY.PEEK[]<0.10>"); err != nil || strings.HasPrefix(tagged, "OK") {
				t.Errorf("of no file there is %q, %s, %v", untagged, tagged, err)
			}
		})
	}
}
