//! How a coordinator reaches replicas: the seam between its logic and the network.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::rpc::{CallError, Caller, Dialer, Target};
use crate::types::deadline::Deadline;
use crate::types::peer::{Reply, Request};

/// Something that carries a call to a replica and brings the answer.
pub(in crate::coordinator) trait Peers: Send + Sync + 'static {
    /// Calls whoever `target` names.
    fn call(
        &self,
        target: &Target,
        request: &Request,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

/// Replicas over rpc: one lane of calls to each.
pub(in crate::coordinator) struct RpcPeers {
    dialer: Dialer,
    callers: Mutex<HashMap<Target, Caller>>,
}

impl RpcPeers {
    pub(in crate::coordinator) fn new(dialer: Dialer) -> Self {
        Self { dialer, callers: Mutex::default() }
    }

    fn caller(&self, target: &Target) -> Caller {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = callers.get(target) {
            return caller.clone();
        }
        let caller = Caller::new(self.dialer.clone(), target.clone());
        callers.insert(target.clone(), caller.clone());
        caller
    }
}

impl Peers for RpcPeers {
    async fn call(
        &self,
        target: &Target,
        request: &Request,
        deadline: Deadline,
    ) -> Result<Reply, CallError> {
        self.caller(target).call(request, deadline).await
    }
}
