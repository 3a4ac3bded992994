package upstreams

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
)

// builtin are the types of the providers that the gateway has without a file, by their names.
var builtin = map[string]string{"openai": TypeOpenAI, "anthropic": TypeAnthropic, "gemini": TypeGemini}

// Builtin says whether a provider is there without a file.
func Builtin(name string) bool { return builtin[name] != "" }

// reserved is the provider that the gateway itself is.
const reserved = "simulated"

// convert checks all that can be checked without the price book.
func (f *fileForm) convert(r *reader, currency string) (*File, error) {
	if c := f.Currency; c.Line != 0 && c.Text != currency {
		return nil, fmt.Errorf("line %d: currency: the prices are in %.40q, and those of the price book in %s", c.Line, c.Text, currency)
	}
	if len(f.Upstreams) > maxUpstreams {
		return nil, fmt.Errorf("upstreams: %d of them; at most %d are taken", len(f.Upstreams), maxUpstreams)
	}
	out, names := &File{lines: map[string]int{}}, map[string]int{}
	for i := range f.Upstreams {
		u, err := f.Upstreams[i].convert(r)
		if err != nil {
			return nil, err
		}
		line := f.Upstreams[i].Name.Line
		if first := names[u.Name]; first != 0 {
			return nil, fmt.Errorf("line %d: name: %q is taken by the upstream at line %d", line, u.Name, first)
		}
		names[u.Name] = line
		out.Upstreams = append(out.Upstreams, u)
	}
	if err := f.names(out); err != nil {
		return nil, err
	}
	return out, nil
}

// names takes over aliases and fallbacks; what they lead to is for Check.
func (f *fileForm) names(out *File) error {
	if len(f.Aliases) > maxAliases || len(f.Fallbacks) > maxFallbacks {
		return fmt.Errorf("%d aliases and %d lists of fallbacks; at most %d and %d are taken", len(f.Aliases), len(f.Fallbacks), maxAliases, maxFallbacks)
	}
	out.Aliases, out.Fallbacks = make(map[string]string, len(f.Aliases)), make(map[string][]string, len(f.Fallbacks))
	for _, name := range slices.Sorted(maps.Keys(f.Aliases)) {
		target := f.Aliases[name]
		if !isModelName(name) {
			return fmt.Errorf("line %d: aliases: %.40q is not a name", target.Line, name)
		}
		out.Aliases[name], out.lines[aliasPlace+name] = target.Text, target.Line
	}
	for _, name := range slices.Sorted(maps.Keys(f.Fallbacks)) {
		tries := f.Fallbacks[name]
		if len(tries) == 0 {
			return fmt.Errorf("fallbacks: %.40q: the list is empty", name)
		}
		out.lines[fallbackPlace+name] = tries[0].Line
		for _, try := range tries {
			out.Fallbacks[name] = append(out.Fallbacks[name], try.Text)
		}
	}
	return nil
}

// wrong is an error at a line of an upstream; 0 where only the upstream's own line is known.
func (u *upstreamForm) wrong(line int, field, problem string, args ...any) error {
	if line == 0 {
		line = u.Name.Line
	}
	return fmt.Errorf("line %d: upstream %.64q: %s: %s", line, u.Name.Text, field, fmt.Sprintf(problem, args...))
}

func (u *upstreamForm) convert(r *reader) (out Upstream, err error) {
	if err := u.checkName(); err != nil {
		return out, err
	}
	out = Upstream{Name: u.Name.Text, Weight: 1}
	if u.Weight.Line != 0 {
		out.Weight = u.Weight.N
	}
	if out.Weight < 0 || out.Weight > maxWeight {
		return out, u.wrong(u.Weight.Line, "weight", "it must be from 0 to %d", maxWeight)
	}
	for _, step := range []func(*Upstream) error{u.api, u.address, u.outputLimit, u.timeouts, u.headers} {
		if err := step(&out); err != nil {
			return out, err
		}
	}
	if out.Keys, err = u.keys(r); err != nil {
		return out, err
	}
	if out.Type == TypeAzure && len(out.Keys) == 0 {
		return out, u.wrong(0, "api_key", "missing; azure is not called without one")
	}
	out.Models, err = u.models(out.Type)
	return out, err
}

