package message

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"slices"
	"sync"
)

const (
	maxDepth    = 100    // parts inside one another
	maxParts    = 10_000 // parts of a message; multiparts without any part get one in excess of it
	maxBoundary = 1000   // bytes; RFC 2046 5.1.1 allows 70
	bufferSize  = 32 << 10
)

var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

// A parser goes through a message line by line. It keeps those parts open that go on at the current line.
type parser struct {
	r     *bufio.Reader
	parts []part
	open  []openPart // outermost first; the last one is where the current line is
	left  int        // bytes of fields that may still be kept

	at   pos
	line []byte // the line before at, or a piece of it
	prev pos    // where that begins
	back bool   // give line once more
}

// A pos is a place in the message.
type pos struct {
	off   int64
	lines int64 // line ends before off
	eol   int   // bytes of the line end right before off; 0: it's amid a line
	cr    bool  // the byte before off is a CR
}

type openPart struct {
	part     int
	boundary string // of a multipart whose last delimiter was not seen yet; else empty
	lines    int64  // line ends before the body
}

// parse reads a whole message.
func parse(src Source) (*Structure, error) {
	size, err := src.Size()
	if err != nil {
		return nil, err
	}
	p := newParser(src, size)
	defer p.free()
	s, err := p.message()
	if err == nil && s.size != size {
		err = io.ErrUnexpectedEOF
	}
	return s, err
}

// parseTop reads the header of a message, and no further; or the whole message if it is no longer
// than what one read brings.
func parseTop(src Source) (*part, *Structure, error) {
	p := newParser(src, math.MaxInt64)
	defer p.free()
	if _, err := p.r.Peek(bufferSize); err == io.EOF {
		s, err := p.message()
		if err != nil {
			return nil, nil, err
		}
		return &s.parts[0], s, nil
	}
	p.add(-1)
	if err := p.header(0); err != nil {
		return nil, nil, err
	}
	return &p.parts[0], nil, nil
}

// message parses until the end.
func (p *parser) message() (*Structure, error) {
	if err := p.begin(-1); err != nil {
		return nil, err
	}
	for {
		err := p.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		i, last := p.delimits()
		if i < 0 {
			continue
		}
		p.end(i+1, p.prev)
		if last {
			p.open[i].boundary = ""
		} else if err := p.begin(p.open[i].part); err != nil {
			return nil, err
		}
	}
	// What the message ends with belongs to it: there is no delimiter to which the last line end would.
	p.end(0, pos{off: p.at.off, lines: p.at.lines})
	return &Structure{size: p.at.off, parts: slices.Clip(p.parts)}, nil
}

// newParser is a parser of the first bytes of a source.
func newParser(src Source, size int64) *parser {
	p := &parser{r: buffers.Get().(*bufio.Reader), left: maxKept}
	p.r.Reset(io.NewSectionReader(src, 0, size))
	return p
}

func (p *parser) free() {
	p.r.Reset(nil)
	buffers.Put(p.r)
}

// next goes on to the next line, or to the next piece of one that the buffer does not hold.
func (p *parser) next() error {
	if !p.back {
		b, err := p.r.ReadSlice('\n')
		if len(b) == 0 || err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return err
		}
		p.line = b
	}
	p.back = false
	p.prev = p.at
	n := len(p.line)
	p.at.off += int64(n)
	p.at.eol = 0
	p.at.cr = p.line[n-1] == '\r'
	if p.line[n-1] == '\n' {
		p.at.lines++
		p.at.eol = 1
		if n > 1 && p.line[n-2] == '\r' || n == 1 && p.prev.cr {
			p.at.eol = 2
		}
	}
	return nil
}

// unread makes next give the line once more.
func (p *parser) unread() {
	p.at = p.prev
	p.back = true
}

// begins reports whether p.line is the beginning of a line.
func (p *parser) begins() bool { return p.prev.eol > 0 || p.prev.off == 0 }

