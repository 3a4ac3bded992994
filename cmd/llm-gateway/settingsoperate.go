package main

import (
	"errors"
	"time"
)

// The words of HEALTH_DETAILS.
const (
	detailsAdmin  = "admin"
	detailsPublic = "public"
)

// The bounds of HEALTH_CHECK_INTERVAL.
const (
	minHealthEvery = 100 * time.Millisecond
	maxHealthEvery = 10 * time.Minute
)

// maxAppVersion bounds APP_VERSION, which is a label and in answers.
const maxAppVersion = 64

// operatingSettings are how the process is watched.
func operatingSettings() []setting {
	return []setting{
		{"LOG_FILE", "", false,
			"Where the log goes: a file, which is opened again at SIGHUP, so that it can be rotated. What it does not take goes to stderr. Empty: stdout.",
			anyText(func(s *Settings) *string { return &s.LogFile })},
		{"DEBUG", "false", false,
			"true: the log is text for people, with stack traces on lines of their own. Otherwise it is text only on a terminal, and JSON elsewhere. Answers never have stack traces.",
			yesNo(func(s *Settings) *bool { return &s.Debug })},
		{"APP_VERSION", "", false, "The version that /health, the metrics and reports of errors name. Empty: the build's own.", readAppVersion},
		{"HEALTH_DETAILS", detailsAdmin, false,
			"Who may read /health/detailed, /health/system and /health/history, which tell what stands behind the gateway: admin (a token or key with that role) or public.",
			readHealthDetails},
		{"HEALTH_CHECK_INTERVAL", "15s", false, "How often all components are checked for them, behind all requests: a duration.", readHealthEvery},
		{"HEALTH_PROBES", "auto", false,
			"on: a provider that nobody has called for 5 minutes is asked for its list of models, which is free, at most once in 5 minutes; off: then nobody knows how it is. auto: on, but off where ENVIRONMENT is development.",
			onOffAuto(func(s *Settings) *bool { return &s.HealthProbes }, func(s *Settings) bool { return !s.Development() })},
	}
}

func readAppVersion(s *Settings, value string) error {
	s.AppVersion = value
	for i := range len(value) {
		if value[i] <= ' ' || value[i] > '~' || i >= maxAppVersion {
			return errors.New("it must be one word of at most 64 printable ASCII characters")
		}
	}
	return nil
}

func readHealthDetails(s *Settings, value string) error {
	var word string
	err := oneOf(func(*Settings) *string { return &word }, detailsAdmin, detailsPublic)(s, value)
	s.HealthPublic = word == detailsPublic
	return err
}

func readHealthEvery(s *Settings, value string) error {
	err := duration(func(s *Settings) *time.Duration { return &s.HealthEvery }, maxHealthEvery)(s, value)
	if err == nil && s.HealthEvery < minHealthEvery {
		return errors.New("it must be at least " + minHealthEvery.String())
	}
	return err
}

// version is what this gateway calls itself.
func (s *Settings) version() string { return or(s.AppVersion, version()) }
