package maildir

import (
	"hash/maphash"

	"github.com/emersion/go-imap/v2"
)

// An index finds the messages of a mailbox by their keys. It is a hash table of UIDs: 6 bytes a message.
// What was expunged stays in it until it is made anew, and is not found.
type index struct {
	table []imap.UID // 0: empty
	used  int        // slots of table that are not
	next  imap.UID   // the messages below this UID are in it
}

var indexSeed = maphash.MakeSeed()

func (x *index) slot(key string) int {
	hash := maphash.String(indexSeed, key)
	return int(hash >> 32 * uint64(len(x.table)) >> 32)
}

// extend takes in the messages of a snapshot that came since the last call.
func (x *index) extend(s *Snapshot) {
	first, _ := s.place(x.next)
	news := s.Messages[first:]
	if 4*(x.used+len(news)) > 3*len(x.table) {
		news = s.Messages
		x.table = make([]imap.UID, len(news)*3/2+len(news)/8+16)
		x.used = 0
	}
	for _, msg := range news {
		i := x.slot(msg.Key())
		for x.table[i] != 0 {
			i = (i + 1) % len(x.table)
		}
		x.table[i] = msg.UID
		x.used++
	}
	x.next = s.UIDNext
}

// find returns the place of a message in a snapshot that extend was called with, or -1.
func (x *index) find(s *Snapshot, key string) int {
	if len(x.table) == 0 {
		return -1
	}
	for i := x.slot(key); x.table[i] != 0; i = (i + 1) % len(x.table) {
		if place, ok := s.place(x.table[i]); ok && s.Messages[place].Key() == key {
			return place
		}
	}
	return -1
}
