package transcript

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A response is a line of the server, received or expected.
type response struct {
	tag    string // "*", "+" or a tag; of an expected one, "" is the tag of the command
	status string // OK, NO, BAD, BYE, PREAUTH or, for data, ""
	code   []node // nil: none; of an expected one: any
	text   string // after status and code, or after "+"
	data   []node
	source string // readable, literals as Go strings
}

// A node is an element of a response.
type node struct {
	kind kind
	text string
	list []node
}

type kind int

const (
	atom kind = iota
	str       // quoted or literal
	list
)

func (n node) isVariable() bool {
	return n.kind == atom && variable.FindString(n.text) == n.text && n.text != "" && n.text != "$_"
}

// is reports whether n is an atom of this text.
func (n node) is(text string) bool { return n.kind == atom && strings.EqualFold(n.text, text) }

func (n node) String() string {
	switch n.kind {
	case str:
		if strings.ContainsAny(n.text, "\r\n\x00") {
			return showLiteral(n.text)
		}
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(n.text) + `"`
	case list:
		var b strings.Builder
		for i, e := range n.list {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(e.String())
		}
		return "(" + b.String() + ")"
	}
	return n.text
}

// all are the nodes of the whole response.
func (r *response) all() []node { return append(r.code[:len(r.code):len(r.code)], r.data...) }

// kind is what the response is about: EXPUNGE of "* 2 EXPUNGE", and the number before it.
func (r *response) kind() (name, num string) {
	switch {
	case r.status != "":
		return r.status, ""
	case len(r.data) == 0:
		return "", ""
	case len(r.data) > 1 && strings.Trim(r.data[0].text, "0123456789") == "" && r.data[0].kind == atom:
		return strings.ToUpper(r.data[1].text), r.data[0].text
	}
	return strings.ToUpper(r.data[0].text), ""
}

// parseResponse reads a response without its CRLF, with literals as they are sent. An expected one
// may do without tag.
func parseResponse(line string, expected bool) (*response, error) {
	r := &response{source: Show(line)}
	word, rest, _ := strings.Cut(line, " ")
	if expected && isTaggedStatus(word) {
		rest = line
	} else {
		r.tag = word
	}
	if r.tag == "+" {
		r.text = rest
		return r, nil
	}
	word, text, _ := strings.Cut(rest, " ")
	switch w := strings.ToUpper(word); {
	case isTaggedStatus(w), (w == "BYE" || w == "PREAUTH") && r.tag == "*":
		r.status = w
		return r, r.statusText(text)
	case r.tag != "*":
		return nil, fmt.Errorf("%q is neither an untagged response nor a tagged OK, NO or BAD", r.source)
	}
	l := lexer{s: rest}
	data, err := l.nodes()
	if err == nil && l.s != "" {
		err = errors.New("unexpected )")
	}
	if err == nil && len(data) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("response %q: %w", r.source, err)
	}
	r.data = data
	return r, nil
}

func isTaggedStatus(word string) bool {
	switch strings.ToUpper(word) {
	case "OK", "NO", "BAD":
		return true
	}
	return false
}

// statusText reads what follows OK.
func (r *response) statusText(text string) error {
	r.text = text
	if !strings.HasPrefix(text, "[") {
		return nil
	}
	end := closing(text)
	if end < 0 {
		return fmt.Errorf("response %q: its code has no ]", r.source)
	}
	l := lexer{s: text[1:end]}
	code, err := l.nodes()
	if err == nil && l.s != "" {
		err = errors.New("unexpected )")
	}
	if err != nil {
		return fmt.Errorf("response %q: code: %w", r.source, err)
	}
	r.code = append([]node{}, code...)
	r.text = strings.TrimPrefix(text[end+1:], " ")
	return nil
}

// closing is the index of the ] to the [ that s begins with, or -1.
func closing(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case ']':
			return i
		case '"':
			i += quotedLen(s[i:]) - 1
		}
	}
	return -1
}

// A lexer reads nodes off the front of s.
type lexer struct {
	s     string
	depth int
}

// maxDepth is how deep lists may be nested.
const maxDepth = 100

