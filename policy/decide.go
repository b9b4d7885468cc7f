package policy

// A Command is one of the commands that can name a message that is gone.
type Command int

const (
	Fetch Command = iota
	Store
	StoreSilent // STORE with .SILENT
	Search
	Copy
	Move
)

// An Act is what a command does about the messages it names that are gone.
type Act int

const (
	// Skip: act on the living, answer OK.
	Skip Act = iota
	// Serve: act on the gone as on the living, as far as they are still kept.
	Serve
	// Nil: answer empty data for the gone, data for the living, and OK.
	Nil
	// LivingThenNo: act on the living, then answer NO.
	LivingThenNo
	// Refuse: act on nothing, answer NO.
	Refuse
)

// Decide says what a command does that names at least one message that is gone. byUID is true for
// the UID form of the command and for a saved search result ("$"); living is how many messages
// that are not gone it names as well.
func (p Policy) Decide(c Command, byUID bool, living int) Act {
	switch c {
	case Fetch:
		switch {
		case p.FetchExpunged == FetchGhost:
			return Serve // draft 4.1.1
		case byUID:
			return Skip // RFC 9051 6.4.9: a UID that does not exist is ignored without any error
		case living == 0:
			return Refuse // draft 4.1.2 and 4.1.3: only a tagged NO
		case p.FetchExpunged == FetchNil:
			return Nil // draft 4.1.3
		}
		return LivingThenNo // draft 4.1.2
	case Store:
		switch {
		case byUID:
			return Skip
		case living == 0 || p.StoreExpunged == StoreRefuse:
			return Refuse // draft 4.2.2, 4.2.4
		}
		return LivingThenNo // draft 4.2.3
	case Copy, Move:
		switch {
		case p.CopyExpunged == CopyGhost:
			return Serve // RFC 2180 4.4.2
		case byUID:
			return Skip
		}
		return Refuse // RFC 2180 4.4.1
	}
	return Skip // draft 4.2.1 (StoreSilent) and 4.3 (Search)
}
