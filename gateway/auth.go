package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"llm-gateway/domain"
)

// Identity is who makes a request.
type Identity struct {
	Account string        // whose money it is
	Role    string        // "user" or "admin"
	KeyID   string        // the API key's id; "" where a token was used
	Quotas  domain.Quotas // the API key's own limits, beside the account's
}

// RoleUser and RoleAdmin are the roles of tokens and keys; any other role is a user's.
const (
	RoleUser  = "user"
	RoleAdmin = "admin"
)

// Keys finds API keys. Lookup returns nil where the hash is unknown or the key is revoked; a
// revocation shows at once. It is called for every request that the short cache does not answer.
type Keys interface {
	Lookup(ctx context.Context, hash [sha256.Size]byte) (*Identity, error)
}

// keyPrefix marks an API key; everything else is a token.
const keyPrefix = "sk-"

// NewKey makes an API key of 256 random bits, to be shown once, with the hash to be stored.
func NewKey() (key string, hash [sha256.Size]byte) {
	random := make([]byte, 32)
	rand.Read(random) //nolint:errcheck // crypto/rand never returns an error
	key = keyPrefix + base64.RawURLEncoding.EncodeToString(random)
	return key, HashKey(key)
}

// HashKey is how a key is stored and found. One SHA-256 is enough: a key is not a password but 256
// random bits, which nobody can guess.
func HashKey(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// Tokens makes and checks JWTs, with one algorithm that is fixed here and never taken from a token.
type Tokens struct {
	algorithm string
	method    jwt.SigningMethod // nil: they cannot be signed here
	secret    []byte
	parser    *jwt.Parser
	keys      jwt.Keyfunc
	issuer    string
	audiences []string
}

// maxToken bounds a credential, in bytes.
const maxToken = 8 << 10

// tokenLeeway is how far an issuer's clock may be ahead of ours, for nbf and iat. It makes no token last longer.
const tokenLeeway = 5 * time.Second

// Demand makes the tokens good only of one issuer and one of some audiences; what is empty is not looked at.
// Tokens that are signed here get both. It is for the time before the first token.
func (t *Tokens) Demand(issuer string, audiences ...string) *Tokens {
	t.issuer, t.audiences = issuer, audiences
	options := []jwt.ParserOption{jwt.WithValidMethods([]string{t.algorithm}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(tokenLeeway), jwt.WithStrictDecoding()}
	if issuer != "" {
		options = append(options, jwt.WithIssuer(issuer))
	}
	if len(audiences) > 0 {
		options = append(options, jwt.WithAudience(audiences...))
	}
	t.parser = jwt.NewParser(options...)
	return t
}

// NewTokens signs and checks with a shared secret: HS256, HS384 or HS512.
func NewTokens(algorithm string, secret []byte) (*Tokens, error) {
	method, ok := jwt.GetSigningMethod(algorithm).(*jwt.SigningMethodHMAC)
	if !ok {
		return nil, fmt.Errorf("JWT_ALGORITHM must be HS256, HS384 or HS512 with JWT_SECRET_KEY, not %.40q", algorithm)
	}
	if len(secret) == 0 {
		return nil, errors.New("JWT_SECRET_KEY is empty")
	}
	keys := func(*jwt.Token) (any, error) { return secret, nil }
	return (&Tokens{algorithm: algorithm, method: method, secret: secret, keys: keys}).Demand(""), nil
}

// NewIssuerTokens checks tokens of an issuer whose public keys keys finds (JWT_JWKS_URL): RS256 or
// ES256 and their longer forms. It cannot sign.
func NewIssuerTokens(algorithm string, keys jwt.Keyfunc) (*Tokens, error) {
	switch jwt.GetSigningMethod(algorithm).(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodECDSA:
		return (&Tokens{algorithm: algorithm, keys: keys}).Demand(""), nil
	}
	return nil, fmt.Errorf("JWT_ALGORITHM must be RS256 or ES256 with JWT_JWKS_URL, not %.40q", algorithm)
}

// Sign makes a token for an account, valid from now for ttl.
func (t *Tokens) Sign(account, role string, now time.Time, ttl time.Duration) (string, error) {
	if t.secret == nil {
		return "", errors.New("tokens come from the issuer at JWT_JWKS_URL; this gateway cannot make any")
	}
	if err := domain.CheckOwner(account); err != nil {
		return "", err
	}
	c := claims{Role: role, RegisteredClaims: jwt.RegisteredClaims{Issuer: t.issuer,
		Subject: account, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl))}}
	if len(t.audiences) > 0 {
		c.Audience = t.audiences[:1]
	}
	return jwt.NewWithClaims(t.method, c).SignedString(t.secret)
}

