//! A lane of calls that is there when it is needed.
//!
//! The first call opens the connection, and all calls that come meanwhile wait for that one
//! attempt. When it is lost the next call opens it again. After an attempt that failed, or a
//! connection that broke as soon as it was there, a pause runs that doubles from time to time;
//! a call that comes in the pause fails at once with the last error, never sent, because whoever
//! routes it has other members to try and must pace its own retries. Without calls nothing is
//! attempted. Dropping the last clone closes the connection and ends every task of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt, Shared};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::rpc::calls::Calls;
use crate::rpc::dial::Dialer;
use crate::rpc::frame::PAYLOAD_BYTES_MAX;
use crate::rpc::{CallError, Target};
use crate::types::codec;
use crate::types::deadline::Deadline;
use crate::types::host;
use crate::types::limits::{
    CALLS_IN_FLIGHT_MAX, CONNECT_TIMEOUT, RECONNECT_BACKOFF_MAX, RECONNECT_BACKOFF_MIN,
};
use crate::types::peer::{Lane, Reply, Request};

/// A lane of calls to one target: connects when first used and again, with backoff, when lost.
#[derive(Clone, Debug)]
pub struct Caller {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialer: Dialer,
    target: Target,
    link: Mutex<Link>,
    /// Places for calls that wait for an attempt.
    waiting: Semaphore,
}

impl Caller {
    /// A lane that opens at the first call.
    pub fn new(dialer: Dialer, target: Target) -> Self {
        let link = Mutex::new(Link { failures: 0, state: State::Idle });
        let waiting = Semaphore::new(CALLS_IN_FLIGHT_MAX);
        Self { inner: Arc::new(Inner { dialer, target, link, waiting }) }
    }

    /// Sends `request` and waits for its answer until `deadline`. Dropping the future forgets the
    /// call; if it was sent already it may still be carried out.
    ///
    /// # Errors
    /// As [`CallError`] says. While the pause after a failed attempt runs this is
    /// [`CallError::NotSent`] at once.
    pub async fn call(&self, request: &Request, deadline: Deadline) -> Result<Reply, CallError> {
        let url = &self.inner.target.url;
        let calls = self.inner.connected(deadline).await?;
        let request = Bytes::from(codec::encode(request));
        if request.len() > PAYLOAD_BYTES_MAX {
            let len = request.len();
            let text = format!("a call of {len} bytes to {url}, at most {PAYLOAD_BYTES_MAX} go");
            return Err(CallError::NotSent(text));
        }
        calls.call(request, deadline).await
    }
}

impl Inner {
    /// The open connection, which is opened now if need be.
    async fn connected(&self, deadline: Deadline) -> Result<Arc<Calls>, CallError> {
        let url = &self.target.url;
        if deadline.has_passed() {
            return Err(CallError::NotSent(format!("no time was left for a call to {url}")));
        }
        let attempt = match self.step()? {
            Step::Use(calls) => return Ok(calls),
            Step::Wait(attempt) => attempt,
        };
        let _place =
            self.waiting.try_acquire().map_err(|_full| CallError::Overloaded(url.clone()))?;
        match timeout_at(deadline.instant().into(), attempt).await {
            Ok(Ok(ended)) => ended.result,
            Ok(Err(_aborted)) => {
                Err(CallError::NotSent(format!("the attempt to connect to {url} was given up")))
            }
            Err(_late) => Err(CallError::NotSent(format!("{url} did not answer in time"))),
        }
    }

    fn step(&self) -> Result<Step, CallError> {
        let mut link = self.lock();
        link.settle();
        match &link.state {
            State::Up { calls, .. } => return Ok(Step::Use(Arc::clone(calls))),
            State::Dialing { attempt, .. } => return Ok(Step::Wait(attempt.clone())),
            State::Pausing { until, error } if Instant::now() < *until => {
                return Err(CallError::NotSent(error.clone()));
            }
            State::Pausing { .. } | State::Idle => {}
        }
        let (report, attempt) = oneshot::channel();
        let attempt = attempt.shared();
        let dialing = dial(self.dialer.clone(), self.target.clone(), report);
        let task = AbortOnDropHandle::new(tokio::spawn(dialing));
        link.state = State::Dialing { attempt: attempt.clone(), _task: task };
        Ok(Step::Wait(attempt))
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Step {
    Use(Arc<Calls>),
    Wait(Attempt),
}

/// An attempt to connect, for all who wait for it, in the order in which they came.
type Attempt = Shared<oneshot::Receiver<Ended>>;

/// How an attempt ended, and when.
#[derive(Clone, Debug)]
struct Ended {
    result: Result<Arc<Calls>, CallError>,
    at: Instant,
}

async fn dial(dialer: Dialer, target: Target, report: oneshot::Sender<Ended>) {
    let deadline = Deadline::after(CONNECT_TIMEOUT);
    let connected = dialer.connect(&target, Lane::Calls, deadline).await;
    let result = connected
        .map(|(reader, writer)| Arc::new(Calls::start(reader, writer, target.url.clone())));
    if let Err(error) = &result {
        tracing::debug!(url = target.url, %error, "connecting failed");
    }
    // Without a lane nobody wants to know.
    report.send(Ended { result, at: Instant::now() }).ok();
}

#[derive(Debug)]
struct Link {
    /// Attempts that failed, and connections that broke at once, since the last good one.
    failures: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Dialing { attempt: Attempt, _task: AbortOnDropHandle<()> },
    Up { calls: Arc<Calls>, since: Instant },
    Pausing { until: Instant, error: String },
}

impl Link {
    /// Takes note of an attempt that has ended and of a connection that has broken since the last
    /// look.
    fn settle(&mut self) {
        if let State::Dialing { attempt, .. } = &self.state {
            match attempt.clone().now_or_never() {
                Some(Ok(Ended { result: Ok(calls), at: since })) => {
                    self.state = State::Up { calls, since };
                }
                Some(Ok(Ended { result: Err(error), at })) => self.failed(at, error.to_string()),
                Some(Err(_aborted)) => {
                    self.failed(Instant::now(), "the attempt to connect was given up".into());
                }
                None => {}
            }
        }
        if let State::Up { calls, since } = &self.state
            && let Some(closed) = calls.closed()
        {
            if closed.at.duration_since(*since) < RECONNECT_BACKOFF_MAX {
                self.failed(closed.at, closed.reason);
            } else {
                *self = Self { failures: 0, state: State::Idle };
            }
        }
    }

    fn failed(&mut self, at: Instant, error: String) {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Pausing { until: at + pause(self.failures, host::jitter()), error };
    }
}

/// How long to wait after this many failures: doubling from [`RECONNECT_BACKOFF_MIN`] to
/// [`RECONNECT_BACKOFF_MAX`], less up to a half so that not all come back at once. `jitter` is
/// between 0 and 1.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = RECONNECT_BACKOFF_MIN.saturating_mul(1 << doublings).min(RECONNECT_BACKOFF_MAX);
    full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound_and_is_at_most_halved() {
        assert_eq!(pause(1, 0.0), RECONNECT_BACKOFF_MIN);
        assert_eq!(pause(2, 0.0), RECONNECT_BACKOFF_MIN * 2);
        assert_eq!(pause(3, 1.0), RECONNECT_BACKOFF_MIN * 2);
        assert_eq!(pause(7, 0.0), RECONNECT_BACKOFF_MAX);
        assert_eq!(pause(u32::MAX, 0.0), RECONNECT_BACKOFF_MAX);
        assert_eq!(pause(u32::MAX, 1.0), RECONNECT_BACKOFF_MAX / 2);
    }
}
