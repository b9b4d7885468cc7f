package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func addr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// checkTime is how long a password takes to check in these tests, by the bubble's clock.
const checkTime = 100 * time.Millisecond

func slowCheck(right bool) func() bool {
	return func() bool { time.Sleep(checkTime); return right }
}

// Somebody guesses one user's password in a thousand connections. Another user who comes from
// elsewhere, and one who comes from the same address, are let in as if nothing was.
func TestGuessesDoNotHurtOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		b := newBrake()
		var guessers sync.WaitGroup
		guess := func(user string) {
			for ctx.Err() == nil {
				if right, err := b.check(ctx, addr("192.0.2.1:1000"), user, slowCheck(false)); err == nil && !right {
					b.punish(ctx, addr("192.0.2.1:1000"))
				}
			}
		}
		for range 1000 {
			guessers.Go(func() { guess("alice") })
		}
		time.Sleep(time.Minute)
		for from, limit := range map[string]time.Duration{"198.51.100.1:1": 2 * checkTime, "192.0.2.1:2000": 3 * checkTime} {
			start := time.Now()
			right, err := b.check(ctx, addr(from), "bob", slowCheck(true))
			if took := time.Since(start); !right || err != nil || took > limit {
				t.Errorf("bob from %s: %v, %v after %v, want at most %v", from, right, err, took, limit)
			}
		}
		// With many names he holds half of the places, and the other half is for who comes from elsewhere.
		for i := range 100 {
			guessers.Go(func() { guess(string(rune('A' + i))) })
		}
		time.Sleep(time.Minute)
		start := time.Now()
		b.check(ctx, addr("198.51.100.1:1"), "bob", slowCheck(true))
		if took := time.Since(start); took > checkTime {
			t.Errorf("bob waited %v", took)
		}
		stop()
		guessers.Wait()
		if len(b.lanes) > 0 || len(b.all) > 0 {
			t.Errorf("left behind: %d lanes, %d tokens", len(b.lanes), len(b.all))
		}
	})
}

func TestDelayGrows(t *testing.T) {
	b := newBrake()
	now := time.Now()
	want := firstDelay
	for i := range 10 {
		if got := b.note(network(addr("192.0.2.1:1")), now); got != want {
			t.Errorf("failure %d: delay %v, want %v", i+1, got, want)
		}
		want = min(2*want, lastDelay)
	}
	if got := b.note(network(addr("192.0.2.2:1")), now); got != firstDelay {
		t.Errorf("another address: delay %v", got)
	}
	if got := b.note(network(addr("192.0.2.1:2")), now.Add(forgetAfter+1)); got != firstDelay {
		t.Errorf("after a quiet time: delay %v", got)
	}
	b.note(network(addr("[2001:db8::1]:1")), now)
	if got := b.note(network(addr("[2001:db8::2:0:0:1]:1")), now); got != 2*firstDelay {
		t.Errorf("another address of a /64: delay %v", got)
	}
	if got := b.note(network(addr("[::ffff:192.0.2.2]:1")), now); got != 2*firstDelay {
		t.Errorf("IPv4 in IPv6: delay %v", got)
	}
}

func TestFailuresAreBounded(t *testing.T) {
	b := newBrake()
	for i := range maxAddresses + 100 {
		b.note(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), time.Now())
	}
	if n := len(b.failures); n != maxAddresses {
		t.Errorf("%d addresses are remembered, want %d", n, maxAddresses)
	}
}

// Who waits gives up when the server ends.
func TestCheckEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake()
		from := addr("192.0.2.1:1")
		block := make(chan bool)
		go b.check(t.Context(), from, "alice", func() bool { return <-block })
		synctest.Wait()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := b.check(ctx, from, "alice", func() bool { return true })
			ended <- err
		}()
		synctest.Wait()
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		close(block)
	})
}
