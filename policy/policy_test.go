package policy

import (
	"encoding"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The strategies by the sections of the draft that describe them. "S" in the last column stands
// for a command that names messages by sequence number, "U" for its UID form.
func TestDecide(t *testing.T) {
	ghost := Policy{}
	no := Policy{FetchExpunged: FetchNo}
	null := Policy{FetchExpunged: FetchNil}
	refuseStore := Policy{StoreExpunged: StoreRefuse}
	copyGhost := Policy{CopyExpunged: CopyGhost}
	for _, c := range []struct {
		section string
		policy  Policy
		command Command
		uid     bool
		living  int
		want    Act
	}{
		{"4.1.1 keep the messages available", ghost, Fetch, false, 1, Serve},
		{"4.1.1 only gone ones", ghost, Fetch, false, 0, Serve},
		{"4.1.1 UID FETCH", ghost, Fetch, true, 0, Serve},
		{"4.1.2 NO, and FETCH for the non-expunged", no, Fetch, false, 3, LivingThenNo},
		{"4.1.2 all expunged: only a tagged NO", no, Fetch, false, 0, Refuse},
		{"4.1.2 UID FETCH", no, Fetch, true, 0, Skip},
		{"4.1.3 NIL FETCH responses", null, Fetch, false, 1, Nil},
		{"4.1.3 all expunged: only a tagged NO", null, Fetch, false, 0, Refuse},
		{"4.1.3 UID FETCH", null, Fetch, true, 1, Skip},
		{"4.2.1 SILENT", refuseStore, StoreSilent, false, 3, Skip},
		{"4.2.1 SILENT, all the non-expunged are none", ghost, StoreSilent, false, 0, Skip},
		{"4.2.2 only expunged", ghost, Store, false, 0, Refuse},
		{"4.2.2 only expunged", refuseStore, Store, false, 0, Refuse},
		{"4.2.3 set the flags of the non-expunged", ghost, Store, false, 3, LivingThenNo},
		{"4.2.4 not set any flags", refuseStore, Store, false, 3, Refuse},
		{"4.2.4 UID STORE", refuseStore, Store, true, 3, Skip},
		{"4.3 not return a search response", ghost, Search, false, 0, Skip},
		{"RFC 2180 4.4.1", ghost, Copy, false, 2, Refuse},
		{"RFC 2180 4.4.1 MOVE", ghost, Move, false, 2, Refuse},
		{"RFC 2180 4.4.1 UID COPY", ghost, Copy, true, 2, Skip},
		{"RFC 2180 4.4.2", copyGhost, Copy, false, 2, Serve},
		{"RFC 2180 4.4.2 UID MOVE", copyGhost, Move, true, 0, Serve},
	} {
		if got := c.policy.Decide(c.command, c.uid, c.living); got != c.want {
			t.Errorf("%s (uid %v, living %d): got act %d, want %d", c.section, c.uid, c.living, got, c.want)
		}
	}
}

func TestTexts(t *testing.T) {
	type value interface {
		encoding.TextMarshaler
	}
	for _, c := range []struct {
		v    value
		p    encoding.TextUnmarshaler
		want string
	}{
		{DeleteDisconnect, new(Delete), "disconnect"}, {DeleteRefuse, new(Delete), "refuse"}, {DeleteGhost, new(Delete), "ghost"},
		{RenameFollow, new(Rename), "follow"}, {RenameRefuse, new(Rename), "refuse"}, {RenameDisconnect, new(Rename), "disconnect"},
		{ExpungeAllow, new(Expunge), "allow"}, {ExpungeRefuse, new(Expunge), "refuse"},
		{FetchGhost, new(FetchExpunged), "ghost"}, {FetchNo, new(FetchExpunged), "no"}, {FetchNil, new(FetchExpunged), "nil"},
		{StorePartial, new(StoreExpunged), "partial"}, {StoreRefuse, new(StoreExpunged), "refuse"},
		{CopyRefuse, new(CopyExpunged), "refuse"}, {CopyGhost, new(CopyExpunged), "ghost"},
	} {
		b, _ := c.v.MarshalText()
		if string(b) != c.want {
			t.Errorf("%T: text %q, want %q", c.v, b, c.want)
		}
		if err := c.p.UnmarshalText(b); err != nil {
			t.Errorf("%T: UnmarshalText(%q): %v", c.v, b, err)
		}
		if b2, _ := c.p.(encoding.TextMarshaler).MarshalText(); string(b2) != c.want {
			t.Errorf("%T: %q came back as %q", c.v, c.want, b2)
		}
	}
	var d Delete
	err := d.UnmarshalText([]byte("disconect"))
	var ve *ValueError
	if !errors.As(err, &ve) || err.Error() != `unknown value "disconect"; allowed: disconnect, refuse, ghost` {
		t.Errorf("got error %v", err)
	}
}

func TestRules(t *testing.T) {
	refuse, ghost, no := DeleteRefuse, DeleteGhost, FetchNo
	r := &Rules{
		Default: Policy{Delete: DeleteDisconnect, Rename: RenameRefuse},
		Exceptions: []Exception{
			{Match: "Shared/*", Delete: &refuse},
			{Match: "*", FetchExpunged: &no},
			{Match: "Shared/Team", Delete: &ghost},
			{Match: "%/x", Delete: &ghost},
		},
	}
	for name, want := range map[string]Policy{
		"Shared/Team": {Delete: DeleteRefuse, Rename: RenameRefuse, FetchExpunged: FetchNo},
		"Shared":      {Rename: RenameRefuse, FetchExpunged: FetchNo},
		"a/x":         {Delete: DeleteGhost, Rename: RenameRefuse, FetchExpunged: FetchNo},
		"a/b/x":       {Rename: RenameRefuse, FetchExpunged: FetchNo},
	} {
		if got := r.For(name, '/'); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if got := (*Rules)(nil).For("x", '.'); got != (Policy{}) {
		t.Errorf("nil rules: got %+v", got)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"inbox", "INBOX", true}, {"a", "A", false}, {"*", "a.b", true}, {"%", "a.b", false}, {"%.%", "a.b", true},
		{"a*c", "a.b.c", true}, {"a%c", "a.b.c", false}, {"*b%", "a.bcd", true}, {"*b%", "a.bc.d", false},
		{"%*d", "a.bc.d", true}, {"*%b", "a.b", true}, {"", "", true}, {"", "a", false}, {"a*", "a", true}, {"Entwürfe", "Entwürfe", true},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 2000), false},
	} {
		if got := Match(c.pattern, c.name, '.'); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

// Decisions are pure: whoever needs a file, a clock or a server for one is in the wrong package.
func TestImports(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		ast, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range ast.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if path != "fmt" && path != "slices" && path != "strings" {
				t.Errorf("%s imports %s", f.Name(), path)
			}
		}
	}
}

func TestVains(t *testing.T) {
	del, ren := DeleteGhost, RenameRefuse
	r := &Rules{Exceptions: []Exception{
		{Match: "A", Delete: &del},
		{Match: "B"},
		{Match: "A", Delete: &del, Rename: &ren},
		{Match: "*", Rename: &ren},
		{Match: "C*", Delete: &del, Rename: &ren},
	}}
	want := []Vain{{Exception: 1}, {2, "delete", 0}, {4, "rename", 3}}
	if got := r.Vains(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
