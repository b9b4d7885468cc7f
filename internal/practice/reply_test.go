package practice

import (
	"slices"
	"strings"
	"testing"
)

// said makes a reply of the lines of a server; the last one is tagged.
func said(lines ...string) reply {
	last := len(lines) - 1
	r := reply{untagged: lines[:last]}
	r.status, r.rest = word(lines[last])
	return r
}

func body(n int) string { return "* " + string(rune('0'+n)) + " FETCH (BODY[] {9}\r\n" + mark(n) + ")" }

// The examples of the RFC, and what else servers do.
func TestFetched(t *testing.T) {
	const nilEnvelope = " FETCH (ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL))"
	envelope := `* 3 FETCH (ENVELOPE (NIL "` + mark(3) + `" NIL NIL NIL NIL NIL NIL NIL NIL))`
	for _, c := range []struct {
		name     string
		messages []int
		sign     func(int) string
		reply    reply
		want     string
	}{
		{"4.1.1", gone, mark, said(body(4), body(5), body(6), body(7), "OK FETCH Completed"), "ghost"},
		{"4.1.2", mixed, mark, said(envelope, "NO Some of the requested messages no longer exist"), "NO"},
		{"4.1.2, with a code", mixed, mark, said(envelope, "NO [EXPUNGEISSUED] gone"), "NO [EXPUNGEISSUED]"},
		{"4.1.2, only gone ones", gone, mark, said("NO Messages 4:7 are no longer available"), "NO"},
		{"4.1.3", mixed, mark, said(envelope, "* 4"+nilEnvelope, "* 5"+nilEnvelope, "OK FETCH completed"), "NIL"},
		{"4.1.3, RFC822 as BODY[]", gone[:1], mark, said(`* 4 FETCH (BODY[] "")`, "OK done"), "NIL"},
		{"4.1.3, an empty literal", gone[:1], mark, said("* 4 FETCH (UID 9 BODY[] {0}\r\n)", "OK done"), "NIL"},
		{"4.1.3, no flags", mixed, flags, said(`* 3 FETCH (FLAGS (\Recent))`, "* 4 FETCH (FLAGS ())", `* 5 FETCH (FLAGS (\Recent))`, "OK done"), "NIL"},
		{"flags are kept", mixed, flags, said("* 3 FETCH (FLAGS ())", `* 4 FETCH (FLAGS (\Deleted))`, `* 5 FETCH (FLAGS (\Recent \Deleted))`, "OK done"), "ghost"},
		{"NIL, and flags by itself", gone[:1], mark, said("* 4 FETCH (BODY[] NIL)", `* 4 FETCH (FLAGS (\Deleted))`, "OK [EXPUNGEISSUED] gone"), "NIL [EXPUNGEISSUED]"},
		{"left out", mixed, mark, said(body(3), "OK done"), "not allowed: OK, and they are left out"},
		{"other data", mixed, mark, said(body(3), "* 4 FETCH (BODY[] {4}\r\ngone)", "* 5 FETCH (BODY[] {4}\r\ngone)", "OK done"), "not allowed: OK, with other data in their place"},
		{"now so, now so", mixed, mark, said(body(3), body(4), `* 5 FETCH (BODY[] "")`, "OK done"), "not allowed: OK, with other data in their place"},
		{"nothing of the living", mixed, mark, said("NO gone"), "not allowed: NO, without what is left"},
		{"data, and NO", mixed, mark, said(body(3), body(4), body(5), "NO gone"), "not allowed: NO"},
		{"BAD", gone, mark, said("BAD what"), "not allowed: BAD"},
		{"EXPUNGE", mixed, mark, said(body(3), "* 4 EXPUNGE", "NO gone"), "not allowed: EXPUNGE is sent during FETCH"},
	} {
		v := byNumber(c.reply, c.messages, c.sign)
		if got := (Finding{Answer: v.answer, Detail: v.detail}).Says(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// By UID, messages are told by their UIDs: EXPUNGE may come between.
func TestFetchedByUID(t *testing.T) {
	uids := []string{"", "11", "12", "13", "14", "15", "16", "17"}
	data := func(n int, rest string) string { return "* " + string(rune('0'+n)) + " FETCH (" + rest + ")" }
	for want, r := range map[string]reply{
		"left out": said(data(3, "UID 13 BODY[] {9}\r\n"+mark(3)), "* 4 EXPUNGE", "* 4 EXPUNGE", "OK done"),
		"ghost": said(data(3, "BODY[] {9}\r\n"+mark(3)+" UID 13"), data(4, "UID 14 BODY[] {9}\r\n"+mark(4)), "* 4 EXPUNGE",
			data(4, "UID 15 BODY[] {9}\r\n"+mark(5)), "OK done"),
		"NIL":                                   said(data(3, "UID 13 BODY[] {9}\r\n"+mark(3)), data(4, "UID 14 BODY[] NIL"), data(5, "UID 15 BODY[] NIL"), "OK done"),
		"NO":                                    said(data(3, "UID 13 BODY[] {9}\r\n"+mark(3)), "NO gone"),
		"not allowed: OK, without what is left": said("OK done"),
	} {
		v := fetched(r, mixed, uids, mark)
		if got := (Finding{Answer: v.answer, Detail: v.detail}).Says(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestStored(t *testing.T) {
	for want, r := range map[string]reply{
		"OK, as if they were there":      said(`* 5 FETCH (FLAGS (\Flagged))`, "OK done"),
		"OK, and they are left out":      said(`* 1 FETCH (FLAGS (\Flagged))`, "OK done"),
		"EXPUNGE is sent during STORE":   said("* 5 EXPUNGE", "OK done"),
		"BAD [CLIENTBUG]":                said("BAD [CLIENTBUG] no"),
		"the server ends the connection": {rest: "the server ends the connection", ended: true},
	} {
		if v := stored(r); v.answer != Forbidden || v.detail != want {
			t.Errorf("%v, want %s", v, want)
		}
	}
}

func TestTold(t *testing.T) {
	for _, c := range []struct {
		reply reply
		want  string
	}{
		{said("* 4 EXPUNGE", "* 4 EXPUNGE", "* 4 EXPUNGE", "* 4 EXPUNGE", "* 3 EXISTS", "OK done"), "told"},
		{said("* 7 expunge", "* 6 expunge", "* 5 expunge", "* 4 expunge", "OK done"), "told"},
		{said("* 7 EXISTS", "OK done"), "not told"},
		{said("* 1 EXPUNGE", "* 1 EXPUNGE", "* 1 EXPUNGE", "* 1 EXPUNGE", "OK done"), "not allowed: the client is left with [5 6 7]"},
		{said("* 8 EXPUNGE", "OK done"), "not allowed: the client is left with []"},
	} {
		v := told(c.reply)
		if got := (Finding{Answer: v.answer, Detail: v.detail}).Says(); got != c.want {
			t.Errorf("%q: %s, want %s", c.reply.untagged, got, c.want)
		}
	}
}

// Whatever a server sends, it is judged.
func FuzzReply(f *testing.F) {
	f.Add("* 4 FETCH (UID 14 BODY[] {1}\r\na)\n* SEARCH 1 2\n* 4 EXPUNGE\nNO [EXPUNGEISSUED] gone")
	f.Add("* 1 FETCH (UID 7)\n* 99999999999999999999 EXPUNGE\n* SEARCH -1 x\n*\n\nOK [")
	f.Fuzz(func(t *testing.T, text string) {
		r := said(strings.Split(text, "\n")...)
		uids := r.uids()
		for _, uids := range [][]string{nil, uids} {
			if v := fetched(r, mixed, uids, mark); v.answer == "" {
				t.Errorf("no answer: %v", v)
			}
		}
		for _, v := range []verdict{expunged(r), stored(r), told(r)} {
			if v.answer == "" {
				t.Errorf("no answer: %v", v)
			}
		}
		if found := r.found(); !slices.IsSorted(found) {
			t.Errorf("found %v", found)
		}
		if left := r.left(7); len(left) > 7 {
			t.Errorf("left %v", left)
		}
	})
}
