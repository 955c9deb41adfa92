//! Decides, for every call on one connection, whether it was sent.
//!
//! A call is *queued* until the writer takes it, and *taken* from then on. The writer takes calls
//! under the same lock under which they are withdrawn, and before any of their bytes reach the
//! socket. So a call that is still queued when its deadline passes, when the other side goes away
//! or when the connection breaks has certainly not been sent ([`CallError::NotSent`]), and every
//! other call that ends without its answer may have been ([`CallError::Lost`], [`CallError::Late`]). Ids rise from call
//! to call and are taken in that order, which gives a farewell ("none from 17 on") its meaning.
//! Refuses more calls or bytes than its bounds. Does no I/O and never waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::rpc::CallError;
use crate::types::limits::{
    CALLS_IN_FLIGHT_MAX, SEND_QUEUE_BYTES_MAX, SEND_QUEUE_FRAMES_MAX, WRITE_BATCH_BYTES,
};

/// What became of a call: the encoded reply, or why there is none.
pub(super) type Fate = Result<Bytes, CallError>;

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Pending {
    url: String,
    table: Mutex<Table>,
}

/// Why and since when no more calls go over a connection.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    /// A sentence.
    pub(super) reason: String,
    /// When it was noticed.
    pub(super) at: Instant,
}

#[derive(Debug, Default)]
struct Table {
    calls: BTreeMap<u64, Call>,
    queue: VecDeque<u64>,
    queued_bytes: usize,
    next_id: u64,
    closed: Option<Closed>,
}

#[derive(Debug)]
struct Call {
    /// There until the writer takes it.
    queued: Option<Bytes>,
    fate: oneshot::Sender<Fate>,
}

impl Pending {
    /// No calls yet, to the process at `url`.
    pub(super) fn new(url: String) -> Self {
        Self { url, table: Mutex::default() }
    }

    /// Queues a call; its fate arrives at the receiver.
    pub(super) fn queue(
        &self,
        request: Bytes,
    ) -> Result<(u64, oneshot::Receiver<Fate>), CallError> {
        let mut table = self.lock();
        if let Some(closed) = &table.closed {
            return Err(CallError::NotSent(closed.reason.clone()));
        }
        let bytes = table.queued_bytes + request.len();
        if table.calls.len() >= CALLS_IN_FLIGHT_MAX
            || table.queue.len() >= SEND_QUEUE_FRAMES_MAX
            || (bytes > SEND_QUEUE_BYTES_MAX && !table.queue.is_empty())
        {
            return Err(CallError::Overloaded(self.url.clone()));
        }
        let id = table.next_id;
        table.next_id += 1;
        table.queued_bytes = bytes;
        table.queue.push_back(id);
        let (fate, receiver) = oneshot::channel();
        table.calls.insert(id, Call { queued: Some(request), fate });
        Ok((id, receiver))
    }

    /// How many calls wait to be sent.
    pub(super) fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether no more than one call is queued or waits for its answer.
    pub(super) fn has_one_at_most(&self) -> bool {
        self.lock().calls.len() <= 1
    }

    /// Takes queued calls, oldest first, up to about [`WRITE_BATCH_BYTES`]: from now on they may
    /// have been sent.
    pub(super) fn take(&self, batch: &mut Vec<(u64, Bytes)>) {
        let mut table = self.lock();
        let mut bytes = 0;
        while bytes < WRITE_BATCH_BYTES {
            let Some(id) = table.queue.pop_front() else { return };
            let call = table.calls.get_mut(&id).expect("a queued call is in the table");
            let request = call.queued.take().expect("a call in the queue is queued");
            table.queued_bytes -= request.len();
            bytes += request.len();
            batch.push((id, request));
        }
    }

    /// The answer to a call has arrived; too late if the call was withdrawn.
    pub(super) fn answer(&self, id: u64, reply: Bytes) {
        let call = self.lock().calls.remove(&id);
        if let Some(call) = call {
            // Nobody listens if the caller was dropped between the two lines: it wants no answer.
            call.fate.send(Ok(reply)).ok();
        }
    }

    /// Frees a call that nobody waits for any more. `Some` says what is known of it then; `None`
    /// that its fate was decided already.
    pub(super) fn withdraw(&self, id: u64) -> Option<CallError> {
        let mut table = self.lock();
        let call = table.calls.remove(&id)?;
        if let Some(request) = &call.queued {
            table.queued_bytes -= request.len();
            let at = table.queue.binary_search(&id).expect("a queued call is in the queue");
            table.queue.remove(at);
            let text = format!("the call to {} could not be sent in time", self.url);
            Some(CallError::NotSent(text))
        } else {
            Some(CallError::Late(format!("no answer from {} in time", self.url)))
        }
    }

    /// The other side has not looked and will not look at any call from `first` on; those before
    /// it are still to be answered.
    pub(super) fn go_away(&self, first: u64, reason: &str) {
        let mut table = self.lock();
        table.refuse(format!("{}: {reason}", self.url));
        let calls = std::mem::take(&mut table.calls).into_iter();
        let (unserved, served): (Vec<_>, Vec<_>) =
            calls.partition(|(id, call)| call.queued.is_some() || *id >= first);
        table.calls.extend(served);
        for (_, call) in unserved {
            let text = format!("the call was not sent to {}: {reason}", self.url);
            call.fate.send(Err(CallError::NotSent(text))).ok();
        }
    }

