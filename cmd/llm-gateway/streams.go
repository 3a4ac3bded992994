package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/projections"
)

// kafkaConfig is what the ledger's topic is opened with. TLS and a login go with KAFKA_BROKERS only, so
// an embedded Kafka never has them (Settings.kafkaContradictions).
func (b backend) kafkaConfig(s *Settings, m ledger.Meta, log *slog.Logger) topic.Config {
	c := topic.Config{Brokers: b.brokers, Name: s.KafkaTopic, Ledger: m.ID, Shards: m.Shards, SASL: s.kafkaLogin(), Log: log}
	if s.KafkaTLS {
		c.TLS, _ = s.KafkaTrust.config() // it was read when the settings were
	}
	return c
}

// kafkaLogin is how KAFKA_SASL logs in; nil is not at all.
func (s *Settings) kafkaLogin() sasl.Mechanism {
	user, password := s.KafkaUsername, string(s.KafkaPassword)
	switch s.KafkaSASL {
	case saslPlain:
		return plain.Auth{User: user, Pass: password}.AsMechanism()
	case saslSHA256:
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	case saslSHA512:
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	}
	return nil
}

// kafkaError says in one line why Kafka could not be used, and where it is; never with the password.
func kafkaError(err error, brokers []string) error {
	refused := new(kerr.Error)
	switch {
	case err == nil || errors.Is(err, topic.ErrMismatch) || errors.Is(err, topic.ErrFenced):
		return err
	case errors.As(err, &refused):
		return fmt.Errorf("the Kafka at %s refuses: %s (%s)", strings.Join(brokers, ","), oneLine(refused.Description), refused.Message)
	case errors.Is(err, io.EOF): // what brokers do about TLS or a login that they do not expect
		return fmt.Errorf("the Kafka at %s closes the connection: are KAFKA_TLS and KAFKA_SASL as it needs them?", strings.Join(brokers, ","))
	case unreached(err):
		return fmt.Errorf("no Kafka can be reached at %s: %s", strings.Join(brokers, ","), reason(err))
	}
	return err
}

// redisError says in one line why Redis could not be used, and where it is; never with the password.
func redisError(err error, at Secret) error {
	_, where, _ := strings.Cut(string(at), "://")
	if end := strings.IndexAny(where, "/?#"); end >= 0 {
		where = where[:end]
	}
	where = where[strings.LastIndexByte(where, '@')+1:]
	var refused redis.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return fmt.Errorf("the Redis at %s refuses: %s", where, oneLine(refused.Error()))
	case errors.Is(err, projections.ErrRedisAway):
		return fmt.Errorf("no Redis can be used at %s: it is away, or refuses the login", where)
	case unreached(err):
		return fmt.Errorf("no Redis can be reached at %s: %s", where, reason(err))
	}
	return err
}

// unreached says whether an error is about a connection.
func unreached(err error) bool {
	return errors.As(err, new(net.Error)) || errors.As(err, new(*tls.CertificateVerificationError)) || errors.Is(err, context.DeadlineExceeded)
}
