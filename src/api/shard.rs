//! A replica as a key-value store for clients that know nothing of leaders: what this replica
//! can't answer itself it forwards to the leader, once at a time. A write without a name is sent
//! again only while it is certain that it was not applied.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::{Kv, ShardFace};
use crate::raft::Replica;
use crate::rpc::{CallError, Caller, Dialer, Target};
use crate::types::command::{Action, Outcome};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::http::{ReadyBody, ShardStatus};
use crate::types::ids::Index;
use crate::types::key::Key;
use crate::types::kv::{Consistency, GroupIndex, KvReply, KvRequest, Read};
use crate::types::limits::{FOLLOWER_READ_PATIENCE, SPAN_DELETES_MAX};
use crate::types::once::Once;
use crate::types::peer::{Reply, Request};
use crate::types::scan::{Deleted, Part, Scan, Scanned, Span};
use crate::types::topology::Member;
use crate::types::txn::{Batched, Op, Txn};
use crate::types::watch::Watch;
use crate::watch::Watching;

mod watchers;

use self::watchers::Watchers;

/// How long to wait for another leader before asking again.
const LEADER_PATIENCE: Duration = Duration::from_millis(50);
/// What is kept of a deadline for the way back, so that the client hears the reason in time.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// A replica that is served.
pub struct Shard {
    way: Arc<Way>,
    watchers: Watchers,
}

/// One replica and its way to whoever leads.
struct Way {
    replica: Replica,
    dialer: Dialer,
    leaders: Mutex<HashMap<Member, Caller>>,
}

impl Shard {
    /// Serves `replica`; watchers end with `stopping`.
    pub fn new(replica: Replica, stopping: CancellationToken) -> Self {
        let (dialer, leaders) = (Dialer::new(None), Mutex::default());
        let way = Arc::new(Way { replica, dialer, leaders });
        Self { way, watchers: Watchers::new(stopping) }
    }

    /// The replica behind it.
    pub fn replica(&self) -> &Replica {
        &self.way.replica
    }
}

impl Way {
    /// A lane to `leader`; those to former leaders are closed.
    fn caller(&self, leader: &Member) -> Caller {
        let mut leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.retain(|member, _| member == leader);
        let open = || {
            let target = Target {
                url: leader.url.clone(),
                node: Some(leader.node),
                group: self.replica.group(),
            };
            Caller::new(self.dialer.clone(), target)
        };
        leaders.entry(leader.clone()).or_insert_with(open).clone()
    }

    /// Up to where the leader had applied the log at some moment from now on.
    async fn read_index(&self, leader: &Member, deadline: Deadline) -> Result<Index, Error> {
        let request = Request::ReadIndex { timeout_ms: deadline.left_ms() };
        match self.caller(leader).call(&request, deadline).await {
            Ok(Reply::ReadIndex(index)) => index,
            Ok(other) => Err(Error::unavailable(format!("unexpected answer {other:?}"))),
            Err(error) => Err(Error::unavailable(error.to_string())),
        }
    }
}

impl Shard {
    /// Asks this replica, and the leader if that is another.
    async fn attempt(&self, request: &KvRequest, deadline: Deadline) -> Result<KvReply, Error> {
        let leader = match self.way.replica.call(request.clone(), deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) => leader,
            answer => return answer,
        };
        if let KvRequest::Get { key, consistency: Consistency::Linearizable, at_least } = request {
            let patience = deadline.at_most(FOLLOWER_READ_PATIENCE);
            if let Ok(read) = self.read_here(&leader, (key, at_least), patience).await {
                return Ok(KvReply::Read(read));
            }
        }
        self.forward(&leader, request, deadline).await
    }

    /// A linearizable read on this replica, which follows: the leader only says up to where it must have
    /// applied the log for that.
    async fn read_here(
        &self,
        leader: &Member,
        (key, at_least): (&Key, &[GroupIndex]),
        deadline: Deadline,
    ) -> Result<Read, Error> {
        let index = self.way.read_index(leader, deadline).await?;
        self.way.replica.read_at(key, index, at_least, deadline).await
    }

    async fn forward(
        &self,
        leader: &Member,
        request: &KvRequest,
        deadline: Deadline,
    ) -> Result<KvReply, Error> {
        let kv = Request::Kv { request: request.clone(), timeout_ms: deadline.left_ms() };
        match self.way.caller(leader).call(&kv, deadline).await {
            Ok(Reply::Kv(reply)) => reply,
            Ok(other) => Err(unanswered(request, format!("unexpected answer {other:?}"))),
            Err(CallError::NotSent(reason)) => Err(Error::Unavailable { reason }),
            Err(CallError::Overloaded(url)) => {
                Err(Error::Overloaded { queue: format!("the queue to {url}") })
            }
            Err(CallError::Lost(reason) | CallError::Late(reason)) => {
                Err(unanswered(request, reason))
            }
        }
    }
}

