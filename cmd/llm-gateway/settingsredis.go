package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// maxRedisDB bounds REDIS_DB: Redis has 16 databases unless told otherwise, and never more than this.
const maxRedisDB = 1<<31 - 1

func redisSettings() []setting {
	// REDIS_PORT is what Kubernetes sets beside a Service of that name, as tcp://10.0.0.7:6379. So the parts are read
	// only where they are used (deriveRedis).
	unread := func(*Settings, string) error { return nil }
	return []setting{
		{"REDIS_URL", "", true,
			"Redis, as redis://user:password@host:port/database; rediss:// for TLS (by the system's certificate authorities or REDIS_CA_FILE), several host:port with commas between them for a cluster, sentinels with ?master_name=. It holds balances that give an early no, and is never needed to be right. Empty: REDIS_HOST, and where that is empty, too, an embedded one.",
			readRedisURL},
		{"REDIS_HOST", "", false,
			"The host name or IP address of a Redis that wants neither a password nor TLS, which take REDIS_URL. Where REDIS_URL is set, this and the next two are not looked at.",
			unread},
		{"REDIS_PORT", "6379", false, "The port of REDIS_HOST.", unread},
		{"REDIS_DB", "0", false, "The number of the database there.", unread},
	}
}

// deriveRedis makes REDIS_URL of REDIS_HOST, REDIS_PORT and REDIS_DB, where it is not set itself.
func (s *Settings) deriveRedis(readings []reading) {
	by := map[string]*reading{}
	for i := range readings {
		by[readings[i].of.name] = &readings[i]
	}
	url, host, port, db := by["REDIS_URL"], by["REDIS_HOST"], by["REDIS_PORT"], by["REDIS_DB"]
	if url.value != "" || url.problem != "" || host.value == "" {
		return
	}
	var portNumber, number int
	if !host.fits(redisHost) || !port.fits(wholeNumber(&portNumber, 1, 65535)) || !db.fits(wholeNumber(&number, 0, maxRedisDB)) {
		return
	}
	url.value, url.from = fmt.Sprintf("redis://%s/%d", net.JoinHostPort(host.value, strconv.Itoa(portNumber)), number), host.of.name
	if err := readRedisURL(s, url.value); err != nil {
		host.problem = host.of.complaint(host.value, err)
	}
}

// fits says whether a value can be used; where not, the reading has a problem.
func (r *reading) fits(check func(string) error) bool {
	if err := check(r.value); err != nil && r.problem == "" {
		r.problem = r.of.complaint(r.value, err)
	}
	return r.problem == ""
}

// wholeNumber takes whole numbers between two.
func wholeNumber(into *int, least, most int) func(string) error {
	return func(value string) error {
		return between(func(*Settings) *int { return into }, least, most)(nil, value)
	}
}

// redisHost takes what may stand in a URL alone: names of containers have underscores.
func redisHost(value string) error {
	if _, err := netip.ParseAddr(value); err != nil && !isHost(strings.ReplaceAll(value, "_", "-")) {
		return errors.New("it must be an IP address or a host name, without a port")
	}
	return nil
}
