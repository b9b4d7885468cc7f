package backend

import (
	"cmp"
	"slices"

	"github.com/emersion/go-imap/v2"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// An entry is a message that a command names.
type entry struct {
	i   int              // its place in the view; the sequence number is one more
	msg *maildir.Message // as the snapshot has it; of one that is gone, as the client knows it
	// gone is whether it was expunged and the client was not told.
	gone bool
}

func (e entry) seq() uint32 { return uint32(e.i + 1) }

// A selection is what the numbers of a command mean.
type selection struct {
	snap    *maildir.Snapshot
	entries []entry // in ascending order, each once
	byUID   bool    // by UIDs or "$": what isn't there is no error
	living  int
	// act is what policy wants to be done about those that are gone; Serve if none is.
	act policy.Act
}

// named resolves the numbers of a command against the view, and asks policy about messages that
// are gone. Those are left out of the entries, unless they are to be served or shown as NIL. The
// error is the answer where nothing is to be done at all.
func (s *Session) named(c policy.Command, set imap.NumSet) (*selection, error) {
	s.look()
	sel := &selection{snap: s.sel.snapshot(), act: policy.Serve}
	places, byUID, err := s.sel.places(set)
	if err != nil {
		return nil, err
	}
	sel.byUID = byUID
	v := s.sel.view
	gone := 0
	for _, i := range places {
		e := entry{i: i, msg: v.msgs[i]}
		if now := sel.snap.Find(e.msg.UID); now != nil {
			e.msg = now
			sel.living++
		} else {
			e.gone = true
			gone++
		}
		sel.entries = append(sel.entries, e)
	}
	if gone == 0 {
		return sel, nil
	}
	sel.act = s.policy().Decide(c, byUID, sel.living)
	switch sel.act {
	case policy.Refuse:
		return nil, errExpunged
	case policy.Skip, policy.LivingThenNo:
		sel.dropGone()
	}
	return sel, nil
}

// errExpunged answers for messages that are gone.
var errExpunged = no(responseCodeExpungeIssued, "Some of the requested messages no longer exist")

func (sel *selection) dropGone() {
	living := sel.entries[:0]
	for _, e := range sel.entries {
		if !e.gone {
			living = append(living, e)
		}
	}
	sel.entries = living
}

// done is the answer after the living were dealt with; lost is whether one of them turned out to
// be gone meanwhile.
func (sel *selection) done(lost bool) error {
	if sel.act == policy.LivingThenNo || lost && !sel.byUID {
		return errExpunged
	}
	return nil
}

// messages are those of the entries.
func (sel *selection) messages() []*maildir.Message {
	msgs := make([]*maildir.Message, len(sel.entries))
	for i, e := range sel.entries {
		msgs[i] = e.msg
	}
	return msgs
}

// places finds the messages of a set in the view, in ascending order, each once.
func (sel *selected) places(set imap.NumSet) (places []int, byUID bool, err error) {
	v := sel.view
	take := func(from, to int) { // half open
		if n := len(places); n > 0 {
			from = max(from, places[n-1]+1)
		}
		for i := from; i < to; i++ {
			places = append(places, i)
		}
	}
	switch set := set.(type) {
	case imap.SeqSet:
		if len(set) == 0 {
			return nil, false, nil
		}
		list := spans(set, func(r imap.SeqRange) span { return span{r.Start, r.Stop} }, uint32(len(v.msgs)))
		highest := slices.MaxFunc(list, func(a, b span) int { return cmp.Compare(a.stop, b.stop) }).stop
		switch {
		case highest == 0 || int(highest) > v.most: // RFC 9051 9, seq-number
			return nil, false, bad("There are %d messages, no number %d", len(v.msgs), highest)
		case int(highest) > len(v.msgs): // RFC 2180 4.1.1: a number from before an EXPUNGE
			return nil, false, no(responseCodeExpungeIssued, "Messages %d:%d are no longer available", len(v.msgs)+1, highest)
		}
		for _, r := range list {
			take(int(r.start)-1, int(r.stop))
		}
		return places, false, nil
	case imap.UIDSet:
		if imap.IsSearchRes(set) {
			set = sel.saved
		}
		for _, r := range spans(set, func(r imap.UIDRange) span { return span{uint32(r.Start), uint32(r.Stop)} }, uint32(v.last())) {
			from, _ := v.index(imap.UID(r.start))
			to, found := v.index(imap.UID(r.stop))
			if found {
				to++
			}
			take(from, to)
		}
	}
	return places, true, nil
}

// A span is a range of numbers, both ends included.
type span struct{ start, stop uint32 }

// spans are the ranges of a set in ascending order of their starts, with the highest number there
// is in the place of "*" (RFC 9051 9, seq-range).
func spans[R any](set []R, of func(R) span, highest uint32) []span {
	list := make([]span, len(set))
	for i, r := range set {
		sp := of(r)
		if sp.start == 0 {
			sp.start = highest
		}
		if sp.stop == 0 {
			sp.stop = highest
		}
		if sp.start > sp.stop {
			sp.start, sp.stop = sp.stop, sp.start
		}
		list[i] = sp
	}
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	return list
}
