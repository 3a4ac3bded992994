package domain

import (
	"encoding/json"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// counts generates token counts: small ones, zero, and the largest that is allowed.
func counts() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, 2_000_000),
		rapid.SampledFrom([]int64{0, MaxTokens}))
}

// plausible generates usages as a provider that counts correctly sends them: a request's tokens,
// each with its modality and its place in the cache, and then the totals of overlapping details.
func plausible() *rapid.Generator[Usage] {
	return rapid.Custom(func(t *rapid.T) Usage {
		n := func(label string) int64 { return rapid.Int64Range(0, 100_000).Draw(t, label) }
		text, cachedText, w5, w1 := n("text"), n("cached text"), n("5m"), n("1h")
		audio, cachedAudio, image, cachedImage := n("audio"), n("cached audio"), n("image"), n("cached image")
		plain, reasoning, audioOut, imageOut := n("plain"), n("reasoning"), n("audio out"), n("image out")
		return Usage{
			Input:       text + cachedText + w5 + w1 + audio + cachedAudio + image + cachedImage,
			CachedInput: cachedText + cachedAudio + cachedImage, CacheWrite5m: w5, CacheWrite1h: w1,
			AudioIn: audio + cachedAudio, CachedAudioIn: cachedAudio, ImageIn: image + cachedImage,
			Output:    plain + reasoning + audioOut + imageOut,
			Reasoning: reasoning, AudioOut: audioOut, ImageOut: imageOut, WebSearch: n("search"),
		}
	})
}

func TestUsageSplitsIntoItsTotals(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		u := plausible().Draw(t, "usage")
		m, err := u.Meters()
		if err != nil {
			t.Fatal(err)
		}
		if m.InputTokens() != u.Input || m.OutputTokens() != u.Output {
			t.Fatalf("%+v: meters sum to %d and %d", u, m.InputTokens(), m.OutputTokens())
		}
		if m[CachedInput]+m[CachedAudioIn] != u.CachedInput || m[AudioIn]+m[CachedAudioIn] != u.AudioIn {
			t.Fatalf("%+v: cached or audio tokens are lost: %v", u, m)
		}
	})
}

func TestUsageNeverLosesTokens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var c [12]int64
		for i := range c {
			c[i] = counts().Draw(t, "count")
		}
		u := Usage{c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11]}
		m, err := u.Meters()
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range m {
			if n < 0 {
				t.Fatalf("%+v: %s is %d", u, Meter(i), n)
			}
		}
		if m.InputTokens() < u.Input || m.OutputTokens() < u.Output || m[Requests] != 1 {
			t.Fatalf("%+v: tokens are lost: %v", u, m)
		}
		if m[CachedInput]+m[CachedAudioIn] < u.CachedInput || m[AudioIn]+m[CachedAudioIn] < u.AudioIn {
			t.Fatalf("%+v: details are lost: %v", u, m)
		}
	})
}

func TestUsageTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		usage Usage
		want  Meters
	}{
		{"nothing", Usage{}, Meters{Requests: 1}},
		{"cached", Usage{Input: 100, CachedInput: 40, Output: 7}, Meters{Input: 60, CachedInput: 40, Output: 7, Requests: 1}},
		{"all reasoning", Usage{Output: 7, Reasoning: 7}, Meters{Reasoning: 7, Requests: 1}},
		{"details exceed input", Usage{Input: 10, CachedInput: 15}, Meters{CachedInput: 15, Requests: 1}},
		{"details exceed output", Usage{Output: 3, Reasoning: 5}, Meters{Reasoning: 5, Requests: 1}},
		{"images exceed input", Usage{Input: 10, ImageIn: 15}, Meters{ImageIn: 15, Requests: 1}},
		{"cache writes", Usage{Input: 10, CacheWrite5m: 3, CacheWrite1h: 2}, Meters{Input: 5, CacheWrite5m: 3, CacheWrite1h: 2, Requests: 1}},
		{"cached audio told", Usage{Input: 100, CachedInput: 50, AudioIn: 40, CachedAudioIn: 30},
			Meters{Input: 40, CachedInput: 20, AudioIn: 10, CachedAudioIn: 30, Requests: 1}},
		{"cached audio not told", Usage{Input: 100, CachedInput: 70, AudioIn: 50},
			Meters{CachedInput: 50, AudioIn: 30, CachedAudioIn: 20, Requests: 1}},
		{"cached audio beyond cached", Usage{Input: 100, CachedInput: 10, AudioIn: 50, CachedAudioIn: 30},
			Meters{Input: 50, AudioIn: 40, CachedAudioIn: 10, Requests: 1}},
		{"cached images", Usage{Input: 1000, CachedInput: 950, ImageIn: 900},
			Meters{CachedInput: 950, ImageIn: 50, Requests: 1}},
		{"written images", Usage{Input: 1000, CacheWrite5m: 950, ImageIn: 900},
			Meters{CacheWrite5m: 950, ImageIn: 50, Requests: 1}},
		{"searches are no tokens", Usage{Input: 1, WebSearch: 3}, Meters{Input: 1, WebSearch: 3, Requests: 1}},
	} {
		if got, err := c.usage.Meters(); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}

func TestUsageRefusesAbsurdCounts(t *testing.T) {
	t.Parallel()
	for _, u := range []Usage{
		{Input: -1}, {CachedInput: -1}, {CacheWrite5m: -1}, {CacheWrite1h: -1}, {AudioIn: -1},
		{CachedAudioIn: -1}, {ImageIn: -1}, {Output: -1}, {Reasoning: -1}, {AudioOut: -1},
		{ImageOut: -1}, {WebSearch: -1}, {Input: MaxTokens + 1}, {Output: 1 << 62},
	} {
		if m, err := u.Meters(); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v is %v, %v", u, m, err)
		}
	}
}

func TestMeterNames(t *testing.T) {
	t.Parallel()
	for i := range MeterCount {
		if m, err := ParseMeter(Meter(i).String()); err != nil || m != Meter(i) {
			t.Errorf("%s reads back as %s, %v", Meter(i), m, err)
		}
	}
	if _, err := ParseMeter("Input"); err == nil {
		t.Error("Input is not input")
	}
}

func TestMetersJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var m, back Meters
		for i := range m {
			m[i] = counts().Draw(t, "count")
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &back); err != nil || back != m {
			t.Fatalf("%s reads back as %v, %v", b, back, err)
		}
	})
	const zero = `{"input":0,"cached_input":0,"cache_write_5m":0,"cache_write_1h":0,"audio_in":0,` +
		`"cached_audio_in":0,"image_in":0,"output":0,"reasoning":0,"audio_out":0,"image_out":0,` +
		`"web_search":0,"requests":0}`
	if b, err := json.Marshal(Meters{}); err != nil || string(b) != zero {
		t.Errorf("no usage encodes as %s, %v", b, err)
	}
	for _, bad := range []string{`{"inputs":1}`, `{"input":-1}`, `{"input":1.5}`, `{"input":"1"}`, `[]`, `{"input":1e99}`} {
		if err := json.Unmarshal([]byte(bad), new(Meters)); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}
