package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Meter names a disjoint, non-negative count that providers bill by. The list is closed and
// versioned with the event schema: meters may be added at the end, never changed or removed.
type Meter uint8

// The meters of event schema 1. Every token of a request is in exactly one of them.
const (
	Input Meter = iota
	CachedInput
	CacheWrite5m
	CacheWrite1h
	AudioIn
	CachedAudioIn
	ImageIn
	Output
	Reasoning
	AudioOut
	ImageOut
	WebSearch
	Requests

	// MeterCount is the number of meters.
	MeterCount = int(Requests) + 1
)

var meterNames = [MeterCount]string{
	"input", "cached_input", "cache_write_5m", "cache_write_1h", "audio_in", "cached_audio_in",
	"image_in", "output", "reasoning", "audio_out", "image_out", "web_search", "requests",
}

// String is the meter's name in events, SQL, price books and answers.
func (m Meter) String() string { return meterNames[m] }

// ParseMeter is the inverse of String.
func ParseMeter(name string) (Meter, error) {
	for i, n := range meterNames {
		if n == name {
			return Meter(i), nil
		}
	}
	return 0, fmt.Errorf("unknown meter %q", name)
}

// MarshalText writes the meter's name.
func (m Meter) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads the meter's name.
func (m *Meter) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMeter(string(b))
	return err
}

// Meters is one count per meter: how much of each a request used.
type Meters [MeterCount]int64

// MarshalJSON writes an object with one entry per meter, zeros included, in the list's order, so
// that the encoding of an event is the same whoever makes it.
func (m Meters) MarshalJSON() ([]byte, error) {
	out := make([]byte, 0, 256)
	for i, n := range m {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		out = append(out, sep, '"')
		out = append(out, meterNames[i]...)
		out = append(out, '"', ':')
		out = strconv.AppendInt(out, n, 10)
	}
	return append(out, '}'), nil
}

// UnmarshalJSON reads such an object; an unknown meter or a negative count is an error.
func (m *Meters) UnmarshalJSON(b []byte) error {
	if own, ok := ownMeters(b); ok {
		*m = own
		return nil
	}
	var byName map[string]int64
	if err := json.Unmarshal(b, &byName); err != nil {
		return err
	}
	*m = Meters{}
	for name, n := range byName {
		i, err := ParseMeter(name)
		if err != nil {
			return err
		}
		if n < 0 {
			return fmt.Errorf("meter %s is negative", name)
		}
		m[i] = n
	}
	return nil
}

// InputTokens is the whole input, cached and written tokens included: what thresholds look at.
func (m Meters) InputTokens() int64 {
	return m[Input] + m[CachedInput] + m[CacheWrite5m] + m[CacheWrite1h] + m[AudioIn] +
		m[CachedAudioIn] + m[ImageIn]
}

// OutputTokens is the whole output, reasoning included.
func (m Meters) OutputTokens() int64 {
	return m[Output] + m[Reasoning] + m[AudioOut] + m[ImageOut]
}

// MaxTokens bounds every count that a provider may report or a client may ask for: far above any
// model, far below what overflows when multiplied or added.
const MaxTokens = math.MaxInt32

// ErrUsage is wrapped by every refusal of a reported usage.
var ErrUsage = errors.New("unusable usage")

// Usage is what a provider reported, brought to OpenAI's way of counting: Input and Output are
// totals that include the details named after them. All counts are tokens but WebSearch.
type Usage struct {
	Input         int64 // all input tokens
	CachedInput   int64 // of Input: read from a cache, cached audio included
	CacheWrite5m  int64 // of Input: written to a five-minute cache
	CacheWrite1h  int64 // of Input: written to a one-hour cache
	AudioIn       int64 // of Input: audio, cached audio included
	CachedAudioIn int64 // of Input: audio that was read from a cache
	ImageIn       int64 // of Input: images, where the provider tells them apart
	Output        int64 // all output tokens
	Reasoning     int64 // of Output: hidden reasoning
	AudioOut      int64 // of Output: audio
	ImageOut      int64 // of Output: images
	WebSearch     int64 // searches, not tokens
}

// Meters splits the totals into disjoint meters that sum to them. Where the details exceed their
// total, the details are believed and the plain meter is 0: what was reported is never lost. Where
// cached and audio tokens together exceed the input, the excess is cached audio. Where images
// exceed what is left beside cached and written tokens, the excess is images out of (or into) the
// cache: it is in those meters already, and must not be billed twice. Negative or absurd counts are
// ErrUsage; the caller then counts by itself.
func (u Usage) Meters() (Meters, error) {
	for _, n := range [...]int64{u.Input, u.CachedInput, u.CacheWrite5m, u.CacheWrite1h, u.AudioIn,
		u.CachedAudioIn, u.ImageIn, u.Output, u.Reasoning, u.AudioOut, u.ImageOut, u.WebSearch} {
		if n < 0 || n > MaxTokens {
			return Meters{}, fmt.Errorf("%w: a count of %d", ErrUsage, n)
		}
	}
	cachedAudio := min(u.CachedAudioIn, u.CachedInput, u.AudioIn)
	if over := u.CachedInput + u.AudioIn - cachedAudio - u.Input; over > 0 {
		cachedAudio = min(cachedAudio+over, u.CachedInput, u.AudioIn)
	}
	m := Meters{
		CachedInput: u.CachedInput - cachedAudio, CacheWrite5m: u.CacheWrite5m,
		CacheWrite1h: u.CacheWrite1h, AudioIn: u.AudioIn - cachedAudio, CachedAudioIn: cachedAudio,
		ImageIn: u.ImageIn, Reasoning: u.Reasoning, AudioOut: u.AudioOut, ImageOut: u.ImageOut,
		WebSearch: u.WebSearch, Requests: 1,
	}
	if over := m.InputTokens() - u.Input; over > 0 {
		m[ImageIn] -= min(over, m[ImageIn], m[CachedInput]+m[CacheWrite5m]+m[CacheWrite1h])
	}
	m[Input] = max(0, u.Input-m.InputTokens())
	m[Output] = max(0, u.Output-m.OutputTokens())
	return m, nil
}
