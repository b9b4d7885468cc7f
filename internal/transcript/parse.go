package transcript

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Parse reads a transcript. Errors name file and line.
func Parse(name, text string) (*Script, error) {
	p := &parser{
		script: &Script{Name: name, ignore: make(map[string]bool)},
		lines:  strings.Split(text, "\n"),
		bound:  map[string]bool{"$tag": true},
		idle:   make(map[int]bool),
	}
	for i, l := range p.lines {
		p.lines[i] = strings.TrimSuffix(l, "\r")
	}
	if err := p.parse(); err != nil {
		return nil, lineError(name, p.begin, err)
	}
	return p.script, nil
}

type parser struct {
	script *Script
	lines  []string
	next   int             // index of the next line, and number of the one before
	begin  int             // number of the line where the current step begins
	bound  map[string]bool // variables that a response so far binds
	idle   map[int]bool    // clients in IDLE
}

var (
	clientLine = regexp.MustCompile(`^C([1-9])(: *|> ?| )`)
	serverLine = regexp.MustCompile(`^S([1-9]): *`)
	ownTag     = regexp.MustCompile(`^[A-I][0-9]{3,}$`)
	// variable is one that stands in a text.
	variable = regexp.MustCompile(`\$[a-z_][a-z0-9_]*`)
)

var ignorable = []string{"CAPABILITY", "FLAGS", "OK", "RECENT"}

func (p *parser) parse() error {
	p.about()
	if p.script.About == "" {
		return errors.New("begin with a comment that says what the case is about")
	}
	for {
		parts, err := p.logical()
		if err != nil {
			return err
		}
		if parts == nil {
			return p.answers()
		}
		if err := p.step(parts); err != nil {
			return err
		}
	}
}

// about reads the comment at the top.
func (p *parser) about() {
	p.begin = 1
	var about []string
	for ; p.next < len(p.lines) && strings.HasPrefix(p.lines[p.next], "#"); p.next++ {
		about = append(about, strings.TrimSpace(p.lines[p.next][1:]))
	}
	p.script.About = strings.TrimSpace(strings.Join(about, "\n"))
}

// logical reads a line with its literals and continuations; nil is the end.
func (p *parser) logical() ([]part, error) {
	for p.next < len(p.lines) && (strings.TrimSpace(p.lines[p.next]) == "" || p.lines[p.next][0] == '#') {
		p.next++
	}
	if p.next == len(p.lines) {
		return nil, nil
	}
	p.begin = p.next + 1
	if strings.ContainsRune(" \t", rune(p.lines[p.next][0])) {
		return nil, errors.New("an indented line has nothing above that it could continue")
	}
	if c := clientLine.FindStringSubmatch(p.lines[p.next]); c != nil && strings.HasPrefix(c[2], ">") {
		p.next++ // raw: nothing in it is ours to understand
		return []part{{text: p.lines[p.next-1]}}, nil
	}
	var parts []part
	s := p.line()
	for i := 0; i <= len(s); {
		switch rest := s[i:]; {
		case rest == "" || comment(s, i):
			s = strings.TrimRight(s[:i], " \t")
			if !p.continued() {
				return append(parts, part{text: s}), nil
			}
			i = len(s)
			more := strings.TrimLeft(p.line(), " \t")
			if !strings.HasSuffix(s, "(") && more[0] != ')' {
				s += " "
			}
			s += more
		case rest[0] == '"':
			i += quotedLen(rest)
		case strings.HasPrefix(rest, "{{{"):
			l := &literal{nonSync: strings.HasPrefix(rest, "{{{+")}
			if strings.TrimLeft(rest, "{+") != "" {
				return nil, errors.New("a literal's first line is the one after {{{")
			}
			after, err := p.block(l)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part{s[:i], l})
			s, i = after, 0
		case strings.HasPrefix(rest, `{"`) || strings.HasPrefix(rest, `{+"`):
			l := &literal{nonSync: rest[1] == '+'}
			quoted, err := strconv.QuotedPrefix(strings.TrimLeft(rest, "{+"))
			if err != nil {
				return nil, errors.New("a literal is a Go string")
			}
			end := strings.Index(rest, `"`) + len(quoted)
			if !strings.HasPrefix(rest[end:], "}") {
				return nil, errors.New("a literal ends with }")
			}
			l.content, _ = strconv.Unquote(quoted)
			parts = append(parts, part{s[:i], l})
			s, i = rest[end+1:], 0
		default:
			i++
		}
	}
	panic("unreachable")
}

func (p *parser) line() string {
	p.next++
	return p.lines[p.next-1]
}

// continued reports whether the next line continues this one.
func (p *parser) continued() bool {
	if p.next == len(p.lines) {
		return false
	}
	l := p.lines[p.next]
	return strings.TrimSpace(l) != "" && (l[0] == ' ' || l[0] == '\t')
}

