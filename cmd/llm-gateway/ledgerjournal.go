package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/journal"
)

var ledgerJournalVerb = verb{
	name: "ledger journal", args: "[--json]",
	summary: "list what waits in this DATA_DIR's journal for the ledger to come back, and what the ledger refused of it",
	about: `It reads the files, beside a running gateway or without one, and changes nothing. What was just booked
may still be listed for a moment. A refused command is money that could not be booked: the reason says why.`,
	run: runLedgerJournal,
}

// journaledOut is one command in the JSON of `ledger journal`.
type journaledOut struct {
	State     string         `json:"state"` // waiting, refused
	SpooledAt time.Time      `json:"spooled_at"`
	CommandID uuid.UUID      `json:"command_id"`
	Op        string         `json:"op"` // settle, release, spooled
	Account   string         `json:"account"`
	RequestID uuid.UUID      `json:"request_id"`
	Charge    *domain.Amount `json:"charge,omitempty"`
	Reason    string         `json:"reason,omitempty"` // of a release, or of the refusal
	RefusedAt *time.Time     `json:"refused_at,omitempty"`
	File      string         `json:"file"`
}

func journaled(e journal.Entry) journaledOut {
	c := e.Command
	out := journaledOut{State: "waiting", SpooledAt: c.SpooledAt, CommandID: c.ID, Account: c.Account, RequestID: c.Op.Request(), File: e.File}
	switch o := c.Op.(type) {
	case domain.Settle:
		out.Op, out.Charge = "settle", &o.Charge
	case domain.Spooled:
		out.Op, out.Charge = "spooled", &o.Charge
	case domain.Release:
		out.Op, out.Reason = "release", string(o.Reason)
	}
	if e.Refused != nil {
		out.State, out.Reason, out.RefusedAt = "refused", string(e.Refused.Reason), &e.Refused.At
	}
	return out
}

func runLedgerJournal(_ context.Context, a *app, args []string) error {
	fs := a.flags()
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	all, failed := readJournal(journalDir(s.DataDir))
	if *asJSON {
		err = a.printJSON(all)
	} else {
		err = a.printJournal(all)
	}
	return errors.Join(err, failed)
}

// readJournal lists a journal; where it is damaged it lists the rest, and says so.
func readJournal(dir string) (all []journaledOut, failed error) {
	all = []journaledOut{}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	for e, err := range journal.Read(dir) {
		switch {
		case err == nil:
			all = append(all, journaled(e))
		case failed == nil:
			failed = fmt.Errorf("the journal cannot be read to its end: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	return all, failed
}

func (a *app) printJournal(all []journaledOut) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(a.stdout, "the journal is empty")
		return err
	}
	rows := [][]string{{"STATE", "SPOOLED AT", "OP", "ACCOUNT", "REQUEST", "CHARGE", "REASON"}}
	for _, j := range all {
		charge := ""
		if j.Charge != nil {
			charge = j.Charge.String()
		}
		rows = append(rows, []string{j.State, j.SpooledAt.UTC().Format(time.RFC3339), j.Op, j.Account, j.RequestID.String(), charge, j.Reason})
	}
	return a.printTable(rows)
}
