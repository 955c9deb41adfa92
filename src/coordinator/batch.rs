//! A batch: its operations are sorted by group, and each group gets its own at once.
//!
//! What one group can't do fails for the operations on its keys only.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::api::Kv;
use crate::coordinator::Coordinator;
use crate::coordinator::peers::Peers;
use crate::coordinator::shared::Active;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::ids::GroupId;
use crate::types::kv::{KvReply, KvRequest};
use crate::types::limits::TXN_READ_BYTES_MAX;
use crate::types::once::Once;
use crate::types::txn::{Batched, BatchedOp, Op, OpError, OpResult, Txn};

/// The operations of one group, and which of the whole they are.
#[derive(Default)]
struct Part {
    places: Vec<usize>,
    ops: Vec<Op>,
}

/// Carries out a batch over all groups.
pub(in crate::coordinator) async fn batch<P: Peers>(
    coordinator: &Coordinator<P>,
    ops: Vec<Op>,
    once: Option<Once>,
    deadline: Deadline,
) -> Result<Batched, Error> {
    let unanswered = || Err(Error::outcome_unknown("the group gave no answer to this operation"));
    let mut batched = Batched { at: Vec::new(), results: Vec::new() };
    batched.results.resize_with(ops.len(), unanswered);
    let mut left: Vec<(usize, Op)> = ops.into_iter().enumerate().collect();
    while !left.is_empty() {
        let active = coordinator.shared.active_by(deadline).await?;
        let calls =
            parts(&active, std::mem::take(&mut left)).into_iter().map(|Part { places, ops }| {
                let request =
                    KvRequest::Txn { txn: Txn::Batch { ops: ops.clone() }, once: once.clone() };
                async move { (places, ops, coordinator.call(request, deadline).await) }
            });
        for (places, ops, answer) in join_all(calls).await {
            match answer {
                Ok(KvReply::Txn(reply)) => {
                    batched.at.push(reply.at.clone());
                    for (place, done) in places.into_iter().zip(reply.into_ops()) {
                        batched.results[place] = Ok(done);
                    }
                }
                // The ring has changed since they were sorted: nothing was done, and they are sorted again.
                Err(Error::CrossShard { .. }) if !deadline.has_passed() => {
                    left.extend(places.into_iter().zip(ops));
                }
                answer => {
                    let odd = || Error::outcome_unknown("the group answered with something else");
                    let error = answer.err().unwrap_or_else(odd);
                    batched.at.extend(error.position().cloned());
                    for place in places {
                        batched.results[place] = Err(error.clone());
                    }
                }
            }
        }
    }
    bound(&mut batched.results);
    Ok(batched)
}

/// The operations, sorted by the group that owns their keys.
fn parts(active: &Active, ops: Vec<(usize, Op)>) -> Vec<Part> {
    let mut parts: BTreeMap<GroupId, Part> = BTreeMap::new();
    for (place, op) in ops {
        let part = parts.entry(active.owner(Token::of_key(op.key())).id()).or_default();
        part.places.push(place);
        part.ops.push(op);
    }
    parts.into_values().collect()
}

/// Each group has kept to the bound of what is read, and now all of them together.
fn bound(results: &mut [Result<BatchedOp, Error>]) {
    let mut room = TXN_READ_BYTES_MAX;
    for done in results.iter_mut().filter_map(|result| result.as_mut().ok()) {
        let OpResult::Read(Some(item)) = &done.result else { continue };
        match room.checked_sub(item.value.data.len()) {
            Some(left) => room = left,
            None => done.result = OpResult::Failed(OpError::TooLong),
        }
    }
}
