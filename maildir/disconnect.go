package maildir

// Disconnect calls Gone, on a goroutine of its own, for all who have the mailbox selected, but not
// for except. The mailbox itself stays.
func (m *Mailbox) Disconnect(except *Ref, reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.refs {
		if r != except && r.opts.Selected && r.opts.Gone != nil {
			go r.opts.Gone(reason)
		}
	}
}
