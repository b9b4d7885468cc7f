package watch

import (
	"slices"
	"testing"

	"github.com/fsnotify/fsnotify"
)

// putNames puts notices with these names: of events, or after "-" of a directory that is gone.
func (q *queue) putNames(names ...string) {
	for _, name := range names {
		if name[0] == '-' {
			q.put(notice{gone: &watched{path: name}})
		} else {
			q.put(notice{event: fsnotify.Event{Name: name, Op: fsnotify.Create}})
		}
	}
}

// TestQueue fills a queue of three. What is dropped is told of once and in its place, and what came
// from ourselves is kept.
func TestQueue(t *testing.T) {
	q := newQueue()
	q.limit = 3
	q.putNames("a", "-b", "c", "d", "e", "-f", "g")
	var got []string
	for n := range q.all {
		switch {
		case n.err == fsnotify.ErrEventOverflow:
			got = append(got, "overflow")
		case n.gone != nil:
			got = append(got, n.gone.path)
		default:
			got = append(got, n.event.Name)
		}
		switch got[len(got)-1] {
		case "a": // all before this have been taken
			q.putNames("h", "i")
		case "i":
			q.putNames("j", "k", "l", "m")
		case "k":
			q.close()
		}
	}
	if want := []string{"a", "-b", "c", "overflow", "-f", "h", "i", "j", "k"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
