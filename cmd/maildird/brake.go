package main

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// Delays after a wrong password: the first, doubled with each further one from the same address, up
// to the last. What an address did is forgotten when it was quiet for a while. Variables for tests.
var (
	firstDelay  = 250 * time.Millisecond
	lastDelay   = 8 * time.Second
	forgetAfter = 10 * time.Minute
)

// maxAddresses limits what is remembered: 10 000 addresses are less than a megabyte.
const maxAddresses = 10_000

// A brake keeps those who guess passwords from hurting others. A password is meant to be slow to
// check, so
//
//   - a few are checked at once, and never two of the same user from the same address, and from one
//     address at most half of them: who guesses in a thousand connections waits for himself;
//   - who was wrong is told so late, and later each time. Who is right is told at once, also from
//     an address that guesses: it may be a whole office.
//
// An address is an IPv4 address or a /64 network of IPv6. The methods may be called by several
// goroutines at once.
type brake struct {
	all chan struct{} // a token for each check that is running

	mu       sync.Mutex // guards the fields below; not held while waiting
	lanes    map[lane]*turns
	failures map[netip.Prefix]*failures
}

// A lane is whose checks wait for each other: those of a user from an address, or those of all users
// from it.
type lane struct {
	from netip.Prefix
	user string
	all  bool
}

// turns are the places in a lane, kept while someone uses the lane or waits for it.
type turns struct {
	places chan struct{}
	users  int
}

type failures struct {
	n    int
	last time.Time
}

func newBrake() *brake {
	return &brake{
		all:      make(chan struct{}, max(2, min(8, runtime.GOMAXPROCS(0)))),
		lanes:    map[lane]*turns{},
		failures: map[netip.Prefix]*failures{},
	}
}

// check runs f, which checks the password that user sent from addr, when it is its turn. It
// returns f's result, or the reason why ctx ended before.
func (b *brake) check(ctx context.Context, addr net.Addr, user string, f func() bool) (bool, error) {
	from := network(addr)
	// The narrow lane first: who waits there takes no place in the wide one.
	for _, l := range []struct {
		lane
		places int
	}{{lane{from: from, user: user}, 1}, {lane{from: from, all: true}, cap(b.all) / 2}} {
		leave, err := b.enter(ctx, l.lane, l.places)
		if err != nil {
			return false, err
		}
		defer leave()
	}
	select {
	case b.all <- struct{}{}:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer func() { <-b.all }()
	return f(), nil
}

// enter waits for a place in a lane; leave gives it back.
func (b *brake) enter(ctx context.Context, l lane, places int) (leave func(), err error) {
	b.mu.Lock()
	t := b.lanes[l]
	if t == nil {
		t = &turns{places: make(chan struct{}, places)}
		b.lanes[l] = t
	}
	t.users++
	b.mu.Unlock()
	forget := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(b.lanes, l)
		}
	}
	select {
	case t.places <- struct{}{}:
		return func() { <-t.places; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, context.Cause(ctx)
	}
}

// punish notes a wrong password from addr and waits before the client is told.
func (b *brake) punish(ctx context.Context, addr net.Addr) {
	timer := time.NewTimer(b.note(network(addr), time.Now()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// note counts a wrong password and returns how long to wait for it.
func (b *brake) note(from netip.Prefix, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.failures[from]
	if f == nil {
		if len(b.failures) >= maxAddresses {
			for any := range b.failures {
				delete(b.failures, any)
				break
			}
		}
		f = &failures{}
		b.failures[from] = f
	} else if now.Sub(f.last) > forgetAfter {
		f.n = 0
	}
	f.n++
	f.last = now
	delay := firstDelay
	for i := 1; i < f.n && delay < lastDelay; i++ {
		delay *= 2
	}
	return min(delay, lastDelay)
}

// network is what an address is counted under; all that are no IP addresses are one.
func network(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits)
	return prefix
}