func (u *upstreamForm) checkName() error {
	name := u.Name.Text
	switch plain := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""; {
	case u.Name.Line == 0:
		return u.nameless()
	case !plain || name == "" || len(name) > maxName:
		return fmt.Errorf("line %d: name: it must be 1 to %d small letters, digits, dots, hyphens and underscores", u.Name.Line, maxName)
	case name == reserved:
		return fmt.Errorf("line %d: name: %q is the gateway's own provider", u.Name.Line, name)
	}
	return nil
}

// nameless says that an upstream has no name, near where it stands.
func (u *upstreamForm) nameless() error {
	for _, line := range []int{u.Type.Line, u.BaseURL.Line, u.Weight.Line, u.OutputLimit.Line} {
		if line != 0 {
			return fmt.Errorf("line %d: the upstream's name is missing", line)
		}
	}
	return errors.New("an upstream's name is missing")
}

// api decides whose API it speaks.
func (u *upstreamForm) api(out *Upstream) error {
	own := builtin[out.Name]
	out.Type = TypeOpenAI
	switch {
	case u.Type.Line != 0:
		out.Type = u.Type.Text
	case own != "":
		out.Type = own
	}
	switch out.Type {
	case TypeOpenAI, TypeAzure, TypeAnthropic, TypeGemini:
	default:
		return u.wrong(u.Type.Line, "type", "it must be openai, azure, anthropic or gemini")
	}
	if own != "" && out.Type != own {
		return u.wrong(u.Type.Line, "type", "the built-in provider of this name is %s; an upstream of another type has another name", own)
	}
	return u.version(out)
}

func (u *upstreamForm) version(out *Upstream) error {
	if out.Type != TypeAzure {
		if u.APIVersion.Line != 0 {
			return u.wrong(u.APIVersion.Line, "api_version", "only azure has one")
		}
		return nil
	}
	out.APIVersion = DefaultAzureVersion
	if u.APIVersion.Line != 0 {
		out.APIVersion = u.APIVersion.Text
	}
	if _, err := time.Parse(time.DateOnly, strings.TrimSuffix(out.APIVersion, "-preview")); err != nil {
		return u.wrong(u.APIVersion.Line, "api_version", "it must be a date such as %s, with or without -preview", DefaultAzureVersion)
	}
	return nil
}

// address checks base_url, which no error quotes: it may have credentials in it.
func (u *upstreamForm) address(out *Upstream) error {
	text, line := string(u.BaseURL.Text), u.BaseURL.Line
	if line == 0 {
		if builtin[out.Name] != "" {
			return nil
		}
		return u.wrong(0, "base_url", "missing; only openai, anthropic and gemini have one of their own")
	}
	base, err := url.Parse(text)
	switch {
	case err != nil || len(text) > maxURL || strings.ContainsFunc(text, blankOrControl):
		return u.wrong(line, "base_url", "it is not a URL")
	case base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "":
		return u.wrong(line, "base_url", "it must be http://... or https://...")
	case base.User != nil || base.RawQuery != "" || base.ForceQuery || strings.Contains(text, "#"):
		return u.wrong(line, "base_url", "it must be without credentials, query and fragment")
	}
	out.BaseURL = strings.TrimRight(text, "/")
	return nil
}

func (u *upstreamForm) outputLimit(out *Upstream) error {
	given := u.OutputLimit
	switch {
	case given.Line != 0:
		out.OutputLimit = given.Text
	case out.Type == TypeOpenAI && builtin[out.Name] == "":
		// Several ignore max_completion_tokens, and then nothing would bound what they bill.
		out.OutputLimit = LimitMaxTokens
	default:
		out.OutputLimit = LimitAsIs
	}
	switch out.OutputLimit {
	case LimitAsIs:
	case LimitMaxTokens, LimitMaxCompletionTokens:
		if out.Type != TypeOpenAI && out.Type != TypeAzure {
			return u.wrong(given.Line, "output_limit", "%s has a parameter of its own; only as_is fits", out.Type)
		}
	default:
		return u.wrong(given.Line, "output_limit", "it must be as_is, max_tokens or max_completion_tokens")
	}
	return nil
}

