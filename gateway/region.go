package gateway

import (
	"cmp"
	"fmt"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
)

// Regions and speeds: what a provider charges a factor for, if the price book has it. A request may ask for one
// that has a factor. What is charged is what the answer tells; where it tells nothing, what was asked for.

// What the request or the answer says of the usual place and speed.
const (
	geoGlobal     = "global"
	geoUnknown    = "not_available" // Anthropic's word where it does not tell
	speedStandard = "standard"
)

// checkRegion refuses a place or a speed that has no price at a target.
func (t *target) checkRegion(f *chat.Facts) error {
	if f.NoOutput { // it is only counted
		return nil
	}
	for _, asked := range [...]struct{ param, value, usual string }{{"speed", f.Speed, speedStandard}, {"inference_geo", f.Geo, geoGlobal}} {
		if asked.value == "" || asked.value == asked.usual {
			continue
		}
		_, priced := t.version.Regions[asked.value]
		if !priced || !t.terms.Regional || (asked.param == "speed") != (asked.value == domain.SpeedFast) {
			return invalid("unsupported_parameter", asked.param, fmt.Sprintf("`%s` is not supported: %.40q has no price here for this model, only `%s` has.",
				asked.param, asked.value, asked.usual))
		}
	}
	return nil
}

// geo is the place of a need: the one that is asked for, or any that the provider may choose.
func (t *target) geo(f *chat.Facts) string {
	switch f.Geo {
	case "":
		return domain.AnyGeo
	case geoGlobal:
		return ""
	}
	return f.Geo
}

// regionOf is where and how fast a call was served, by the price book's names; "" is the usual.
func (k *call) regionOf(r *provider.Report) string {
	if !k.terms.Regional {
		return ""
	}
	geo, speed := r.Geo, cmp.Or(r.Speed, k.asked.Speed)
	if geo == "" || geo == geoUnknown {
		geo = k.asked.Geo
	}
	if geo == geoGlobal {
		geo = ""
	}
	if speed == speedStandard {
		speed = ""
	}
	return domain.RegionName(geo, speed)
}

// in is a version's prices in a region. One that the book has no factor for is charged without it, which the
// operator must know.
func (h *hold) in(v *domain.PriceVersion, region string) *domain.PriceVersion {
	at, known := v.In(region)
	if !known {
		h.g.log.Error("the provider reported a region or speed that the price book has no factor for; it was charged without one",
			"region", region, "model", v.Model, "price_version", v.ID, "billing_request_id", h.id)
	}
	return at
}
