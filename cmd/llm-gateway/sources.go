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

// fromDefault says that a setting is set nowhere, or as empty.
const fromDefault = "default"

// value finds a setting, and says where. A secret may be in a file that NAME_FILE names.
func (src sources) value(d setting) (value, from string, err error) {
	for _, level := range []struct {
		name   string
		values map[string]string
	}{{"environment", src.environment}, {dotenvFile, src.file}} {
		value, here := level.values[d.name]
		path, named := level.values[d.name+fileSuffix]
		if d.secret && named && path != "" {
			if here && value != "" {
				return "", level.name, &sourceError{"both it and " + d.name + fileSuffix + " are set; only one of them can hold"}
			}
			value, err = readSecret(d.name, path)
			return value, level.name + ", " + d.name + fileSuffix, err
		}
		if value = strings.TrimSpace(value); value != "" {
			return value, level.name, nil
		}
		if here {
			break
		}
	}
	return "", fromDefault, nil
}

// getenv finds what is no setting of the table, like os.Getenv.
func (src sources) getenv(name string) string {
	if value, here := src.environment[name]; here {
		return value
	}
	return src.file[name]
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