func (u *upstreamForm) timeouts(out *Upstream) error {
	for _, t := range []struct {
		field string
		given pricebook.Scalar
		into  *time.Duration
	}{
		{"connect", u.Timeouts.Connect, &out.Connect},
		{"first_byte", u.Timeouts.FirstByte, &out.FirstByte},
		{"idle", u.Timeouts.Idle, &out.Idle},
		{"total", u.Timeouts.Total, &out.Total},
	} {
		if t.given.Line == 0 {
			continue
		}
		d, err := time.ParseDuration(t.given.Text)
		if err != nil || d <= 0 || d > maxTimeout {
			return u.wrong(t.given.Line, "timeouts."+t.field, "it must be a duration above 0s and up to %s, such as 10s", maxTimeout)
		}
		*t.into = d
	}
	return nil
}

func (u *upstreamForm) models(api string) ([]domain.Model, error) {
	if len(u.Models) == 0 && builtin[u.Name.Text] == "" {
		return nil, u.wrong(0, "models", "none; only openai, anthropic and gemini have models in the price book")
	}
	if len(u.Models) > maxModels {
		return nil, u.wrong(0, "models", "%d of them; at most %d are taken", len(u.Models), maxModels)
	}
	if slices.ContainsFunc(u.Models, func(m modelForm) bool { return m.Model.Line == 0 }) {
		return nil, u.wrong(0, "models", "a model's name is missing")
	}
	var out []domain.Model
	for i := range u.Models {
		m, err := u.Models[i].convert(u.Name.Text, api)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if _, err := domain.NewPriceBook(out); err != nil { // asked for its checks
		return nil, u.locate(err)
	}
	return out, nil
}

// locate gives an error of the domain the line where its model begins.
func (u *upstreamForm) locate(err error) error {
	var bad *domain.PriceBookError
	if !errors.As(err, &bad) {
		return err
	}
	for i := len(u.Models) - 1; i >= 0; i-- { // the last of two twins is the one too many
		if m := &u.Models[i]; m.Model.Text == bad.Model {
			return m.inForm(m.Wrong(0, bad.Field, "%s", bad.Problem))
		}
	}
	return u.wrong(0, bad.Field, "%s", bad.Problem)
}

func (m *modelForm) convert(provider, api string) (out domain.Model, err error) {
	form := m.ModelForm
	switch {
	case m.short() && len(m.Versions) > 0:
		return out, m.Wrong(0, "versions", "prices stand either in them or beside them")
	case m.short():
		form.Versions = []pricebook.VersionForm{{PricesForm: m.PricesForm}}
	case len(m.Versions) == 0:
		return out, m.Wrong(0, "prices", `missing; a model without prices is not called, and "0" is a price`)
	}
	if form.Mode.Line == 0 {
		form.Mode.Text = string(domain.ModeChat)
	}
	if out, err = form.Convert(provider); err != nil {
		return out, m.inForm(err)
	}
	out.Upstream = m.Model.Text
	if m.UpstreamModel.Line != 0 {
		out.Upstream = m.UpstreamModel.Text
	}
	inPath := api == TypeAzure || api == TypeGemini
	if name := out.Upstream; name == "" || len(name) > maxUpstreamID || strings.ContainsFunc(name, blankOrControl) ||
		inPath && strings.ContainsAny(name, "/?#%:\\") {
		return out, m.Wrong(m.UpstreamModel.Line, "upstream_model", "it must be 1 to %d printable characters without blanks, and at azure and gemini without / ? # %% : and \\", maxUpstreamID)
	}
	return out, nil
}

// short says whether the prices of the only version stand at the model itself.
func (m *modelForm) short() bool {
	p := &m.PricesForm
	return len(p.Prices)+len(p.PerUnit)+len(p.Tiers)+len(p.ServiceTiers)+len(p.Regions) > 0
}

// inForm names the field of an error as it is written, also in the short form.
func (m *modelForm) inForm(err error) error {
	var bad *pricebook.ModelError
	if m.short() && errors.As(err, &bad) {
		bad.Field = strings.TrimPrefix(bad.Field, "versions[0].")
	}
	return err
}

func isModelName(s string) bool {
	return s != "" && len(s) <= maxModelName && !strings.ContainsFunc(s, blankOrControl)
}

// blankOrControl refuses all that is not printable ASCII.
func blankOrControl(r rune) bool { return r <= ' ' || r > '~' }
