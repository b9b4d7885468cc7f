package main

import (
	"context"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

const (
	// giveBackEvery is how often it is looked whether there is memory to give back.
	giveBackEvery = 5 * time.Second
	// spare is how much memory beyond what is in use stays, in bytes.
	spare = 8 << 20
)

// giveBack returns memory that was used for a moment to the system, until ctx is done. The first look at
// a large mailbox takes three times what stays of it, and in a server where nothing happens afterwards
// Go's runtime would keep that for minutes.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	samples := []runtimemetrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		runtimemetrics.Read(samples)
		if held := samples[0].Value.Uint64() + samples[1].Value.Uint64() + samples[2].Value.Uint64(); held > samples[3].Value.Uint64()+spare {
			debug.FreeOSMemory()
		}
	}
}
