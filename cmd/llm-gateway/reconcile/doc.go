// Package reconcile holds a provider's own usage or cost export against the ledger, by model and UTC day.
//
// Problem: the invoice is the last word on what a gateway's calls cost, and it comes weeks later, in the
// provider's own form. Somebody must find out whether it is what the ledger says, and if not, where.
//
// Shape: Read turns a file into Rows, one form for all providers: a day, a model, the quantities that the
// file tells and perhaps a cost. Book collects the same from the ledger's charges. Compare matches the two
// and reports every quantity on both sides and the difference.
//
// Invariants:
//   - Only what the file tells is compared: a usage export has no cost, and a cost export no tokens.
//   - Numbers are read as text and are exact; money finer than 1e-12 is rounded half up, and the report
//     says how often.
//   - What is on one side only is a difference, not left out; columns that are not known are ignored.
//   - A file that is not understood, or that has another currency than the ledger, is refused.
//
// Days are the provider's buckets, in UTC, and the days on which the ledger charged: what ran over
// midnight is a difference on two days that cancels out in the totals.
//
// Pure. Tested by small exports in testdata with the report that each must give, by tables of wrong
// numbers and files, and by a property: what is compared with itself has no difference, and one token
// more anywhere is found.
package reconcile
