package backend

import (
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/maildir"
)

// Search finds messages. What is expunged is left out, told or not (draft 4.3).
func (s *Session) Search(kind imapserver.NumKind, criteria *imap.SearchCriteria, options *imap.SearchOptions) (data *imap.SearchData, err error) {
	defer s.begin("SEARCH")(&err)
	if options.ReturnSave {
		defer func() {
			if err != nil {
				s.sel.saved = nil // RFC 5182 2.1
			}
		}()
	}
	s.look()
	q := &query{s: s, snap: s.sel.snapshot()}
	c, err := q.compile(criteria)
	if err != nil {
		return nil, err
	}
	var found []int // places in the view
	for i, msg := range s.sel.view.msgs {
		now := q.snap.Find(msg.UID)
		if now == nil {
			continue
		}
		ok, err := q.matches(c, i, now)
		if err != nil {
			s.unreadable(now, err)
			continue
		}
		if ok {
			found = append(found, i)
		}
	}
	number := func(i int) uint32 {
		if kind == imapserver.NumKindUID {
			return uint32(s.sel.view.msgs[i].UID)
		}
		return uint32(i + 1)
	}
	data = &imap.SearchData{Count: uint32(len(found))}
	if kind == imapserver.NumKindUID {
		data.All = uidSet(s.sel.view.msgs, found)
	} else {
		data.All = seqSet(found)
	}
	if len(found) > 0 {
		data.Min, data.Max = number(found[0]), number(found[len(found)-1])
	}
	if options.ReturnSave {
		s.sel.saved = uidSet(s.sel.view.msgs, saved(found, options))
	}
	return data, nil
}

// saved are those of a result that are saved: all, unless only the lowest or the highest was asked
// for (RFC 5182 2.4).
func saved(found []int, options *imap.SearchOptions) []int {
	if options.ReturnAll || options.ReturnCount || !options.ReturnMin && !options.ReturnMax || len(found) == 0 {
		return found
	}
	var some []int
	if options.ReturnMin {
		some = append(some, found[0])
	}
	if last := found[len(found)-1]; options.ReturnMax && (len(some) == 0 || some[0] != last) {
		some = append(some, last)
	}
	return some
}

func seqSet(found []int) imap.SeqSet {
	var set imap.SeqSet
	for _, i := range found {
		n := uint32(i + 1)
		if k := len(set) - 1; k >= 0 && set[k].Stop == n-1 {
			set[k].Stop = n
		} else {
			set = append(set, imap.SeqRange{Start: n, Stop: n})
		}
	}
	return set
}

func uidSet(msgs []*maildir.Message, found []int) imap.UIDSet {
	var set imap.UIDSet
	for _, i := range found {
		uid := msgs[i].UID
		if k := len(set) - 1; k >= 0 && set[k].Stop == uid-1 {
			set[k].Stop = uid
		} else {
			set = append(set, imap.UIDRange{Start: uid, Stop: uid})
		}
	}
	return set
}

// A query is one SEARCH.
type query struct {
	s    *Session
	snap *maildir.Snapshot
}

// compiled is what a SearchCriteria means in one view, so that it is found out once and not for
// each message.
type compiled struct {
	*imap.SearchCriteria
	within []map[int]struct{} // places in the view, for each set of numbers
	set    maildir.Flags      // flags that must be set
	unset  maildir.Flags      // flags that must not be set
	never  bool               // a keyword is asked for that no message has
	recent *bool              // \Recent, or not
	not    []*compiled
	or     [][2]*compiled
}

