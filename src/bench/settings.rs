//! What is run: workloads, how many clients, how fast, over which keys; and what can't be run, with the cure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::bench::keys::key_name;
use crate::types::limits::{
    BENCH_CLIENTS_MAX, BENCH_DURATION_MAX, BENCH_KEYS_MAX, BENCH_RATE_MAX, BENCH_THREADS_MAX,
    KEY_BYTES_MAX, REQUEST_TIMEOUT_MAX, VALUE_BYTES_MAX,
};

/// The digits behind the prefix of a key.
pub(super) const KEY_DIGITS: usize = 10;

/// A mix of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Nothing but writes.
    Put,
    /// Nothing but reads.
    Get,
    /// YCSB A, update heavy: half reads, half updates.
    YcsbA,
    /// YCSB B, read mostly: 95 % reads, 5 % updates.
    YcsbB,
    /// YCSB C, read only.
    YcsbC,
}

impl Workload {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::YcsbA, Self::YcsbB, Self::YcsbC];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::YcsbA => "ycsb-a",
            Self::YcsbB => "ycsb-b",
            Self::YcsbC => "ycsb-c",
        }
    }

    /// How many of a hundred operations are reads.
    pub fn read_percent(self) -> u32 {
        match self {
            Self::Put => 0,
            Self::YcsbA => 50,
            Self::YcsbB => 95,
            Self::Get | Self::YcsbC => 100,
        }
    }

    /// Whether its keys must have values before it begins.
    pub fn needs_keys(self) -> bool {
        self.read_percent() > 0
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let known = Self::ALL.into_iter().find(|workload| workload.name() == text);
        known.ok_or_else(|| SettingsError::UnknownWorkload(text.to_owned()))
    }
}

/// How often each key is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// A few hot, most hardly ever: Zipf's law with YCSB's exponent, 0.99.
    Zipfian,
}

/// How the engine runs a workload. Serialised, times are in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Settings {
    /// Connections, each with one operation under way.
    pub clients: usize,
    /// Threads that they are spread over; no more are started than there are clients.
    pub threads: usize,
    /// How long each workload is measured.
    #[serde(rename = "duration_ms", serialize_with = "as_ms")]
    pub duration: Duration,
    /// How long it runs before it is.
    #[serde(rename = "warmup_ms", serialize_with = "as_ms")]
    pub warmup: Duration,
    /// How long an operation, or opening a connection, may take.
    #[serde(rename = "timeout_ms", serialize_with = "as_ms")]
    pub timeout: Duration,
    /// Operations per second of all clients together, on a schedule that does not wait for answers; without
    /// it each client sends the next as soon as it has an answer.
    #[serde(rename = "rate_per_s")]
    pub rate: Option<u64>,
    /// How many keys there are.
    pub keys: u64,
    /// What they start with.
    pub prefix: String,
    /// The size of every value, in bytes.
    #[serde(rename = "value_size_bytes")]
    pub value_size: usize,
    /// How often each key is drawn.
    pub distribution: Distribution,
    /// What keys and values follow from.
    pub seed: u64,
}

fn as_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What can't be run. The names are those of the flags of `sage bench`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingsError {
    /// No such workload.
    #[error("there is no workload {0:?}; there are put, get, ycsb-a, ycsb-b and ycsb-c")]
    UnknownWorkload(String),
    /// A number outside its bounds.
    #[error("--{flag} must be from {least} to {most}, not {given}")]
    Bounds {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: u64,
        /// The smallest that works.
        least: u64,
        /// The largest that works.
        most: u64,
    },
    /// A time outside its bounds.
    #[error("--{flag} must be {}at most {most:?}, not {given:?}", if *.zero { "" } else { "more than 0 and " })]
    Time {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: Duration,
        /// Whether no time at all is allowed.
        zero: bool,
        /// The longest that works.
        most: Duration,
    },
    /// Keys with this prefix would be too long.
    #[error("--prefix must have at most {most} bytes, not {given}")]
    Prefix {
        /// The bytes that were given.
        given: usize,
        /// The most that fit.
        most: usize,
    },
}

