package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"llm-gateway/gateway"
)

const (
	defaultAccount = "dev" // whom a token is for, where nobody is named
	maxTokenTTL    = 10 * 365 * 24 * time.Hour
	day            = 24 * time.Hour
)

var tokenVerb = verb{
	name: "token", args: "[--account NAME] [--role admin] [--ttl 30m | --days N] [--json]",
	summary: "make a JWT for an account, signed with JWT_SECRET_KEY",
	about: `The token is all that is printed. The account need not exist: its first valid token opens it.
Whoever holds the token spends the account's money until it expires; it cannot be revoked (keys can).`,
	run: runToken,
}

// tokenOut is the JSON of `token`.
type tokenOut struct {
	Token     string    `json:"token"`
	Account   string    `json:"account"`
	Role      string    `json:"role"`
	ExpiresAt time.Time `json:"expires_at"`
}

func runToken(_ context.Context, a *app, args []string) error {
	fs := a.flags()
	account := fs.String("account", defaultAccount, "the `NAME` of the account")
	role := roleFlag(fs)
	ttl := fs.Duration("ttl", 0, "how long it is valid, such as 30m or 12h (default JWT_ACCESS_TOKEN_EXPIRE_MINUTES)")
	days := fs.Int("days", 0, "the same, in `DAYS`")
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	valid, err := validity(fs, *ttl, *days, s.JWTTokenTTL)
	if err != nil {
		return a.usage("%s", err)
	}
	if err := checkRole(*role); err != nil {
		return a.usage("%s", err)
	}
	out := tokenOut{Account: *account, Role: *role}
	out.Token, out.ExpiresAt, err = a.sign(s, *account, *role, valid)
	if err != nil {
		return err
	}
	if *asJSON {
		return a.printJSON(out)
	}
	fmt.Fprintln(a.stdout, out.Token)
	return nil
}

// sign makes a token with the secret of the settings.
func (a *app) sign(s *Settings, account, role string, ttl time.Duration) (string, time.Time, error) {
	secret, err := s.signingSecret()
	if err != nil {
		return "", time.Time{}, err
	}
	tokens, err := gateway.NewTokens(s.JWTAlgorithm, secret)
	if err != nil {
		return "", time.Time{}, err
	}
	now := a.now().UTC().Truncate(time.Second)
	token, err := tokens.Demand(s.JWTIssuer, s.JWTAudience...).Sign(account, role, now, ttl)
	return token, now.Add(ttl), err
}

// validity decides between --ttl, --days and the default.
func validity(fs *flag.FlagSet, ttl time.Duration, days int, otherwise time.Duration) (time.Duration, error) {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case given["ttl"] && given["days"]:
		return 0, errors.New("--ttl and --days say the same: give one of them")
	case given["days"] && days > int(maxTokenTTL/day):
		return 0, fmt.Errorf("--days may be %d at most", maxTokenTTL/day)
	case given["days"]:
		ttl = time.Duration(days) * day
	case !given["ttl"]:
		ttl = otherwise
	}
	if ttl < time.Second || ttl > maxTokenTTL {
		return 0, fmt.Errorf("a token is valid for a second to %d days", maxTokenTTL/day)
	}
	return ttl, nil
}

func roleFlag(fs *flag.FlagSet) *string {
	return fs.String("role", gateway.RoleUser, "user, or `admin`, which opens /admin/*")
}

func checkRole(role string) error {
	if role != gateway.RoleUser && role != gateway.RoleAdmin {
		return fmt.Errorf("--role is %s or %s, not %.40q", gateway.RoleUser, gateway.RoleAdmin, role)
	}
	return nil
}
