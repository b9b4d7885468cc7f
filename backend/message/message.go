package message

import (
	"fmt"
	"io"
	"time"
)

// A Source is the bytes of a message with CRLF line ends. Reading on from where the last read
// stopped is cheap; other places may be looked for from the start.
type Source interface {
	io.ReaderAt
	io.Closer
	// Size is the number of bytes that there are to read. It may cost as much as reading them: it is not
	// asked for where only the header is needed.
	Size() (int64, error)
}

// A Message is one mail. One goroutine at a time may use it.
//
// The readers it returns read from its source: they are for use before Close. Their bytes are as
// many as was told with them, unless reading fails.
type Message struct {
	open func() (Source, error)
	src  Source     // nil: not opened yet
	s    *Structure // nil: not parsed yet
	top  *part      // the message itself, of which only the header may have been read; nil: not even that
}

// New returns a message whose source is opened when it is first needed.
func New(open func() (Source, error)) *Message { return &Message{open: open} }

// With is New for a message whose structure was parsed before. A structure that does not fit the
// source's size is dropped when the source is opened.
func With(open func() (Source, error), s *Structure) *Message {
	m := New(open)
	m.use(s)
	return m
}

// Close closes the source, if it was opened.
func (m *Message) Close() error {
	if m.src == nil {
		return nil
	}
	err := m.src.Close()
	m.src = nil
	return err
}

// Structure returns where the parts are, and what is told of them. It parses the mail at the first
// call, in one pass. Errors come only from opening and reading the source.
func (m *Message) Structure() (*Structure, error) {
	if m.s != nil {
		return m.s, nil
	}
	src, err := m.source()
	if err != nil {
		return nil, err
	}
	if m.s != nil {
		return m.s, nil
	}
	s, err := parse(src)
	if err != nil {
		return nil, fmt.Errorf("parse message: %w", err)
	}
	m.use(s)
	return s, nil
}

// Parsed returns the structure if it is known by now, or nil. It reads nothing.
func (m *Message) Parsed() *Structure { return m.s }

// places returns a structure whose places are those of the source.
func (m *Message) places() (*Structure, error) {
	if _, err := m.source(); err != nil {
		return nil, err
	}
	return m.Structure()
}

// SentDate returns the time of the Date field; zero if there is none that can be read.
func (m *Message) SentDate() (time.Time, error) {
	top := m.top
	if top == nil {
		var err error
		if top, err = m.head(); err != nil {
			return time.Time{}, err
		}
	}
	v, _ := top.field("Date")
	return parseDate(v), nil
}

// source opens the source at the first call. Places of a structure hold for it only after that: one that
// does not fit is dropped.
func (m *Message) source() (Source, error) {
	if m.src != nil {
		return m.src, nil
	}
	src, err := m.open()
	if err != nil {
		return nil, fmt.Errorf("open message: %w", err)
	}
	m.src = src
	if m.s != nil {
		size, err := src.Size()
		if err != nil {
			return nil, fmt.Errorf("size of message: %w", err)
		}
		if m.s.size != size {
			m.s, m.top = nil, nil
		}
	}
	return src, nil
}

func (m *Message) use(s *Structure) {
	m.s = s
	if s != nil {
		m.top = &s.parts[0]
	}
}

// head returns the message's own part, of which only header, body and fields are to be used. It
// reads nothing if the whole header is known, and otherwise no further than the header, unless the
// rest comes along anyway: then the structure is known, too.
func (m *Message) head() (*part, error) {
	if m.top != nil && m.top.whole {
		return m.top, nil
	}
	src, err := m.source()
	if err != nil {
		return nil, err
	}
	if m.top != nil {
		return m.top, nil
	}
	top, s, err := parseTop(src)
	if err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	m.top, m.s = top, s
	return top, nil
}

// A span is a range of the source's bytes.
type span struct{ from, to int64 }

// bytes reads a span, but not more than max bytes.
func (m *Message) bytes(s span, max int64) ([]byte, error) {
	src, err := m.source()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(s.to-s.from, max))
	if _, err := io.ReadFull(io.NewSectionReader(src, s.from, int64(len(b))), b); err != nil {
		return nil, fmt.Errorf("read message: %w", short(err))
	}
	return b, nil
}

// short is err, where a source that has fewer bytes than it told of is an error too.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
