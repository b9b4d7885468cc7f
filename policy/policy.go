package policy

import (
	"fmt"
	"strings"
)

// Delete is what DELETE does to a mailbox that other sessions have selected.
type Delete int

const (
	DeleteDisconnect Delete = iota // delete it and end the other sessions with BYE (draft 3.3)
	DeleteRefuse                   // answer NO [INUSE] (draft 3.1)
	DeleteGhost                    // delete the name, keep the content for those who have it (draft 3.2)
)

// Rename is what RENAME does to a mailbox that other sessions have selected.
type Rename int

const (
	RenameFollow     Rename = iota // the others go on under the new name (draft 3.4)
	RenameRefuse                   // answer NO [INUSE] (draft 3.1)
	RenameDisconnect               // rename it and end the other sessions with BYE (draft 3.3)
)

// Expunge says whether messages may be expunged from a mailbox that other sessions have selected.
type Expunge int

const (
	ExpungeAllow  Expunge = iota // yes
	ExpungeRefuse                // answer NO (draft 4.1.4)
)

// FetchExpunged is how FETCH answers for messages that are gone.
type FetchExpunged int

const (
	FetchGhost FetchExpunged = iota // as if they were there (draft 4.1.1)
	FetchNo                         // data for the living, then NO [EXPUNGEISSUED] (draft 4.1.2)
	FetchNil                        // data for the living, empty data for the gone, OK (draft 4.1.3)
)

// StoreExpunged is how STORE without .SILENT answers when some of its messages are gone.
type StoreExpunged int

const (
	StorePartial StoreExpunged = iota // set the flags of the living, then NO (draft 4.2.3)
	StoreRefuse                       // set nothing and answer NO (draft 4.2.4)
)

// CopyExpunged is how COPY and MOVE treat messages that are gone.
type CopyExpunged int

const (
	CopyRefuse CopyExpunged = iota // copy nothing and answer NO [EXPUNGEISSUED] (RFC 2180 4.4.1)
	CopyGhost                      // copy them while their content is there (RFC 2180 4.4.2)
)

// A Policy is one strategy of each kind. The zero value is the default.
type Policy struct {
	Delete        Delete
	Rename        Rename
	Expunge       Expunge
	FetchExpunged FetchExpunged
	StoreExpunged StoreExpunged
	CopyExpunged  CopyExpunged
}

// A ValueError is a text that is no strategy of the asked kind.
type ValueError struct {
	Value   string
	Allowed []string
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("unknown value %q; allowed: %s", e.Value, strings.Join(e.Allowed, ", "))
}

// The texts of each type, in the order of its constants.
var (
	deleteTexts  = []string{"disconnect", "refuse", "ghost"}
	renameTexts  = []string{"follow", "refuse", "disconnect"}
	expungeTexts = []string{"allow", "refuse"}
	fetchTexts   = []string{"ghost", "no", "nil"}
	storeTexts   = []string{"partial", "refuse"}
	copyTexts    = []string{"refuse", "ghost"}
)

func parse[T ~int](texts []string, b []byte, v *T) error {
	for i, s := range texts {
		if s == string(b) {
			*v = T(i)
			return nil
		}
	}
	return &ValueError{Value: string(b), Allowed: texts}
}

func text[T ~int](texts []string, v T) string {
	if v < 0 || int(v) >= len(texts) {
		return fmt.Sprintf("%T(%d)", v, int(v))
	}
	return texts[v]
}

func (v Delete) String() string        { return text(deleteTexts, v) }
func (v Rename) String() string        { return text(renameTexts, v) }
func (v Expunge) String() string       { return text(expungeTexts, v) }
func (v FetchExpunged) String() string { return text(fetchTexts, v) }
func (v StoreExpunged) String() string { return text(storeTexts, v) }
func (v CopyExpunged) String() string  { return text(copyTexts, v) }

func (v Delete) MarshalText() ([]byte, error)        { return []byte(v.String()), nil }
func (v Rename) MarshalText() ([]byte, error)        { return []byte(v.String()), nil }
func (v Expunge) MarshalText() ([]byte, error)       { return []byte(v.String()), nil }
func (v FetchExpunged) MarshalText() ([]byte, error) { return []byte(v.String()), nil }
func (v StoreExpunged) MarshalText() ([]byte, error) { return []byte(v.String()), nil }
func (v CopyExpunged) MarshalText() ([]byte, error)  { return []byte(v.String()), nil }

// UnmarshalText reads the form that String writes; for anything else it returns a *ValueError.
func (v *Delete) UnmarshalText(b []byte) error { return parse(deleteTexts, b, v) }

// UnmarshalText reads the form that String writes; for anything else it returns a *ValueError.
func (v *Rename) UnmarshalText(b []byte) error { return parse(renameTexts, b, v) }

// UnmarshalText reads the form that String writes; for anything else it returns a *ValueError.
func (v *Expunge) UnmarshalText(b []byte) error { return parse(expungeTexts, b, v) }

// UnmarshalText reads the form that String writes; for anything else it returns a *ValueError.
func (v *FetchExpunged) UnmarshalText(b []byte) error { return parse(fetchTexts, b, v) }

// UnmarshalText reads the form that String writes; for anything else it returns a *ValueError.
func (v *StoreExpunged) UnmarshalText(b []byte) error { return parse(storeTexts, b, v) }

// UnmarshalText reads the form that String writes; for anything else it returns a *ValueError.
func (v *CopyExpunged) UnmarshalText(b []byte) error { return parse(copyTexts, b, v) }
