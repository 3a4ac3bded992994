// Package leaktest finds in what a gateway writes and answers what nobody may be told by it: the operator's
// secrets, clients' credentials, what was said to models, and how the program looks inside. The harnesses of the
// gateway's tests and of the binary's give it what their tests send and set, and show it every log, every
// metric, what receivers of telemetry got, every answer that is an error, and the errors within streams. It is tested
// by planted leaks.
package leaktest

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/gjson"
)

// Bounds of what is looked for, in bytes. What is shorter is said by chance.
const (
	shortest = 7  // of a secret
	prefix   = 12 // by which longer ones are found; also the shortest part of a prompt
	longest  = 40 // part of a prompt
	distinct = 5  // characters that a prompt's part has at least
	around   = 60 // shown before and after what was found
	deepest  = 64 // levels of a body that are looked at
)

// needle is something that nobody may be told.
type needle struct {
	what, text string
	own        bool // the client's own: an answer to it may have it
}

// Scan is what a test run must not tell. It is safe for concurrent use; the zero value is not ready.
type Scan struct {
	mu      sync.RWMutex
	known   map[string]bool
	needles map[string][]needle // by the first bytes: prefix of them, or shortest
}

// New is a Scan that knows of nothing yet, beside what has the form of a secret.
func New() *Scan { return &Scan{known: map[string]bool{}, needles: map[string][]needle{}} }

// Secret is something of the operator's, such as a provider's key. What is too short is left out.
func (s *Scan) Secret(what, text string) { s.add(needle{what, text, false}, shortest) }

// Said is something that a client says and no log may have, beside what the forms of requests tell.
func (s *Scan) Said(text string) { s.add(needle{"what a client said", text, true}, shortest) }

// Credential is a client's token or key. Of a token it is the signature: the rest is known by its form.
func (s *Scan) Credential(text string) {
	s.add(needle{"a credential", text[strings.LastIndexByte(text, '.')+1:], true}, prefix)
}

