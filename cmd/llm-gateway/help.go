package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

const helpHead = `LLM Gateway: the OpenAI API for many providers, with every request billed in a ledger.

usage: llm-gateway [VERB] [flags]        without a verb: serve

`

const helpTail = `
Settings are environment variables, or lines of a .env file in the working directory; env.example
lists them all. ` + "`llm-gateway VERB -h`" + ` explains a verb.
`

// runHelp lists all verbs, explains one, or lists those of a group.
func runHelp(ctx context.Context, a *app, args []string) error {
	if len(args) > 0 && isHelp(args[0]) {
		args = nil
	}
	words, all := strings.Join(args, " "), verbs()
	if v := named(all, words); v.run != nil && v.name != "help" {
		a.verb = v
		return v.run(ctx, a, []string{"-h"})
	}
	var rows [][]string
	for _, v := range all {
		if words == "" || words == "help" || strings.HasPrefix(v.name, words+" ") {
			rows = append(rows, []string{"  " + v.name, v.summary})
		}
	}
	if len(rows) == 0 {
		return a.usage("there is no verb %.40q", words)
	}
	fmt.Fprint(a.stdout, helpHead)
	if err := a.printTable(rows); err != nil {
		return err
	}
	fmt.Fprint(a.stdout, helpTail)
	return nil
}

// build is what `version` says.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // the tree had changes that the revision has not
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: "(unknown)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// version is this build's version, for logs and answers.
func version() string { return thisBuild().Version }

func runVersion(_ context.Context, a *app, args []string) error {
	fs := a.flags()
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	b := thisBuild()
	if *asJSON {
		return a.printJSON(b)
	}
	fmt.Fprintln(a.stdout, strings.Join(strings.Fields(strings.Join([]string{program, b.Version, b.Revision, b.Go, b.Platform}, " ")), " "))
	return nil
}
