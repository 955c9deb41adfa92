//! Scans and counts: one state of the group, confirmed as a read is, and then walked in order.
//!
//! The state is frozen: writes go on meanwhile, and nothing of them is seen. What one call does
//! is bounded: a page by its keys and bytes, whatever was asked for, and a count lets others run after
//! [`COUNT_STEP_KEYS`].

use crate::raft::reads::position;
use crate::raft::replica::Replica;
use crate::store::state::State;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::limits::{COUNT_STEP_KEYS, SCAN_PAGE_BYTES_MAX, SCAN_PART_KEYS_MAX};
use crate::types::scan::{Found, Listed, Part, Scan, Span, Want};

impl Replica {
    /// What this group has in a span of keys. Errors mean nothing about other replicas.
    pub(in crate::raft) async fn read_span(
        &self,
        scan: &Scan,
        deadline: Deadline,
    ) -> Result<Part, Error> {
        let lag_ms = self.prepare(scan.consistency, deadline).await?;
        let state = self.published().frozen();
        let at = position(&state)?;
        let found = match scan.want {
            Want::Count => Found::Count(count(&state, &scan.span, deadline).await?),
            Want::Page { limit, bytes, reverse, keys_only } => {
                let items = state.span(&scan.span);
                let listed = |(key, item)| Listed::of(key, item, keys_only);
                let limit = (limit as usize).clamp(1, SCAN_PART_KEYS_MAX);
                let bytes = (bytes as usize).min(SCAN_PAGE_BYTES_MAX);
                if reverse {
                    Found::page(items.rev().map(listed), limit, bytes)
                } else {
                    Found::page(items.map(listed), limit, bytes)
                }
            }
        };
        self.trusted()?;
        Ok(Part { at, epoch: state.epoch(), lag_ms, found })
    }
}

async fn count(state: &State, span: &Span, deadline: Deadline) -> Result<u64, Error> {
    if span.is_everything() {
        return Ok(state.keys_with_value());
    }
    let (mut items, mut counted) = (state.range(span), 0);
    loop {
        let mut seen = 0;
        for (_, item) in items.by_ref().take(COUNT_STEP_KEYS) {
            seen += 1;
            counted += u64::from(!item.is_over(state.clock));
        }
        if seen < COUNT_STEP_KEYS {
            return Ok(counted);
        }
        if deadline.has_passed() {
            return Err(Error::unavailable("the keys could not be counted in time"));
        }
        tokio::task::yield_now().await;
    }
}
