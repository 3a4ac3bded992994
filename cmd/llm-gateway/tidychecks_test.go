package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"llm-gateway/gateway"
)

const (
	maxFileLines     = 500
	maxFunctionLines = 70
)

// topLevel is everything that may stand at the top of the repository.
var topLevel = strings.Fields(`cmd domain ledger projections gateway migrations
	docker-compose.yml go.mod go.sum Makefile README.md
	deployments docs usage env.example openapi.yaml ARCHITECTURE.md CHANGELOG.md SECURITY.md LICENSE
	.ci .golangci.yml .gitignore .git`)

func checkTop(names []string, gitignore string) (problems []string) {
	for _, name := range names {
		if !slices.Contains(topLevel, name) && !ignored(gitignore, name) {
			problems = append(problems, name+": the top level is fixed, and this is not part of it")
		}
	}
	return problems
}

// openEnds are the words for work that was left undone. They are put together here so that this
// file does not contain them.
var openEnds = []string{"TO" + "DO", "FIX" + "ME"}

func checkText(name, text string) (problems []string) {
	if strings.Contains(name, "testdata/") || name == "go.sum" {
		return nil
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		for _, word := range openEnds {
			if containsWord(line, word) {
				problems = append(problems, fmt.Sprintf("%s:%d: %s is left open", name, n, word))
			}
		}
	}
	return problems
}

func containsWord(line, word string) bool {
	letter := func(r rune) bool {
		return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_'
	}
	return slices.Contains(strings.FieldsFunc(line, func(r rune) bool { return !letter(r) }), word)
}

// goFile is one parsed file.
type goFile struct {
	name string // slashed path from the root
	test bool
	set  *token.FileSet
	tree *ast.File
}

func (f *goFile) at(node ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.set.Position(node.Pos()).Line)
}

// checkGo runs all checks of a Go file.
func checkGo(name, text string) (problems []string) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	f := &goFile{name, strings.HasSuffix(name, "_test.go"), set, tree}
	if ast.IsGenerated(tree) {
		return f.checkImports()
	}
	if formatted, err := format.Source([]byte(text)); err != nil || !bytes.Equal(formatted, []byte(text)) {
		problems = append(problems, name+": not as gofmt writes it")
	}
	if n := strings.Count(text, "\n"); n > maxFileLines {
		problems = append(problems, fmt.Sprintf("%s: %d lines; a file has at most %d", name, n, maxFileLines))
	}
	problems = append(problems, f.checkImports()...)
	problems = append(problems, f.checkFunctions()...)
	problems = append(problems, f.checkSleep()...)
	return append(problems, f.checkFloats()...)
}

// arrow says what the files below a directory may import beside the standard library.
type arrow struct {
	from    string
	allowed []string // prefixes of import paths
}

// arrows point inward: cmd -> gateway, projections, ledger, migrations -> domain. The first one
// that fits a file counts.
var arrows = []arrow{
	{"domain/", []string{"github.com/shopspring/decimal", "github.com/google/uuid"}},
	{"ledger/", []string{"llm-gateway/domain", "llm-gateway/ledger", "github.com/google/uuid", "github.com/jackc/pgx/v5", "github.com/twmb/franz-go"}},
	{"projections/", []string{"llm-gateway/domain", "llm-gateway/ledger", "llm-gateway/projections", "github.com/google/uuid",
		"github.com/jackc/pgx/v5", "github.com/twmb/franz-go", "github.com/redis/go-redis"}},
	{"migrations/pgtest/", []string{"llm-gateway/migrations", "github.com/google/uuid", "github.com/jackc/pgx/v5"}},
	{"migrations/", []string{"github.com/jackc/pgx/v5", "github.com/pressly/goose/v3"}},
	{"gateway/", []string{"llm-gateway/domain", "llm-gateway/gateway", "github.com/", "golang.org/x/", "google.golang.org/protobuf"}},
}

// forbidden is refused also where a prefix allows it.
var forbidden = map[string][]string{
	"gateway/": {"github.com/jackc/", "github.com/lib/pq", "github.com/twmb/", "github.com/pressly/", "database/sql"},
	"ledger/":  {"github.com/gin-gonic/", "net/http"},
	"domain/":  {"context", "net", "net/http", "os", "io", "database/sql", "log", "log/slog", "math/rand"},
}

func (f *goFile) checkImports() (problems []string) {
	if f.test {
		return nil
	}
	for _, spec := range f.tree.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil || !mayImport(f.name, path) {
			problems = append(problems, fmt.Sprintf("%s: it may not import %s", f.at(spec), path))
		}
	}
	return problems
}

func mayImport(file, path string) bool {
	for from, refused := range forbidden {
		if strings.HasPrefix(file, from) && slices.ContainsFunc(refused, func(r string) bool {
			return path == r || strings.HasSuffix(r, "/") && strings.HasPrefix(path, r)
		}) {
			return false
		}
	}
	first, _, _ := strings.Cut(path, "/")
	if !strings.Contains(first, ".") && first != "llm-gateway" {
		return true // the standard library
	}
	for _, a := range arrows {
		if strings.HasPrefix(file, a.from) {
			return slices.ContainsFunc(a.allowed, func(p string) bool { return below(path, p) })
		}
	}
	return strings.HasPrefix(file, "cmd/") || !strings.HasPrefix(path, "llm-gateway/")
}

