package telemetry

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"llm-gateway/gateway/observe/trace"
)

// Samplers are the words of OTEL_TRACES_SAMPLER.
var Samplers = []string{"always_on", "always_off", "traceidratio", parentBased + "always_on", parentBased + "always_off", parentBased + "traceidratio"}

const parentBased = "parentbased_"

// Sampler says which traces OpenTelemetry receivers are told of.
type Sampler struct {
	byParent bool   // the caller's decision counts, where there is a caller
	below    uint64 // trace ids are sampled whose last 63 bits are below
}

// NewSampler makes a sampler by its word. ratio is "" for 1; the other words do not look at it.
func NewSampler(word, ratio string) (Sampler, error) {
	if !slices.Contains(Samplers, word) {
		return Sampler{}, errors.New("it must be one of " + strings.Join(Samplers, ", "))
	}
	s := Sampler{}
	word, s.byParent = strings.CutPrefix(word, parentBased)
	switch word {
	case "always_on":
		s.below = 1 << 63
	case "traceidratio":
		share := 1.0
		if ratio != "" {
			var err error
			if share, err = strconv.ParseFloat(ratio, 64); err != nil || math.IsNaN(share) || share < 0 || share > 1 {
				return Sampler{}, errors.New("it must be a number from 0 to 1")
			}
		}
		s.below = uint64(share * (1 << 63))
	}
	return s, nil
}

// Samples decides as OpenTelemetry's SDKs do, so that all who see a trace decide alike.
func (s Sampler) Samples(id trace.ID, caller trace.Context) bool {
	if s.byParent && caller.Trace != (trace.ID{}) {
		return caller.Sampled
	}
	return binary.BigEndian.Uint64(id[8:])>>1 < s.below
}
