package statement

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"llm-gateway/domain"
)

var update = flag.Bool("update", false, "write the golden files")

// october is a statement with one of everything, and hostile texts.
func october(t *testing.T) *domain.Statement {
	t.Helper()
	text, err := os.ReadFile("testdata/october.json")
	if err != nil {
		t.Fatal(err)
	}
	s := &domain.Statement{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func written(t *testing.T, s *domain.Statement, f Format) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s, f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGolden holds each format against a file. The JSON is what it was read from, byte for byte.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, f := range []Format{JSON, CSV, HTML} {
		file := filepath.Join("testdata", "october."+string(f))
		got := written(t, october(t), f)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s is not as in %s:\n%s", f, file, got)
		}
	}
}

// TestCSVAddsUp: the opening balance and the lines are the closing balance, as a spreadsheet sums them up.
func TestCSVAddsUp(t *testing.T) {
	t.Parallel()
	rows, err := csv.NewReader(strings.NewReader(written(t, october(t), CSV))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	amount := 0
	for rows[0][amount] != "amount" {
		amount++
	}
	sum := domain.Zero
	for _, row := range rows[1 : len(rows)-1] {
		if row[amount] != "" {
			sum = sum.Add(domain.MustAmount(row[amount]))
		}
		for i, cell := range row {
			if i != amount && cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
				t.Errorf("a spreadsheet would run %q", cell)
			}
		}
	}
	if last := rows[len(rows)-1]; last[0] != "closing" || last[amount] != sum.String() {
		t.Errorf("the lines sum to %s; the last is %v", sum, last)
	}
}

// TestCSVOfAnOpenMonth: the closing line says that more can come, where it can: it bears the month's last day.
func TestCSVOfAnOpenMonth(t *testing.T) {
	t.Parallel()
	s := october(t)
	for complete, want := range map[bool]string{true: "closing,2026-10-31,,,,,,", false: "closing,2026-10-31,,,,the month is not over,,"} {
		if s.Complete = complete; !strings.Contains(written(t, s, CSV), "\n"+want) {
			t.Errorf("%q is missing in\n%s", want, written(t, s, CSV))
		}
	}
}

// TestPageIsInert: no text becomes markup, and nothing is fetched.
func TestPageIsInert(t *testing.T) {
	t.Parallel()
	s := october(t)
	s.Account, s.Complete = `"><script>alert(2)</script>`, false
	s.Refunds[0].Reason = "</style><script>alert(3)</script>"
	text := written(t, s, HTML)
	if regexp.MustCompile(`(?i)<(script|img|link|iframe|object|svg|base|meta http)|\bsrc=["']?[^x]|url\(|@import|\bon\w+="`).MatchString(text) {
		t.Errorf("the page is not inert:\n%s", text)
	}
	for _, part := range []string{"&lt;script&gt;alert(1)&lt;/script&gt;", "This month is not over", "3,655.8525636", "\u221237.888878", "1,204.50", "October 2026",
		"2026-10-01 to 2026-10-31", "(corrects 3:88)", "8,123,456"} {
		if !strings.Contains(text, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
}

// TestEmpty: an account without anything has a statement in each format, too.
func TestEmpty(t *testing.T) {
	t.Parallel()
	m, err := domain.ParseMonth("2026-02", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	s := domain.NewStatement("a", "EUR", m, domain.StatementBalance{})
	if err := s.Finish(domain.StatementEnd{}); err != nil {
		t.Fatal(err)
	}
	if text := written(t, s, CSV); strings.Count(text, "\n") != 3 || !strings.Contains(text, "closing,2026-02-28,") {
		t.Error(text)
	}
	if text := written(t, s, JSON); strings.Contains(text, "null") {
		t.Error(text)
	}
	if text := written(t, s, HTML); strings.Contains(text, "Charges by") || !strings.Contains(text, "0.00") {
		t.Error(text)
	}
	if err := Write(&bytes.Buffer{}, s, "pdf"); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Format{"": JSON, "json": JSON, "csv": CSV, "html": HTML} {
		if f, err := ParseFormat(name); f != want || err != nil {
			t.Errorf("%q is %q, %v", name, f, err)
		}
	}
	for _, bad := range []string{"JSON", "pdf", " csv"} {
		if f, err := ParseFormat(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("%q is %q, %v", bad, f, err)
		}
	}
	for name, want := range map[string]string{"": "UTC", "UTC": "UTC", "Europe/Berlin": "Europe/Berlin"} {
		if z, err := Zone(name); err != nil || z.String() != want {
			t.Errorf("%q is %v, %v", name, z, err)
		}
	}
	for _, bad := range []string{"Local", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "+02:00", strings.Repeat("a/", 400)} {
		if z, err := Zone(bad); !errors.Is(err, ErrZone) {
			t.Errorf("%.20q is %v, %v", bad, z, err)
		}
	}
	for text, want := range map[string]string{"0": "0.00", "-0.5": "\u22120.50", "1234567.125": "1,234,567.125", "100": "100.00", "0.000000000001": "0.000000000001"} {
		if got := money(domain.MustAmount(text)); got != want {
			t.Errorf("%s is written %s", text, got)
		}
	}
}
