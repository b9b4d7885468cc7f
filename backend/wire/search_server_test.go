package wire_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/imapmaildir/imapmaildir/backend/wire"
)

// A searchKey is a key as a client sends it and what it means.
type searchKey struct {
	text  string
	found func(size int) bool
}

// randomKey returns a key; those that aren't about sizes have values that look as if they were.
func randomKey(rnd *rand.Rand, depth int) searchKey {
	always := func(int) bool { return true }
	n := []int{0, 0, 1, 22, 23, 25, 27, 29}[rnd.IntN(8)]
	choice := rnd.IntN(9)
	if depth == 0 {
		choice = rnd.IntN(6)
	}
	switch choice {
	case 0, 1:
		return searchKey{fmt.Sprintf("SMALLER %d", n), func(size int) bool { return size < n }}
	case 2:
		return searchKey{fmt.Sprintf("larger %d", n), func(size int) bool { return size > n }}
	case 3, 4:
		return searchKey{[]string{
			"ALL", "SINCE 1-Jan-2000", `BEFORE "1-Jan-2100"`, "1:*", "UID 1:*", "UNKEYWORD SMALLER",
		}[rnd.IntN(6)], always}
	case 5:
		subject := []string{`"SMALLER 9"`, "{9}\r\nSMALLER 9", "SMALLER", `"\"SMALLER\" 9"`}
		i := rnd.IntN(len(subject))
		return searchKey{[]string{"SUBJECT ", "HEADER SUBJECT ", "HEADER {7}\r\nSUBJECT "}[rnd.IntN(3)] + subject[i],
			func(size int) bool { return size > 0 && i < 3 }}
	case 6:
		key := randomKey(rnd, depth-1)
		return searchKey{"NOT " + key.text, func(size int) bool { return !key.found(size) }}
	case 7:
		a, b := randomKey(rnd, depth-1), randomKey(rnd, depth-1)
		return searchKey{"OR " + a.text + " " + b.text, func(size int) bool { return a.found(size) || b.found(size) }}
	default:
		keys := randomKeys(rnd, depth-1)
		return searchKey{"(" + keys.text + ")", keys.found}
	}
}

// randomKeys returns some keys that all have to match.
func randomKeys(rnd *rand.Rand, depth int) searchKey {
	var texts []string
	var keys []searchKey
	for range 1 + rnd.IntN(4) {
		key := randomKey(rnd, depth)
		texts, keys = append(texts, key.text), append(keys, key)
	}
	return searchKey{strings.Join(texts, " "), func(size int) bool {
		for _, key := range keys {
			if !key.found(size) {
				return false
			}
		}
		return true
	}}
}

const searchHeader = "Subject: SMALLER 9\r\n\r\n" // 22 bytes

// TestSearchSizes searches at random for sizes in mails of many, an empty one too.
func TestSearchSizes(t *testing.T) {
	s := start(t, true, &wire.Options{})
	sizes := []int{0}
	for size := len(searchHeader); size < 30; size++ {
		sizes = append(sizes, size)
	}
	for _, size := range sizes {
		mail := (searchHeader + "xxxxxxxxxx")[:size]
		when := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		if _, err := s.user.Append("INBOX", literal{strings.NewReader(mail), int64(size)}, &imap.AppendOptions{Time: when}); err != nil {
			t.Fatal(err)
		}
	}
	c := s.dial(t)
	c.expect("* OK ")
	c.send(login)
	c.expect("l OK ")
	c.send("a SELECT INBOX\r\n")
	c.until("a OK ")

	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		command := []string{"SEARCH ", "UID SEARCH "}[rnd.IntN(2)]
		keys := randomKeys(rnd, 3)
		command += keys.text
		want := "* SEARCH"
		for i, size := range sizes {
			if keys.found(size) {
				want += fmt.Sprint(" ", i+1)
			}
		}
		c.send("b %s\r\n", command)
		answer := strings.ReplaceAll(c.until("b "), "+ Ready for literal data\r\n", "")
		if answer != want+"\r\n" {
			t.Errorf("%q:\ngot  %q\nwant %q", command, answer, want)
		}
	}
}
