package practice

import (
	"fmt"
	"strings"
)

// An Answer is what a server does, in a word.
type Answer string

// The strategies that RFC 2180 describes.
const (
	Refuse     Answer = "refuse"     // the command fails, nothing is changed (3.1, 4.1.4, 4.2.4, 4.4.1)
	Ghost      Answer = "ghost"      // what is gone is still there for who was not told (3.2, 4.1.1, 4.4.2)
	Disconnect Answer = "disconnect" // the other sessions are ended (3.3)
	Follow     Answer = "follow"     // the other sessions go on under the new name (3.4)
	NewName    Answer = "NEWNAME"    // NO, with the new name (3.4)
	Allow      Answer = "allow"      // the command is carried out (4.1)
	No         Answer = "NO"         // the others, then NO (4.1.2, 4.2.2)
	Nil        Answer = "NIL"        // empty data, and OK (4.1.3)
	OK         Answer = "OK"         // the others, then OK (4.2.1)
	Partial    Answer = "partial"    // the flags of the others are set and told, then NO (4.2.3)
	LeftOut    Answer = "left out"   // as if there were none, and OK (4.3)
	Reserved   Answer = "reserved"   // the name can't be used before the last session left (3.2)
)

// Answers to questions that RFC 2180 has no strategies for.
const (
	Bad     Answer = "BAD"
	Free    Answer = "free" // the name can be used again at once
	Listed  Answer = "listed"
	Told    Answer = "told"
	NotTold Answer = "not told"
	Never   Answer = "never"
	Kept    Answer = "kept"
)

// Answers where there is none.
const (
	Forbidden  Answer = "not allowed"    // something the RFC does not allow; the detail says what
	NotAsked   Answer = "does not arise" // the server does not let it come to the question
	NotOffered Answer = "not offered"    // the server lacks the command
	NoAnswer   Answer = "no answer"      // the server kept the client waiting for too long
	Unanswered Answer = "not found out"  // something else failed; the detail says what
)

// A Finding is what a server was found to do.
type Finding struct {
	Scene    string `json:"scene"`   // a short name for the question
	Section  string `json:"section"` // of RFC 2180, or of another RFC that is named
	Question string `json:"question"`
	Answer   Answer `json:"answer"`
	Detail   string `json:"detail,omitempty"` // more about the answer, in words
	// Proof is the dialogue, written as the RFC writes its examples: what C1 and C2 sent, and what S1
	// and S2 answered. Literals are shown as {"Go strings"}.
	Proof []string `json:"proof"`
}

// Says is the answer with its detail, which is words or a response code.
func (f Finding) Says() string {
	switch {
	case f.Detail == "":
		return string(f.Answer)
	case strings.HasPrefix(f.Detail, "["):
		return fmt.Sprintf("%s %s", f.Answer, f.Detail)
	}
	return fmt.Sprintf("%s: %s", f.Answer, f.Detail)
}

// A Report is what was found out about a server.
type Report struct {
	Server   string    `json:"server"`   // its address
	Findings []Finding `json:"findings"` // in the order of the RFC's sections
}
