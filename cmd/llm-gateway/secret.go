package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	madeSecretFile = "jwt_secret"
	minSecret      = 32 // bytes: what HS256 needs to be as strong as its hash
)

// signingSecret is the secret that tokens are signed with. In development, where none is set, one
// is made and kept, so that tokens outlive a restart.
func (s *Settings) signingSecret() ([]byte, error) {
	secret := []byte(s.JWTSecretKey)
	switch {
	case s.JWTJWKSURL != "":
		return nil, errors.New("tokens come from the issuer at JWT_JWKS_URL; this gateway cannot make any")
	case len(secret) == 0 && s.Development():
		return keptSecret(s.DataDir)
	case len(secret) == 0:
		return nil, fmt.Errorf("JWT_SECRET_KEY (or JWT_SECRET_KEY_FILE) must be set where ENVIRONMENT is %s", s.Environment)
	case len(secret) < minSecret && !s.Development():
		return nil, fmt.Errorf("JWT_SECRET_KEY has %d bytes; where ENVIRONMENT is %s it needs %d or more", len(secret), s.Environment, minSecret)
	}
	return secret, nil
}

// keptSecret returns the secret in a data directory, and makes it where there is none. It appears
// complete and once: of two processes that make one, the first to link its file wins, and both
// read that.
func keptSecret(dataDir string) ([]byte, error) {
	path := filepath.Join(dataDir, madeSecretFile)
	secret, err := readBounded(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = makeSecret(dataDir, path); err == nil {
			secret, err = readBounded(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the JWT secret that is kept in DATA_DIR: %w", err)
	}
	raw, err := hex.DecodeString(string(secret))
	if err != nil || len(raw) < minSecret {
		return nil, fmt.Errorf("%s does not hold %d hexadecimal bytes; remove it, and all tokens made so far end", path, minSecret)
	}
	return secret, nil
}

func makeSecret(dataDir, path string) error {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dataDir, madeSecretFile+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // its name; the file stays under the other one
	random := make([]byte, minSecret)
	rand.Read(random) // it never returns an error
	_, err = f.WriteString(hex.EncodeToString(random))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	dir, err := os.Open(dataDir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