// comment reports whether a comment begins at s[i].
func comment(s string, i int) bool {
	blank := func(i int) bool { return i < 0 || i >= len(s) || s[i] == ' ' || s[i] == '\t' }
	return s[i] == '#' && i >= 2 && blank(i-1) && blank(i-2) && blank(i+1)
}

// quotedLen is the length of the quoted string that s begins with; without an end it is all of s.
func quotedLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// block reads the lines of a literal and returns what follows its end.
func (p *parser) block(l *literal) (after string, err error) {
	var b strings.Builder
	for p.next < len(p.lines) {
		line := p.line()
		if after, ok := strings.CutPrefix(line, "}}}"); ok {
			l.content = b.String()
			return after, nil
		}
		b.WriteString(line + "\r\n")
	}
	return "", errors.New("a literal has no end; it is a line that begins with }}}")
}

func (p *parser) step(parts []part) error {
	text := parts[0].text
	st := step{line: p.begin}
	var err error
	if m := clientLine.FindStringSubmatch(text); m != nil {
		st.client, _ = strconv.Atoi(m[1])
		parts[0].text = text[len(m[0]):]
		st.act, err = p.client(st.client, m[2][:1], parts)
	} else if m := serverLine.FindStringSubmatch(text); m != nil {
		st.client, _ = strconv.Atoi(m[1])
		parts[0].text = text[len(m[0]):]
		st.act, err = p.server(st.client, parts)
	} else if rest, ok := strings.CutPrefix(text, "disk:"); ok {
		parts[0].text = rest
		st.act, err = p.disk(parts)
	} else {
		return p.directive(parts)
	}
	if err != nil || st.act == nil {
		return err
	}
	p.script.steps = append(p.script.steps, st)
	return nil
}

func (p *parser) directive(parts []part) error {
	if name, _, _ := strings.Cut(parts[0].text, " "); strings.HasSuffix(name, ":") {
		return fmt.Errorf("%q is nobody here; who can be is C1 to C9, S1 to S9 and disk", name)
	}
	if len(p.script.steps) > 0 {
		return errors.New("a directive stands before the first step")
	}
	args, err := arguments(parts)
	if err != nil {
		return err
	}
	d := Directive{Line: p.begin, Name: args[0], Args: args[1:]}
	if d.Name == "ignore" {
		for _, a := range d.Args {
			if !slices.Contains(ignorable, a) {
				return fmt.Errorf("ignore: unknown name %q; allowed: %s", a, strings.Join(ignorable, ", "))
			}
			p.script.ignore[a] = true
		}
	}
	p.script.Directives = append(p.script.Directives, d)
	return nil
}

// arguments splits into words, Go strings and literals.
func arguments(parts []part) ([]string, error) {
	var args []string
	for _, pt := range parts {
		s := strings.TrimLeft(pt.text, " \t")
		for s != "" {
			word := s
			if q, err := strconv.QuotedPrefix(s); err == nil && q[0] != '\'' {
				word, _ = strconv.Unquote(q)
				s = s[len(q):]
				if s != "" && s[0] != ' ' && s[0] != '\t' {
					return nil, fmt.Errorf("a blank must follow %s", q)
				}
			} else if s[0] == '"' || s[0] == '`' {
				return nil, fmt.Errorf("%s is not a Go string", s)
			} else {
				if i := strings.IndexAny(s, " \t"); i >= 0 {
					word = s[:i]
				}
				s = s[len(word):]
			}
			args = append(args, word)
			s = strings.TrimLeft(s, " \t")
		}
		if pt.literal != nil {
			args = append(args, pt.literal.content)
		}
	}
	return args, nil
}

func (p *parser) disk(parts []part) (act, error) {
	args, err := arguments(parts)
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, errors.New("disk: has no verb")
	}
	for _, a := range args {
		if err := p.wantBound(a); err != nil {
			return nil, err
		}
	}
	return &disk{args[0], args[1:], strings.TrimSpace(showParts(parts))}, nil
}

// wantBound returns an error if a variable in s is not bound by a response before.
func (p *parser) wantBound(s string) error {
	for _, v := range variable.FindAllString(s, -1) {
		if !p.bound[v] {
			return fmt.Errorf("variable %s is not bound by a response before", v)
		}
	}
	return nil
}

func (p *parser) client(n int, sep string, parts []part) (act, error) {
	text := parts[0].text
	switch sep {
	case ">":
		if err := p.wantBound(text); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(text, `"`) {
			return &raw{text + "\r\n", true}, nil
		}
		s, err := strconv.Unquote(text)
		if err != nil {
			return nil, fmt.Errorf("%s is not a Go string", text)
		}
		return &raw{s, false}, nil
	case " ":
		switch text {
		case "connect":
			return &connect{}, nil
		case "disconnect":
			p.idle[n] = false
			return &disconnect{}, nil
		}
		return nil, fmt.Errorf("%q is neither connect nor disconnect; before a command stands a colon", text)
	}
	for _, pt := range parts {
		if err := p.wantBound(pt.text); err != nil {
			return nil, err
		}
	}
	if p.idle[n] {
		if text != "DONE" {
			return nil, fmt.Errorf("%q while client %d is in IDLE, which DONE ends", text, n)
		}
		p.idle[n] = false
		return &raw{"DONE\r\n", false}, nil
	}
	c := &command{parts: parts}
	text, c.pipelined = strings.CutPrefix(text, "&")
	parts[0].text = strings.TrimLeft(text, " ")
	if parts[0].text == "" {
		return nil, errors.New("there is no command")
	}
	p.idle[n] = c.isIdle()
	return c, nil
}

