// Package upstreams reads the file that the setting UPSTREAMS names: which providers are called beside
// and instead of the built-in ones, by which keys, for which models at which prices, and what is tried
// when one fails.
//
// The problem: this file decides where requests and credentials go and what is charged for them. A
// misspelt field that is silently a default sends a key to the wrong host, or serves a dear model at a
// cheap one's price. So reading it is as strict as reading a price book, whose forms of models and
// prices it shares: an unknown field, a field without a value, a model without a price, a key that is
// not there or an address that is none refuses the whole file, and the error names the line.
//
// Invariants:
//   - No secret is in an error, in a File as fmt or JSON prints it, or quoted from a file that is broken
//     where the secret stands: errors quote only what cannot be one.
//   - A file that loads and passes Check can be served: every name leads to a priced model.
//   - Nothing is asked of the network, and loading has no side effect, so that a reload that fails
//     leaves what is in force.
//
// deployments/upstreams.example.yaml explains the form. Tested by tables of good and broken files in
// testdata with what they load as and the errors they give, by a secret that is put into every place of
// a file, and by loading the example.
package upstreams
