package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

const (
	dotenvFile      = ".env"
	fileSuffix      = "_FILE"  // X_FILE is the path of a file that holds the secret X
	maxSettingsFile = 64 << 10 // bytes of such a file, and of the .env file
)

// sources is where settings come from: the first of its levels that has one. The environment wins
// over the .env file, also by an empty value, which means the default.
type sources struct {
	environment, file map[string]string
}

// sourceError is a complaint that quoting the value would not help, or must not be quoted.
type sourceError struct{ message string }

func (e *sourceError) Error() string { return e.message }

// readSources reads the .env file, if there is one, beside the environment.
func readSources(environ []string, dotenv string) (sources, error) {
	src := sources{environment: map[string]string{}}
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok {
			src.environment[name] = value
		}
	}
	text, err := readBounded(dotenv)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return src, nil
	case err != nil:
		return src, fmt.Errorf("the settings file %s cannot be read: %w", dotenv, err)
	}
	src.file, err = parseDotenv(text)
	if err != nil {
		return src, fmt.Errorf("the settings file %s is broken: %w", dotenv, err)
	}
	return src, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxSettingsFile+1))
	if err == nil && len(text) > maxSettingsFile {
		err = fmt.Errorf("it is larger than %d bytes", maxSettingsFile)
	}
	return text, err
}

// parseDotenv reads a .env file. Its error names the line, and never quotes it: the library's own
// error would print the values that follow.
func parseDotenv(text []byte) (map[string]string, error) {
	values, ok := parseWhole(text)
	if ok {
		return values, nil
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	// The longest beginning that can be read ends before the statement that cannot.
	for n := range slices.Backward(lines) {
		begin := bytes.Join(lines[:n], nil)
		if _, ok := parseWhole(begin); ok {
			return nil, fmt.Errorf("line %d is not NAME=value, or a quote is not closed", n+1+blankLines(lines[n:]))
		}
	}
	return nil, errors.New("it is not lines of NAME=value")
}

// blankLines counts what stands before the first statement.
func blankLines(lines [][]byte) (n int) {
	for n < len(lines) {
		line := bytes.TrimSpace(lines[n])
		if len(line) > 0 && line[0] != '#' {
			return n
		}
		n++
	}
	return 0
}

// parseWhole reads the text, if all of it can be read.
func parseWhole(text []byte) (map[string]string, bool) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, false
	}
	values, err := godotenv.UnmarshalBytes(append(bytes.Clone(text), '\n'))
	if err != nil {
		return nil, false
	}
	for name := range values {
		if name == "" || strings.ContainsAny(name, " \t\r\n") {
			return nil, false
		}
	}
	return values, true
}

// value finds a setting. A secret may be in a file that NAME_FILE names.
func (src sources) value(d setting) (string, error) {
	for _, level := range []map[string]string{src.environment, src.file} {
		value, here := level[d.name]
		path, named := level[d.name+fileSuffix]
		if d.secret && named && path != "" {
			if here && value != "" {
				return "", &sourceError{"both it and " + d.name + fileSuffix + " are set; only one of them can hold"}
			}
			return readSecret(d.name, path)
		}
		if here {
			return strings.TrimSpace(value), nil
		}
	}
	return "", nil
}

func readSecret(name, path string) (string, error) {
	text, err := readBounded(path)
	secret := string(bytes.TrimSpace(text))
	if err == nil && secret == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", &sourceError{fmt.Sprintf("the file that %s%s names cannot be used: %s", name, fileSuffix, err)}
	}
	return secret, nil
}
