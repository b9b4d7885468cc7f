package maildir

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// unzippedBlock is how much of a compressed message is in memory unpacked: most messages fit, and are unpacked once.
	unzippedBlock = 128 << 10
	// maxWindow is how much of what came before a zstd file may refer to, which has to be in memory: the most that
	// zstd itself accepts, and what its highest level writes.
	maxWindow = 128 << 20
)

// maxUnzipped is how many bytes a compressed message may have: the greatest size that an IMAP4rev1 client can be told.
// Tests lower it.
var maxUnzipped int64 = math.MaxUint32

// A format is a form of compressed files, those that Dovecot's zlib plugin reads and the one of lz4's own program. Like
// there a file is known by its first bytes, whatever its name is.
type format struct {
	name  string
	magic string
	fits  func(rest string) bool             // whether what follows magic can be in such a file; nil: all can
	begin func(*unzipper) (io.Reader, error) // reads z.in from its beginning; nil: this server can't
}

var formats = []format{
	// The flag bits above these are zero (RFC 1952 2.3.1.2), so no text is taken for gzip.
	{"gzip", "\x1f\x8b\x08", func(rest string) bool { return rest == "" || rest[0] < 0x20 }, (*unzipper).gzip},
	{"zstd", "\x28\xb5\x2f\xfd", nil, (*unzipper).zstd},
	// What makes a line "BZh9: x" of a header no bzip2: the first block, or the end where there is none.
	{"bzip2", "BZh", func(rest string) bool {
		return len(rest) >= 7 && '1' <= rest[0] && rest[0] <= '9' && (rest[1:7] == "1AY&SY" || rest[1:7] == "\x17rE8P\x90")
	}, (*unzipper).bzip2},
	{"xz", "\xfd7zXZ\x00", nil, nil},
	{"lz4 as Dovecot writes it", "Dovecot-LZ4\r\x2a\x9b\xc5", nil, nil},
	{"lz4", "\x04\x22\x4d\x18", nil, nil},
}

// formatBytes is how many bytes of a file are enough to know its format.
const formatBytes = 16

// formatOf is the format of a file that begins so; nil: it is a message as it stands.
func formatOf(head []byte) *format {
	for i := range formats {
		f := &formats[i]
		if len(head) >= len(f.magic) && string(head[:len(f.magic)]) == f.magic &&
			(f.fits == nil || f.fits(string(head[len(f.magic):min(len(head), formatBytes)]))) {
			return f
		}
	}
	return nil
}

// formatOfFile reads no more of a file than is needed to know its format.
func formatOfFile(f *os.File) (*format, error) {
	var head [formatBytes]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return formatOf(head[:n]), nil
}

// A CompressedError is a compressed file that can't be read.
type CompressedError struct {
	File   string
	Format string
	Err    error
}

func (e *CompressedError) Error() string {
	return fmt.Sprintf("%s, compressed (%s): %v", e.File, e.Format, e.Err)
}
func (e *CompressedError) Unwrap() error { return e.Err }

// errFormat tells which formats can be read.
var errFormat = errors.New("this server reads " + strings.Join(readable(), ", ") + " only")

func readable() (names []string) {
	for _, f := range formats {
		if f.begin != nil {
			names = append(names, f.name)
		}
	}
	return names
}

// An unzipper reads a compressed file. It goes forward, and for a place that it has left behind begins anew: what it
// holds is one block and what the decoder needs, whatever the file says of itself.
type unzipper struct {
	file   *os.File
	size   int64 // of the file
	format *format
	in     *bufio.Reader

	out      io.Reader // nil: nothing is read yet
	err      error     // that follows the block
	from, to int64     // the place of the block: block[:to-from]
	block    [unzippedBlock]byte

	gz  *gzip.Reader // these are kept for the next file
	zst *zstd.Decoder
}

var unzippers = sync.Pool{New: func() any { return &unzipper{in: bufio.NewReaderSize(nil, 32<<10)} }}

// unzip is for reading a file of a format; its free is to be called.
func unzip(file *os.File, size int64, f *format) *unzipper {
	z := unzippers.Get().(*unzipper)
	z.file, z.size, z.format = file, size, f
	z.rewind()
	return z
}

func (z *unzipper) free() {
	z.file, z.out, z.err = nil, nil, nil
	z.in.Reset(nil)
	unzippers.Put(z)
}

func (z *unzipper) rewind() {
	z.from, z.to = 0, 0
	z.out, z.err = nil, nil
}

// ReadAt reads what was compressed. Unlike an io.ReaderAt it may give fewer bytes without an error; io.EOF comes with none. All
// other errors are CompressedErrors.
func (z *unzipper) ReadAt(p []byte, off int64) (int, error) {
	if off < z.from {
		z.rewind()
	}
	for off >= z.to {
		if z.err != nil {
			return 0, z.err
		}
		z.next()
	}
	return copy(p, z.block[off-z.from:z.to-z.from]), nil
}

// next unpacks the next block, as far as there is one, and sets err where nothing follows it.
func (z *unzipper) next() {
	z.from = z.to
	err := z.begin()
	n := 0
	for idle := 0; err == nil && n < len(z.block); {
		var k int
		k, err = z.out.Read(z.block[n:])
		if n += k; k > 0 {
			idle = 0
		} else if idle++; idle == 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	z.to += int64(n)
	if err == nil && z.to > maxUnzipped {
		err = fmt.Errorf("is more than %d bytes", maxUnzipped)
	}
	if err != nil && err != io.EOF {
		err = &CompressedError{z.file.Name(), z.format.name, err}
	}
	z.err = err
}

// begin begins at the beginning of the file, unless it is being read.
func (z *unzipper) begin() (err error) {
	if z.out != nil {
		return nil
	}
	if z.format.begin == nil {
		return errFormat
	}
	z.in.Reset(io.NewSectionReader(z.file, 0, z.size))
	z.out, err = z.format.begin(z)
	return err
}

func (z *unzipper) gzip() (io.Reader, error) {
	if z.gz == nil {
		z.gz = new(gzip.Reader)
	}
	if err := z.gz.Reset(z.in); err != nil {
		return nil, err
	}
	return z.gz, nil
}

func (z *unzipper) zstd() (io.Reader, error) {
	if z.zst == nil {
		var err error
		z.zst, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, err
		}
	}
	if err := z.zst.Reset(z.in); err != nil {
		return nil, err
	}
	return z.zst, nil
}

func (z *unzipper) bzip2() (io.Reader, error) { return bzip2.NewReader(z.in), nil }