// below says whether an import path is a prefix's, or below it.
func below(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

// checkFunctions measures functions; those of tests without the tables in them.
func (f *goFile) checkFunctions() (problems []string) {
	for _, d := range f.tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		lines := f.lines(fn)
		if f.test {
			lines -= f.tableLines(fn)
		}
		if lines > maxFunctionLines {
			problems = append(problems, fmt.Sprintf("%s: %s has %d lines; a function has at most %d", f.at(fn), fn.Name.Name, lines, maxFunctionLines))
		}
	}
	return problems
}

func (f *goFile) lines(n ast.Node) int {
	return f.set.Position(n.End()).Line - f.set.Position(n.Pos()).Line + 1
}

// tableLines counts the lines inside literals of slices and maps, without the functions in them.
func (f *goFile) tableLines(n ast.Node) (lines int) {
	ast.Inspect(n, func(n ast.Node) bool {
		table, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		switch table.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
		default:
			return true
		}
		lines += f.lines(table) - 1
		ast.Inspect(table, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncLit)
			if ok {
				lines -= f.lines(fn) - 1
			}
			return !ok
		})
		return false
	})
	return lines
}

// checkSleep refuses tests that wait for a time to pass: they are slow, and fail on slow machines.
func (f *goFile) checkSleep() (problems []string) {
	if !f.test {
		return nil
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
				problems = append(problems, f.at(s)+": a test does not sleep: it waits for what it waits for")
			}
		}
		return true
	})
	return problems
}

// floatsAllowed are the files of domain and ledger that may name floats, with the reason.
var floatsAllowed = map[string]string{
	"ledger/report.go": "the seconds that a verification took",
}

// checkFloats keeps floats away from money.
func (f *goFile) checkFloats() (problems []string) {
	money := strings.HasPrefix(f.name, "domain/") || strings.HasPrefix(f.name, "ledger/")
	if f.test || !money || floatsAllowed[f.name] != "" {
		return nil
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.Ident:
			if slices.Contains([]string{"float32", "float64", "ParseFloat", "InexactFloat64", "NewFromFloat"}, x.Name) {
				problems = append(problems, f.at(x)+": "+x.Name+": money is never a float")
			}
		case *ast.BasicLit:
			if x.Kind == token.FLOAT {
				problems = append(problems, f.at(x)+": "+x.Value+": money is never a float")
			}
		}
		return true
	})
	return problems
}

// envHead begins env.example.
const envHead = `# Every setting, with its default. Copy this file to .env and take the # from the lines that you
# change; the environment wins over .env. A value in .env that has a $ in it belongs in single
# quotes. A setting that is marked as secret may come from a file instead: NAME_FILE=/path/to/it.
`

func renderEnvExample(settings []setting) string {
	var b strings.Builder
	b.WriteString(envHead)
	for _, d := range settings {
		b.WriteString("\n")
		line := "#"
		for word := range strings.FieldsSeq(explanation(d)) {
			if len(line)+1+len(word) > 100 {
				b.WriteString(line + "\n")
				line = "#"
			}
			line += " " + word
		}
		b.WriteString(line + "\n#" + d.name + "=" + d.def + "\n")
	}
	return b.String()
}

func explanation(d setting) string {
	if d.secret {
		return d.about + " Secret."
	}
	return d.about
}

// checkEnvExample wants every setting, with its default and its explanation, in order, and no other.
func checkEnvExample(settings []setting, text string) (problems []string) {
	text, ok := strings.CutPrefix(text, envHead)
	if !ok {
		problems = append(problems, "env.example does not begin with its heading")
	}
	var seen []string
	about := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if comment, ok := strings.CutPrefix(line, "# "); ok {
			about += " " + comment
			continue
		}
		if line != "" {
			name, def, _ := strings.Cut(strings.TrimPrefix(line, "#"), "=")
			seen = append(seen, name)
			problems = append(problems, checkEnvLine(settings, name, def, strings.TrimSpace(about))...)
		}
		about = ""
	}
	var want []string
	for _, d := range settings {
		want = append(want, d.name)
		if !slices.Contains(seen, d.name) {
			problems = append(problems, d.name+" is not in env.example")
		}
	}
	if len(problems) == 0 && !slices.Equal(seen, want) {
		problems = append(problems, "env.example is in another order than the settings' table")
	}
	return problems
}

func checkEnvLine(settings []setting, name, def, about string) []string {
	i := slices.IndexFunc(settings, func(d setting) bool { return d.name == name })
	switch {
	case i < 0:
		return []string{name + " is in env.example and no setting"}
	case settings[i].def != def:
		return []string{fmt.Sprintf("%s is %q by default, in env.example %q", name, settings[i].def, def)}
	case explanation(settings[i]) != about:
		return []string{name + " has another explanation in env.example than in the settings' table"}
	}
	return nil
}

// checkOpenAPI wants every route in openapi.yaml and the reverse.
func checkOpenAPI(routes []gateway.Route, text []byte) (problems []string) {
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return []string{"openapi.yaml: " + err.Error()}
	}
	described := map[gateway.Route]bool{}
	for path, operations := range doc.Paths {
		for method := range operations {
			if slices.Contains([]string{"get", "put", "post", "delete", "patch", "head", "options"}, method) {
				described[gateway.Route{Method: strings.ToUpper(method), Path: path}] = true
			}
		}
	}
	for _, r := range routes {
		if !described[r] {
			problems = append(problems, fmt.Sprintf("%s %s is not in openapi.yaml", r.Method, r.Path))
		}
		delete(described, r)
	}
	for r := range described {
		problems = append(problems, fmt.Sprintf("%s %s is in openapi.yaml and no route", r.Method, r.Path))
	}
	return problems
}
