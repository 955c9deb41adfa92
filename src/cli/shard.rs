//! `sage shard`: one replica of one group.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use crate::cli::flags::THREADS_MAX;
use crate::cli::{Ending, flags};
use crate::server::{ShardOptions, run_shard};
use crate::store::snapshot::Codec;
use crate::types::limits::MEMBERS_MAX;
use crate::types::units::{parse_bytes, parse_duration};

/// The shortest `--heartbeat`: below it a busy machine misses its own.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
/// The longest `--election-timeout-max`.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The smallest `--snapshot-log-size`, in bytes.
const SNAPSHOT_LOG_BYTES_MIN: u64 = 64 * 1024;

const EXAMPLE: &str = "\
Example: a group of three on one machine
  sage shard --port 4101 --data d1 --quorum 2 --replicas http://127.0.0.1:4102,http://127.0.0.1:4103
  sage shard --port 4102 --data d2 --quorum 2 --replicas http://127.0.0.1:4101,http://127.0.0.1:4103
  sage shard --port 4103 --data d3 --quorum 2 --replicas http://127.0.0.1:4101,http://127.0.0.1:4102";

/// Run one replica of one shard group
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct ShardArgs {
    /// The port to listen on
    #[arg(long, env = "SAGE_PORT", default_value_t = 4101, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The address to listen on
    #[arg(long, env = "SAGE_LISTEN", value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// The URL at which others reach this replica; if not given, 127.0.0.1 or the address of
    /// --listen, with the port
    #[arg(long, env = "SAGE_ADVERTISE", value_name = "URL")]
    advertise: Option<String>,
    /// The data directory; made if it is not there
    #[arg(long, env = "SAGE_DATA", value_name = "DIR", default_value = "./data")]
    data: PathBuf,
    /// The URLs of the other members of the group; none for a group of one
    #[arg(long, env = "SAGE_REPLICAS", value_name = "URL,URL", value_delimiter = ',')]
    replicas: Vec<String>,
    /// How many replicas must have a write on disk, at least; never less than a majority
    #[arg(long, env = "SAGE_QUORUM", value_name = "N", default_value_t = 1)]
    quorum: u32,
    /// The group's name; if not given, shard- and the port of the member that forms the group
    #[arg(long, env = "SAGE_ID", value_name = "NAME")]
    id: Option<String>,
    /// The largest value
    #[arg(long, env = "SAGE_MAX_VALUE_SIZE", value_name = "SIZE", default_value = "8MiB", value_parser = parse_bytes)]
    max_value_size: u64,
    /// The time between two heartbeats of a leader
    #[arg(long, env = "SAGE_HEARTBEAT", value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    heartbeat: Duration,
    /// The shortest silence of a leader after which another stands for election
    #[arg(long, env = "SAGE_ELECTION_TIMEOUT_MIN", value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    election_timeout_min: Duration,
    /// The longest such silence
    #[arg(long, env = "SAGE_ELECTION_TIMEOUT_MAX", value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    election_timeout_max: Duration,
    /// Take a snapshot after this much log
    #[arg(long, env = "SAGE_SNAPSHOT_LOG_SIZE", value_name = "SIZE", default_value = "64MiB", value_parser = parse_bytes)]
    snapshot_log_size: u64,
    /// How snapshots are packed; versions before this flag read no zstd
    #[arg(long, env = "SAGE_SNAPSHOT_CODEC", value_name = "CODEC", default_value = "lz4")]
    snapshot_codec: SnapshotCodec,
    /// Keep this many entries of the log behind a snapshot, for slow followers
    #[arg(long, env = "SAGE_KEEP_LOG_ENTRIES", value_name = "N", default_value_t = 50_000)]
    keep_log_entries: u64,
    /// The most memory for keys and values; beyond it writes are refused, reads and deletes go on.
    /// 0 for no limit
    #[arg(long, env = "SAGE_MAX_MEMORY", value_name = "SIZE", default_value = "0", value_parser = parse_bytes)]
    max_memory: u64,
    /// Keep this much free on the disk: with less, and room for a snapshot, writes are refused
    #[arg(long, env = "SAGE_MIN_FREE_DISK", value_name = "SIZE", default_value = "128MiB", value_parser = parse_bytes)]
    min_free_disk: u64,
    /// Read log and snapshot again this often, slowly, and repair what is damaged; 0s for never
    #[arg(long, env = "SAGE_SCRUB_INTERVAL", value_name = "TIME", default_value = "6h", value_parser = parse_duration)]
    scrub_interval: Duration,
    /// Keep the newest changes, up to this size, for watchers that come again
    #[arg(long, env = "SAGE_WATCH_HISTORY", value_name = "SIZE", default_value = "32MiB", value_parser = parse_bytes)]
    watch_history: u64,
    /// Worker threads; if not given, half as many as there are processors, and at least one
    #[arg(long, env = "SAGE_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    threads: Option<u16>,
}