impl Kv for Shard {
    async fn call(&self, request: KvRequest, deadline: Deadline) -> Result<KvReply, Error> {
        let deadline = deadline.earlier_by(ANSWER_MARGIN);
        // Why the fate of an attempt is unknown, if it is.
        let mut lost = None;
        loop {
            let error = match self.attempt(&request, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let again = match &error {
                Error::OutcomeUnknown { .. } if request.is_write() => {
                    lost = Some(error.clone());
                    request.is_repeatable()
                }
                error => retriable(error, &request) || lost.is_some() && !error.is_settled(),
            };
            if !again || !self.may_ask_again(deadline).await {
                return Err(match (lost, error) {
                    (Some(lost), error) if !error.is_settled() => lost,
                    (_, Error::NotLeader { .. }) => Error::unavailable("the group has no leader"),
                    (_, error) => error,
                });
            }
        }
    }

    async fn scan(&self, scan: Scan, deadline: Deadline) -> Result<Scanned, Error> {
        let deadline = deadline.earlier_by(ANSWER_MARGIN);
        loop {
            let error = match self.attempt_scan(&scan, deadline).await {
                Ok(part) => return Ok(part.into()),
                Err(error) => error,
            };
            let again = matches!(error, Error::NotLeader { .. } | Error::Unavailable { .. });
            if !again || !self.may_ask_again(deadline).await {
                return Err(match error {
                    Error::NotLeader { .. } => Error::unavailable("the group has no leader"),
                    error => error,
                });
            }
        }
    }

    async fn batch(
        &self,
        ops: Vec<Op>,
        once: Option<Once>,
        deadline: Deadline,
    ) -> Result<Batched, Error> {
        match self.call(KvRequest::Txn { txn: Txn::Batch { ops }, once }, deadline).await? {
            KvReply::Txn(reply) => Ok(Batched {
                at: vec![reply.at.clone()],
                results: reply.into_ops().map(Ok).collect(),
            }),
            KvReply::Written(_) | KvReply::Read(_) => {
                Err(Error::outcome_unknown("the leader answered a batch with something else"))
            }
        }
    }

    async fn watch(&self, watch: Watch, deadline: Deadline) -> Result<Watching, Error> {
        let deadline = deadline.earlier_by(ANSWER_MARGIN);
        loop {
            let error = match self.watchers.watch(&self.way, watch.clone(), deadline).await {
                Ok(watching) => return Ok(watching),
                Err(error) => error,
            };
            let again = matches!(error, Error::NotLeader { .. } | Error::Unavailable { .. });
            if !again || !self.may_ask_again(deadline).await {
                return Err(match error {
                    Error::NotLeader { .. } => Error::unavailable("the group has no leader"),
                    error => error,
                });
            }
        }
    }

    async fn delete_span(&self, span: Span, deadline: Deadline) -> Result<Deleted, Error> {
        let deadline = deadline.earlier_by(ANSWER_MARGIN);
        let mut deleted = 0;
        loop {
            let error = match self.attempt_delete(&span, deadline).await {
                Ok(Outcome::Deleted { index, keys, more }) => {
                    deleted += u64::from(keys);
                    if !more {
                        let group = self.way.replica.status().name.unwrap_or_default().into();
                        return Ok(Deleted {
                            at: vec![GroupIndex { group, index }],
                            keys: deleted,
                        });
                    }
                    continue;
                }
                Ok(other) => Error::outcome_unknown(format!("unexpected outcome {other:?}")),
                Err(error) => error,
            };
            let again = matches!(error, Error::NotLeader { .. } | Error::Unavailable { .. });
            if !again || !self.may_ask_again(deadline).await {
                return Err(match error {
                    error if deleted > 0 => error.after_deleting(deleted),
                    Error::NotLeader { .. } => Error::unavailable("the group has no leader"),
                    error => error,
                });
            }
        }
    }
}

impl Shard {
    /// Removes some keys of a span: here, or at the leader. An attempt of unknown fate is not made
    /// again, as it has no name.
    async fn attempt_delete(&self, span: &Span, deadline: Deadline) -> Result<Outcome, Error> {
        let limit = u32::try_from(SPAN_DELETES_MAX).unwrap_or(u32::MAX);
        let action = Action::DeleteSpan { span: span.clone(), limit, once: None };
        let leader = match self.way.replica.delete_span(action.clone(), deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) => leader,
            answer => return answer,
        };
        let request = Request::Propose { action, timeout_ms: deadline.left_ms() };
        match self.way.caller(&leader).call(&request, deadline).await {
            Ok(Reply::Proposed(answer)) => answer,
            Ok(other) => Err(Error::outcome_unknown(format!("unexpected answer {other:?}"))),
            Err(CallError::Overloaded(url)) => {
                Err(Error::Overloaded { queue: format!("the queue to {url}") })
            }
            Err(CallError::NotSent(reason)) => Err(Error::Unavailable { reason }),
            Err(CallError::Lost(reason) | CallError::Late(reason)) => {
                Err(Error::OutcomeUnknown { reason })
            }
        }
    }

