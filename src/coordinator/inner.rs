//! What a coordinator holds, and how it answers one request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use crate::coordinator::CoordinatorOptions;
use crate::coordinator::claiming;
use crate::coordinator::groups::{Groups, target};
use crate::coordinator::peers::Peers;
use crate::coordinator::ring::Ring;
use crate::coordinator::routing::{Next, next, pause};
use crate::rpc::{CallError, Target};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::key::Key;
use crate::types::kv::{Consistency, KvReply, KvRequest};
use crate::types::peer::{Reply, Request};
use crate::types::topology::{Group, Topology};

/// What is kept of a deadline for the way back, so that the client hears the reason in time.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// How long one member may take to answer a read before another is asked.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// The topology that requests are served by.
#[derive(Debug)]
pub(in crate::coordinator) struct Serving {
    pub(in crate::coordinator) topology: Topology,
    pub(in crate::coordinator) ring: Ring,
}

impl Serving {
    pub(in crate::coordinator) fn new(topology: Topology) -> Self {
        Self { ring: claiming::ring(&topology), topology }
    }

    /// The group that owns `token`.
    pub(in crate::coordinator) fn group(&self, token: Token) -> Option<&Group> {
        self.topology.groups.get(self.ring.owner(token)?)
    }
}

/// A coordinator over any way to reach replicas.
pub(in crate::coordinator) struct Inner<P> {
    options: CoordinatorOptions,
    peers: P,
    groups: Groups,
    serving: ArcSwapOption<Serving>,
    waiting: Mutex<String>,
    wish: Notify,
    wished: AtomicBool,
    rounds: watch::Sender<u64>,
}

impl<P: Peers> Inner<P> {
    pub(in crate::coordinator) fn new(options: CoordinatorOptions, peers: P) -> Self {
        Self {
            options,
            peers,
            groups: Groups::default(),
            serving: ArcSwapOption::empty(),
            waiting: Mutex::new("no shard has answered yet".into()),
            wish: Notify::new(),
            wished: AtomicBool::new(false),
            rounds: watch::Sender::new(0),
        }
    }

    pub(in crate::coordinator) fn options(&self) -> &CoordinatorOptions {
        &self.options
    }

    pub(in crate::coordinator) fn peers(&self) -> &P {
        &self.peers
    }

    pub(in crate::coordinator) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(in crate::coordinator) fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    pub(in crate::coordinator) fn set_serving(&self, serving: Serving) {
        self.serving.store(Some(Arc::new(serving)));
    }

    /// Why there is no ring to serve by.
    pub(in crate::coordinator) fn waiting(&self) -> String {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::coordinator) fn set_waiting(&self, reason: String) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Returns when somebody wants to know at once what has changed.
    pub(in crate::coordinator) async fn refresh_wanted(&self) {
        self.wish.notified().await;
    }

    pub(in crate::coordinator) fn take_refresh_wish(&self) -> bool {
        self.wished.swap(false, Ordering::AcqRel)
    }

    pub(in crate::coordinator) fn refreshed(&self) {
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// Has the ring looked at again, and waits for it.
    pub(in crate::coordinator) async fn refresh(&self) {
        let mut rounds = self.rounds.subscribe();
        rounds.mark_unchanged();
        self.wished.store(true, Ordering::Release);
        self.wish.notify_one();
        // Without a keeper the process is stopping.
        rounds.changed().await.ok();
    }

    /// Answers one request before `deadline`.
    pub(in crate::coordinator) async fn answer(
        &self,
        request: KvRequest,
        deadline: Deadline,
    ) -> Result<KvReply, Error> {
        let margin = deadline.earlier_by(ANSWER_MARGIN);
        let mut attempt = Attempt { is_write: request.is_write(), round: 1, asked: 0 };
        let mut hint: Option<Target> = None;
        loop {
            let group = self.owner(request.key())?;
            let asked = hint.take().or_else(|| self.whom(&group, &request, &attempt));
            let Some(asked) = asked else {
                return Err(Error::unavailable(format!("shard {} has no members", group.name)));
            };
            attempt.asked += 1;
            let answer = self.ask(&asked, &request, margin).await;
            let error = match next(attempt.is_write, answer) {
                Next::Done(answer) => return answer,
                Next::AskLeader(leader) => {
                    self.groups.led_by(group.id, leader.clone());
                    // A leader that is named again and again may be gone: pause like for others.
                    if attempt.asked <= self.groups.size(group.id) {
                        hint = Some(target(group.id, &leader));
                        continue;
                    }
                    Error::unavailable(format!("shard {} has no leader", group.name))
                }
                Next::AskAnother(error) => {
                    self.groups.leader_lost(group.id, &asked);
                    error
                }
                Next::Refresh(error) => {
                    let refreshed = self.refresh();
                    drop(tokio::time::timeout(margin.left(), refreshed).await);
                    error
                }
            };
            if attempt.asked > self.groups.size(group.id) {
                let pause = pause(attempt.round);
                attempt.round += 1;
                attempt.asked = 0;
                if margin.left() <= pause {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
            } else if margin.has_passed() {
                return Err(error);
            }
        }
    }

    /// The group that owns a key.
    pub(in crate::coordinator) fn owner(&self, key: &Key) -> Result<Group, Error> {
        let serving = self.serving.load();
        let Some(serving) = serving.as_ref() else {
            return Err(Error::unavailable(format!("no ring to serve by yet: {}", self.waiting())));
        };
        let group = serving.group(Token::of_key(key));
        group.cloned().ok_or_else(|| Error::unavailable("the ring is empty"))
    }

    fn whom(&self, group: &Group, request: &KvRequest, attempt: &Attempt) -> Option<Target> {
        let stale = matches!(request, KvRequest::Get { consistency: Consistency::Stale, .. });
        // Whoever is asked knows the leader, so after the leader any member helps.
        if stale || attempt.asked > 0 {
            self.groups.ask_any(group.id)
        } else {
            self.groups.ask(group.id)
        }
    }

    async fn ask(
        &self,
        asked: &Target,
        request: &KvRequest,
        deadline: Deadline,
    ) -> Result<Result<KvReply, Error>, CallError> {
        let deadline = if request.is_write() { deadline } else { deadline.at_most(READ_PATIENCE) };
        let timeout_ms = deadline.left_ms();
        let kv = Request::Kv { request: request.clone(), timeout_ms };
        match self.peers.call(asked, &kv, deadline).await? {
            Reply::Kv(answer) => Ok(answer),
            other => Err(CallError::Lost(format!("unexpected answer {other:?}"))),
        }
    }
}

struct Attempt {
    is_write: bool,
    /// How often every member was asked, from 1.
    round: u32,
    /// How many were asked in this round.
    asked: usize,
}
