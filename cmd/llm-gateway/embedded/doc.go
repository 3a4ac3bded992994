// Package embedded runs the parts that llm-gateway brings along when nothing is configured, so that
// `llm-gateway serve` works on a bare machine and still speaks the protocols of the real servers.
//
// Problem: a Postgres child process that holds real money, a Kafka in this process that witnesses it,
// and a Redis in this process that may forget. Postgres must start for root (it refuses to run as root
// itself) and for an ordinary user, from a data directory below directories that the unprivileged user
// cannot enter; it must not outlive us, however we die. What Postgres committed and what Kafka
// acknowledged must be there at the next start, and nothing else.
//
// Layout of a DATA_DIR:
//
//	lock               flock of the process that runs the embedded parts (Lock)
//	endpoints.json     where they listen (WriteEndpoints), 0600
//	postgres/          the cluster; owned by the unprivileged user when we are root
//	postgres.init-*    a cluster being made; never looked at, removed at the next start
//	postgres.lock      flock inherited by every Postgres process, so held until the last is gone
//	postgres.password  of the cluster's superuser, 0600
//	postgres.log       of initdb and postgres, 0600; postgres.log.1 is the one before
//	kafka/             Kafka's topics, records and producers, 0700, as kfake writes them
//
// Invariants:
//   - A data directory is never deleted. A cluster of another major version is never started: it is
//     refused with ErrDataVersion before anything in DATA_DIR is changed. A kafka/ that is damaged is
//     refused with ErrDamaged in the same way.
//   - postgres/ is either absent or a complete cluster: it is made elsewhere, synced and renamed.
//   - Postgres is gone within 3 s of our death, SIGKILL included: the kernel sends it SIGQUIT (Linux)
//     or a watching shell does (other Unix systems). Windows is not supported. Kafka and Redis die
//     with the process that they are in.
//   - No two Postgres ever run on one cluster: the lock outlives a killed gateway exactly as long as
//     its last backend does.
//   - Postgres gets none of our environment, so none of our secrets.
//   - kafka/ is mended before kfake reads it (see mending): no transaction is open then, so that what
//     was not committed is never seen, and what was is.
//   - All listen on 127.0.0.1 only, on ports that were free. Other users of the machine can connect:
//     Postgres and Redis ask for a password, Kafka does not. Whoever writes to the topic so, or reads
//     it, has an account on this machine; the relay and `ledger verify` find what is not the ledger's.
//   - Redis begins empty at each start (see StartRedis).
//
// What kfake does not do: it puts the producer's time on records where the topic asks for its own
// (message.timestamp.type), and does not look whether a sync of a file has failed.
//
// Tests run real Postgres binaries: restarts, SIGKILL of a helper process that owns the child, other
// versions, 0700 parents, left-overs, root and an ordinary user, local and fetched binaries. Kafka is
// killed at random moments under transactional producers, its files are cut at every byte of what was
// written last, and damaged in every way we could think of.
package embedded