// nodes reads up to a ) or the end.
func (l *lexer) nodes() ([]node, error) {
	var nodes []node
	for l.s != "" && l.s[0] != ')' {
		n, err := l.node()
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
		switch {
		case l.s == "" || l.s[0] == ')':
		case l.s[0] == ' ':
			l.s = l.s[1:]
			if l.s == "" || l.s[0] == ')' || l.s[0] == ' ' {
				return nil, errors.New("a blank too many")
			}
		case n.kind == list && l.s[0] == '(':
			// Addresses and the parts of a multipart stand together (RFC 9051 9, body-type-mpart).
		default:
			return nil, fmt.Errorf("no blank before %q", l.s)
		}
	}
	return nodes, nil
}

var literalStart = regexp.MustCompile(`^~?\{([0-9]{1,9})\}\r\n`)

func (l *lexer) node() (node, error) {
	if m := literalStart.FindStringSubmatch(l.s); m != nil {
		size, _ := strconv.Atoi(m[1])
		rest := l.s[len(m[0]):]
		if len(rest) < size {
			return node{}, errors.New("literal is cut")
		}
		l.s = rest[size:]
		return node{kind: str, text: rest[:size]}, nil
	}
	switch l.s[0] {
	case '"':
		return l.quoted()
	case '(':
		if l.depth++; l.depth > maxDepth {
			return node{}, errors.New("too many (")
		}
		l.s = l.s[1:]
		nodes, err := l.nodes()
		if err == nil && l.s == "" {
			err = errors.New("no )")
		}
		if err != nil {
			return node{}, err
		}
		l.depth--
		l.s = l.s[1:]
		return node{kind: list, list: nodes}, nil
	}
	end := 0
	for end < len(l.s) && !strings.ContainsRune(" ()\"{\r\n", rune(l.s[end])) {
		if l.s[end] == '[' { // the section of BODY[HEADER.FIELDS (From)]
			n := closing(l.s[end:])
			if n < 0 {
				return node{}, fmt.Errorf("no ] after %q", l.s[:end+1])
			}
			end += n
		}
		end++
	}
	if end == 0 {
		return node{}, fmt.Errorf("unexpected %q", l.s[:1])
	}
	n := node{kind: atom, text: l.s[:end]}
	l.s = l.s[end:]
	return n, nil
}

func (l *lexer) quoted() (node, error) {
	var b strings.Builder
	for i := 1; i < len(l.s); i++ {
		switch c := l.s[i]; c {
		case '"':
			l.s = l.s[i+1:]
			return node{kind: str, text: b.String()}, nil
		case '\r', '\n':
			return node{}, errors.New("end of line in a quoted string")
		case '\\':
			i++
			if i < len(l.s) && (l.s[i] == '"' || l.s[i] == '\\') {
				b.WriteByte(l.s[i])
				continue
			}
			return node{}, errors.New(`in a quoted string \ stands before something else than " or \`)
		default:
			b.WriteByte(c)
		}
	}
	return node{}, errors.New(`no closing "`)
}

// wire is a line as a server sends it.
func wire(parts []part) string {
	var b strings.Builder
	for _, pt := range parts {
		b.WriteString(pt.text)
		if l := pt.literal; l != nil {
			fmt.Fprintf(&b, "{%d}\r\n%s", len(l.content), l.content)
		}
	}
	return b.String()
}

// showParts is a line as it is written in a script, on one line.
func showParts(parts []part) string {
	var b strings.Builder
	for _, pt := range parts {
		b.WriteString(pt.text)
		if l := pt.literal; l != nil {
			b.WriteString(showLiteral(l.content))
		}
	}
	return b.String()
}

// Show makes what goes over the wire readable: literals are written as in a script,
// and shortened if they are long. Nothing else is changed.
func Show(line string) string {
	var b strings.Builder
	for {
		m := anyLiteral.FindStringSubmatchIndex(line)
		if m == nil {
			return b.String() + line
		}
		size, _ := strconv.Atoi(line[m[2]:m[3]])
		size = min(size, len(line)-m[1])
		b.WriteString(line[:m[0]] + showLiteral(line[m[1]:m[1]+size]))
		line = line[m[1]+size:]
	}
}

var anyLiteral = regexp.MustCompile(`\{([0-9]{1,9})\+?\}\r\n`)

// showLiteral is a literal as it is written in a script, shortened if it is long.
func showLiteral(s string) string {
	const limit = 2000
	if len(s) > limit {
		return fmt.Sprintf("{%q and %d bytes more}", s[:limit], len(s)-limit)
	}
	return "{" + strconv.Quote(s) + "}"
}
