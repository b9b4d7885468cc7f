package transcript

import (
	"bufio"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// maxResponse is the size in bytes of the largest response that is read.
const maxResponse = 64 << 20

// A reader reads responses as they are sent, so that their order and their bytes can be judged.
type reader struct{ r *bufio.Reader }

func newReader(r io.Reader) *reader { return &reader{bufio.NewReader(r)} }

var endsInLiteral = regexp.MustCompile(`\{([0-9]{1,9})\}\r\n$`)

// line reads a response with its literals, and cuts its CRLF off.
func (r *reader) line() (string, error) {
	var b strings.Builder
	for {
		s, err := r.r.ReadString('\n')
		if err == io.EOF && (s != "" || b.Len() > 0) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", err
		}
		if !strings.HasSuffix(s, "\r\n") {
			return "", errors.New("a line ends without CR")
		}
		m := endsInLiteral.FindStringSubmatch(s)
		if m == nil {
			b.WriteString(s[:len(s)-2])
			return b.String(), nil
		}
		b.WriteString(s)
		size, _ := strconv.ParseInt(m[1], 10, 64)
		if int64(b.Len())+size > maxResponse {
			return "", errors.New("response is too large")
		}
		if _, err := io.CopyN(&b, r.r, size); err == io.EOF {
			return "", io.ErrUnexpectedEOF
		} else if err != nil {
			return "", err
		}
	}
}
