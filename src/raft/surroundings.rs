//! What a replica is opened in: this machine, or what a simulation gives it instead.

use std::sync::Arc;

use crate::raft::recovery::Files;
use crate::rpc::Dialer;
use crate::types::clock::Clock;

/// Where a replica is opened: the clock, the network and the files that it gets.
pub(crate) struct Surroundings {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dialer: Dialer,
    pub(crate) files: Files,
}

impl Surroundings {
    /// This machine, with this clock.
    pub(in crate::raft) fn real(clock: Arc<dyn Clock>) -> Self {
        Self { clock, dialer: Dialer::new(None), files: Files::real() }
    }
}
