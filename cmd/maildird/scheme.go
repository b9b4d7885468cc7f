package main

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-crypt/crypt"
	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/md5crypt"
	cryptpbkdf2 "github.com/go-crypt/crypt/algorithm/pbkdf2"
	"github.com/go-crypt/crypt/algorithm/scrypt"
	"github.com/go-crypt/crypt/algorithm/sha1crypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
)

// A password is what the passwd-file knows of one. Its methods may be called by several
// goroutines at once.
type password interface {
	// Match reports whether a text is the password, in a time that does not tell how nearly.
	Match(text string) bool
}

// plain is a password that the file has in clear, as its hash so that lengths don't matter.
type plain [sha256.Size]byte

func (p plain) Match(text string) bool {
	got := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(p[:], got[:]) == 1
}

// The schemes by Dovecot's names. Those of crypt name what the hash itself says again, which is
// what counts: a hash that says "$6$" is taken as that under each of them, as in Dovecot.
var (
	plainSchemes = []string{"PLAIN", "CLEAR", "CLEARTEXT"}
	cryptSchemes = []string{"CRYPT", "ARGON2ID", "ARGON2I", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "MD5-CRYPT"}
)

const pbkdf2Scheme = "PBKDF2"

var decoder = func() *crypt.Decoder {
	d := crypt.NewDecoder()
	for _, register := range []func(algorithm.DecoderRegister) error{
		argon2.RegisterDecoder, bcrypt.RegisterDecoder, md5crypt.RegisterDecoder, cryptpbkdf2.RegisterDecoder,
		scrypt.RegisterDecoder, sha1crypt.RegisterDecoder, shacrypt.RegisterDecoder,
	} {
		if err := register(d); err != nil {
			panic(err) // two of them claim the same identifier
		}
	}
	return d
}()

// parsePassword reads the second field of a passwd-file: "{SCHEME}text", or a hash that says
// itself what it is, as "$6$…". Its errors do not quote the field.
func parsePassword(field string) (password, error) {
	scheme, text := "CRYPT", field
	if strings.HasPrefix(field, "{") {
		name, rest, ok := strings.Cut(field[1:], "}")
		if !ok {
			return nil, errors.New("password scheme has no closing brace")
		}
		scheme, text = strings.ToUpper(name), rest
	}
	switch {
	case text == "":
		return nil, errors.New("password is empty")
	case slices.Contains(plainSchemes, scheme):
		return plain(sha256.Sum256([]byte(text))), nil
	case scheme == pbkdf2Scheme:
		return parsePBKDF2(text)
	case !slices.Contains(cryptSchemes, scheme):
		return nil, fmt.Errorf("unknown password scheme %q; allowed: %s, %s, %s", scheme,
			strings.Join(cryptSchemes, ", "), pbkdf2Scheme, plainSchemes[0])
	}
	d, err := decoder.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("password hash of scheme %s can't be read", scheme) // crypt's reasons quote the hash
	}
	return d, nil
}

// dovecotPBKDF2 is a password in Dovecot's own form of PBKDF2 with SHA-1, which crypt does not know.
type dovecotPBKDF2 struct {
	salt   string
	rounds int
	key    []byte
}

func (p *dovecotPBKDF2) Match(text string) bool {
	key, err := pbkdf2.Key(sha1.New, text, []byte(p.salt), p.rounds, len(p.key))
	return err == nil && subtle.ConstantTimeCompare(p.key, key) == 1
}

// parsePBKDF2 reads "$1$salt$rounds$key": the salt as it stands, the key in hexadecimal.
func parsePBKDF2(text string) (password, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "1" {
		return nil, errors.New(`password hash of scheme PBKDF2 is not "$1$salt$rounds$key"`)
	}
	rounds, err := strconv.ParseUint(parts[3], 10, 31)
	key, kerr := hex.DecodeString(parts[4])
	if err != nil || kerr != nil || rounds == 0 || len(key) == 0 {
		return nil, errors.New("password hash of scheme PBKDF2 has rounds or a key that can't be read")
	}
	return &dovecotPBKDF2{salt: parts[2], rounds: int(rounds), key: key}, nil
}
