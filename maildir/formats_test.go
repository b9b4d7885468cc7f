package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFileNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags Flags
		set   Flags
		want  string
	}{
		{"a", 0, FlagSeen, "a:2,S"},
		{"a:2,", 0, 0, "a:2,"},
		{"a:2,TSF", FlagDeleted | FlagSeen | FlagFlagged, FlagFlagged | FlagSeen | FlagDeleted, "a:2,FST"},
		{"a:1,x", 0, FlagDraft, "a:2,D"},
		{"a:2,S:2,F", FlagFlagged, FlagAnswered, "a:2,R"},
		{"dov.1:2,SdovX,ext", FlagSeen | keywordFlag('d'-'a') | keywordFlag('o'-'a') | keywordFlag('v'-'a'), keywordFlag('d' - 'a'), "dov.1:2,Xd,ext"},
		{"a,S=1:2,P", 0, keywordFlag(25), "a,S=1:2,Pz"},
	} {
		if got := parseFlags(c.name); got != c.flags {
			t.Errorf("parseFlags(%q) = %b, want %b", c.name, got, c.flags)
		}
		if got := withFlags(c.name, c.set); got != c.want {
			t.Errorf("withFlags(%q, %b) = %q, want %q", c.name, c.set, got, c.want)
		}
	}
	for base, want := range map[string][2]int64{
		"1.a,S=130,W=137": {130, 137}, "1.a": {-1, -1}, "1,S=x": {-1, -1}, "1,W=5,U=3": {-1, 5}, "1,S=-2": {-1, -1}, "1,S=": {-1, -1},
	} {
		if s, w := sizesOf(base); s != want[0] || w != want[1] {
			t.Errorf("sizesOf(%q) = %d, %d", base, s, w)
		}
	}
	order := []string{"9.x", "10.M2P1.h", "10.M10P1.h", "10.a", "11"}
	got := slices.Clone(order)
	slices.Reverse(got)
	if sortBases(got); !slices.Equal(got, order) {
		t.Errorf("bases are sorted as %q, Dovecot's order is %q", got, order)
	}
}

func FuzzFileName(f *testing.F) {
	f.Add("dov.1:2,SdovX,ext", uint32(0x7fffffff))
	f.Add("a:2,S:2,F", uint32(0))
	f.Fuzz(func(t *testing.T, name string, bits uint32) {
		flags := Flags(bits & 0x7fffffff)
		got := withFlags(name, flags)
		if parseFlags(got) != flags {
			t.Fatalf("withFlags(%q, %b) = %q reads %b", name, flags, got, parseFlags(got))
		}
		if withFlags(got, flags) != got {
			t.Fatalf("%q is not stable", got)
		}
		a, _ := splitName(name)
		b, _ := splitName(got)
		if a != b {
			t.Fatalf("base %q became %q", a, b)
		}
	})
}

func TestUIDListBadLines(t *testing.T) {
	const guid = "0123456789abcdef0123456789abcdef"
	l, problems, err := parseUIDList("3 V7 N12 Pxyz G" + guid + " Qnew\n" +
		"1 S5 W6 Zkeep :a b,S=5\n" +
		"x :bad\n" +
		"0 :bad\n" +
		"3 :c:2,S\n" +
		"2 :late\n" +
		"3 :doubled\n" +
		"9 :dir/file\n" +
		"11 :again\n" +
		"12 :again\n" +
		"13 :cut")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range l.records {
		got = append(got, fmt.Sprintf("%d[%s]%s", r.uid, r.fields, r.base))
	}
	if want := []string{"1[S5 W6 Zkeep]a b,S=5", "2[]late", "12[]again"}; !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
	if len(problems) != 6 {
		t.Errorf("%d problems: %v", len(problems), problems)
	}
	if l.nextUID() != 18 || l.validity != 7 || l.guid != guid {
		t.Errorf("next %d, validity %d, guid %s", l.nextUID(), l.validity, l.guid)
	}
	if want := "3 V7 N18 G" + guid + " Pxyz Qnew\n1 S5 W6 Zkeep :a b,S=5\n2 :late\n12 :again\n"; string(l.encode()) != want {
		t.Errorf("written as %q, want %q", l.encode(), want)
	}
	if v, ok := l.records[0].withField('W', "8").field('W'); !ok || v != "8" {
		t.Errorf("field W is %q", v)
	}
	for _, bad := range []string{"", "\n", "3 V0 N1\n", "3 N1\n", "2 V1 N1\n", "1 5\n", "garbage\n", "3 V1 N1"} {
		var fe *FormatError
		if _, _, err := parseUIDList(bad); !errors.As(err, &fe) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if l, _, err := parseUIDList("1 99 5\n2 x:2,S\n4 y\n"); err != nil || l.nextUID() != 5 || len(l.records) != 2 || l.records[0].base != "x" {
		t.Errorf("Courier's list: %+v, %v", l, err)
	}
}

func FuzzUIDList(f *testing.F) {
	f.Add([]byte("3 V7 N12 G0123456789abcdef0123456789abcdef\n1 S5 :a\n3 :b\n"))
	f.Add([]byte("1 99 5\n2 x:2,S\n"))
	for _, c := range damagedLists() {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, _, err := parseUIDList(string(b))
		if err != nil {
			return
		}
		for i := 1; i < len(l.records); i++ {
			if l.records[i-1].uid >= l.records[i].uid {
				t.Fatal("UIDs do not ascend")
			}
		}
		l.guid = newGUID()
		again, problems, err := parseUIDList(string(l.encode()))
		if err != nil || len(problems) > 0 {
			t.Fatalf("what was written does not read: %v %v\n%q", err, problems, l.encode())
		}
		if !slices.Equal(again.records, l.records) || again.nextUID() != l.nextUID() || !slices.Equal(again.ext, l.ext) {
			t.Fatalf("%q came back as %q", l.encode(), again.encode())
		}
	})
}

