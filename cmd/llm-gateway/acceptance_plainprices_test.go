package main

import (
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// plainBook is the built-in price book's text as it is written, without any of the program's own reading.
type plainBook struct {
	Models []plainModel
}

type plainModel struct {
	Provider, Model string
	Versions        []plainPrices
}

type plainPrices struct {
	From    string
	Prices  map[string]string
	PerUnit map[string]string `yaml:"per_unit"`
	Tiers   []struct {
		AboveInput int64 `yaml:"above_input"`
		Prices     map[string]string
	}
	ServiceTiers map[string]map[string]string `yaml:"service_tiers"`
}

func readPlainBook(t testing.TB) *plainBook {
	t.Helper()
	text, err := os.ReadFile("pricebook/builtin.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b plainBook
	if err := yaml.Unmarshal(text, &b); err != nil || len(b.Models) < 50 {
		t.Fatalf("%d models, %v", len(b.Models), err)
	}
	return &b
}

// find is the version that an ID names: provider/model@from#hash.
func (b *plainBook) find(id string) *plainPrices {
	name, _, _ := strings.Cut(id, "#")
	for i := range b.Models {
		for j := range b.Models[i].Versions {
			m, v := &b.Models[i], &b.Models[i].Versions[j]
			from := v.From
			if from == "" {
				from = "launch"
			}
			if m.Provider+"/"+m.Model+"@"+from == name {
				return v
			}
		}
	}
	return nil
}

// likes are the meters that cost what another does where a list says nothing of them.
var likes = map[string]string{"cached_input": "input", "image_in": "input", "reasoning": "output", "cached_audio_in": "audio_in"}

var inputMeters = []string{"input", "cached_input", "cache_write_5m", "cache_write_1h", "audio_in", "cached_audio_in", "image_in"}

// unit is what one of a meter costs by a list laid over the base; nil where it has no price.
func (v *plainPrices) unit(a *audit, meter string, over map[string]string) *big.Rat {
	for _, name := range []string{meter, likes[meter]} {
		for _, list := range []map[string]string{over, v.Prices} {
			if price, ok := list[name]; ok {
				return new(big.Rat).Quo(a.rat(price), big.NewRat(1_000_000, 1))
			}
		}
		if price, ok := v.PerUnit[name]; ok {
			return a.rat(price)
		}
	}
	if meter == "requests" {
		return new(big.Rat)
	}
	return nil
}

// cost is meters x prices: above the last threshold that the input exceeds by its prices, in a service tier by
// that tier's, and where both hold by the dearer one, meter by meter.
func (v *plainPrices) cost(a *audit, meters map[string]int64, tier string) *big.Rat {
	var input int64
	for _, m := range inputMeters {
		input += meters[m]
	}
	var lists []map[string]string
	if own, ok := v.ServiceTiers[tier]; ok {
		lists = append(lists, own)
	}
	for _, t := range slices.Backward(v.Tiers) {
		if input > t.AboveInput {
			lists = append(lists, t.Prices)
			break
		}
	}
	if len(lists) == 0 {
		lists = append(lists, nil)
	}
	sum := new(big.Rat)
	for meter, n := range meters {
		if n == 0 {
			continue
		}
		var dearest *big.Rat
		for _, list := range lists {
			if unit := v.unit(a, meter, list); unit != nil && (dearest == nil || unit.Cmp(dearest) > 0) {
				dearest = unit
			}
		}
		if dearest == nil {
			a.t.Errorf("%d %s have no price", n, meter)
			continue
		}
		sum.Add(sum, dearest.Mul(dearest, new(big.Rat).SetInt64(n)))
	}
	return sum
}

// plainlyCharged holds every charge against the book's text and the meters, and nothing else; it says how many
// there are.
func (a *audit) plainlyCharged() (n int) {
	a.t.Helper()
	book := readPlainBook(a.t)
	for id, l := range a.lives {
		if l.commits == 0 {
			continue
		}
		n++
		sum := new(big.Rat)
		for version, meters := range l.parts {
			v := book.find(version)
			if v == nil {
				a.t.Errorf("%s: the built-in book has no %s", id, version)
				continue
			}
			sum.Add(sum, v.cost(a, meters, l.tier))
		}
		if sum.Cmp(l.commit) != 0 {
			a.t.Errorf("%s: charged %s, by hand it is %s: %+v", id, l.commit.FloatString(12), sum.FloatString(12), *l)
		}
	}
	return n
}
