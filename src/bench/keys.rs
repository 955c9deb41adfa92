//! Which key is next, and what it gets: all of it follows from a seed.
//!
//! Zipf's law is YCSB's: the key of rank `r` of `n` is drawn with a probability that falls as `r` to the power of
//! 0.99. YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010) uses the approximation of Gray et al., "Quickly
//! Generating Billion-Record Synthetic Databases", 1994; here it is sampled exactly, by rejection. As in YCSB
//! hot keys are scattered over all keys, but by a permutation instead of a hash, so that no two ranks fall on one
//! key and each key is drawn.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;

use crate::bench::connection::Operation;
use crate::bench::settings::{Distribution, KEY_DIGITS, Settings, Workload};
use crate::types::limits::BENCH_VALUES_SLACK;

/// YCSB's exponent.
const ZIPF_EXPONENT: f64 = 0.99;

/// The name of key number `number`.
pub(super) fn key_name(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:0KEY_DIGITS$}")
}

/// Draws key numbers.
#[derive(Clone, Debug)]
struct Keys {
    count: u64,
    zipf: Option<Zipf<f64>>,
    /// By how many keys two neighbouring ranks are apart; it has no divisor in common with `count`.
    stride: u64,
}

impl Keys {
    fn new(count: u64, distribution: Distribution) -> Self {
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipfian => {
                Some(Zipf::new(to_f64(count), ZIPF_EXPONENT).expect("there is a key"))
            }
        };
        // The golden section keeps neighbours far apart (Knuth, volume 3, §6.4).
        let from = count * 618 / 1000;
        let stride = (from.max(1)..=count + 1).find(|stride| divisor(*stride, count) == 1);
        Self {
            count,
            zipf,
            stride: stride.expect("a number and the next have no divisor in common"),
        }
    }

    fn draw(&self, rng: &mut SmallRng) -> u64 {
        match &self.zipf {
            None => rng.random_range(0..self.count),
            Some(zipf) => self.of_rank(to_u64(rng.sample(zipf)).min(self.count)),
        }
    }

    /// The key of a rank, counted from 1.
    fn of_rank(&self, rank: u64) -> u64 {
        let at = u128::from(rank) * u128::from(self.stride) % u128::from(self.count);
        u64::try_from(at).expect("less than a u64")
    }
}

