// Package chattest reads what the tests of the translators have in common: recorded traffic of real providers,
// and tables of requests in testdata. Only tests import it.
//
// The problem: ten packages are held against the same recordings, and a test that reads them in a way of its
// own may pass over what it was meant to see.
//
// Invariants:
//   - The recordings are beside the project, not in it. Where they are absent the test is skipped, and says
//     so; where they are fewer than the test counts on, it fails.
//   - A table that is not whole fails the test.
//
// Tests: its own, on texts; and all that use it.
package chattest
