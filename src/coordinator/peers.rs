//! The way to replicas: one lane of calls for each target, opened when it is first used.
//!
//! [`Peers`] is what the coordinator needs of the network; tests put groups of their own behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use crate::rpc::{CallError, Caller, Dialer, Target};
use crate::types::deadline::Deadline;
use crate::types::limits::{GROUPS_MAX, MEMBERS_MAX};
use crate::types::peer::{Reply, Request};

/// The most lanes at a time: for each member one to serve and one to ask who it is.
const LANES_MAX: usize = 2 * GROUPS_MAX * MEMBERS_MAX;

/// Whatever carries calls to replicas.
pub trait Peers: Send + Sync + 'static {
    /// Sends `request` once, at most, and returns by `deadline`.
    fn call(
        &self,
        target: &Target,
        request: &Request,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;

    /// Forgets all other targets.
    fn keep(&self, targets: &BTreeSet<Target>);
}

/// Calls over rpc.
#[derive(Debug)]
pub struct Lanes {
    dialer: Dialer,
    callers: Mutex<BTreeMap<Target, Caller>>,
}

impl Lanes {
    /// Lanes that `dialer` opens.
    pub(in crate::coordinator) fn new(dialer: Dialer) -> Self {
        Self { dialer, callers: Mutex::default() }
    }

    fn caller(&self, target: &Target) -> Option<Caller> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = callers.get(target) {
            return Some(caller.clone());
        }
        if callers.len() >= LANES_MAX {
            return None;
        }
        let caller = Caller::new(self.dialer.clone(), target.clone());
        callers.insert(target.clone(), caller.clone());
        Some(caller)
    }
}

impl Peers for Lanes {
    async fn call(
        &self,
        target: &Target,
        request: &Request,
        deadline: Deadline,
    ) -> Result<Reply, CallError> {
        match self.caller(target) {
            Some(caller) => caller.call(request, deadline).await,
            None => Err(CallError::Overloaded(target.url.clone())),
        }
    }

    fn keep(&self, targets: &BTreeSet<Target>) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.retain(|target, _| targets.contains(target));
    }
}