func (c *command) isIdle() bool { return strings.EqualFold(c.parts[0].text, "IDLE") }

func (p *parser) server(n int, parts []part) (act, error) {
	text := parts[0].text
	switch {
	case text == "closed":
		p.idle[n] = false
		return &closed{}, nil
	case text == "...":
		return &skip{}, nil
	case strings.HasPrefix(text, "! "):
		return &forbid{strings.Fields(strings.ToUpper(text[2:]))}, nil
	}
	anyOrder := strings.HasPrefix(text, "~ ")
	if anyOrder {
		parts[0].text = strings.TrimLeft(text[2:], " ")
	}
	want, err := parseResponse(wire(parts), true)
	if err != nil {
		return nil, err
	}
	if err := p.bind(want.all()); err != nil {
		return nil, err
	}
	if ownTag.MatchString(want.tag) {
		return nil, fmt.Errorf("the tag %s is left out: S%d: %s", want.tag, n, want.status)
	}
	if want.tag == "" {
		p.idle[n] = false
		if anyOrder {
			return nil, errors.New("a tagged response is the last, not one in any order")
		}
		return &tagged{want}, nil
	}
	if steps := p.script.steps; anyOrder && len(steps) > 0 {
		last := steps[len(steps)-1]
		if e, ok := last.act.(*expect); ok && e.anyOrder && last.client == n {
			e.want = append(e.want, want)
			return nil, nil
		}
	}
	return &expect{[]*response{want}, anyOrder}, nil
}

// bind notes the variables that nodes bind. Inside a word there can only be bound ones.
func (p *parser) bind(nodes []node) error {
	for _, n := range nodes {
		if n.isVariable() {
			p.bound[n.text] = true
		} else if n.kind == atom && n.text != "$_" {
			if err := p.wantBound(n.text); err != nil {
				return err
			}
		}
		if err := p.bind(n.list); err != nil {
			return err
		}
	}
	return nil
}

// answers writes the tagged responses that are left out.
func (p *parser) answers() error {
	type open struct {
		begin   int // line of the newest command
		last    int // index of the last step that belongs to it
		pending int // commands without an answer
		looked  bool
		asked   bool // the server asked for more of the newest command
	}
	clients := make(map[int]*open)
	after := make(map[int][]step) // by index of the step before
	settle := func(n int) error {
		o := clients[n]
		if o.pending > 1 {
			p.begin = o.begin
			return errors.New("commands that are sent at once need their tagged responses written")
		}
		if o.pending == 1 {
			at := step{line: o.begin, client: n}
			if !o.looked {
				at.act = &skip{}
				after[o.last] = append(after[o.last], at)
			}
			at.act = &tagged{&response{status: "OK", source: "OK"}}
			after[o.last] = append(after[o.last], at)
		}
		o.pending = 0
		return nil
	}
	for i, st := range p.script.steps {
		if st.client == 0 {
			continue
		}
		o := clients[st.client]
		if o == nil {
			o = &open{}
			clients[st.client] = o
		}
		p.begin = st.line
		switch a := st.act.(type) {
		case *command:
			if !a.pipelined {
				if err := settle(st.client); err != nil {
					return err
				}
			} else if o.pending == 0 {
				return errors.New("no command is running that this could be sent along with")
			}
			o.pending++
			o.begin, o.looked, o.asked = st.line, false, a.isIdle()
		case *raw:
			if !o.asked {
				if err := settle(st.client); err != nil {
					return err
				}
			}
		case *tagged:
			if o.pending == 0 {
				return errors.New("no command is waiting for this answer")
			}
			o.pending--
			o.looked = false
		case *expect:
			o.looked = true
			o.asked = o.asked || a.want[0].tag == "+"
		case *skip:
			o.looked = true
		case *closed, *disconnect:
			o.pending = 0
		}
		o.last = i
	}
	for n := 1; n <= 9; n++ {
		o := clients[n]
		if o == nil {
			continue
		}
		if p.idle[n] {
			p.begin = o.begin
			return errors.New("IDLE has no DONE")
		}
		if err := settle(n); err != nil {
			return err
		}
	}
	var steps []step
	for i, st := range p.script.steps {
		steps = append(append(steps, st), after[i]...)
	}
	p.script.steps = steps
	return nil
}