// delimits tells of which open part the line is a delimiter, as an index in p.open, and whether it is
// the last one. It is -1 if the line is none (RFC 2046 5.1.1).
func (p *parser) delimits() (i int, last bool) {
	if !bytes.HasPrefix(p.line, []byte("--")) || !p.begins() || p.at.eol == 0 && len(p.line) == bufferSize {
		return -1, false
	}
	line := bytes.TrimRight(p.line[2:], " \t\r\n")
	for i, o := range slices.Backward(p.open) {
		if o.boundary == "" {
			continue
		}
		if rest, ok := bytes.CutPrefix(line, []byte(o.boundary)); ok {
			switch string(rest) {
			case "":
				if len(p.parts) >= maxParts {
					return -1, false
				}
				return i, false
			case "--":
				return i, true
			}
		}
	}
	return -1, false
}

// add adds a part that begins here.
func (p *parser) add(parent int) int {
	i := len(p.parts)
	p.parts = append(p.parts, part{parent: parent, header: p.at.off})
	if parent >= 0 {
		p.parts[parent].children = append(p.parts[parent].children, i)
	}
	return i
}

// begin adds a part that begins here and reads its header. If it is a message, what is in it begins too.
func (p *parser) begin(parent int) error {
	for {
		i := p.add(parent)
		if err := p.header(i); err != nil {
			return err
		}
		o := openPart{part: i, lines: p.at.lines}
		t := contentType(p.parts, i)
		if len(p.open)+1 < maxDepth && len(p.parts) < maxParts {
			switch {
			case t.isMultipart():
				p.parts[i].kind = multipart
				o.boundary = t.params["boundary"]
			case t.isMessage() && isIdentity(p.parts[i].encoding()):
				p.parts[i].kind = message
			}
		}
		p.open = append(p.open, o)
		if p.parts[i].kind != message {
			return nil
		}
		parent = i
	}
}

// header reads the header of part i. It ends before the body, which may be a delimiter.
func (p *parser) header(i int) error {
	top := p.parts[i].parent < 0
	c := collector{names: [][]string{mimeFields}, left: p.left}
	if top || p.parts[p.parts[i].parent].kind == message {
		c.names = append(c.names, envelopeFields)
	}
	var whole []byte // of the top-level header, as long as it is short enough
	for first := true; ; first = false {
		err := p.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if p.begins() {
			if d, _ := p.delimits(); d >= 0 {
				p.unread()
				break
			}
			if _, ok := fieldName(p.line); first && !ok && !blank(p.line) && !(top && mboxFrom(p.line)) {
				p.unread()
				break
			}
		}
		if top && len(whole) <= maxWhole {
			whole = append(whole, p.line[:min(len(p.line), maxWhole+1)]...)
		}
		if p.begins() && blank(p.line) {
			break
		}
		c.add(p.line, p.begins())
	}
	c.end()
	p.left = c.left
	p.parts[i].body = p.at.off
	p.parts[i].fields = slices.Clip(c.kept)
	if top && len(whole) <= maxWhole {
		p.parts[i].whole = true
		p.parts[i].fields = slices.Clip(whole)
	}
	return nil
}

// end ends the open parts from p.open[i] on before a delimiter at d, to which the line end before it
// belongs.
func (p *parser) end(i int, d pos) {
	end, lines := d.off, d.lines
	if d.eol > 0 {
		end, lines = d.off-int64(d.eol), d.lines-1
	}
	for _, o := range slices.Backward(p.open[i:]) {
		if end < p.parts[o.part].body { // the line end is that of the header
			end, lines = d.off, d.lines
		}
		q := &p.parts[o.part]
		q.end = end
		q.lines = lines - o.lines
		if q.kind == multipart && len(q.children) == 0 {
			q.children = []int{len(p.parts)}
			p.parts = append(p.parts, part{parent: o.part, header: end, body: end, end: end})
		}
	}
	p.open = p.open[:i]
}
