package reconcile

import (
	"errors"
	"strings"
	"testing"
)

// TestReadRefuses: what is no export is refused, and says why; nothing is half read.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	const bucket = `{"start_time":1793491200,"results":[`
	for _, c := range []struct {
		provider, text string
		want           error
		says           string
	}{
		{"azure", `{}`, ErrFile, "the providers are"},
		{"openai", "", ErrFile, "it is empty"},
		{"openai", " \n", ErrFile, "it is empty"},
		{"openai", "{", ErrFile, "unexpected EOF"},
		{"openai", "[1,2]", ErrFile, "a row is a JSON object"},
		{"openai", `{"data":[]}`, ErrFile, "no usage or cost"},
		{"openai", "a,b\n1,2\n", ErrFile, "no usage or cost"},
		{"openai", "a,b\n1,2,3\n", ErrFile, "wrong number of fields"},
		{"openai", `{"input_tokens":5,"model":"m"}`, ErrFile, "none of the columns start_time"},
		{"openai", `{"start_time":"yesterday","input_tokens":5}`, ErrFile, "is no time"},
		{"openai", `{"start_time":1793491200,"end_time":1793491200,"input_tokens":5}`, ErrFile, "before it begins"},
		{"openai", bucket + `{"input_tokens":-5}]}`, ErrNumber, "row 1: input_tokens"},
		{"openai", bucket + `{"input_tokens":5},{"input_tokens":1.5}]}`, ErrNumber, "row 2: input_tokens"},
		{"openai", bucket + `{"input_tokens":1e400}]}`, ErrNumber, "1e400"},
		{"openai", bucket + `{"input_tokens":1e50}]}`, ErrNumber, "1e50"},
		{"openai", bucket + `{"input_tokens":"NaN"}]}`, ErrNumber, "NaN"},
		{"openai", bucket + `{"input_tokens":NaN}]}`, ErrFile, "invalid character"},
		{"openai", bucket + `{"amount":{"value":"Infinity","currency":"usd"}}]}`, ErrNumber, "Infinity"},
		{"openai", bucket + `{"amount":{"value":1e30,"currency":"usd"}}]}`, ErrNumber, "10^26"},
		{"openai", bucket + `{"amount":{"value":1,"currency":"usd"}},{"amount":{"value":1,"currency":"eur"}}]}`, ErrFile, `"EUR" after one in USD`},
		{"openai", strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100), ErrFile, "too deep"},
		{"google", `{"service":{"description":"Cloud Run"},"cost":1,"usage_start_time":"2026-11-01"}`, ErrFile, "no usage or cost"},
	} {
		f, err := Read(c.provider, strings.NewReader(c.text))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %.60s: %+v, %v", c.provider, c.text, f, err)
		}
	}
}

// TestNumbers: text to money, exactly, or rounded half up at 1e-12; and text to counts.
func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, money string
		rounded     bool
		count       int64 // -1: it is none
	}{
		{"0", "0", false, 0}, {"-0", "0", false, 0}, {"12", "12", false, 12}, {"1.0", "1", false, 1}, {"1e3", "1000", false, 1000}, {"1.5E+1", "15", false, 15},
		{"0.0042210000000000001", "0.004221", true, -1}, {"0.1234567890125", "0.123456789013", true, -1}, {"-0.1234567890125", "-0.123456789013", true, -1},
		{"0.12345678901249999", "0.123456789012", true, -1}, {"6.5e-04", "0.00065", false, -1}, {"1e-60", "0", true, -1}, {"0.000000000000", "0", false, 0},
		{"1,234,567", "1234567", false, 1234567}, {"1,234.5", "1234.5", false, -1}, {"-3", "-3", false, -1}, {"3.60000000000000000000000000000", "3.6", false, -1},
	} {
		d, err := parseDecimal(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if a, rounded, err := d.money(0); err != nil || a.String() != c.money || rounded != c.rounded {
			t.Errorf("%s is %s, rounded %t, %v", c.text, a, rounded, err)
		}
		if n, err := d.whole(); err == nil && n != c.count || err != nil && c.count >= 0 {
			t.Errorf("%s counts %d, %v", c.text, n, err)
		}
	}
	for _, bad := range []string{"", "x", "1.", ".5", "+1", "1e", "1e61", "1e-61", "1e9999", "0x10", "1_000", "12,34", "1 000", "NaN", "Inf", "--1", strings.Repeat("9", 200)} {
		if d, err := parseDecimal(bad); !errors.Is(err, ErrNumber) {
			t.Errorf("%.20q is %v, %v", bad, d, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{`{"data":[{"start_time":1,"results":[{"input_tokens":1,"amount":{"value":1e-3,"currency":"usd"}}]}]}`,
		"start_time,input_tokens\n1,2\n", "usage_start_time,sku_description,usage_amount\n2026-11-01,gemini 2.5 pro input,3\n",
		`{"starting_at":"2026-11-01T00:00:00Z","output_tokens":1}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for provider := range forms {
			file, err := Read(provider, strings.NewReader(text))
			if err != nil {
				continue
			}
			if _, err := Compare(file, NewBook(), file.Currency, Tolerance{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestCurrency: a table's money is what its rows, the lines before it or its columns' names say, and dollars where
// nothing does; the finer of two costs counts.
func TestCurrency(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ before, column, want string }{
		{"", "Cost ($)", "USD"}, {"", "Cost", "USD"}, {"", "Cost (€)", "EUR"}, {"", "Cost (£)", "GBP"},
		{"Invoice number,7\nCurrency,AUD\nTotal amount due,\"$1,000.00\"\n", "Cost ($)", "AUD"},
		{"Currency,EUR\n", "Cost (€)", "EUR"}, {"Currency,AUD\n", "Cost ($),currency", "CHF"},
	} {
		row := "2026-11-01,gemini 2.5 pro input,0.126,0.13"
		if strings.Contains(c.column, "currency") {
			row += ",CHF"
		}
		f, err := Read("google", strings.NewReader(c.before+"Usage start date,SKU description,Unrounded cost,"+c.column+"\n"+row+"\n"))
		if err != nil || f.Currency != c.want || len(f.Rows) != 1 || f.Rows[0].Cost.String() != "0.126" {
			t.Errorf("%s%s: %+v, %v", c.before, c.column, f, err)
		}
	}
}

// TestMore: the last page says that some is missing, in whichever way pages were put into one file.
func TestMore(t *testing.T) {
	t.Parallel()
	const first = `{"data":[{"start_time":1793491200,"results":[{"input_tokens":5}]}],"has_more":true}`
	const last = `{"data":[{"start_time":1793577600,"results":[{"input_tokens":5}]}],"has_more":false}`
	for text, want := range map[string]bool{first: true, last: false, first + last: false, last + "\n" + first: true,
		"[" + first + "," + last + "]": false, "[" + last + "," + first + "]": true} {
		if f, err := Read("openai", strings.NewReader(text)); err != nil || f.More != want {
			t.Errorf("%s: %+v, %v", text, f, err)
		}
	}
}
