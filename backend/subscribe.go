package backend

// Subscribe adds a name to the subscriptions. There need not be such a mailbox (RFC 9051 6.3.7).
func (s *Session) Subscribe(name string) (err error) {
	defer s.begin("SUBSCRIBE")(&err)
	return s.acct.Subscribe(s.ctx, name, true)
}

// Unsubscribe takes a name out of the subscriptions.
func (s *Session) Unsubscribe(name string) (err error) {
	defer s.begin("UNSUBSCRIBE")(&err)
	return s.acct.Subscribe(s.ctx, name, false)
}
