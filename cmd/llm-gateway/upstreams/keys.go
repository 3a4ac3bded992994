package upstreams

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"llm-gateway/cmd/llm-gateway/secret"
)

// reader finds what is not in the file itself.
type reader struct {
	dir    string // that relative paths are relative to
	getenv func(string) string
}

// keys reads an upstream's credentials.
func (u *upstreamForm) keys(r *reader) ([]Key, error) {
	forms := u.Keys
	if len(forms) > maxKeys {
		return nil, u.wrong(0, "keys", "%d of them; at most %d are taken", len(forms), maxKeys)
	}
	if line, _ := u.Key.place(); line != 0 {
		if len(forms) > 0 {
			return nil, u.wrong(line, "keys", "there are several keys and a single one; one form is taken")
		}
		forms = []weightedKey{{Key: u.Key}}
	}
	var out []Key
	first := map[secret.Text]int{}
	for i := range forms {
		line, field := forms[i].Key.place()
		if line == 0 {
			return nil, u.wrong(forms[i].Weight.Line, "keys", "a key is one of api_key, api_key_file and api_key_env")
		}
		key, err := forms[i].read(r)
		if err != nil {
			return nil, u.wrong(line, field, "%s", err)
		}
		if twin := first[key.Secret]; twin != 0 {
			return nil, u.wrong(line, field, "it is the same key as at line %d", twin)
		}
		first[key.Secret] = line
		out = append(out, key)
	}
	return out, nil
}

// place is where a key stands; line 0: nowhere.
func (k *keyForm) place() (line int, field string) {
	switch {
	case k.Text.Line != 0:
		return k.Text.Line, "api_key"
	case k.File.Line != 0:
		return k.File.Line, "api_key_file"
	}
	return k.Env.Line, "api_key_env"
}

func (w *weightedKey) read(r *reader) (Key, error) {
	given := 0
	for _, s := range []hiddenScalar{w.Key.Text, w.Key.File, w.Key.Env} {
		if s.Line != 0 {
			given++
		}
	}
	if given > 1 {
		return Key{}, errors.New("a key is one of api_key, api_key_file and api_key_env, not several")
	}
	weight := 1
	if w.Weight.Line != 0 {
		weight = w.Weight.N
	}
	if weight < 0 || weight > maxWeight {
		return Key{}, fmt.Errorf("its weight must be from 0 to %d", maxWeight)
	}
	text, err := w.Key.text(r)
	if err == nil {
		err = checkKey(text)
	}
	return Key{secret.Text(text), weight}, err
}

// text reads the key from its place. Errors quote neither paths nor names: in a broken file these are
// keys at times.
func (k *keyForm) text(r *reader) (string, error) {
	switch {
	case k.Text.Line != 0:
		return string(k.Text.Text), nil
	case k.File.Line != 0:
		return r.file(string(k.File.Text))
	}
	text := r.getenv(string(k.Env.Text))
	if text == "" {
		return "", errors.New("the environment variable that it names is not set")
	}
	return text, nil
}

// file reads a key from a file, less the end of the line.
func (r *reader) file(path string) (string, error) {
	if path == "" {
		return "", errors.New("it is empty")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	text, err := readKey(path)
	if bad, ok := errors.AsType[*fs.PathError](err); ok {
		err = bad.Err
	}
	if err != nil {
		return "", fmt.Errorf("the file that it names cannot be read: %w", err)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+2))
	return string(text), err
}

// checkKey accepts what can go into a header.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > maxKeyBytes:
		return fmt.Errorf("the key is longer than %d bytes", maxKeyBytes)
	case strings.ContainsFunc(key, blankOrControl):
		return errors.New("the key must be one word of printable ASCII")
	}
	return nil
}

// Words of headers' names. What the gateway or HTTP itself sets cannot be set twice, and credentials
// have a place that hides them.
var (
	ownHeaders = []string{"Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Connection", "Keep-Alive",
		"Te", "Trailer", "Upgrade", "Expect", "Accept", "Accept-Encoding", "User-Agent", "Proxy-Connection"}
	credentialWords = []string{"authorization", "auth", "key", "apikey", "token", "secret", "password", "cookie", "credential", "credentials"}
)

// headers takes over what is sent along. Errors do not quote values.
func (u *upstreamForm) headers(out *Upstream) error {
	if len(u.Headers) > maxHeaders {
		return u.wrong(0, "headers", "%d of them; at most %d are taken", len(u.Headers), maxHeaders)
	}
	for _, name := range slices.Sorted(maps.Keys(u.Headers)) {
		value, canonical := u.Headers[name], http.CanonicalHeaderKey(name)
		switch {
		case !isHeaderName(name):
			return u.wrong(value.Line, "headers", "a name must be letters, digits and hyphens")
		case slices.Contains(ownHeaders, canonical):
			return u.wrong(value.Line, "headers", "%s is set by the gateway itself", canonical)
		case slices.ContainsFunc(strings.Split(strings.ToLower(name), "-"), isCredentialWord):
			return u.wrong(value.Line, "headers", "%s carries credentials; their place is api_key", canonical)
		case !isHeaderValue(string(value.Text)):
			return u.wrong(value.Line, "headers", "the value of %s must be 1 to %d characters of printable ASCII", canonical, maxHeaderValue)
		case out.Headers[canonical] != nil:
			return u.wrong(value.Line, "headers", "%s is there twice", canonical)
		}
		if out.Headers == nil {
			out.Headers = http.Header{}
		}
		out.Headers[canonical] = []string{string(value.Text)}
	}
	return nil
}

func isCredentialWord(word string) bool { return slices.Contains(credentialWords, word) }

func isHeaderName(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

func isHeaderValue(s string) bool {
	return s != "" && len(s) <= maxHeaderValue && s == strings.TrimSpace(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
