package wire

import (
	"bytes"
	"regexp"
	"testing"
)

// rewrite returns what the server reads when a client sends a command, with its literals.
func rewrite(command []byte) []byte {
	var in input
	in.add(command)
	var got []byte
	p := make([]byte, len(command)+1)
	for {
		if in.next(); in.ready == 0 && !in.rest() {
			return got
		}
		for in.ready > 0 {
			got = append(got, p[:in.read(p)]...)
		}
	}
}

func TestRewriteSearch(t *testing.T) {
	for _, tt := range []struct{ command, want string }{
		{"SEARCH SMALLER 5", "SEARCH NOT NOT SMALLER 5"},
		{"search smaller 5 since 1-Feb-2026", "search NOT NOT SMALLER 5 since 1-Feb-2026"},
		{"UID SEARCH 1:* SMALLER 5 LARGER 3", "UID SEARCH 1:* NOT NOT SMALLER 5 LARGER 3"},
		{"uid search LARGER 3 SMALLER 5", "uid search LARGER 3 NOT NOT SMALLER 5"},
		{"SEARCH SMALLER 5 SMALLER 6", "SEARCH NOT NOT SMALLER 5 NOT NOT SMALLER 6"},
		{"SEARCH SMALLER 0 LARGER 00", "SEARCH NOT ALL NOT SMALLER 1"},
		{"SEARCH LARGER 000000 SEEN", "SEARCH NOT SMALLER 1 SEEN"}, // as long as before
		{"SEARCH NOT SMALLER 5", "SEARCH NOT SMALLER 5"},
		{"SEARCH NOT SMALLER 0 NOT LARGER 0", "SEARCH NOT NOT ALL NOT NOT SMALLER 1"},
		{"SEARCH NOT (SMALLER 5 ON 1-Feb-2026)", "SEARCH NOT (NOT NOT SMALLER 5 ON 1-Feb-2026)"},
		{"SEARCH NOT(SMALLER 5)(SMALLER 6)", "SEARCH NOT(NOT NOT SMALLER 5)(NOT NOT SMALLER 6)"},
		{"SEARCH OR SMALLER 5 (SEEN SMALLER 6)", "SEARCH OR NOT NOT SMALLER 5 (SEEN NOT NOT SMALLER 6)"},
		{"SEARCH NOT SEEN SMALLER 5", "SEARCH NOT SEEN NOT NOT SMALLER 5"},
		{"SEARCH(SMALLER 5)", "SEARCH(NOT NOT SMALLER 5)"},
		{"SEARCH RETURN (MIN MAX) SMALLER 5", "SEARCH RETURN (MIN MAX) NOT NOT SMALLER 5"},
		{"SEARCH RETURN () CHARSET UTF-8 SMALLER 5", "SEARCH RETURN () CHARSET UTF-8 NOT NOT SMALLER 5"},
		{"SEARCH $ SMALLER 5 ", "SEARCH $ NOT NOT SMALLER 5 "},
		// Values that look like keys.
		{"SEARCH BODY SMALLER SMALLER 5", "SEARCH BODY SMALLER NOT NOT SMALLER 5"},
		{"SEARCH TEXT HEADER SMALLER 5", "SEARCH TEXT HEADER NOT NOT SMALLER 5"},
		{"SEARCH HEADER SMALLER LARGER SMALLER 5", "SEARCH HEADER SMALLER LARGER NOT NOT SMALLER 5"},
		{`SEARCH SUBJECT "SMALLER 5" KEYWORD SMALLER`, `SEARCH SUBJECT "SMALLER 5" KEYWORD SMALLER`},
		{`SEARCH SUBJECT "\" SMALLER 5" TO "\\" SMALLER 5`, `SEARCH SUBJECT "\" SMALLER 5" TO "\\" NOT NOT SMALLER 5`},
		{"SEARCH SUBJECT {9}\r\nSMALLER 5 FROM {4+}\r\n\r\n\r\n SMALLER 5", "SEARCH SUBJECT {9}\r\nSMALLER 5 FROM {4+}\r\n\r\n\r\n NOT NOT SMALLER 5"},
		{"SEARCH HEADER {2}\r\nTo {3}\r\nNOT SMALLER 5", "SEARCH HEADER {2}\r\nTo {3}\r\nNOT NOT NOT SMALLER 5"},
		{"SEARCH HEADER {2}\r\nTo SMALLER SMALLER 5 {1}", "SEARCH HEADER {2}\r\nTo SMALLER NOT NOT SMALLER 5 {1}"},
		// Not a SEARCH, or not one that can be read.
		{"FETCH SMALLER 5", "FETCH SMALLER 5"},
		{"UID FETCH SEARCH SMALLER 5", "UID FETCH SEARCH SMALLER 5"},
		{" SEARCH SMALLER 5", " SEARCH SMALLER 5"},
		{"APPEND {1}\r\nx SEARCH SMALLER 5", "APPEND {1}\r\nx SEARCH SMALLER 5"},
		{"SEARCH RETURN (SMALLER 5)", "SEARCH RETURN (SMALLER 5)"},
		{"SEARCH RETURN SMALLER 5", "SEARCH RETURN SMALLER 5"},
		{"SEARCH SMALLER", "SEARCH SMALLER"},
		{"SEARCH SMALLER x SMALLER 5", "SEARCH SMALLER x SMALLER 5"},
		{"SEARCH SMALLER -5", "SEARCH SMALLER -5"},
		{`SEARCH SMALLER "5"`, `SEARCH SMALLER "5"`},
		{"SEARCH SMALLER {1}\r\n5 SMALLER 5", "SEARCH SMALLER {1}\r\n5 SMALLER 5"},
		{"SEARCH BODY (SMALLER 5)", "SEARCH BODY (SMALLER 5)"},
		{"SEARCH BODY (x) SMALLER 5", "SEARCH BODY (x) SMALLER 5"},
		{`SEARCH BODY "x`, `SEARCH BODY "x`},
		{`SEARCH BODY x"y SMALLER 5`, `SEARCH BODY x"y SMALLER 5`},
		{`SEARCH BODY "x"y SMALLER 5`, `SEARCH BODY "x"y SMALLER 5`},
		{`SEARCH "x" SMALLER 5`, `SEARCH "x" SMALLER 5`},
		{"SEARCH {1}\r\nx SMALLER 5", "SEARCH {1}\r\nx SMALLER 5"},
		{"SEARCH BODY {x} SMALLER 5", "SEARCH BODY {x} SMALLER 5"},
	} {
		for _, eol := range []string{"\r\n", "\n"} {
			command, want := "a "+tt.command+eol, "a "+tt.want+eol
			if got := rewrite([]byte(command)); string(got) != want {
				t.Errorf("%q:\ngot  %q\nwant %q", command, got, want)
			}
		}
	}
	for _, line := range []string{"SEARCH SMALLER 5\r\n", "a\r\n", "\x01 SEARCH SMALLER 5\r\n", "a SEARCH SMALLER 5"} {
		if got := rewrite([]byte(line)); string(got) != line {
			t.Errorf("%q: got %q", line, got)
		}
	}
}