// Check returns who a token speaks for, or a 401.
func (t *Tokens) Check(token string) (*Identity, error) {
	var c claims
	parsed, err := t.parser.ParseWithClaims(token, &c, t.keys)
	if err == nil && parsed.Header["crit"] != nil { // what it names must be understood (RFC 7515, 4.1.11), and nothing is here
		err = jwt.ErrTokenUnverifiable
	}
	switch {
	case errors.Is(err, jwt.ErrTokenExpired), err == nil && !time.Now().Before(c.ExpiresAt.Time): // leeway or not
		return nil, unauthorized("token_expired", "Your token has expired. Get a new one.")
	case err != nil:
		return nil, unauthorized("invalid_api_key", "The token is not valid here.")
	}
	if err := domain.CheckOwner(c.Subject); err != nil {
		return nil, unauthorized("invalid_api_key", "The token's subject (sub) cannot be an account: "+err.Error()+".")
	}
	return &Identity{Account: c.Subject, Role: roleOf(c.Role)}, nil
}

func roleOf(role string) string {
	if role == RoleAdmin {
		return RoleAdmin
	}
	return RoleUser
}

// credentialHeaders bring a token or key, in the order of looking.
var credentialHeaders = [...]string{"Authorization", "x-api-key", "x-goog-api-key", "api-key"}

// ambiguous says that a header, or the query, brings two credentials: of these a proxy before us may have looked at
// the other.
func ambiguous(c *gin.Context) bool {
	for _, name := range credentialHeaders {
		if len(c.Request.Header.Values(name)) > 1 {
			return true
		}
	}
	return c.Request.URL.RawQuery != "" && len(c.QueryArray("key")) > 1
}

// credential finds the token or key in a request. Query strings are never logged.
func credential(c *gin.Context) string {
	if bearer, ok := cutBearer(c.GetHeader("Authorization")); ok {
		return bearer
	}
	for _, name := range credentialHeaders[1:] {
		if v := c.GetHeader(name); v != "" {
			return strings.TrimSpace(v)
		}
	}
	return strings.TrimSpace(c.Query("key"))
}

func cutBearer(header string) (string, bool) {
	const scheme = "bearer "
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimSpace(header[len(scheme):]), true
}

// authenticate says who makes a request, or a 401 (503 where keys cannot be looked up).
func (g *Gateway) authenticate(c *gin.Context) (*Identity, error) {
	secret := credential(c)
	switch {
	case ambiguous(c):
		return nil, unauthorized("invalid_api_key", "The same header, or the query, brings two credentials. Send one.")
	case secret == "":
		return nil, unauthorized("invalid_api_key", "No credential. Send `Authorization: Bearer <token or key>`.")
	case len(secret) > maxToken:
		return nil, unauthorized("invalid_api_key", "The credential is too long.")
	case !strings.HasPrefix(secret, keyPrefix):
		return g.tokens.Check(secret)
	}
	identity, err := g.keys.find(c.Request.Context(), HashKey(secret))
	if err != nil {
		return nil, unavailable("ledger_unavailable", "API keys cannot be looked up at the moment. Please retry.", err)
	}
	if identity == nil {
		return nil, unauthorized("invalid_api_key", "Unknown or revoked API key.")
	}
	return identity, nil
}