#[expect(clippy::cast_precision_loss, reason = "key counts are far below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank, at least 1")]
fn to_u64(rank: f64) -> u64 {
    rank as u64
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// Values to give away: each is a piece of the same random text, so that none has to be made.
#[derive(Clone, Debug)]
pub(super) struct Values {
    text: Bytes,
    size: usize,
}

impl Values {
    /// Values of `size` bytes of printable ASCII, without quotes and backslashes: in JSON they are as long.
    pub(super) fn new(size: usize, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let letters: Vec<u8> = (b' '..=b'~').filter(|byte| !b"\"\\".contains(byte)).collect();
        let letter = |_| letters[rng.random_range(0..letters.len())];
        Self { text: (0..size + BENCH_VALUES_SLACK).map(letter).collect(), size }
    }

    /// One of them.
    pub(super) fn draw(&self, rng: &mut SmallRng) -> Bytes {
        let at = rng.random_range(0..=BENCH_VALUES_SLACK);
        self.text.slice(at..at + self.size)
    }
}

/// The operations of one client.
#[derive(Clone, Debug)]
pub(super) struct Operations {
    keys: Keys,
    values: Values,
    prefix: String,
    read_percent: u32,
    rng: SmallRng,
}

impl Operations {
    /// What client number `client` does in this workload.
    pub(super) fn new(
        settings: &Settings,
        workload: Workload,
        values: &Values,
        client: usize,
    ) -> Self {
        let client = u64::try_from(client).unwrap_or(u64::MAX);
        Self {
            keys: Keys::new(settings.keys, settings.distribution),
            values: values.clone(),
            prefix: settings.prefix.clone(),
            read_percent: workload.read_percent(),
            // Seeds of neighbours are as good as any: they are hashed.
            rng: SmallRng::seed_from_u64(settings.seed.rotate_left(32) ^ client),
        }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Operation {
        let key = key_name(&self.prefix, self.keys.draw(&mut self.rng));
        if self.rng.random_range(0..100) < self.read_percent {
            return Operation::Read { key };
        }
        Operation::Update { key, value: self.values.draw(&mut self.rng) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::bench::settings::tests::settings;

    use super::*;

    fn frequencies(keys: &Keys, draws: u32, seed: u64) -> Vec<f64> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut counts = vec![0_u32; usize::try_from(keys.count).expect("few")];
        for _ in 0..draws {
            counts[usize::try_from(keys.draw(&mut rng)).expect("few")] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / f64::from(draws)).collect()
    }

    #[test]
    fn zipfian_keys_are_drawn_as_often_as_theory_says() {
        let (count, draws) = (1000, 1_000_000);
        let keys = Keys::new(count, Distribution::Zipfian);
        let seen = frequencies(&keys, draws, 7);
        let weight = |rank: u64| to_f64(rank).powf(-ZIPF_EXPONENT);
        let sum: f64 = (1..=count).map(weight).sum();
        for rank in 1..=count {
            let expected = weight(rank) / sum;
            let found = seen[usize::try_from(keys.of_rank(rank)).expect("few")];
            // Five standard deviations: one of 1,000 keys is outside by chance in 1,700 seeds.
            let tolerance = 5.0 * (expected / f64::from(draws)).sqrt();
            assert!((found - expected).abs() < tolerance, "rank {rank}: {found}, not {expected}");
        }
    }

    #[test]
    fn uniform_keys_are_all_drawn_alike() {
        let seen = frequencies(&Keys::new(100, Distribution::Uniform), 1_000_000, 7);
        assert!(seen.iter().all(|found| (found - 0.01).abs() < 0.0005), "{seen:?}");
    }

    #[test]
    fn hot_keys_are_far_apart() {
        let keys = Keys::new(100_000, Distribution::Zipfian);
        let mut hot: Vec<u64> = (1..=10).map(|rank| keys.of_rank(rank)).collect();
        hot.sort_unstable();
        let nearest = hot.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(nearest > Some(1000), "{hot:?}");
    }

    proptest! {
        #[test]
        fn each_rank_has_a_key_of_its_own(count in 1_u64..2000) {
            let keys = Keys::new(count, Distribution::Zipfian);
            let mut all: Vec<u64> = (1..=count).map(|rank| keys.of_rank(rank)).collect();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..count));
        }

        #[test]
        fn every_key_that_is_drawn_is_there(count in 1_u64..1_000_000_000, seed: u64) {
            for distribution in [Distribution::Uniform, Distribution::Zipfian] {
                let keys = Keys::new(count, distribution);
                let mut rng = SmallRng::seed_from_u64(seed);
                prop_assert!((0..100).all(|_| keys.draw(&mut rng) < count));
            }
        }
    }

    #[test]
    fn a_mix_has_its_share_of_reads_and_follows_from_the_seed() {
        for workload in Workload::ALL {
            let values = Values::new(10, 1);
            let mut operations = Operations::new(&settings(), workload, &values, 3);
            let mut again = operations.clone();
            let drawn: Vec<_> = (0..10_000).map(|_| operations.next()).collect();
            assert!(drawn.iter().all(|operation| *operation == again.next()));
            let reads = drawn.iter().filter(|one| matches!(one, Operation::Read { .. })).count();
            let percent = f64::from(u32::try_from(reads).expect("few")) / 100.0;
            assert!((percent - f64::from(workload.read_percent())).abs() < 2.0, "{percent}");
            let mut other = Operations::new(&settings(), workload, &values, 4);
            assert!(drawn.iter().any(|operation| *operation != other.next()));
        }
    }

    #[test]
    fn a_key_has_ten_digits_and_a_value_its_size() {
        assert_eq!(key_name("bench/", 1234), "bench/0000001234");
        let mut rng = SmallRng::seed_from_u64(1);
        for size in [0, 1, 100, 100_000] {
            let value = Values::new(size, 1).draw(&mut rng);
            let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\"\\".contains(byte);
            assert!(value.len() == size && value.iter().all(plain));
        }
    }
}
