package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"llm-gateway/gateway/provider/chat"
)

// All accounts' calls reach a provider by the operator's one key, so to the provider they are one customer:
// it would go on with anybody's stored answer for whoever names its id. What it keeps is told apart here.
// Ids in answers are claimed for the account before the last byte goes out, and a request that names an id
// is made only where that is the account's own. What is named by ids that no answer of a call tells (uploaded
// files, stored prompts, caches) could be anybody's, and is refused. SHARED_PROVIDER_IDS=allow is for an
// operator whose accounts are all one tenant's.

// Belongings know which account an id of a provider's was given to. They keep it for as long as providers
// keep what it names. Both methods take at most chat.MaxReferences ids, of up to any length.
type Belongings interface {
	// Claim makes ids of a provider's an account's. Whose an id is already, it stays.
	Claim(ctx context.Context, account, provider string, ids []string) error
	// Own says whether all ids of a provider's are an account's.
	Own(ctx context.Context, account, provider string, ids []string) (bool, error)
}

// belongingTime bounds the wait for Belongings. What could not be claimed in that time is nobody's.
const belongingTime = 2 * time.Second

// notOwned refuses what nobody knows the owner of.
func notOwned(param string) *Error {
	return invalid("unsupported_parameter", param,
		"`"+param+"` names something that the provider keeps, and this gateway cannot tell whose it is. Send it in the request itself. (The gateway's operator can allow it by SHARED_PROVIDER_IDS.)")
}

// refuseReferences refuses what nobody could know the owner of.
func (g *Gateway) refuseReferences(k *call) error {
	if k.sharedIDs {
		return nil
	}
	if len(k.asked.References) > chat.MaxReferences {
		return invalid("invalid_value", "", fmt.Sprintf("A request may name at most %d things by their ids.", chat.MaxReferences))
	}
	for _, r := range k.asked.References {
		if r.ID == "" || g.belongings == nil {
			return notOwned(r.Param)
		}
	}
	return nil
}

// own makes sure that what a call names by ids is its account's, at each target that would look them up: one
// that is asked by way of a chat completion does not, and one that cannot know them is no target. To the
// client another's ids are such as do not exist.
func (g *Gateway) own(ctx context.Context, k *call) error {
	if k.sharedIDs || len(k.asked.References) == 0 {
		return nil
	}
	ids := make([]string, len(k.asked.References))
	for i, r := range k.asked.References {
		ids[i] = r.ID
	}
	ctx, cancel := context.WithTimeout(ctx, belongingTime)
	defer cancel()
	kept := k.targets[:0:0]
	for _, t := range k.targets {
		mine := t.foreign != nil
		if !mine {
			var err error
			if mine, err = g.belongings.Own(ctx, k.who.Account, t.upstream.Name(), ids); err != nil {
				return unavailable("ledger_unavailable", "Whose the ids in this request are cannot be looked up at the moment. Please retry.", err)
			}
		}
		if mine {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		return notFound(k.asked.References[0].Param)
	}
	k.targets, k.target = kept, kept[0]
	return nil
}

func notFound(param string) *Error {
	return &Error{Status: http.StatusNotFound, Type: typeInvalid, Code: "not_found", Param: param,
		Message: "`" + param + "` or another id in this request is not known here: it is not of an answer that your account was given by this gateway and provider."}
}

// claim begins to make the ids of an answer its account's, and returns what waits for that. An answer goes
// out all the same where it fails: then nobody can name it.
func (h *hold) claim(ids []string) (wait func()) {
	if len(ids) == 0 || h.g.belongings == nil || h.g.sharedIDs || h.call.foreign != nil {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), belongingTime)
	var done sync.WaitGroup
	done.Go(func() {
		defer cancel()
		err := h.g.belongings.Claim(ctx, h.call.who.Account, h.call.upstream.Name(), ids)
		if err != nil && !errors.Is(err, context.Canceled) {
			h.g.log.Warn("an answer's ids could not be kept for its account, so no request can name them", "billing_request_id", h.id, "error", err)
		}
	})
	return done.Wait
}