func FuzzKeywords(f *testing.F) {
	f.Add([]byte("0 $Work\n1 Personal\n25 z\n1 again\n2 personal\nx y\n"))
	for _, c := range damagedKeywords() {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, _, _ := parseKeywords(bytes.NewReader(b))
		again, problems, _ := parseKeywords(bytes.NewReader(k.encode()))
		if again != k || len(problems) > 0 {
			t.Fatalf("%q came back as %q: %v", k, again, problems)
		}
	})
}

func FuzzSubscriptions(f *testing.F) {
	f.Add([]byte("V\t2\n\nFoo\tbar\nEntw&APw-rfe\n"))
	f.Add([]byte("Foo.bar\ninbox\n"))
	for _, c := range damagedSubscriptions() {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, _, err := parseSubscriptions(bytes.NewReader(b), ".")
		if err != nil {
			return
		}
		again, _, err := parseSubscriptions(bytes.NewReader(s.encode(".")), ".")
		if err != nil {
			t.Fatal(err)
		}
		if s.version == 2 && again.version != 2 {
			t.Fatal("the version changed")
		}
		third, _, _ := parseSubscriptions(bytes.NewReader(again.encode(".")), ".")
		if !slices.Equal(again.names, third.names) {
			t.Fatalf("%q came back as %q", again.names, third.names)
		}
	})
}

func TestSubscriptionForms(t *testing.T) {
	s, _, _ := parseSubscriptions(strings.NewReader("V\t2\n\nFoo\tbar\tbaz\nEntw&APw-rfe\ninbox\n"), ".")
	if want := []string{"Foo.bar.baz", "Entw&APw-rfe", "INBOX"}; !slices.Equal(s.names, want) {
		t.Errorf("names %q", s.names)
	}
	s.remove("Inbox")
	if want := "V\t2\n\nFoo\tbar\tbaz\nEntw&APw-rfe\n"; string(s.encode(".")) != want {
		t.Errorf("written as %q", s.encode("."))
	}
	s, _, _ = parseSubscriptions(strings.NewReader("a.b\n"), ".")
	s.add("c")
	if string(s.encode(".")) != "a.b\nc\n" {
		t.Errorf("version 1 written as %q", s.encode("."))
	}
}