func (s *Scan) add(n needle, least int) {
	if len(n.text) < least {
		return
	}
	at := n.text[:shortest]
	if len(n.text) >= prefix {
		at = n.text[:prefix]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known[n.text] {
		s.known[n.text] = true
		s.needles[at] = append(s.needles[at], n)
	}
}

// secretSetting matches the names of settings that are secrets.
var secretSetting = regexp.MustCompile(`(_SECRET|_KEY|_PASSWORD|_SECRET_KEY|_SERVICE_ROLE_KEY)$`)

// Settings learns the secrets of an environment: whole values, and passwords in addresses.
func (s *Scan) Settings(env []string) {
	for _, line := range env {
		name, value, _ := strings.Cut(line, "=")
		if secretSetting.MatchString(name) && !strings.Contains(name, "PUBLIC") {
			s.Secret("the value of "+name, value)
		}
		if u, err := url.Parse(value); err == nil && u.User != nil {
			if password, ok := u.User.Password(); ok {
				s.Secret("the password of "+name, ":"+password+"@")
			}
		}
	}
}

// said are the names in a request's body under which there is what is said to a model.
var said = []string{"content", "text", "input", "prompt", "system", "instructions", "arguments", "suffix"}

// Body learns what is said in a request's body. A part of each text is enough, which no encoding changes.
func (s *Scan) Body(body []byte) {
	if gjson.ValidBytes(body) {
		s.walk(gjson.ParseBytes(body), false, deepest)
	}
}

func (s *Scan) walk(v gjson.Result, in bool, depth int) {
	switch {
	case depth == 0:
	case v.IsObject():
		v.ForEach(func(key, value gjson.Result) bool {
			s.walk(value, slices.Contains(said, key.Str), depth-1)
			return true
		})
	case v.IsArray():
		v.ForEach(func(_, value gjson.Result) bool {
			s.walk(value, in, depth-1)
			return true
		})
	case in && v.Type == gjson.String:
		s.add(needle{"a prompt", plainPart(v.Str), true}, prefix)
	}
}

// plainPart is the first part of a text that logs and JSON write as it is, and that is not said by chance; ""
// where there is none.
func plainPart(text string) string {
	odd := func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&'`, r) }
	for part := range strings.FieldsFuncSeq(text, odd) {
		part = part[:min(longest, len(part))]
		chars, letters := map[rune]bool{}, false
		for _, r := range part {
			chars[r] = true
			letters = letters || r >= 'g' && r <= 'z'
		}
		if len(part) >= prefix && len(chars) >= distinct && letters {
			return part
		}
	}
	return ""
}

// form is how something looks that is not to be told, whatever it is.
type form struct {
	what    string
	pattern *regexp.Regexp
}

var secretForms = []form{
	{"a token", regexp.MustCompile(`eyJ[\w-]{8,}\.[\w-]{8,}`)},
	{"an API key of the gateway's", regexp.MustCompile(`sk-[\w-]{40,}`)},
	{"a credential", regexp.MustCompile(`(?i)\b(bearer|basic) [\w.+/=-]{16,}`)},
	{"a password in an address", regexp.MustCompile(`\w://[^\s/:@"\\]*:[^\s/@"\\]+@`)},
	{"a private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY`)},
}

// standIn is how a password is written that is none.
var standIn = regexp.MustCompile(`:(password|x+|\*+|\.\.\.)@$`)

// insideForms are how the program looks inside.
var insideForms = []form{
	{"a stack", regexp.MustCompile(`goroutine \d+|\w\.go:\d+|runtime error|0xc[0-9a-f]{9}`)},
	{"a type of the program", regexp.MustCompile(`\b(gateway|ledger|domain|provider|chat|surface|projections|pgx|pgconn|redis|kgo|kerr|json|strconv|http|url|net|context|errors|decimal|jwt)\.[A-Z]\w+|map\[string\]|interface ?\{\}`)},
	{"an error of a library", regexp.MustCompile(`json: |strconv: |SQLSTATE|dial tcp|context deadline exceeded|context canceled|connection refused|unexpected EOF|no such host|%!\w?\(`)},
	{"a path of the machine", regexp.MustCompile(`(^|[\s"'(=])/(tmp|home|root|work|usr|var|etc|proc)/`)},
	{"an address of a server", regexp.MustCompile(`\b(postgres|postgresql|redis|rediss)://`)},
}

// Written says what is in a log, in metrics, or in what a receiver was sent, that should not be there.
func (s *Scan) Written(text string) []string {
	return append(s.find(text, true), looks(text, secretForms)...)
}

// Printed is Written for a process that prints a client's credential because it was asked to.
func (s *Scan) Printed(text string) []string { return s.find(text, false) }

// Answered says what is in an answer that should not be there. What the client sent may be.
func (s *Scan) Answered(text string) []string {
	return slices.Concat(s.find(text, false), looks(text, secretForms), looks(text, insideForms))
}

func looks(text string, forms []form) (found []string) {
	for _, f := range forms {
		for _, at := range f.pattern.FindAllStringIndex(text, -1) {
			if !standIn.MatchString(text[at[0]:at[1]]) {
				found = append(found, f.what+": "+excerpt(text, at[0], at[1]))
				break
			}
		}
	}
	return found
}

// find looks for what is known, in one pass.
func (s *Scan) find(text string, own bool) (found []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	seen := map[string]bool{}
	for i := range len(text) {
		for _, size := range [...]int{shortest, prefix} {
			if i+size > len(text) {
				continue
			}
			for _, n := range s.needles[text[i:i+size]] {
				if (own || !n.own) && !seen[n.text] && strings.HasPrefix(text[i:], n.text) {
					seen[n.text] = true
					found = append(found, n.what+": "+excerpt(text, i, i+len(n.text)))
				}
			}
		}
	}
	return found
}

// excerpt shows a piece of text amid what is around it.
func excerpt(text string, from, to int) string {
	return fmt.Sprintf("%q", text[max(0, from-around):min(len(text), to+around)])
}
