package transcript

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A matcher compares what is expected with what came and binds variables on the way.
type matcher struct {
	vars   map[string]node
	ignore map[string]bool
}

// matches reports whether got is what want says, and then returns the variables as they are now.
func matches(want, got *response, vars map[string]node, ignore map[string]bool) (map[string]node, bool) {
	m := matcher{make(map[string]node), ignore}
	maps.Copy(m.vars, vars)
	if want.tag != "" && want.tag != got.tag || want.status != got.status {
		return nil, false
	}
	if want.text != "" && want.text != got.text {
		return nil, false
	}
	if want.code != nil && !m.code(want.code, got.code) {
		return nil, false
	}
	if want.status == "" && !m.data(want, got) {
		return nil, false
	}
	return m.vars, true
}

func (m *matcher) code(want, got []node) bool {
	if len(want) == 0 || len(got) == 0 {
		return len(want) == len(got)
	}
	if !m.node(want[0], got[0]) {
		return false
	}
	want, got, name := want[1:], got[1:], strings.ToUpper(got[0].text)
	switch name {
	case "CAPABILITY":
		return m.set(want, got)
	case "PERMANENTFLAGS":
		return m.lists(want, got, m.flags)
	case "NEWNAME":
		return m.sequence(want, got, m.name)
	}
	return m.sequence(want, got, m.node)
}

func (m *matcher) data(want, got *response) bool {
	w, g := want.data, got.data
	if len(w) == 0 || len(g) == 0 {
		return len(w) == len(g)
	}
	if name, num := got.kind(); num != "" {
		if len(w) < 2 || !m.node(w[0], g[0]) || !m.node(w[1], g[1]) {
			return false
		}
		if name == "FETCH" {
			return m.lists(w[2:], g[2:], func(w, g []node) bool { return m.pairs(w, g, m.fetchItem) })
		}
		return m.sequence(w[2:], g[2:], m.node)
	}
	if !m.node(w[0], g[0]) {
		return false
	}
	w, g = w[1:], g[1:]
	switch strings.ToUpper(got.data[0].text) {
	case "FLAGS":
		return m.lists(w, g, m.flags)
	case "CAPABILITY", "ENABLED", "SEARCH":
		return m.set(w, g)
	case "LIST", "LSUB":
		if len(w) < 1 || len(g) < 1 {
			return false
		}
		return m.lists(w[:1], g[:1], m.set) && m.sequence(w[1:], g[1:], m.name)
	case "STATUS":
		if len(w) != 2 || len(g) != 2 || !m.name(w[0], g[0]) {
			return false
		}
		return m.lists(w[1:], g[1:], func(w, g []node) bool {
			return m.pairs(w, g, func(_ string, w, g node) bool { return m.node(w, g) })
		})
	case "ESEARCH":
		return m.esearch(w, g)
	}
	return m.sequence(w, g, m.node)
}

// esearch compares (TAG "A1") UID and then items in any order (RFC 9051 7.3.4). What only one of the
// two has is left for pairs, which fails with an odd number of nodes.
func (m *matcher) esearch(w, g []node) bool {
	isTag := func(n []node) bool { return len(n) > 0 && n[0].kind == list }
	if isTag(w) && isTag(g) {
		if !m.sequence(w[0].list, g[0].list, m.name) {
			return false
		}
		w, g = w[1:], g[1:]
	}
	isUID := func(n []node) bool { return len(n) > 0 && n[0].is("UID") }
	if isUID(w) && isUID(g) {
		w, g = w[1:], g[1:]
	}
	return m.pairs(w, g, func(_ string, w, g node) bool { return m.node(w, g) })
}

// fetchItem compares the value of an item of FETCH.
func (m *matcher) fetchItem(item string, w, g node) bool {
	switch {
	case item == "FLAGS":
		return m.lists([]node{w}, []node{g}, m.flags)
	case item == "INTERNALDATE" && w.kind == str && g.kind == str:
		const layout = "_2-Jan-2006 15:04:05 -0700"
		want, err := time.Parse(layout, w.text)
		got, err2 := time.Parse(layout, g.text)
		return err == nil && err2 == nil && want.Equal(got)
	}
	return m.node(w, g)
}

// lists compares one list with one list by f, if want isn't a variable.
func (m *matcher) lists(want, got []node, f func(want, got []node) bool) bool {
	if len(want) != 1 || len(got) != 1 {
		return false
	}
	if want[0].kind == list && got[0].kind == list {
		return f(want[0].list, got[0].list)
	}
	return m.node(want[0], got[0])
}

