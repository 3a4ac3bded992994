package simulation

import "testing"

// plantedSeeds is within how many seeds each planted bug must have been found.
const plantedSeeds = 2000

// TestPlantedBugs plants each known bug and wants the simulation to find it, as a violation of the
// promise that it breaks.
func TestPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		bug   bug
		finds string
	}{
		{bugCheckThenAct, invOverspend},
		{bugSettledTwice, invOneEnding},
		{bugLostJournal, invAcknowledged},
		{bugEarlyKey, invKeyOnce},
		{bugTwoCredits, invCreditOnce},
		{bugEarlyPublish, invTopic},
		{bugEarlyReserve, invOrder},
		{bugEarlySettlement, invAcknowledged},
		{bugForgottenRefund, invRest},
		{bugHastySweeper, invExpired},
		{bugLateCommits, invTopic},
		{bugSplitCommand, invWhole},
		{bugNoFence, invTopic},
		{bugZombieProjector, invProjection},
		{bugStaleHead, invRefusal},
		{bugBoastfulReading, invReading},
		{bugCacheBackwards, invCache},
	} {
		t.Run(string(c.bug), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= plantedSeeds; seed++ {
				for _, v := range simulate(t, seed, c.bug, false).violations {
					if v.invariant == c.finds {
						t.Logf("found by seed %d: %s", seed, v)
						return
					}
				}
			}
			t.Errorf("not found by %d seeds", plantedSeeds)
		})
	}
}
