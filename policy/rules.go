package policy

import (
	"slices"
	"strings"
)

// Rules are the policies of a server: one for all mailboxes, and exceptions by name. A nil *Rules
// is the default policy everywhere.
type Rules struct {
	Default    Policy
	Exceptions []Exception
}

// An Exception changes the policy of the mailboxes that Match; a nil field changes nothing.
type Exception struct {
	// Match is a mailbox name as clients see it, in which "*" stands for any characters and "%"
	// for any but the hierarchy separator, as in LIST (RFC 9051 section 6.3.9).
	Match         string
	Delete        *Delete
	Rename        *Rename
	Expunge       *Expunge
	FetchExpunged *FetchExpunged
	StoreExpunged *StoreExpunged
	CopyExpunged  *CopyExpunged
}

// For is the policy of one mailbox: key by key, the first exception that matches and sets the key,
// else the default.
func (r *Rules) For(mailbox string, separator rune) Policy {
	if r == nil {
		return Policy{}
	}
	p := r.Default
	for i := len(r.Exceptions) - 1; i >= 0; i-- { // the first one last, so that it wins
		e := &r.Exceptions[i]
		if !Match(e.Match, mailbox, separator) {
			continue
		}
		set(&p.Delete, e.Delete)
		set(&p.Rename, e.Rename)
		set(&p.Expunge, e.Expunge)
		set(&p.FetchExpunged, e.FetchExpunged)
		set(&p.StoreExpunged, e.StoreExpunged)
		set(&p.CopyExpunged, e.CopyExpunged)
	}
	return p
}

// sets are the keys that an exception sets.
func (e *Exception) sets() (keys []string) {
	for _, k := range []struct {
		key string
		set bool
	}{
		{"delete", e.Delete != nil},
		{"rename", e.Rename != nil},
		{"expunge", e.Expunge != nil},
		{"fetch_expunged", e.FetchExpunged != nil},
		{"store_expunged", e.StoreExpunged != nil},
		{"copy_expunged", e.CopyExpunged != nil},
	} {
		if k.set {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// A Vain is something in Rules that can have no effect.
type Vain struct {
	Exception int    // its index
	Key       string // that it sets; "" if it sets none
	By        int    // the exception before it that sets the key for all that it matches
}

// Vains finds exceptions that set nothing, or only what one before them has set: the first that matches
// wins. It looks at patterns that are equal, and at "*".
func (r *Rules) Vains() (vains []Vain) {
	for i := range r.Exceptions {
		e := &r.Exceptions[i]
		keys := e.sets()
		if len(keys) == 0 {
			vains = append(vains, Vain{Exception: i})
		}
		for _, key := range keys {
			by := slices.IndexFunc(r.Exceptions[:i], func(before Exception) bool {
				return (before.Match == e.Match || before.Match == "*") && slices.Contains(before.sets(), key)
			})
			if by >= 0 {
				vains = append(vains, Vain{i, key, by})
			}
		}
	}
	return vains
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// Match reports whether a mailbox name matches a pattern in which "*" stands for any characters and
// "%" for any but the hierarchy separator; INBOX in any case (RFC 9051 section 6.3.9). It keeps one place to go back to, so that a
// pattern of many "*" costs no more than the product of both lengths.
func Match(pattern, name string, separator rune) bool {
	if strings.EqualFold(name, "INBOX") && strings.EqualFold(pattern, "INBOX") {
		return true
	}
	p, n := []rune(pattern), []rune(name)
	type place struct{ p, n int }
	star, percent := place{-1, 0}, place{-1, 0}
	i, j := 0, 0
	for j < len(n) || i < len(p) {
		switch {
		case i < len(p) && p[i] == '*':
			star, percent = place{i, j}, place{-1, 0}
			i++
			continue
		case i < len(p) && p[i] == '%':
			percent = place{i, j}
			i++
			continue
		case i < len(p) && j < len(n) && p[i] == n[j]:
			i, j = i+1, j+1
			continue
		}
		switch {
		case percent.p >= 0 && percent.n < len(n) && n[percent.n] != separator:
			percent.n++
			i, j = percent.p+1, percent.n
		case star.p >= 0 && star.n < len(n):
			star.n++
			i, j = star.p+1, star.n
			percent = place{-1, 0}
		default:
			return false
		}
	}
	return true
}
