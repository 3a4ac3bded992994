package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

// maxKeyName bounds a key's name, in bytes.
const maxKeyName = 100

// A hint shows a key's beginning and its end: enough to tell it, far too little to guess it.
const (
	hintBegin = len("sk-") + 4
	hintEnd   = 4
)

var (
	keyCreateVerb = verb{
		name: "key create", args: "--account NAME [--name TEXT] [--role admin] [--requests-per-minute N] [--requests-per-hour N] [--tokens-per-minute N] [--json]",
		summary: "make an API key for an account, and show it once",
		about: `The key is shown now and never again: only its hash is kept. Whoever holds it spends the account's
money until it is revoked. The account need not exist: the key's first use opens it. Limits of the key
count beside those of the account.`,
		run: runKeyCreate,
	}
	keyListVerb = verb{
		name: "key list", args: "[--account NAME] [--json]", summary: "list API keys, revoked ones too", run: runKeyList,
	}
	keyRevokeVerb = verb{
		name: "key revoke", args: "ID [--json]", summary: "end an API key; running gateways refuse it within seconds", run: runKeyRevoke,
	}
)

// keyOut is the JSON of `key create`: the only place where a key can be read.
type keyOut struct {
	Key string `json:"key"`
	apiKey
}

func runKeyCreate(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	k := apiKey{}
	fs.StringVar(&k.Account, "account", "", "the `NAME` of the account (mandatory)")
	fs.StringVar(&k.Name, "name", "", "`TEXT` that tells the key from others")
	quotas := declareQuotas(fs, "")
	role := roleFlag(fs)
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	k.Role, k.keyQuotas = *role, quotasOf(quotas)
	if err := checkNewKey(&k); err != nil {
		return a.usage("%s", err)
	}
	secret, hash := gateway.NewKey()
	var err error
	if k.ID, err = uuid.NewV7(); err != nil {
		return err
	}
	k.Hint = secret[:hintBegin] + "..." + secret[len(secret)-hintEnd:]
	return withReader(ctx, a, func(r *ledger.Reader) error {
		if err := (keyStore{r.Pool()}).create(ctx, &k, hash); err != nil {
			return err
		}
		k.CreatedAt = k.CreatedAt.UTC()
		if *asJSON {
			return a.printJSON(keyOut{secret, k})
		}
		fmt.Fprintf(a.stderr, "key %s of account %s; it is shown this once:\n", k.ID, k.Account)
		fmt.Fprintln(a.stdout, secret)
		return nil
	})
}

// quotasOf are the limits that flags name.
func quotasOf(flags *[domain.Windows]quotaFlag) (q keyQuotas) {
	for w, into := range [...]*int64{domain.RequestsMinute: &q.RequestsPerMinute, domain.RequestsHour: &q.RequestsPerHour, domain.TokensMinute: &q.TokensPerMinute} {
		if flags[w].named {
			*into = *flags[w].most
		}
	}
	return q
}

func checkNewKey(k *apiKey) error {
	if k.Account == "" {
		return errors.New("--account is mandatory")
	}
	if err := domain.CheckOwner(k.Account); err != nil {
		return err
	}
	if k.Name != domain.CleanText(k.Name, maxKeyName) {
		return fmt.Errorf("--name is at most %d bytes of printable text", maxKeyName)
	}
	return checkRole(k.Role)
}

func runKeyList(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	account := fs.String("account", "", "only the keys of the account `NAME`")
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		keys, err := keyStore{r.Pool()}.list(ctx, *account)
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(struct {
				Keys []apiKey `json:"keys"`
			}{append([]apiKey{}, keys...)})
		}
		rows := [][]string{{"ID", "ACCOUNT", "ROLE", "KEY", "CREATED", "REVOKED", "NAME"}}
		for _, k := range keys {
			rows = append(rows, []string{k.ID.String(), k.Account, k.Role, k.Hint, at(&k.CreatedAt), at(k.RevokedAt), k.Name})
		}
		return a.printTable(rows)
	})
}

func at(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

func runKeyRevoke(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	asJSON := jsonFlag(fs)
	values, err := a.parse(fs, args, "ID")
	if err != nil {
		return err
	}
	id, err := uuid.Parse(values[0])
	if err != nil || len(values[0]) != len(uuid.Nil.String()) {
		if strings.HasPrefix(values[0], "sk-") {
			return a.usage("a key is revoked by its ID, which `key list` shows, not by the key itself")
		}
		return a.usage("not a key's ID: %.60q", values[0])
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		k, again, err := keyStore{r.Pool()}.revoke(ctx, id)
		switch {
		case err != nil:
			return err
		case k == nil:
			return fmt.Errorf("there is no key %s", id)
		case *asJSON:
			return a.printJSON(k)
		case again:
			fmt.Fprintf(a.stdout, "key %s of account %s was revoked already, at %s\n", k.ID, k.Account, at(k.RevokedAt))
		default:
			fmt.Fprintf(a.stdout, "key %s of account %s is revoked\n", k.ID, k.Account)
		}
		return nil
	})
}