    /// As [`Shard::attempt`], for a scan.
    async fn attempt_scan(&self, scan: &Scan, deadline: Deadline) -> Result<Part, Error> {
        let leader = match self.way.replica.scan(scan, deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) => leader,
            answer => return answer,
        };
        let request = Request::Scan { scan: scan.clone(), timeout_ms: deadline.left_ms() };
        match self.way.caller(&leader).call(&request, deadline).await {
            Ok(Reply::Scanned(answer)) => answer,
            Ok(other) => Err(Error::unavailable(format!("unexpected answer {other:?}"))),
            Err(CallError::Overloaded(url)) => {
                Err(Error::Overloaded { queue: format!("the queue to {url}") })
            }
            Err(CallError::NotSent(reason) | CallError::Lost(reason) | CallError::Late(reason)) => {
                Err(Error::Unavailable { reason })
            }
        }
    }

    /// Waits a moment for another leader, unless that is in vain: whether to ask again.
    async fn may_ask_again(&self, deadline: Deadline) -> bool {
        // An attempt at the last moment would leave a write's fate open that nobody could have taken.
        // A condemned replica will not answer later either; its process waits for those under way.
        if deadline.left() <= 2 * LEADER_PATIENCE || self.way.replica.is_condemned() {
            return false;
        }
        let changed = self.way.replica.leadership_changed();
        // Whether it changed or not, the replica is asked again.
        drop(tokio::time::timeout(LEADER_PATIENCE, changed).await);
        true
    }
}

impl ShardFace for Shard {
    fn status(&self) -> ShardStatus {
        self.way.replica.status()
    }

    fn ready(&self) -> ReadyBody {
        self.way.replica.ready()
    }
}

/// Whether asking again can't do anything twice, and may help.
fn retriable(error: &Error, request: &KvRequest) -> bool {
    match error {
        Error::NotLeader { .. } | Error::Unavailable { .. } => true,
        Error::OutcomeUnknown { .. } => !request.is_write(),
        Error::Overloaded { .. }
        | Error::WrongShard { .. }
        | Error::Declined { .. }
        | Error::MissingKey
        | Error::InvalidJson(_)
        | Error::InvalidUtf8(_)
        | Error::InvalidParameter { .. }
        | Error::BadRequest(_)
        | Error::UnknownPath
        | Error::MethodNotAllowed
        | Error::KeyTooLarge { .. }
        | Error::ValueTooLarge { .. }
        | Error::Compacted { .. }
        | Error::CrossShard { .. }
        | Error::NoSession
        | Error::NoRoom(_) => false,
    }
}

fn unanswered(request: &KvRequest, reason: String) -> Error {
    if request.is_write() {
        Error::OutcomeUnknown { reason }
    } else {
        Error::Unavailable { reason }
    }
}
