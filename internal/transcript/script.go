package transcript

import (
	"fmt"
	"slices"
)

// A Script is a parsed transcript. It is immutable and can be run several times.
type Script struct {
	Name       string // of the file
	About      string // its first comment
	Directives []Directive

	ignore map[string]bool // responses that may come at any time, in capital letters
	steps  []step
}

// A Directive is a line before the first step.
type Directive struct {
	Line int
	Name string
	Args []string
}

// Has reports whether there is a directive of this name.
func (s *Script) Has(name string) bool {
	return slices.ContainsFunc(s.Directives, func(d Directive) bool { return d.Name == name })
}

// Errorf is an error about a directive; it names file and line.
func (s *Script) Errorf(d Directive, format string, args ...any) error {
	return lineError(s.Name, d.Line, fmt.Errorf(format, args...))
}

func lineError(name string, line int, err error) error {
	return fmt.Errorf("%s:%d: %w", name, line, err)
}

// A step is one act of a client, of its server, or of the world outside.
type step struct {
	line   int
	client int // 0: the world outside
	act    act
}

// An act is what a step does.
type act interface {
	run(r *run, s step)
}

// What clients do.
type (
	command struct {
		parts     []part
		pipelined bool // sent without waiting for the one before
	}
	raw struct {
		text string
		vars bool // variables in it are replaced
	}
	connect    struct{}
	disconnect struct{}
)

// What servers answer.
type (
	// expect is responses that come in any order; without ~ it is one.
	expect struct {
		want     []*response
		anyOrder bool
	}
	skip   struct{}                 // others may come until the tagged response
	forbid struct{ words []string } // a response that begins so must not come before the tagged one
	tagged struct{ want *response } // the answer to the oldest command that has none
	closed struct{}
)

// disk is what the world outside does.
type disk struct {
	verb string
	args []string
	text string // as written
}

// A part of a command is text, and a literal if one follows.
type part struct {
	text    string
	literal *literal
}

type literal struct {
	content string
	nonSync bool
}