/// `--snapshot-codec`.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum SnapshotCodec {
    None,
    Lz4,
    Zstd,
}

impl From<SnapshotCodec> for Codec {
    fn from(codec: SnapshotCodec) -> Self {
        match codec {
            SnapshotCodec::None => Self::None,
            SnapshotCodec::Lz4 => Self::Lz4,
            SnapshotCodec::Zstd => Self::Zstd,
        }
    }
}

impl ShardArgs {
    pub(super) fn threads(&self) -> usize {
        flags::threads(self.threads)
    }

    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        run_shard(self.options()?).await?;
        Ok(Ending::Done)
    }

    fn options(self) -> anyhow::Result<ShardOptions> {
        self.check_times()?;
        let advertise = match &self.advertise {
            Some(url) => flags::url("--advertise", url)?,
            None => default_advertise(self.listen, self.port),
        };
        let replicas = flags::urls("--replicas", &self.replicas)?;
        ensure!(
            !replicas.contains(&advertise),
            "--replicas lists this replica's own URL {advertise}; list only the other members"
        );
        let members = replicas.len() + 1;
        ensure!(
            members <= MEMBERS_MAX,
            "--replicas makes a group of {members}; at most {MEMBERS_MAX} are possible"
        );
        ensure!(self.quorum >= 1, "--quorum must be at least 1");
        ensure!(
            self.quorum as usize <= members,
            "--quorum {} is more than the group has: with --replicas it has {members}",
            self.quorum
        );
        ensure!(
            self.snapshot_log_size >= SNAPSHOT_LOG_BYTES_MIN,
            "--snapshot-log-size must be at least 64KiB"
        );
        ensure!(!self.data.as_os_str().is_empty(), "--data must name a directory");
        Ok(ShardOptions {
            port: self.port,
            listen: self.listen,
            advertise,
            data: self.data,
            replicas,
            quorum: self.quorum,
            id: self.id.as_deref().map(flags::group_name).transpose()?,
            max_value_bytes: flags::max_value_bytes(self.max_value_size)?,
            heartbeat: self.heartbeat,
            election_timeout_min: self.election_timeout_min,
            election_timeout_max: self.election_timeout_max,
            snapshot_log_bytes: self.snapshot_log_size,
            snapshot_codec: self.snapshot_codec.into(),
            keep_log_entries: self.keep_log_entries,
            max_memory: flags::max_memory(self.max_memory)?,
            min_free_disk: self.min_free_disk,
            scrub_interval: self.scrub_interval,
            watch_history: self.watch_history,
        })
    }

    fn check_times(&self) -> anyhow::Result<()> {
        ensure!(
            self.heartbeat >= HEARTBEAT_MIN,
            "--heartbeat must be at least {}ms",
            HEARTBEAT_MIN.as_millis()
        );
        ensure!(
            self.election_timeout_min >= self.heartbeat.saturating_mul(3),
            "--election-timeout-min must be at least three times --heartbeat, so that one lost \
             heartbeat ends no leadership"
        );
        ensure!(
            self.election_timeout_max > self.election_timeout_min,
            "--election-timeout-max must be more than --election-timeout-min, so that members \
             don't all stand at once"
        );
        ensure!(
            self.election_timeout_max <= ELECTION_TIMEOUT_MAX,
            "--election-timeout-max must be at most {}s",
            ELECTION_TIMEOUT_MAX.as_secs()
        );
        Ok(())
    }
}