func TestNames(t *testing.T) {
	pp, fs := &Options{}, &Options{Layout: LayoutFS}
	slash := &Options{Separator: '/'}
	for _, c := range []struct {
		o             *Options
		name, storage string
	}{
		{pp, "inbox", "INBOX"}, {pp, "Work.2026", "Work.2026"}, {pp, "Entwürfe", "Entw&APw-rfe"}, {pp, "a&b", "a&-b"}, {pp, "x.", "x"},
		{fs, "Work/2026", "Work/2026"}, {fs, "a.b", "a.b"}, {slash, "Work/2026", "Work.2026"}, {pp, "Inbox.x", "INBOX.x"}, {pp, "日本", "&ZeVnLA-"},
		{&Options{Names: NamesUTF8}, "Entwürfe", "Entwürfe"},
	} {
		if got, err := c.o.storageName(c.name); err != nil || got != c.storage {
			t.Errorf("storageName(%q) = %q, %v; want %q", c.name, got, err, c.storage)
		}
	}
	for _, bad := range []struct {
		o    *Options
		name string
	}{
		{pp, ""}, {pp, "a/b"}, {pp, "~a"}, {pp, ".a"}, {pp, "a..b"}, {pp, "a\x01"}, {pp, "a\xff"}, {pp, strings.Repeat("x", 300)},
		{fs, "../x"}, {fs, "a/../b"}, {fs, "/a"}, {fs, "a/cur"}, {fs, "subscriptions"}, {fs, "dovecot-uidlist"}, {slash, "a.b"},
	} {
		if got, err := bad.o.storageName(bad.name); !errors.Is(err, ErrBadName) {
			t.Errorf("storageName(%q) = %q, %v", bad.name, got, err)
		}
	}
	for storage, want := range map[string]string{"Raw8ü": "Raw8ü", "Bad&x": "Bad&x", "x\xff": "x\uFFFD"} {
		if got, canonical := pp.mailboxName(storage); got != want || canonical {
			t.Errorf("mailboxName(%q) = %q, %v", storage, got, canonical)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("Work.Entwürfe&")
	f.Add("a\U0001F600b")
	f.Fuzz(func(t *testing.T, name string) {
		for _, o := range []*Options{{}, {Layout: LayoutFS}, {Separator: '/'}, {Names: NamesUTF8}} {
			storage, err := o.storageName(name)
			if err != nil {
				continue
			}
			back, canonical := o.mailboxName(storage)
			if again, err := o.storageName(back); err != nil || again != storage || !canonical {
				t.Fatalf("%q is %q on disk, that is %q, that is %q (%v)", name, storage, back, again, err)
			}
		}
	})
}

// private is the access in a folder of its owner alone.
var private = access{0o700, -1}

// A lock left behind is taken over as Dovecot does; a live holder's never.
func TestDotlock(t *testing.T) {
	path := t.TempDir()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	d := &dir{f: f}
	defer d.close()
	o := dotlockOptions{guarded: listFile, wait: 20 * time.Millisecond, access: private}
	ctx := context.Background()
	lock := filepath.Join(path, listLock)

	l, err := lockDotfile(ctx, d, listLock, o)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(lock); string(b) != fmt.Sprintf("%d:%s", os.Getpid(), hostName) {
		t.Errorf("the lock holds %q", b)
	}
	old := time.Now().Add(-time.Hour)
	os.Chtimes(lock, old, old)
	var le *LockError
	if _, err := lockDotfile(ctx, d, listLock, o); !errors.As(err, &le) || !errors.Is(err, ErrLocked) {
		t.Errorf("a second holder: %v", err)
	}
	if err := l.unlock(); err != nil {
		t.Error(err)
	}
	for holder, taken := range map[string]bool{
		fmt.Sprintf("%d:%s", 1<<22+1, hostName):     true, // no such process: above every pid
		fmt.Sprintf("1:%s", hostName):               false,
		fmt.Sprintf("%d:%s", os.Getpid(), hostName): true, // of an earlier process with this number
		fmt.Sprintf("%d:elsewhere", 1<<22+1):        false,
		"":                                          false,
		fmt.Sprintf("%d:%s\n", 1<<22+1, hostName):   true,
	} {
		os.WriteFile(lock, []byte(holder), 0o600)
		os.Chtimes(lock, old, old)
		l, err := lockDotfile(ctx, d, listLock, o)
		if (err == nil) != taken {
			t.Errorf("lock of %q: %v", holder, err)
		}
		if err == nil {
			l.unlock()
		}
		os.Remove(lock)
	}
	// One that was left behind and that may not be removed is waited for.
	d.fault = func(op string, paths ...string) error {
		if op == "remove" || op == "exchange" {
			return fs.ErrPermission
		}
		return nil
	}
	os.WriteFile(lock, fmt.Appendf(nil, "%d:%s", 1<<22+1, hostName), 0o600)
	os.Chtimes(lock, old, old)
	if _, err := lockDotfile(ctx, d, listLock, o); !errors.Is(err, ErrLocked) {
		t.Errorf("a lock that can't be removed: %v", err)
	}
	// One that this process could not remove is its own to take.
	os.Remove(lock)
	if l, err = lockDotfile(ctx, d, listLock, o); err != nil {
		t.Fatal(err)
	}
	if err := l.unlock(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unlock: %v", err)
	}
	d.fault = nil
	if l, err = lockDotfile(ctx, d, listLock, o); err != nil {
		t.Fatalf("a lock that stayed: %v", err)
	}
	if err := l.unlock(); err != nil {
		t.Error(err)
	}
	os.WriteFile(lock, []byte("5:elsewhere"), 0o600)
	o.stale = 10 * time.Millisecond
	if l, err = lockDotfile(ctx, d, listLock, o); err != nil {
		t.Fatalf("an unchanged lock of another host: %v", err)
	}
	os.Remove(lock)
	os.WriteFile(lock, []byte("5:elsewhere"), 0o600)
	if err := l.unlock(); err == nil {
		t.Error("a lock that was taken away unlocks without a word")
	}
	if _, err := os.Stat(lock); err != nil {
		t.Error("somebody else's lock was removed")
	}
}

// A number is handed out once, also right after each other and when a file is lost.
func TestUIDValidity(t *testing.T) {
	path := t.TempDir()
	a, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var last uint32
	for i := range 20 {
		v, err := a.nextUIDValidity()
		if err != nil || v <= last {
			t.Fatalf("%d after %d: %v", v, last, err)
		}
		last = v
		if i == 10 {
			os.Remove(filepath.Join(path, suffixed(v)))
		}
		if i == 15 {
			os.Remove(filepath.Join(path, validityFile))
		}
	}
}
