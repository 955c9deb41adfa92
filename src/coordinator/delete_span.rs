//! Removes all keys of a span: every group does at once, so many keys with one entry of its log.
//!
//! Not one change but many: readers see some keys gone before others, and one that is written
//! meanwhile may stay. Each step has a name in the session with its group, so it counts once however
//! often it is sent. When one group can't go on after something was removed, here or there, the
//! whole is of unknown outcome; to ask for it again is safe.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;

use crate::coordinator::peers::Peers;
use crate::coordinator::roster::Roster;
use crate::coordinator::routing::{Heard, Need};
use crate::coordinator::shared::{Errand, Shared, outcome};
use crate::types::command::{Action, Outcome};
use crate::types::deadline::Deadline;
use crate::types::error::{Error, WriteOutcome};
use crate::types::ids::Index;
use crate::types::kv::GroupIndex;
use crate::types::limits::SPAN_DELETES_MAX;
use crate::types::once::{Answer, Settled};
use crate::types::peer::{Reply, Request};
use crate::types::scan::{Deleted, Span};

/// Removes the keys of all groups.
pub(in crate::coordinator) async fn delete_span<P: Peers>(
    shared: &Shared<P>,
    span: &Span,
    deadline: Deadline,
) -> Result<Deleted, Error> {
    let active = shared.active_by(deadline).await?;
    let deleted = AtomicU64::new(0);
    let groups = active
        .groups_of(span)
        .iter()
        .map(|roster| of_group(shared, roster, span, &deleted, deadline));
    // All of them, so that nothing goes on when this has been answered.
    let ended: Vec<Result<GroupIndex, Error>> = join_all(groups).await;
    let keys = deleted.into_inner();
    let (mut at, mut failed) = (Vec::new(), Vec::new());
    for ended in ended {
        match ended {
            Ok(position) => at.push(position),
            Err(error) => failed.push(error),
        }
    }
    // Of several errors the one that says least is true of all.
    let worst = failed.into_iter().max_by_key(|error| error.outcome() == WriteOutcome::Unknown);
    match worst {
        None => Ok(Deleted { at, keys }),
        Some(error) if keys > 0 => Err(error.after_deleting(keys)),
        Some(error) => Err(error),
    }
}

async fn of_group<P: Peers>(
    shared: &Shared<P>,
    roster: &Roster,
    span: &Span,
    deleted: &AtomicU64,
    deadline: Deadline,
) -> Result<GroupIndex, Error> {
    loop {
        let (index, keys, more) = step(shared, roster, span, deadline).await?;
        deleted.fetch_add(u64::from(keys), Ordering::Relaxed);
        if !more {
            return Ok(GroupIndex { group: roster.name().into(), index });
        }
    }
}

/// Removes some of one group's keys: at which entry, how many, and whether there are more.
async fn step<P: Peers>(
    shared: &Shared<P>,
    roster: &Roster,
    span: &Span,
    deadline: Deadline,
) -> Result<(Index, u32, bool), Error> {
    loop {
        let ticket = shared.ticket(roster, deadline).await?;
        let request = |timeout_ms| {
            let limit = u32::try_from(SPAN_DELETES_MAX).unwrap_or(u32::MAX);
            let action =
                Action::DeleteSpan { span: span.clone(), limit, once: Some(ticket.write()) };
            Request::Propose { action, timeout_ms }
        };
        let errand = Errand { need: Need::NamedWrite, request: &request, read: deletion };
        let outcome = match shared.ask(roster, &errand, deadline).await {
            // Nothing was lost before: with another session it is tried again.
            Err(Error::NoSession) => {
                roster.session().ended(&ticket);
                continue;
            }
            outcome => outcome?,
        };
        return match outcome {
            Outcome::Deleted { index, keys, more } => Ok((index, keys, more)),
            Outcome::Again(Answer { result: Settled::Deleted { index, keys, more }, .. }) => {
                Ok((index, keys, more))
            }
            other => {
                let name = roster.name();
                Err(Error::outcome_unknown(format!("group {name} deletes nothing: {other:?}")))
            }
        };
    }
}

/// Reads the answer; a session that is not open is no outcome, so that it ends nothing that was lost before.
fn deletion(need: Need, reply: Reply) -> Heard<Outcome> {
    match outcome(need, reply) {
        Heard::Answer(Ok(Outcome::NoSession)) => Heard::Answer(Err(Error::NoSession)),
        heard => heard,
    }
}
