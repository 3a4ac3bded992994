package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"llm-gateway/cmd/llm-gateway/embedded"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
)

// goodReplicas is how many copies survive the loss of one while another is repaired.
const goodReplicas = 3

// checkKafkaServer connects to Kafka as `serve` does, makes nothing, and names what is missing.
func checkKafkaServer(ctx context.Context, s *Settings) (f findings) {
	at, own := f.serverAt(s, "KAFKA_BROKERS", strings.Join(s.KafkaBrokers, ","),
		func(e embedded.Endpoints) string { return strings.Join(e.KafkaBrokers, ",") })
	if at == "" {
		return f
	}
	x := &examinedKafka{settings: s, backend: backend{streams: externalStreams(s)}, embedded: own}
	x.brokers = strings.Split(at, ",")
	x.examine(ctx)
	return append(f, x.findings...)
}

// examinedKafka is a Kafka that is being checked.
type examinedKafka struct {
	findings
	backend
	settings *Settings
	embedded bool
	client   *kgo.Client
	admin    *kadm.Client
}

func (x *examinedKafka) options(more ...kgo.Opt) []kgo.Opt {
	opts := append([]kgo.Opt{kgo.SeedBrokers(x.brokers...), kgo.ClientID(program + "-check"), kgo.DisableClientMetrics(), kgo.RetryTimeout(checkTimeout)}, more...)
	if login := x.settings.kafkaLogin(); login != nil {
		opts = append(opts, kgo.SASL(login))
	}
	if x.settings.KafkaTLS {
		trust, _ := x.settings.KafkaTrust.config() //nolint:errcheck // it was read when the settings were
		opts = append(opts, kgo.DialTLSConfig(trust))
	}
	return opts
}

func (x *examinedKafka) examine(ctx context.Context) {
	var err error
	if x.client, err = kgo.NewClient(x.options()...); err != nil {
		x.failf("connection", "KAFKA_BROKERS: %s", err)
		return
	}
	defer x.client.Close()
	x.admin = kadm.NewClient(x.client)
	cluster, err := x.admin.BrokerMetadata(ctx)
	if err != nil {
		x.failf("connection", "KAFKA_BROKERS: %s", x.why(err))
		return
	}
	x.okf("connection", "%d brokers, cluster %s", len(cluster.Brokers), cluster.Cluster)
	x.either(cluster.Controller >= 0, "controller", fmt.Sprintf("broker %d", cluster.Controller), verdictWarn, "there is none at the moment: topics cannot be made or changed")
	x.security()
	ask := func() error {
		_, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, x.client)
		return err
	}
	if !x.median("a request", ask) {
		return
	}
	x.topic(ctx, len(cluster.Brokers))
	x.transactions(ctx)
}

// why is an error in the words of rights and settings.
func (x *examinedKafka) why(err error) string {
	for failed, right := range map[error]string{
		kerr.TopicAuthorizationFailed:           "the login lacks rights on the topic " + x.settings.KafkaTopic + ": READ, WRITE, CREATE, DESCRIBE and DESCRIBE_CONFIGS",
		kerr.TransactionalIDAuthorizationFailed: "the login lacks WRITE and DESCRIBE on transactional ids that begin with " + x.settings.KafkaTopic,
		kerr.ClusterAuthorizationFailed:         "the login lacks rights on the cluster: DESCRIBE, and CREATE where the topic is not there yet",
		kerr.GroupAuthorizationFailed:           "the login lacks READ on the group",
		kerr.SaslAuthenticationFailed:           "it refuses KAFKA_USERNAME and KAFKA_PASSWORD (KAFKA_SASL=" + x.settings.KafkaSASL + ")",
	} {
		if errors.Is(err, failed) {
			return right
		}
	}
	return kafkaError(err, x.brokers).Error()
}

