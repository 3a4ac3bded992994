package simulation

// bug is a known defect, planted by the harness around the product's code, never in it.
type bug string

const (
	noBug              bug = ""
	bugCheckThenAct    bug = "the balance is checked, and then the reserve is written"
	bugSettledTwice    bug = "the journal mints new ids, and the ledger does not look whether a request was settled"
	bugLostJournal     bug = "the journal is in a directory that does not outlive the process"
	bugEarlyKey        bug = "an idempotency key is free before its request has ended"
	bugTwoCredits      bug = "a reference is not looked up"
	bugEarlyPublish    bug = "events are published before they are committed"
	bugEarlyReserve    bug = "a reserve is answered before it is durable"
	bugEarlySettlement bug = "a settlement is answered before it is durable"
	bugForgottenRefund bug = "the refund of a client that went away is forgotten"
	bugHastySweeper    bug = "the sweeper does not look at leases"
	bugLateCommits     bug = "the relay reads behind the last id that it has seen"
	bugSplitCommand    bug = "every event is published in a transaction of its own"
	bugNoFence         bug = "the broker's producers do not fence each other"
	bugZombieProjector bug = "the projector's position moves unconditionally"
	bugStaleHead       bug = "a refusal is confirmed by the projection, not by the ledger"
	bugBoastfulReading bug = "a balance is said to be newer than it is"
	bugCacheBackwards  bug = "an older balance overwrites a newer one in the cache"
)

// careless are the bugs of the ledger itself.
var careless = map[bug]bool{bugCheckThenAct: true, bugSettledTwice: true, bugEarlyKey: true, bugTwoCredits: true, bugEarlyPublish: true}
