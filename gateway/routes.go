package gateway

import (
	"strings"

	"github.com/gin-gonic/gin"
)

// Route is one endpoint. openapi.yaml describes exactly these; a test compares them.
type Route struct{ Method, Path string }

// access says who may use a route.
type access int

const (
	users     access = iota // who has a credential; an account is opened for whoever is new
	admins                  // whose role is admin; they need no account
	operators               // admins, or everybody where the operator chose so
	everybody
)

// route is a Route with what serves it.
type route struct {
	Route
	access access
	handle func(*Gateway) handler
	door   *door // whose errors it answers with; nil = that of the client's API
}

// routes is the whole surface. What is not here does not exist and is never passed through.
var routes = []route{
	{Route{"POST", "/v1/chat/completions"}, users, metered, chatDoor},
	{Route{"POST", "/v1/chat/completions/stream"}, users, metered, chatStreamDoor},
	{Route{"POST", "/v1/completions"}, users, metered, completionsDoor},
	{Route{"POST", "/v1/embeddings"}, users, metered, embeddingsDoor},
	{Route{"POST", "/v1/responses"}, users, metered, responsesDoor},
	{Route{"POST", "/v1/messages"}, users, metered, messagesDoor},
	{Route{"POST", "/v1/messages/count_tokens"}, users, metered, messagesCountDoor},
	{Route{"POST", "/v1beta/models/{model}:{method}"}, users, func(g *Gateway) handler { return g.google }, generateDoor},
	{Route{"POST", "/v1/models/{model}:{method}"}, users, func(g *Gateway) handler { return g.google }, generateDoor},
	{Route{"GET", "/v1beta/models"}, users, func(g *Gateway) handler { return g.models }, generateDoor},
	{Route{"GET", "/v1beta/models/{id}"}, users, func(g *Gateway) handler { return g.model }, generateDoor},
	{Route{"GET", "/v1/models"}, users, func(g *Gateway) handler { return g.models }, nil},
	{Route{"GET", "/v1/models/{id}"}, users, func(g *Gateway) handler { return g.model }, nil},
	{Route{"GET", "/billing/balance"}, users, func(g *Gateway) handler { return g.balance }, nil},
	{Route{"GET", "/billing/transactions"}, users, func(g *Gateway) handler { return g.transactions }, nil},
	{Route{"GET", "/billing/stats"}, users, func(g *Gateway) handler { return g.stats }, nil},
	{Route{"POST", "/billing/estimate"}, users, func(g *Gateway) handler { return g.estimate }, nil},
	{Route{"GET", "/billing/requests/{id}"}, users, func(g *Gateway) handler { return g.request }, nil},
	{Route{"GET", "/billing/statements/{month}"}, users, func(g *Gateway) handler { return g.statement }, nil},
	{Route{"GET", "/admin/accounts/{id}"}, admins, func(g *Gateway) handler { return g.adminAccount }, nil},
	{Route{"POST", "/admin/accounts/{id}/credits"}, admins, func(g *Gateway) handler { return g.adminCredit }, nil},
	{Route{"PUT", "/admin/accounts/{id}/credit-limit"}, admins, func(g *Gateway) handler { return g.adminCreditLimit }, nil},
	{Route{"PUT", "/admin/accounts/{id}/frozen"}, admins, func(g *Gateway) handler { return g.adminFrozen }, nil},
	{Route{"GET", "/admin/accounts/{id}/limits"}, admins, func(g *Gateway) handler { return g.adminLimits }, nil},
	{Route{"PUT", "/admin/accounts/{id}/limits"}, admins, func(g *Gateway) handler { return g.adminSetLimits }, nil},
	{Route{"GET", "/admin/accounts/{id}/statements/{month}"}, admins, func(g *Gateway) handler { return g.adminStatement }, nil},
	{Route{"GET", "/admin/stats"}, admins, func(g *Gateway) handler { return g.adminStats }, nil},
	{Route{"GET", "/health"}, everybody, func(g *Gateway) handler { return g.health }, nil},
	{Route{"GET", "/health/circuit-breakers"}, everybody, func(g *Gateway) handler { return g.circuitBreakers }, nil},
	{Route{"GET", "/health/detailed"}, operators, func(g *Gateway) handler { return g.healthDetailed }, nil},
	{Route{"GET", "/health/system"}, operators, func(g *Gateway) handler { return g.healthSystem }, nil},
	{Route{"GET", "/health/history"}, operators, func(g *Gateway) handler { return g.healthHistory }, nil},
	{Route{"GET", "/ready"}, everybody, func(g *Gateway) handler { return g.readiness }, nil},
	{Route{"GET", "/live"}, everybody, func(g *Gateway) handler { return g.live }, nil},
	{Route{"GET", "/metrics"}, everybody, func(g *Gateway) handler { return g.prometheus }, nil},
}

// served is what serves a route.
func (g *Gateway) served(r route) handler {
	if g.unbilled && ofMoney(r.Path) {
		return withoutBilling
	}
	return r.handle(g)
}

// metered is what serves all models' doors.
func metered(g *Gateway) handler { return g.meter }

// Routes lists the endpoints, in OpenAPI's way of writing paths.
func Routes() []Route {
	out := make([]Route, len(routes))
	for i, r := range routes {
		out[i] = r.Route
	}
	return out
}

// newEngine builds gin's engine. It trusts the named proxies only, and redirects nothing: a moved POST loses
// its body. Paths are matched before they are decoded, so that a name with a slash in it is one name.
func (g *Gateway) newEngine(proxies []string) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.SetTrustedProxies(proxies) //nolint:errcheck // newEdge has read them
	// Not X-Real-IP, which gin reads, too: a proxy that sets the other header passes on a client's own of this name.
	engine.RemoteIPHeaders = []string{"X-Forwarded-For"}
	engine.RedirectTrailingSlash, engine.HandleMethodNotAllowed = false, true
	engine.UseRawPath, engine.UnescapePathValues = true, false // accountName decodes: gin would make blanks of plus signs
	engine.Use(g.recorded, g.recovered)
	if g.unbilled {
		engine.Use(sayUnbilled)
	}
	engine.Use(g.guarded)
	for _, r := range routes {
		guard := map[access]handler{everybody: func(*gin.Context) error { return nil }, users: g.identified, admins: g.administrator, operators: g.operator}[r.access]
		engine.Handle(r.Method, ginPath(r.Path), entering(r.door), g.render(guard), g.render(g.served(r)))
	}
	unknown := g.render(unknownURL)
	engine.NoRoute(entering(nil), unknown)
	engine.NoMethod(entering(nil), unknown)
	return engine
}

// ginPath turns {id} into :id. Names of models may have slashes in them, so what names one is the rest of the
// path.
func ginPath(path string) string {
	for _, rest := range [...][2]string{{"models/{model}:{method}", "models/*call"}, {"models/{id}", "models/*id"}} {
		if before, found := strings.CutSuffix(path, rest[0]); found {
			return before + rest[1]
		}
	}
	return strings.NewReplacer("{", ":", "}", "").Replace(path)
}