func (q *query) compile(c *imap.SearchCriteria) (*compiled, error) {
	out := &compiled{SearchCriteria: c}
	v := q.s.sel.view
	add := func(set imap.NumSet) error {
		places, _, err := q.s.sel.places(set)
		within := make(map[int]struct{}, len(places))
		for _, i := range places {
			within[i] = struct{}{}
		}
		out.within = append(out.within, within)
		return err
	}
	for _, set := range c.SeqNum {
		if err := add(existing(set, uint32(len(v.msgs)))); err != nil {
			return nil, err
		}
	}
	for _, set := range c.UID {
		if err := add(set); err != nil {
			return nil, err
		}
	}
	for _, flag := range c.Flag {
		f := q.snap.FlagsNamed([]imap.Flag{flag})
		switch {
		case strings.EqualFold(string(flag), string(flagRecent)):
			if yes := true; out.recent == nil || *out.recent {
				out.recent = &yes
			} else {
				out.never = true
			}
		case f == 0:
			out.never = true
		}
		out.set |= f
	}
	for _, flag := range c.NotFlag {
		if strings.EqualFold(string(flag), string(flagRecent)) {
			if no := false; out.recent == nil || !*out.recent {
				out.recent = &no
			} else {
				out.never = true
			}
		}
		out.unset |= q.snap.FlagsNamed([]imap.Flag{flag})
	}
	for i := range c.Not {
		sub, err := q.compile(&c.Not[i])
		if err != nil {
			return nil, err
		}
		out.not = append(out.not, sub)
	}
	for i := range c.Or {
		a, err := q.compile(&c.Or[i][0])
		if err != nil {
			return nil, err
		}
		b, err := q.compile(&c.Or[i][1])
		if err != nil {
			return nil, err
		}
		out.or = append(out.or, [2]*compiled{a, b})
	}
	return out, nil
}

// existing is the part of a set that has messages: SEARCH finds nothing among numbers that there
// are none of, and that is no error.
func existing(set imap.SeqSet, n uint32) imap.SeqSet {
	var out imap.SeqSet
	for _, r := range spans(set, func(r imap.SeqRange) span { return span{r.Start, r.Stop} }, n) {
		if start, stop := max(r.start, 1), min(r.stop, n); start <= stop {
			out = append(out, imap.SeqRange{Start: start, Stop: stop})
		}
	}
	return out
}

// matches reports whether a message meets the criteria. It asks what costs least first, and looks
// into the mail only if nothing else has settled it.
func (q *query) matches(c *compiled, i int, msg *maildir.Message) (bool, error) {
	l := &lookup{q, q.s.mail(msg)}
	defer l.close()
	return l.matches(c, i)
}

// A lookup is one message under the eyes of a query.
type lookup struct {
	q *query
	*mail
}

func (l *lookup) matches(c *compiled, i int) (bool, error) {
	if c.never || l.msg.Flags&c.set != c.set || l.msg.Flags&c.unset != 0 {
		return false, nil
	}
	if c.recent != nil && l.q.s.sel.view.isRecent(l.msg.UID) != *c.recent {
		return false, nil
	}
	for _, within := range c.within {
		if _, ok := within[i]; !ok {
			return false, nil
		}
	}
	for _, step := range []func(*compiled) (bool, error){l.dates, l.sizes, l.headers, l.bodies} {
		if ok, err := step(c); !ok || err != nil {
			return false, err
		}
	}
	for _, not := range c.not {
		if ok, err := l.matches(not, i); ok || err != nil {
			return false, err
		}
	}
	for _, or := range c.or {
		ok, err := l.matches(or[0], i)
		if err == nil && !ok {
			ok, err = l.matches(or[1], i)
		}
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// dates compares dates as they are written, whatever the time and the zone (RFC 9051 6.4.4).
func (l *lookup) dates(c *compiled) (bool, error) {
	if !c.Since.IsZero() || !c.Before.IsZero() {
		t, err := l.q.s.sel.Date(l.q.s.ctx, l.msg)
		if err != nil || !between(t, c.Since, c.Before) {
			return false, err
		}
	}
	if !c.SentSince.IsZero() || !c.SentBefore.IsZero() {
		t, err := l.open().SentDate()
		if err != nil || t.IsZero() || !between(t, c.SentSince, c.SentBefore) {
			return false, err
		}
	}
	return true, nil
}

func between(t, since, before time.Time) bool {
	y, m, d := t.Date()
	day := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}

func (l *lookup) sizes(c *compiled) (bool, error) {
	if c.Larger == 0 && c.Smaller == 0 {
		return true, nil
	}
	n, err := l.q.s.sel.Size(l.q.s.ctx, l.msg)
	return err == nil && (c.Larger == 0 || n > c.Larger) && (c.Smaller == 0 || n < c.Smaller), err
}

func (l *lookup) headers(c *compiled) (bool, error) {
	for _, h := range c.Header {
		if ok, err := l.open().MatchHeader(h.Key, h.Value); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (l *lookup) bodies(c *compiled) (bool, error) {
	for _, text := range c.Text {
		if ok, err := l.open().MatchText(text); !ok || err != nil {
			return false, err
		}
	}
	for _, text := range c.Body {
		if ok, err := l.open().MatchBody(text); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}