impl Settings {
    /// What all its keys start with: [`Settings::prefix`] and the digits that all of them share.
    pub fn common_prefix(&self) -> String {
        let [first, last] = [0, self.keys.saturating_sub(1)].map(|key| key_name(&self.prefix, key));
        let same = first.chars().zip(last.chars()).take_while(|(one, other)| one == other);
        same.map(|(one, _)| one).collect()
    }

    /// Whether the engine can run this.
    pub fn check(&self) -> Result<(), SettingsError> {
        let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let within = |flag, given: u64, least: u64, most: u64| {
            let fits = (least..=most).contains(&given);
            fits.then_some(()).ok_or(SettingsError::Bounds { flag, given, least, most })
        };
        within("clients", size(self.clients), 1, size(BENCH_CLIENTS_MAX))?;
        within("threads", size(self.threads), 1, size(BENCH_THREADS_MAX))?;
        within("keys", self.keys, 1, BENCH_KEYS_MAX)?;
        within("value-size", size(self.value_size), 0, size(VALUE_BYTES_MAX))?;
        within("rate", self.rate.unwrap_or(1), 1, BENCH_RATE_MAX)?;
        let times = [
            ("duration", self.duration, false, BENCH_DURATION_MAX),
            ("warmup", self.warmup, true, BENCH_DURATION_MAX),
            ("timeout", self.timeout, false, REQUEST_TIMEOUT_MAX),
        ];
        for (flag, given, zero, most) in times {
            if given > most || given.is_zero() && !zero {
                return Err(SettingsError::Time { flag, given, zero, most });
            }
        }
        let (given, most) = (self.prefix.len(), KEY_BYTES_MAX - KEY_DIGITS);
        if given > most { Err(SettingsError::Prefix { given, most }) } else { Ok(()) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Ten clients for one second, without a warm-up.
    pub(in crate::bench) fn settings() -> Settings {
        Settings {
            clients: 10,
            threads: 1,
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(5),
            rate: None,
            keys: 1000,
            prefix: "bench/".into(),
            value_size: 100,
            distribution: Distribution::Uniform,
            seed: 1,
        }
    }

    #[test]
    fn a_workload_is_known_by_its_name() {
        for workload in Workload::ALL {
            assert_eq!(workload.name().parse(), Ok(workload));
        }
        let unknown = "ycsb-z".parse::<Workload>().expect_err("unknown").to_string();
        assert!(unknown.contains("\"ycsb-z\"") && unknown.contains("ycsb-c"), "{unknown}");
    }

    #[test]
    fn what_all_keys_share_is_more_than_the_prefix() {
        let shared = |keys| Settings { keys, ..settings() }.common_prefix();
        assert_eq!(shared(1_000), "bench/0000000");
        assert_eq!(shared(100_001), "bench/0000");
        assert_eq!(shared(1), "bench/0000000000");
        assert_eq!(shared(10_000_000_000), "bench/");
    }

    type Change = fn(&mut Settings);

    #[test]
    fn what_can_not_be_run_is_refused_by_the_name_of_its_flag() {
        assert_eq!(settings().check(), Ok(()));
        let refused: [(&str, Change); 13] = [
            ("--clients must be from 1", |settings| settings.clients = 0),
            ("--clients", |settings| settings.clients = BENCH_CLIENTS_MAX + 1),
            ("--threads", |settings| settings.threads = 0),
            ("--threads", |settings| settings.threads = BENCH_THREADS_MAX + 1),
            ("--keys", |settings| settings.keys = 0),
            ("--keys", |settings| settings.keys = BENCH_KEYS_MAX + 1),
            ("--value-size", |settings| settings.value_size = VALUE_BYTES_MAX + 1),
            ("--rate", |settings| settings.rate = Some(0)),
            ("to 10000000, not 10000001", |settings| settings.rate = Some(BENCH_RATE_MAX + 1)),
            ("--duration must be more than 0", |settings| settings.duration = Duration::ZERO),
            ("--warmup must be at most", |settings| settings.warmup = Duration::MAX),
            ("--timeout", |settings| settings.timeout = Duration::ZERO),
            ("--prefix", |settings| settings.prefix = "x".repeat(KEY_BYTES_MAX)),
        ];
        for (words, change) in refused {
            let mut settings = settings();
            change(&mut settings);
            let error = settings.check().expect_err(words).to_string();
            assert!(error.contains(words), "{words} is not in: {error}");
        }
    }
}