func (x *examinedKafka) security() {
	s, here := x.settings, true
	for _, broker := range x.brokers {
		host, _, err := net.SplitHostPort(broker)
		here = here && err == nil && local(host)
	}
	switch {
	case s.KafkaTLS:
		x.okf("TLS", "encrypted, and the certificates are checked")
	case here:
		x.okf("TLS", "not needed on this machine")
	case s.KafkaSASL == saslPlain:
		x.failf("TLS", "KAFKA_SASL=plain without KAFKA_TLS sends the password in the clear")
	default:
		x.warnf("TLS", "none: events can be read on the way. Set KAFKA_TLS=true")
	}
	switch {
	case s.KafkaSASL != saslNone:
		x.okf("login", "%s as %s", s.KafkaSASL, s.KafkaUsername)
	case here:
		x.okf("login", "not needed on this machine")
	default:
		x.warnf("login", "none: whoever reaches these brokers can write events into the topic. Set KAFKA_SASL")
	}
}

// topic checks what there is; `serve` makes it where there is none.
func (x *examinedKafka) topic(ctx context.Context, brokers int) {
	name := x.settings.KafkaTopic
	details, err := x.admin.ListTopics(ctx, name)
	if err == nil {
		err = details[name].Err
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		x.okf("topic", "%s is not there yet: serve makes it", name)
		return
	case err != nil:
		x.failf("topic", "%s: %s", name, x.why(err))
		return
	}
	found := details[name]
	shards := x.shards(ctx, len(found.Partitions))
	c := x.kafkaConfig(x.settings, ledger.Meta{Shards: shards}, nil)
	t, err := topic.Open(c)
	if err != nil {
		x.failf("topic", "%s: %s", name, err)
		return
	}
	defer t.Close()
	if err := t.Check(ctx); err != nil {
		x.failf("topic", "%s: %s", name, x.why(err))
	} else {
		x.okf("topic", "%s has %d partitions, and keeps everything for ever", name, shards)
	}
	x.copies(ctx, found, brokers)
}

// shards is how many partitions there must be: what the settings or the ledger say, or else what there is.
func (x *examinedKafka) shards(ctx context.Context, there int) int {
	if x.settings.LedgerShards != 0 {
		return x.settings.LedgerShards
	}
	if x.settings.DatabaseURL != "" {
		config, err := ledger.ConnConfig(string(x.settings.DatabaseURL), "", x.settings.Pooled)
		if err == nil {
			if n, err := ledgerShards(ctx, config); err == nil {
				return n
			}
		}
	}
	return max(1, there)
}

// copies looks at how many brokers have the events.
func (x *examinedKafka) copies(ctx context.Context, found kadm.TopicDetail, brokers int) {
	replicas := found.Partitions.NumReplicas()
	switch {
	case x.embedded:
		x.okf("replication", "embedded: one disk")
	case replicas >= goodReplicas:
		x.okf("replication", "factor %d", replicas)
	case brokers == 1:
		x.warnf("replication", "one broker: when it loses its disk, the topic is filled again from the ledger, and is no witness of it any more")
	default:
		x.warnf("replication", "factor %d: %d survives the loss of a broker while another is repaired", replicas, goodReplicas)
	}
	configs, err := x.admin.DescribeTopicConfigs(ctx, x.settings.KafkaTopic)
	if err != nil {
		x.skipf("min.insync.replicas", "it does not tell: %s", x.why(err))
		return
	}
	for _, c := range configs {
		for _, one := range c.Configs {
			if n, err := strconv.Atoi(one.MaybeValue()); one.Key == "min.insync.replicas" && err == nil && !x.embedded {
				x.either(n >= 2 || replicas < 2, one.Key, one.MaybeValue(), verdictWarn, one.MaybeValue()+": with 2 an event is on two disks before it counts as published")
			}
		}
	}
}

// transactions asks for a producer id, under a name of its own, which every relay needs.
func (x *examinedKafka) transactions(ctx context.Context) {
	producer, err := kgo.NewClient(x.options(kgo.TransactionalID(x.settings.KafkaTopic + "-check"))...)
	if err == nil {
		defer producer.Close()
		_, _, err = producer.ProducerID(ctx)
	}
	if err != nil {
		x.failf("transactions", "%s", x.why(err))
		return
	}
	x.okf("transactions", "a producer can be begun")
}
