// Package statement writes domain.Statement for people and programs: JSON, CSV and a page to print.
//
// Problem: an accountant compares documents, and a spreadsheet runs what it is given. So one statement has
// one form in each format, whoever asks for it by whichever way, and no text in it can become a formula or
// markup.
//
// Invariants:
//   - The same statement is the same bytes; no format has the time at which it was written.
//   - Money is text with all its digits, never a float; amounts are signed as they change the balance, so
//     that the opening balance and all lines are the closing balance, in each format.
//   - In CSV, a text that a spreadsheet would take for a formula begins with an apostrophe.
//   - The page needs nothing from elsewhere: no script, no font, no picture.
//
// Pure, but for Zone, which reads the time zone database. Tested by golden files, by adding up what each
// format says, and by hostile texts in every place.
package statement
