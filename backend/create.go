package backend

import (
	"slices"

	"github.com/emersion/go-imap/v2"
)

// specialUses are what a mailbox can be created for. \All and \Flagged are for mailboxes that show
// messages of others, which there are none of (RFC 6154 section 2).
var specialUses = []imap.MailboxAttr{
	imap.MailboxAttrArchive,
	imap.MailboxAttrDrafts,
	imap.MailboxAttrImportant,
	imap.MailboxAttrJunk,
	imap.MailboxAttrSent,
	imap.MailboxAttrTrash,
}

// Create makes a mailbox.
func (s *Session) Create(name string, options *imap.CreateOptions) (err error) {
	defer s.begin("CREATE")(&err)
	for _, use := range options.SpecialUse {
		if !slices.Contains(specialUses, use) {
			return no(responseCodeUseAttr, "A mailbox can be created for %v", specialUses)
		}
	}
	return s.acct.Create(s.ctx, name, options.SpecialUse)
}