/// Where others reach a replica that was not told: on this machine, unless it listens on an
/// address of its own and so not there.
fn default_advertise(listen: IpAddr, port: u16) -> String {
    match listen {
        address if address.is_unspecified() => format!("http://127.0.0.1:{port}"),
        IpAddr::V4(address) => format!("http://{address}:{port}"),
        IpAddr::V6(address) => format!("http://[{address}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    use super::*;

    fn options(flags: &str) -> Result<ShardOptions, String> {
        let words = ["sage", "shard"].into_iter().chain(flags.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Shard(args) = cli.command else { panic!("not a shard") };
        args.options().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_replica_alone_needs_no_flags() {
        let expected = ShardOptions {
            port: 4101,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise: "http://127.0.0.1:4101".into(),
            data: "./data".into(),
            replicas: Vec::new(),
            quorum: 1,
            id: None,
            max_value_bytes: 8 * 1024 * 1024,
            heartbeat: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_secs(1),
            snapshot_log_bytes: 64 * 1024 * 1024,
            snapshot_codec: Codec::Lz4,
            keep_log_entries: 50_000,
            max_memory: None,
            min_free_disk: crate::types::limits::MIN_FREE_DISK_DEFAULT,
            scrub_interval: crate::types::limits::SCRUB_INTERVAL_DEFAULT,
            watch_history: crate::types::limits::WATCH_HISTORY_BYTES_DEFAULT,
        };
        assert_eq!(options(""), Ok(expected));
    }

    #[test]
    fn a_member_of_three_lists_the_others() {
        let three = options("--port 4102 --quorum 3 --replicas http://a:1/,http://B:2 --id eu-1");
        let three = three.expect("valid");
        assert_eq!(three.replicas, ["http://a:1", "http://b:2"]);
        assert_eq!((three.quorum, three.id.as_deref()), (3, Some("eu-1")));
    }

    #[test]
    fn memory_is_bounded_only_if_that_was_asked_for() {
        let bound = |flags: &str| options(flags).expect("valid").max_memory;
        assert_eq!(bound("--max-memory 512MiB"), Some(512 << 20));
        assert_eq!(bound("--max-memory 2g"), Some(2 << 30));
        assert_eq!(bound("--max-memory 0"), None);
    }

    #[test]
    fn what_it_advertises_can_be_reached() {
        let advertise = |flags: &str| options(flags).expect("valid").advertise;
        assert_eq!(advertise("--port 5000 --listen 0.0.0.0"), "http://127.0.0.1:5000");
        assert_eq!(advertise("--listen 10.0.0.7"), "http://10.0.0.7:4101");
        assert_eq!(advertise("--listen ::1"), "http://[::1]:4101");
        assert_eq!(advertise("--advertise http://Node:80/"), "http://node:80");
    }

    #[test]
    fn what_can_not_work_is_refused_with_a_sentence() {
        let cases = [
            ("--port 0", "0 is not in 1..=65535"),
            ("--port 70000", "70000 is not in 1..=65535"),
            ("--listen localhost", "invalid IP address"),
            ("--quorum 0", "--quorum must be at least 1"),
            ("--quorum 2", "--quorum 2 is more than the group has: with --replicas it has 1"),
            ("--quorum 4 --replicas http://a:1,http://b:1", "it has 3"),
            ("--replicas http://a:1,http://a:1/", "lists http://a:1 twice"),
            ("--replicas http://127.0.0.1:4101", "own URL http://127.0.0.1:4101"),
            ("--replicas https://a:1", "--replicas: https://a:1 asks for https"),
            ("--replicas http://a", "has no port"),
            ("--advertise http://a:1/x", "something after the port"),
            ("--id a/b", "--id must be"),
            ("--max-value-size 65MiB", "--max-value-size must be"),
            ("--max-value-size x", "not a size"),
            ("--heartbeat 5ms", "--heartbeat must be at least 10ms"),
            ("--heartbeat 100", "not a duration"),
            ("--heartbeat 200ms", "at least three times --heartbeat"),
            ("--election-timeout-min 1s", "--election-timeout-max must be more"),
            ("--election-timeout-max 61s", "must be at most 60s"),
            ("--snapshot-log-size 1KiB", "--snapshot-log-size must be at least"),
            ("--max-memory 1023KiB", "--max-memory must be at least 1 MiB, or 0 for no limit"),
            ("--max-memory 1TB", "not a size"),
            ("--threads 0", "0 is not in 1..=1024"),
            ("--unknown", "unexpected argument"),
        ];
        for (flags, sentence) in cases {
            let error = options(flags).expect_err(flags);
            assert!(error.contains(sentence), "{flags}: {error}");
        }
        let many: Vec<String> = (1..=15).map(|port| format!("http://a:{port}")).collect();
        let error = options(&format!("--replicas {}", many.join(","))).expect_err("too many");
        assert!(error.contains("a group of 16; at most 15"), "{error}");
    }
}
