package backend

import (
	"errors"
	"io"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/imapmaildir/imapmaildir/backend/message"
	"github.com/imapmaildir/imapmaildir/maildir"
	"github.com/imapmaildir/imapmaildir/policy"
)

// fetchSlice is how many messages are marked \Seen at a time: the marks of these are on disk when
// the first of them is sent.
const fetchSlice = 200

// Fetch sends what is asked for of messages.
func (s *Session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, options *imap.FetchOptions) (err error) {
	defer s.begin("FETCH")(&err)
	sel, err := s.named(policy.Fetch, set)
	if err != nil {
		return err
	}
	f := &fetch{s: s, w: w, sel: sel, options: options}
	size := max(len(sel.entries), 1)
	marks := marksSeen(options) && !s.sel.readOnly
	if marks {
		size = fetchSlice
	}
	for from := 0; from < len(sel.entries); from += size {
		part := sel.entries[from:min(from+size, len(sel.entries))]
		if marks {
			f.markSeen(part)
		}
		for _, e := range part {
			if err := f.message(e); err != nil {
				return err
			}
		}
	}
	switch {
	case f.unknown:
		return no(imap.ResponseCodeUnknownCTE, "Content-Transfer-Encoding is not known")
	case f.unreadable:
		return no(imap.ResponseCodeUnavailable, "Some of the messages can't be read")
	}
	return sel.done(f.lost)
}

// marksSeen reports whether a FETCH sets \Seen (RFC 9051 6.4.5).
func marksSeen(o *imap.FetchOptions) bool {
	for _, section := range o.BodySection {
		if !section.Peek {
			return true
		}
	}
	for _, section := range o.BinarySection {
		if !section.Peek {
			return true
		}
	}
	return false
}

// A fetch is one FETCH command.
type fetch struct {
	s       *Session
	w       *imapserver.FetchWriter
	sel     *selection
	options *imap.FetchOptions

	lost       bool // a message turned out to be gone
	unreadable bool // a message couldn't be read
	unknown    bool // a part has an encoding that can't be decoded
}

// markSeen sets \Seen. Mail can be read where it can't be marked.
func (f *fetch) markSeen(entries []entry) {
	var uids []imap.UID
	for _, e := range entries {
		if !e.gone && e.msg.Flags&maildir.FlagSeen == 0 {
			uids = append(uids, e.msg.UID)
		}
	}
	if len(uids) == 0 {
		return
	}
	ctx := maildir.WithLockWait(f.s.ctx, func(w maildir.LockWait) error {
		if w.Waited < seenWait {
			return nil
		}
		return w.GiveUp()
	})
	stored, err := f.s.sel.Store(ctx, uids, imap.StoreFlagsAdd, []imap.Flag{imap.FlagSeen})
	f.s.sel.Tried("mark as seen", err)
	if err != nil {
		return
	}
	f.sel.snap = f.s.sel.snapshot()
	now := make(map[imap.UID]*maildir.Message, len(stored))
	for _, msg := range stored {
		now[msg.UID] = msg
	}
	for i := range entries {
		if msg := now[entries[i].msg.UID]; msg != nil {
			entries[i].msg = msg
		}
	}
}

// An item is what is ready to be sent of a message: all that can fail has been done before the
// response begins, but for the reading of bodies.
type item func(*imapserver.FetchResponseWriter) error

// message sends one message. The error is the connection's; a message that is gone or that can't
// be read is left out and noted.
func (f *fetch) message(e entry) error {
	mail := f.s.mail(e.msg)
	defer mail.close()
	items, err := f.items(e, mail)
	if errors.Is(err, maildir.ErrExpunged) && !e.gone { // since the command began
		e.gone, e.msg = true, f.s.sel.view.msgs[e.i]
		f.sel.act = f.s.policy().Decide(policy.Fetch, f.sel.byUID, f.sel.living)
		items, err = f.items(e, mail)
	}
	switch {
	case errors.Is(err, maildir.ErrExpunged):
		f.lost = true
		return nil
	case errors.Is(err, message.ErrUnknownEncoding):
		f.unknown = true
		return nil
	case err != nil:
		f.s.unreadable(e.msg, err)
		f.unreadable = true
		return nil
	}
	r := f.w.CreateMessage(e.seq())
	for _, it := range items {
		if err := it(r); err != nil {
			// A literal was announced and can't be given: there is no way to say so.
			f.s.conn.NetConn().Close()
			r.Close()
			return err
		}
	}
	mail.keep = inPieces(f.options)
	return r.Close()
}