var ofSizes = regexp.MustCompile(`(?i)NOT |ALL|(SMALLER|LARGER) ?[0-9]*`)

var sizeKeys = regexp.MustCompile(`(?i)SMALLER|LARGER 0`)

// hasSize reports whether there is something that search may rewrite.
func hasSize(stream []byte) bool { return sizeKeys.Match(stream) }

func FuzzSearch(f *testing.F) {
	for _, command := range []string{
		`SMALLER 5 SINCE 1-Feb-2026 SMALLER 0`,
		`NOT SMALLER 0 NOT LARGER 0 LARGER 0`,
		`RETURN (ALL) CHARSET UTF-8 OR (SMALLER 1 SEEN) HEADER "x\" SMALLER 5" SMALLER`,
		"SUBJECT {9}\r\nSMALLER 5 SMALLER 5",
		`BODY "SMALLER 5`,
	} {
		f.Add([]byte(command))
	}
	f.Fuzz(func(t *testing.T, keys []byte) {
		command := append(append([]byte("a UID SEARCH "), keys...), "\r\n"...)
		if len(command) > maxCommand/2 {
			t.Skip("may have a line that is too long")
		}
		once := rewrite(command)
		if !hasSize(command) && !bytes.Equal(once, command) {
			t.Errorf("%q became %q", command, once)
		}
		if twice := rewrite(once); !bytes.Equal(twice, once) {
			t.Errorf("%q became %q, and that %q", command, once, twice)
		}
		// Without what was put in, there is what was sent; numbers and zeros apart.
		if got, want := ofSizes.ReplaceAll(once, nil), ofSizes.ReplaceAll(command, nil); !bytes.Equal(got, want) {
			t.Errorf("%q became %q", command, once)
		}
	})
}
