//! What happened in a run, in order, as one hash: two runs of the same seed are the same if and
//! only if their hashes are.
//!
//! Every byte that crosses the network, every fault, every crash and every request with its answer
//! goes into it. With [`Trace::keep`] the events are kept as lines too, for people.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

/// The most lines that are kept; older ones go.
const LINES_MAX: usize = 200_000;

/// The events of a run until now.
#[derive(Clone, Default)]
pub(in crate::sim) struct Trace {
    hasher: DefaultHasher,
    events: u64,
    lines: Option<std::collections::VecDeque<String>>,
}

impl Trace {
    /// Keeps the events as lines from now on.
    pub(in crate::sim) fn keep(&mut self) {
        self.lines = Some(std::collections::VecDeque::new());
    }

    /// Takes note of what happened at a moment, in milliseconds since the start.
    pub(in crate::sim) fn note(&mut self, at: u64, what: fmt::Arguments<'_>) {
        let line = format!("{at:>6} {what}");
        self.hasher.write(line.as_bytes());
        self.events += 1;
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }

    /// Takes note of bytes that crossed the network.
    pub(in crate::sim) fn bytes(&mut self, at: u64, (conn, side): (u64, usize), bytes: &[u8]) {
        self.hasher.write_u64(at);
        self.hasher.write_u64(conn);
        self.hasher.write_usize(side);
        self.hasher.write(bytes);
        self.events += 1;
    }

    /// The hash of everything until now.
    pub(in crate::sim) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// How many events there were.
    pub(in crate::sim) fn events(&self) -> u64 {
        self.events
    }

    /// The lines that were kept.
    pub(in crate::sim) fn lines(&self) -> Vec<String> {
        self.lines.iter().flatten().cloned().collect()
    }
}
