// Package fields reads the objects of Google's requests, whose every field has two names: Google takes the
// lowerCamelCase of its documentation and the snake_case of its protocol buffers.
//
// The problem: a request with both could be priced by one of them and served by the other, and whoever
// looks for one name only would not see what the other asks for.
//
// Invariants:
//   - Names are canonical, which is lowerCamelCase; a field whose value is null is absent.
//   - An object that has one field twice, in two spellings, is refused. So is a field whose name differs
//     from one that costs money by its case or its underscores only.
//   - Where Google wants a list it takes a single element too; so does Each.
//
// Tests: a table of objects, and fuzzing: what is read is in the object, once.
package fields
