package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// module is one that is linked into the binary, as `go list` tells it.
type module struct {
	Path, Version, Dir string
	Main               bool
	Replace            *struct{ Path string }
}

// linked are the modules of the packages that the binary is made of.
func linked(t *testing.T) (all []module) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=Module", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct{ Module *module }
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if m := p.Module; m != nil && !m.Main && !slices.ContainsFunc(all, func(known module) bool { return known.Path == m.Path }) {
			all = append(all, *m)
		}
	}
	return all
}

// licenceOf names a permissive licence by its text; "" for any other.
func licenceOf(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case has("GENERAL PUBLIC LICENSE"), has("Mozilla Public License"), has("Business Source License"), has("Server Side Public License"):
		return ""
	case has("Apache License"):
		return "Apache-2.0"
	case has("Redistribution and use in source and binary forms") && has("Neither the name"):
		return "BSD-3-Clause"
	case has("Redistribution and use in source and binary forms"):
		return "BSD-2-Clause"
	case has("Permission is hereby granted, free of charge"):
		return "MIT"
	case has("public domain"):
		return "public domain"
	}
	return ""
}

var dependencyRow = regexp.MustCompile("^\\| `([^`]+)` \\| ([^|]+) \\|$")

// TestDependencies: what is linked into the binary is pinned, from where it says, under a permissive licence, and
// docs/dependencies.md lists exactly that.
func TestDependencies(t *testing.T) {
	t.Parallel()
	file, err := os.Open(filepath.Join("..", "..", "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it was only read from
	listed := map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if row := dependencyRow.FindStringSubmatch(lines.Text()); row != nil {
			listed[row[1]] = strings.TrimSpace(row[2])
		}
	}
	for _, m := range linked(t) {
		names, err := filepath.Glob(filepath.Join(m.Dir, "[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*"))
		if err != nil || len(names) == 0 || m.Version == "" || m.Replace != nil {
			t.Errorf("%s: version %q, replaced by %v, licences %v: %v", m.Path, m.Version, m.Replace, names, err)
			continue
		}
		text, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		licence := licenceOf(string(text))
		if licence == "" {
			t.Errorf("%s: its licence is not a permissive one that is known here: %.300s", m.Path, text)
		}
		if listed[m.Path] != licence {
			t.Errorf("docs/dependencies.md has %q; it should have\n| `%s` | %s |", listed[m.Path], m.Path, licence)
		}
		delete(listed, m.Path)
	}
	for path := range listed {
		t.Errorf("docs/dependencies.md lists %s, which is not linked", path)
	}
}

// TestLicenceOf: what is not permissive, or not known, is no licence.
func TestLicenceOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Apache License\n Version 2.0":                                                   "Apache-2.0",
		"Permission is hereby granted, free of\n charge, to any":                         "MIT",
		"Redistribution and use in source and binary forms. Neither the name of":         "BSD-3-Clause",
		"Redistribution and use in source and binary forms":                              "BSD-2-Clause",
		"GNU GENERAL PUBLIC LICENSE. Apache License":                                     "",
		"GNU LESSER GENERAL PUBLIC LICENSE":                                              "",
		"Mozilla Public License Version 2.0":                                             "",
		"All rights reserved.":                                                           "",
		"Business Source License 1.1. Change License: Apache License":                    "",
		"all files are put into the public domain: you can do whatever you want with it": "public domain",
	} {
		if got := licenceOf(text); got != want {
			t.Errorf("%.40q is %q, want %q", text, got, want)
		}
	}
}