func (m *matcher) flags(want, got []node) bool {
	if m.ignore["RECENT"] {
		recent := func(n node) bool { return n.is(`\Recent`) }
		want = slices.DeleteFunc(slices.Clone(want), recent)
		got = slices.DeleteFunc(slices.Clone(got), recent)
	}
	return m.set(want, got)
}

// open cuts the ... off the end.
func open(want []node) ([]node, bool) {
	if n := len(want); n > 0 && want[n-1].is("...") {
		return want[:n-1], true
	}
	return want, false
}

// sequence compares one by one.
func (m *matcher) sequence(want, got []node, f func(want, got node) bool) bool {
	want, more := open(want)
	if len(got) < len(want) || len(got) > len(want) && !more {
		return false
	}
	for i, w := range want {
		if !f(w, got[i]) {
			return false
		}
	}
	return true
}

// set compares without order.
func (m *matcher) set(want, got []node) bool {
	want, more := open(want)
	got = slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(got, func(g node) bool { return m.node(w, g) })
		if i < 0 {
			return false
		}
		got = slices.Delete(got, i, i+1)
	}
	return more || len(got) == 0
}

// pairs compares names and values in any order of pairs.
func (m *matcher) pairs(want, got []node, value func(name string, want, got node) bool) bool {
	want, more := open(want)
	if len(want)%2 != 0 || len(got)%2 != 0 || len(got) < len(want) || len(got) > len(want) && !more {
		return false
	}
	for w := range slices.Chunk(want, 2) {
		found := false
		for g := range slices.Chunk(got, 2) {
			found = found || sameAtom(w[0].text, g[0].text) && value(strings.ToUpper(g[0].text), w[1], g[1])
		}
		if !found {
			return false
		}
	}
	return true
}

// name compares nodes where an atom is as good as a string: names of mailboxes.
func (m *matcher) name(want, got node) bool {
	switch {
	case want.kind == atom && variable.MatchString(want.text), want.is("NIL"), got.is("NIL"):
		return m.node(want, got)
	case want.kind == list && got.kind == list:
		return m.sequence(want.list, got.list, m.name)
	case want.kind == list || got.kind == list:
		return false
	}
	return want.text == got.text || strings.EqualFold(want.text, "INBOX") && strings.EqualFold(got.text, "INBOX")
}

func (m *matcher) node(want, got node) bool {
	if want.kind == atom && want.text == "$_" {
		return true
	}
	if want.isVariable() {
		bound, ok := m.vars[want.text]
		if !ok {
			m.vars[want.text] = got
			return true
		}
		if bound.kind+got.kind == atom+str {
			return bound.text == got.text
		}
		want = bound
	}
	if want.kind != got.kind {
		return false
	}
	switch want.kind {
	case str:
		return want.text == got.text
	case list:
		return m.sequence(want.list, got.list, m.node)
	}
	return sameAtom(replace(want.text, m.vars), got.text)
}

// replace puts in what variables are bound to.
func replace(s string, vars map[string]node) string {
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		if n, ok := vars[v]; ok {
			return n.String()
		}
		return v
	})
}

// sameAtom compares atoms: without case, sets of numbers by their numbers, sections without quotes.
func sameAtom(a, b string) bool {
	return strings.EqualFold(canonical(a), canonical(b))
}

func canonical(s string) string {
	if strings.ContainsRune(s, '[') {
		return strings.ReplaceAll(s, `"`, "")
	}
	if !strings.ContainsAny(s, ":,") || strings.Trim(s, "0123456789:,") != "" {
		return s
	}
	type span struct{ first, last uint64 }
	var spans []span
	for r := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(r, ":")
		if !ok {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 32)
		last, err2 := strconv.ParseUint(to, 10, 32)
		if err != nil || err2 != nil {
			return s
		}
		first, last = min(first, last), max(first, last)
		if n := len(spans); n > 0 && spans[n-1].last+1 == first {
			spans[n-1].last = last
		} else {
			spans = append(spans, span{first, last})
		}
	}
	var b strings.Builder
	for i, r := range spans {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(r.first, 10))
		if r.last > r.first {
			b.WriteString(":" + strconv.FormatUint(r.last, 10))
		}
	}
	return b.String()
}
