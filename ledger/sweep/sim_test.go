package sweep

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

const (
	simulations = 60
	simEvents   = 40
	simQuiet    = 2*OwnerTerm + 20*time.Second // after the last event, all that is dead has been swept
)

// TestSimulation lets gateways reserve, settle, die, freeze and leave, while Postgres is away, restarts
// and gets its clock wrong, at random, and each comes back to it when it likes within some seconds.
// Whoever was alive all the time loses nothing, and whoever died keeps nothing.
func TestSimulation(t *testing.T) {
	t.Parallel()
	for seed := range uint64(simulations) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &simulation{world: newWorld(t), rand: rand.New(rand.NewPCG(seed, 1))}
				defer func() { // where the test has ended before
					for _, g := range s.here {
						g.Sweeper.Close()
						g.Owner.Close()
					}
				}()
				for range 3 {
					s.arrive(t)
				}
				for range simEvents {
					s.event(t)
					pass(s.upTo(OwnerTerm))
					s.check(t)
				}
				pass(simQuiet)
				s.check(t)
				s.end(t)
			})
		})
	}
}

// simulation is some gateways in a world.
type simulation struct {
	*world
	rand *rand.Rand
	here []*gateway // alive
	gone []*gateway // killed
}

// gateway is one process start.
type gateway struct {
	*Owner
	*Sweeper
	link *link
	open []request
	hurt bool // it alone was away for so long that it may be taken for dead
}

type request struct {
	id      uuid.UUID
	account string
}

func (s *simulation) upTo(d time.Duration) time.Duration {
	return time.Duration(s.rand.Int64N(int64(d)))
}

func (s *simulation) any() *gateway { return s.here[s.rand.IntN(len(s.here))] }

func (s *simulation) arrive(t *testing.T) {
	l := s.link()
	g := &gateway{link: l, Owner: startIn(t, l)}
	g.Sweeper = StartSweeper(t.Context(), Config{Pool: l, Ledger: s, Owner: g.id, Log: quiet})
	s.here = append(s.here, g)
	for range 3 {
		s.ask(t, g)
	}
}

// ask reserves, as a gateway does that looks at its lease before.
func (s *simulation) ask(t *testing.T, g *gateway) {
	if !g.Held() {
		return
	}
	account := fmt.Sprint("account-", s.rand.IntN(5))
	id := uuid.New()
	mustAppend(t, s.Memory, account, domain.Open{Grant: domain.MustAmount("100000"), Actor: "test"})
	mustAppend(t, s.Memory, account, domain.Reserve{RequestID: id, Amount: domain.MustAmount("1"), Data: domain.ReserveData{Surface: "test", Owner: g.id}})
	g.open = append(g.open, request{id, account})
}

// answer settles a gateway's oldest request. Who was hurt may be late, and is charged all the same.
func (s *simulation) answer(t *testing.T, g *gateway) {
	if len(g.open) == 0 {
		return
	}
	out := mustAppend(t, s.Memory, g.open[0].account, settle(g.open[0].id, "0.5"))
	if late := out.Events[0].Event.Kind == domain.KindOverage; late && !g.hurt {
		t.Errorf("a request of %s, which was alive, is charged late", g.id)
	}
	g.open = g.open[1:]
}

func (s *simulation) event(t *testing.T) {
	switch s.rand.IntN(8) {
	case 0, 1:
		s.outage()
	case 2:
		s.change(func() { s.ahead += s.upTo(2*time.Minute) - time.Minute })
	case 3:
		s.kill(t, s.any())
		s.arrive(t)
	case 4:
		s.leave(t, s.any())
		s.arrive(t)
	case 5:
		g, long := s.any(), s.upTo(3*OwnerTerm)
		g.hurt = g.hurt || long > OwnerEvery
		g.link.become(frozen)
		pass(long)
		g.link.become(well)
	default:
		for range 4 {
			g := s.any()
			s.answer(t, g)
			s.ask(t, g)
		}
	}
}

// outage takes Postgres away from everybody, for a moment or for long. Some die meanwhile; the server
// may be another one afterwards.
func (s *simulation) outage() {
	how := []state{broken, silent, frozen}[s.rand.IntN(3)]
	for _, g := range s.here {
		g.link.become(how)
	}
	s.change(func() { s.append = func(domain.Command) error { return domain.ErrUnavailable } })
	pass(s.upTo(4 * OwnerTerm))
	s.change(func() {
		s.append = nil
		if s.rand.IntN(2) == 0 {
			s.started = s.now()
		}
	})
	for _, i := range s.rand.Perm(len(s.here)) {
		s.here[i].link.become(well)
		pass(s.upTo(OwnerTerm / 8))
	}
}

// kill ends a gateway that can give nothing up any more.
func (s *simulation) kill(t *testing.T, g *gateway) {
	g.link.become(broken)
	s.gone = append(s.gone, g)
	s.close(t, g)
}

// leave ends a gateway in order.
func (s *simulation) leave(t *testing.T, g *gateway) {
	for len(g.open) > 0 {
		s.answer(t, g)
	}
	s.close(t, g)
}

func (s *simulation) close(t *testing.T, g *gateway) {
	g.Sweeper.Close()
	g.Owner.Close()
	if g.Held() {
		t.Error("a lease is held that was given up")
	}
	for i, other := range s.here {
		if other == g {
			s.here = append(s.here[:i], s.here[i+1:]...)
			return
		}
	}
}

// check wants nothing to be refunded that belongs to somebody alive.
func (s *simulation) check(t *testing.T) {
	t.Helper()
	for _, g := range s.here {
		if n := s.states(g.id)[domain.ReservationExpired]; n > 0 && !g.hurt {
			t.Fatalf("%d requests of %s, which is alive, were refunded", n, g.id)
		}
	}
}

// end wants everything to be refunded that belonged to the dead, and all balances to add up.
func (s *simulation) end(t *testing.T) {
	t.Helper()
	for _, g := range s.gone {
		if n := s.states(g.id)[domain.ReservationOpen]; n > 0 {
			t.Errorf("%d requests of %s, which is dead, are still open", n, g.id)
		}
	}
	for len(s.here) > 0 {
		if !s.here[0].Held() {
			t.Error("a gateway has no lease, though nothing is the matter")
		}
		s.leave(t, s.here[0])
	}
	if len(s.leases) > len(s.gone) {
		t.Errorf("leases are left: %v", s.leases)
	}
	if err := s.sum(); err != nil {
		t.Error(err)
	}
}

// sum adds the accounts up.
func (s *simulation) sum() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	charged := map[string]domain.Amount{}
	half := domain.MustAmount("0.5")
	for _, r := range s.books.Reservations {
		if r.State == domain.ReservationSettled || r.State == domain.ReservationLate {
			charged[r.Account] = charged[r.Account].Add(half)
		}
		if r.State == domain.ReservationOpen {
			return errors.New("a reservation is open at the end")
		}
	}
	for name, a := range s.books.Accounts {
		if !a.Reserved.IsZero() || !a.Available.Add(charged[name]).Equal(domain.MustAmount("100000")) {
			return fmt.Errorf("%s has %s, and %s reserved, after %s were charged", name, a.Available, a.Reserved, charged[name])
		}
	}
	return nil
}
