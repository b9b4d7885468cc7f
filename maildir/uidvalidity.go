package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

const validityFile = "dovecot-uidvalidity"

// nextUIDValidity hands out a UIDVALIDITY that no mailbox of the account ever had. The counter is
// the name of an empty file, "dovecot-uidvalidity.<8 hex digits>": whoever renames it to the next
// number has that number. The file without a suffix holds the number too (Dovecot
// mailbox-uidvalidity.c). Without a counter it starts at the time, in seconds since 1970.
func (a *Account) nextUIDValidity() (uint32, error) {
	d := a.control.root
	acc, err := a.mail.access()
	if err != nil {
		return 0, err
	}
	for range 100 {
		last, err := lastUIDValidity(d)
		if fe, ok := errors.AsType[*FormatError](err); ok {
			err = mend(a.log(), d, validityFile, []*FormatError{fe})
		}
		if err != nil {
			return 0, err
		}
		var next uint32
		if last == 0 {
			next = uint32(time.Now().Unix())
			f, err := d.createAs(suffixed(next), 0o444, -1)
			if errors.Is(err, fs.ErrExist) {
				continue
			} else if err != nil {
				return 0, err
			}
			f.Close()
		} else {
			next = last + 1
			err := d.rename(suffixed(last), suffixed(next))
			if notExist(err) {
				continue // another process was faster
			} else if err != nil {
				return 0, err
			}
		}
		// After the power went, the number must not be handed out again. Nobody holds a lock: who has another
		// number has another temporary file.
		return next, d.writeFile(validityFile, fmt.Sprintf("imapmaildir.uidvalidity.%08x", next), fmt.Appendf(nil, "%08x", next), acc)
	}
	return 0, fmt.Errorf("%s/%s: the counter does not stand still", d.f.Name(), validityFile)
}

func suffixed(v uint32) string { return fmt.Sprintf("%s.%08x", validityFile, v) }

// lastUIDValidity is the highest number that was handed out, or 0. Where only the file without a
// suffix is left, the counter is made again from it. Where that has another form, the error is a *FormatError beside
// the number.
func lastUIDValidity(d *dir) (uint32, error) {
	f, err := d.openat(".", 0, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	var last uint32
	for _, name := range names {
		if hex, ok := strings.CutPrefix(name, validityFile+"."); ok && len(hex) == 8 {
			if v, err := strconv.ParseUint(hex, 16, 32); err == nil && v < maxUID {
				last = max(last, uint32(v))
			}
		}
	}
	g, err := d.openFile(validityFile)
	if notExist(err) {
		return last, nil
	} else if err != nil {
		return last, err
	}
	defer g.Close()
	b, err := io.ReadAll(io.LimitReader(g, 16))
	if err != nil {
		return last, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 16, 32)
	if err != nil || v == 0 || v >= maxUID {
		return last, &FormatError{validityFile, 1, fmt.Sprintf("%q is no UIDVALIDITY", b)}
	}
	if last != 0 {
		return last, nil
	}
	h, err := d.createAs(suffixed(uint32(v)), 0o444, -1)
	if err == nil {
		h.Close()
	} else if !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	return uint32(v), nil
}
