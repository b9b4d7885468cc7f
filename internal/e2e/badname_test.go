package e2e

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// names are all paths under a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		found = append(found, path)
		return err
	})
	must(t, err)
	return found
}

// A name that can't be a mailbox's is refused by every command, and nothing is made or lost on disk.
func TestBadNames(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			dir, location := mailDir(t)
			s := serve(t, location, layout.maildird)
			s.tolerate = "invalid UTF-[78]" // go-imap takes the names for a failure of the server
			other := newOther(t, s.imap, "ada")
			c := login(t, s.imap, "ada")
			c.ok("CREATE Good")
			c.ok("APPEND Good {}", otherMail)
			bad := map[string]string{
				"dots":                     "..",
				"dots first":               ".." + layout.sep + "x",
				"dots between":             "Good" + layout.sep + ".." + layout.sep + ".." + layout.sep + "x",
				"path out":                 "../ben/Maildir",
				"absolute":                 "/tmp/x",
				"empty part":               "a" + layout.sep + layout.sep + "b",
				"separator first":          layout.sep + "x",
				"home":                     "~root",
				"UTF-7: control character": "a\x01b",
				"UTF-7: tab":               "a\tb",
				"UTF-7: delete":            "a\x7fb",
				"UTF-7: line break":        "a\r\nb",
				"UTF-7: line feed":         "a\nb",
				"UTF-7: & alone":           "a&b",
				"UTF-7: & without end":     "a&AOQ",
				"UTF-7: ASCII in base64":   "&AGE-",
				"UTF-7: half a character":  "&2AA-",
				"UTF-7: bad base64":        "&***-",
				"UTF-8: raw bytes":         "\xff\xfe",
				"300 bytes":                strings.Repeat("x", 300),
				"300 bytes in UTF-7":       "&" + strings.Repeat("AOQA5ADk", 40) + "-",
				"control character":        "a&AAE-b",
				"C1 control character":     "a&AIU-b",
				"empty":                    "",
			}
			if layout.sep == "." {
				bad["slash"] = "a/b"
				bad["slash and dots"] = "a/../b"
			} else {
				bad["a part of every Maildir"] = "a/cur"
			}
			c.ok("SELECT Good")
			other.round() // makes the cache
			before := names(t, dir)
			for what, name := range bad {
				t.Run(what, func(t *testing.T) {
					c := login(t, s.imap, "ada")
					c.ok("SELECT Good")
					other.during(t, func() {
						refused := c.refused
						if strings.HasPrefix(what, "UTF") {
							refused = func(command string, literals ...string) string { // by go-imap, before a session sees it
								a := c.do(command, literals...)
								if !refusal.MatchString(a.tagged) {
									t.Errorf("%s is not refused: %s", command, a.tagged)
								}
								return a.tagged
							}
						}
						for _, command := range []string{"CREATE {}", "SELECT {}", "EXAMINE {}", "DELETE {}", "STATUS {} (MESSAGES)", "SUBSCRIBE {}",
							"RENAME Good {}", "RENAME {} Better"} {
							refused(command, name)
							c.ok("SELECT Good")
						}
						refused("COPY 1 {}", name)
						refused("MOVE 1 {}", name)
						refused("APPEND {} {}", name, otherMail)
						c.do("UNSUBSCRIBE {}", name)
						c.do("LIST \"\" {}", name)
						c.ok("NOOP")
					})
					if after := names(t, dir); !slices.Equal(before, after) {
						t.Errorf("on disk was %q, and is %q", before, after)
					}
				})
			}
		})
	}
}
