package anthropic

import "strings"

// model is what a model can be asked, as far as its name tells. There is no list of names to keep: models
// are named by family and version, and what a version could, the later ones can. A name without a version
// is taken for a new one.
type model struct {
	family  string
	version int // 405 is 4.5
}

// newest is the version of a name that has none.
const newest = 9900

func modelOf(name string) model {
	m := model{version: newest}
	numbers := []int(nil)
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r < '0' || r > '9' && r < 'a' || r > 'z' }) {
		switch n, ok := small(word); {
		case ok:
			numbers = append(numbers, n)
		case word == "opus" || word == "sonnet" || word == "haiku" || word == "fable" || word == "mythos" || word == "instant":
			m.family = word
		}
	}
	if len(numbers) > 0 {
		m.version = 100 * numbers[0]
	}
	if len(numbers) > 1 {
		m.version += numbers[1]
	}
	return m
}

// small is a number of one or two digits; longer ones are dates.
func small(word string) (n int, ok bool) {
	if len(word) > 2 {
		return 0, false
	}
	for i := range len(word) {
		if word[i] < '0' || word[i] > '9' {
			return 0, false
		}
		n = 10*n + int(word[i]-'0')
	}
	return n, true
}

// structured says whether output_config.format and strict tools are there.
func (m model) structured() bool {
	return m.version >= 405 || m.family == "opus" && m.version >= 401
}

// effort says whether output_config.effort is there.
func (m model) effort() bool {
	return m.version >= 406 || m.family == "opus" && m.version >= 405
}

// xhigh says whether effort goes beyond high by that word.
func (m model) xhigh() bool { return m.version >= 407 }

// adaptive says whether thinking is of type adaptive; later models refuse a budget of tokens.
func (m model) adaptive() bool { return m.version >= 406 }

// thinks says whether there is any thinking.
func (m model) thinks() bool { return m.version >= 307 }

// unasked says whether the model thinks where nothing is said about it.
func (m model) unasked() bool { return m.version >= 500 }

// always says whether the model cannot be told not to think.
func (m model) always() bool { return m.family == "fable" || m.family == "mythos" }

// thinksForced says whether the model thinks even where it is forced to call a tool.
func (m model) thinksForced() bool { return m.version >= 408 }