// items prepares what is asked for.
func (f *fetch) items(e entry, mail *mail) ([]item, error) {
	if e.gone && f.sel.act == policy.Nil {
		return f.nilItems(e), nil
	}
	var items []item
	add := func(it func(*imapserver.FetchResponseWriter)) {
		items = append(items, func(r *imapserver.FetchResponseWriter) error { it(r); return nil })
	}
	o, sel, ctx := f.options, f.s.sel, f.s.ctx
	if o.UID {
		add(func(r *imapserver.FetchResponseWriter) { r.WriteUID(e.msg.UID) })
	}
	if o.Flags || f.toldByTheWay(e) {
		add(func(r *imapserver.FetchResponseWriter) {
			r.WriteFlags(sel.view.flags(f.sel.snap, e.msg))
			if !e.gone && sel.view.knows(f.sel.snap, e.msg) {
				sel.view.set(e.i, e.msg)
			}
		})
	}
	if o.InternalDate {
		t, err := sel.Date(ctx, e.msg)
		if err != nil {
			return nil, err
		}
		add(func(r *imapserver.FetchResponseWriter) { r.WriteInternalDate(t) })
	}
	if o.RFC822Size {
		n, err := sel.Size(ctx, e.msg)
		if err != nil {
			return nil, err
		}
		add(func(r *imapserver.FetchResponseWriter) { r.WriteRFC822Size(n) })
	}
	if o.Envelope || o.BodyStructure != nil {
		st, err := mail.open().Structure()
		if err != nil {
			return nil, err
		}
		if o.Envelope {
			add(func(r *imapserver.FetchResponseWriter) { r.WriteEnvelope(st.Envelope()) })
		}
		if o.BodyStructure != nil {
			add(func(r *imapserver.FetchResponseWriter) {
				r.WriteBodyStructure(st.BodyStructure(o.BodyStructure.Extended))
			})
		}
	}
	for _, section := range o.BodySection {
		content, n, err := mail.open().BodySection(section)
		if err != nil {
			return nil, err
		}
		items = append(items, func(r *imapserver.FetchResponseWriter) error {
			return stream(r.WriteBodySection(section, n), content, n)
		})
	}
	for _, section := range o.BinarySection {
		content, n, err := mail.open().BinarySection(section)
		if err != nil {
			return nil, err
		}
		items = append(items, func(r *imapserver.FetchResponseWriter) error {
			return stream(r.WriteBinarySection(section, n), content, n)
		})
	}
	for _, section := range o.BinarySectionSize {
		n, err := mail.open().BinarySize(section.Part)
		if err != nil {
			return nil, err
		}
		add(func(r *imapserver.FetchResponseWriter) { r.WriteBinarySectionSize(section, uint32(n)) })
	}
	return items, nil
}

// toldByTheWay reports whether a message was marked \Seen by this FETCH: its flags are sent along.
func (f *fetch) toldByTheWay(e entry) bool {
	told := f.s.sel.view.msgs[e.i].Flags
	return marksSeen(f.options) && !e.gone && told != e.msg.Flags && f.s.sel.view.knows(f.sel.snap, e.msg)
}

// stream writes a literal of n bytes.
func stream(w io.WriteCloser, content io.Reader, n int64) error {
	_, err := io.CopyN(w, content, n)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}

// nilItems is the empty form of what is asked for (draft 4.1.3), for a message that is gone. The
// library writes dates from year 1 on, so the draft's 00-Jan-0000 is 01-Jan-0001 here.
func (f *fetch) nilItems(e entry) []item {
	o := f.options
	return []item{func(r *imapserver.FetchResponseWriter) error {
		if o.UID {
			r.WriteUID(e.msg.UID)
		}
		if o.Flags {
			r.WriteFlags(nil)
		}
		if o.InternalDate {
			r.WriteInternalDate(time.Time{})
		}
		if o.RFC822Size {
			r.WriteRFC822Size(0)
		}
		if o.Envelope {
			r.WriteEnvelope(nil)
		}
		if o.BodyStructure != nil {
			r.WriteBodyStructure(&imap.BodyStructureSinglePart{
				Type: "TEXT", Subtype: "PLAIN", Encoding: "7BIT",
				Text:     &imap.BodyStructureText{},
				Extended: &imap.BodyStructureSinglePartExt{},
			})
		}
		for _, section := range o.BodySection {
			if err := r.WriteBodySection(section, 0).Close(); err != nil {
				return err
			}
		}
		for _, section := range o.BinarySection {
			if err := r.WriteBinarySection(section, 0).Close(); err != nil {
				return err
			}
		}
		for _, section := range o.BinarySectionSize {
			r.WriteBinarySectionSize(section, 0)
		}
		return nil
	}}
}
