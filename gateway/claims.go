package gateway

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// claims are what is read of a token.
type claims struct {
	Role string `json:"role,omitempty"`
	jwt.RegisteredClaims
}

var (
	errClaims = errors.New("the claims are not one JSON object with each name once")
	errTime   = errors.New("a time is not a number of seconds")
)

// UnmarshalJSON reads claims strictly: names as they are written and each once, also in another case. Package
// encoding/json takes Role for role, and the last of two; an issuer that lets its users have claims of their
// own would let them have the role admin.
func (c *claims) UnmarshalJSON(raw []byte) error {
	if checkJSON(raw) != nil {
		return errClaims
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return errClaims
	}
	read := func(name string, into any) error {
		if v, ok := all[name]; ok {
			return json.Unmarshal(v, into)
		}
		return nil
	}
	var times [3]error
	c.ExpiresAt, times[0] = timeOf(all["exp"])
	c.NotBefore, times[1] = timeOf(all["nbf"])
	c.IssuedAt, times[2] = timeOf(all["iat"])
	return errors.Join(read("sub", &c.Subject), read("role", &c.Role), read("iss", &c.Issuer), read("aud", &c.Audience), errors.Join(times[:]...))
}

// lastSecond is the end of the year 9999: later times are no times but tricks.
const lastSecond = 253402300799

// timeOf reads a NumericDate. Fractions are cut off; an exponent is nothing that an issuer writes.
func timeOf(raw json.RawMessage) (*jwt.NumericDate, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	whole, fraction, _ := strings.Cut(string(raw), ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || seconds > lastSecond || seconds < -lastSecond || strings.ContainsAny(fraction, "eE") {
		return nil, errTime
	}
	return &jwt.NumericDate{Time: time.Unix(seconds, 0)}, nil
}