    /// The connection is over: every call gets its fate, and no new one is queued.
    pub(super) fn close(&self, reason: &str) {
        let mut table = self.lock();
        let url = &self.url;
        table.refuse(format!("the connection to {url} was lost: {reason}"));
        for (_, call) in std::mem::take(&mut table.calls) {
            let error = if call.queued.is_some() {
                CallError::NotSent(format!("the call was not sent to {url}: {reason}"))
            } else {
                CallError::Lost(format!("the answer from {url} was lost: {reason}"))
            };
            call.fate.send(Err(error)).ok();
        }
    }

    /// Why no call is queued any more and since when, once that is so.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.lock().closed.clone()
    }

    /// Whether no call is queued any more and none waits for its answer.
    pub(super) fn is_over(&self) -> bool {
        let table = self.lock();
        table.closed.is_some() && table.calls.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn refuse(&mut self, reason: String) {
        self.closed.get_or_insert_with(|| Closed { reason, at: Instant::now() });
        self.queue.clear();
        self.queued_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending::new("http://there".into())
    }

    fn queue(pending: &Pending, count: u64) -> Vec<oneshot::Receiver<Fate>> {
        (0..count).map(|_| pending.queue(Bytes::from_static(b"call")).unwrap().1).collect()
    }

    fn take(pending: &Pending) -> Vec<u64> {
        let mut batch = Vec::new();
        pending.take(&mut batch);
        batch.into_iter().map(|(id, _)| id).collect()
    }

    /// `.` undecided, `+` answered, `n` not sent, `l` lost.
    fn fates(receivers: &mut [oneshot::Receiver<Fate>]) -> String {
        let fate = |receiver: &mut oneshot::Receiver<Fate>| match receiver.try_recv() {
            Err(_) => '.',
            Ok(Ok(_)) => '+',
            Ok(Err(CallError::NotSent(_))) => 'n',
            Ok(Err(CallError::Lost(_) | CallError::Late(_))) => 'l',
            Ok(Err(CallError::Overloaded(_))) => panic!("a queued call is not refused"),
        };
        receivers.iter_mut().map(fate).collect()
    }

    #[test]
    fn what_was_taken_is_lost_and_what_was_queued_was_not_sent() {
        let pending = pending();
        let mut calls = queue(&pending, 3);
        assert_eq!(take(&pending), [0, 1, 2]);
        calls.extend(queue(&pending, 2));
        pending.answer(1, Bytes::new());
        pending.close("broken");
        assert_eq!(fates(&mut calls), "l+lnn");
        assert!(matches!(pending.queue(Bytes::new()), Err(CallError::NotSent(_))));
        assert!(take(&pending).is_empty() && pending.is_over());
    }

    #[test]
    fn a_withdrawn_call_is_never_taken_and_its_answer_goes_nowhere() {
        let pending = pending();
        let mut calls = queue(&pending, 3);
        assert!(matches!(pending.withdraw(1), Some(CallError::NotSent(_))));
        assert_eq!(take(&pending), [0, 2]);
        assert!(!pending.has_one_at_most(), "both wait for their answers");
        assert!(matches!(pending.withdraw(0), Some(CallError::Late(_))));
        pending.answer(0, Bytes::new());
        pending.answer(1, Bytes::new());
        pending.answer(99, Bytes::new());
        assert!(pending.has_one_at_most());
        assert_eq!(pending.withdraw(0), None);
        assert_eq!(fates(&mut calls), "...");
    }

    #[test]
    fn a_farewell_leaves_only_the_calls_before_it() {
        let pending = pending();
        let mut calls = queue(&pending, 3);
        take(&pending);
        calls.extend(queue(&pending, 1));
        pending.go_away(2, "stopping");
        assert_eq!(fates(&mut calls), "..nn");
        assert!(!pending.is_over());
        pending.answer(0, Bytes::new());
        assert!(matches!(pending.withdraw(1), Some(CallError::Late(_))));
        assert!(pending.is_over());
    }

    #[test]
    fn a_farewell_that_promises_too_much_keeps_no_queued_call() {
        let pending = pending();
        let mut calls = queue(&pending, 2);
        pending.go_away(u64::MAX, "stopping");
        assert_eq!(fates(&mut calls), "nn");
        assert_eq!(pending.withdraw(1), None);
    }

    #[test]
    fn calls_and_bytes_are_bounded() {
        let pending = pending();
        let half = Bytes::from(vec![0; SEND_QUEUE_BYTES_MAX / 2]);
        pending.queue(half.clone()).unwrap();
        pending.queue(half.clone()).unwrap();
        assert!(matches!(pending.queue(half), Err(CallError::Overloaded(_))));
        assert_eq!(take(&pending), [0], "one is a batch by itself");
        assert_eq!(take(&pending), [1]);
        let rest = u64::try_from(CALLS_IN_FLIGHT_MAX).unwrap() - 2;
        let _calls = queue(&pending, rest);
        assert!(matches!(pending.queue(Bytes::new()), Err(CallError::Overloaded(_))));
        pending.withdraw(0);
        pending.queue(Bytes::new()).unwrap();
    }
}
