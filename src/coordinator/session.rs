//! This coordinator's session with one group: the names of its writes.
//!
//! A write goes out under a [`Ticket`]: a slot of the session, and a number that was not used in it
//! before. So it may be sent again as often as need be, and takes effect once. When the ticket is
//! dropped, whatever became of the write, the slot takes the next one, whose greater number tells the
//! group that nobody waits for the one before.
//!
//! Slots that were used are used again first, so that a group remembers as many answers as there
//! were writes under way at a time. Nothing is kept on disk: a coordinator that starts opens new
//! sessions, and one whose session has ended opens another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::ids::SessionId;
use crate::types::limits::SESSION_SLOTS_MAX;
use crate::types::once::WriteId;

/// The session with one group, if there is one.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Session {
    open: Mutex<Option<Arc<Slots>>>,
    /// Held by whoever opens one.
    pub(in crate::coordinator) opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Slots {
    session: SessionId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last number used in each slot.
    seqs: Vec<u64>,
    free: BinaryHeap<Reverse<u32>>,
}

/// One slot, for one write.
#[derive(Debug)]
pub(in crate::coordinator) struct Ticket {
    slots: Arc<Slots>,
    write: WriteId,
}

/// Why there is no ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::coordinator) enum NoTicket {
    /// No session is open.
    NoSession,
    /// As many writes are under way as there are slots.
    Full,
}

impl Session {
    /// A slot for one write.
    pub(in crate::coordinator) fn ticket(&self) -> Result<Ticket, NoTicket> {
        let slots = lock(&self.open).clone().ok_or(NoTicket::NoSession)?;
        let write = slots.take().ok_or(NoTicket::Full)?;
        Ok(Ticket { slots, write })
    }

    /// Whether one is open, as far as is known.
    pub(in crate::coordinator) fn is_open(&self) -> bool {
        lock(&self.open).is_some()
    }

    /// The group has opened `session`.
    pub(in crate::coordinator) fn opened(&self, session: SessionId) {
        *lock(&self.open) = Some(Arc::new(Slots { session, state: Mutex::default() }));
    }

    /// The session of `ticket` has ended.
    pub(in crate::coordinator) fn ended(&self, ticket: &Ticket) {
        lock(&self.open).take_if(|open| open.session == ticket.write.session);
    }
}

impl Slots {
    fn take(&self) -> Option<WriteId> {
        let mut state = lock(&self.state);
        let free = state.free.pop().map(|Reverse(slot)| slot);
        let slot = free.or_else(|| {
            let next = u32::try_from(state.seqs.len()).ok()?;
            (next < SESSION_SLOTS_MAX).then(|| state.seqs.push(0))?;
            Some(next)
        })?;
        let seq = state.seqs.get_mut(slot as usize)?;
        *seq += 1;
        Some(WriteId { session: self.session, slot, seq: *seq })
    }
}

impl Ticket {
    /// The name of the write.
    pub(in crate::coordinator) fn write(&self) -> WriteId {
        self.write
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.slots.state).free.push(Reverse(self.write.slot));
    }
}

/// What these locks guard is never left half changed, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(ticket: &Ticket) -> (u64, u32, u64) {
        let WriteId { session, slot, seq } = ticket.write();
        (session.0, slot, seq)
    }

    #[test]
    fn a_name_is_given_once_and_the_lowest_slot_first() {
        let session = Session::default();
        assert_eq!(session.ticket().err(), Some(NoTicket::NoSession));
        session.opened(SessionId(7));
        let tickets: Vec<_> = (0..3).map(|_| session.ticket().expect("a slot")).collect();
        assert_eq!(tickets.iter().map(name).collect::<Vec<_>>(), [(7, 0, 1), (7, 1, 1), (7, 2, 1)]);
        drop(tickets);
        let (one, two) = (session.ticket().expect("a slot"), session.ticket().expect("a slot"));
        assert_eq!((name(&one), name(&two)), ((7, 0, 2), (7, 1, 2)));
        drop(one);
        assert_eq!(session.ticket().as_ref().map(name), Ok((7, 0, 3)));
    }

    #[test]
    fn a_session_that_has_ended_takes_no_later_one_with_it() {
        let session = Session::default();
        session.opened(SessionId(7));
        let old = session.ticket().expect("a slot");
        session.ended(&old);
        assert_eq!(session.ticket().err(), Some(NoTicket::NoSession));
        session.opened(SessionId(8));
        session.ended(&old);
        drop(old);
        assert_eq!(session.ticket().as_ref().map(name), Ok((8, 0, 1)));
    }

    #[test]
    fn there_are_no_more_slots_than_a_group_takes() {
        let session = Session::default();
        session.opened(SessionId(7));
        let mut tickets: Vec<_> =
            (0..SESSION_SLOTS_MAX).map(|_| session.ticket().expect("a slot")).collect();
        assert_eq!(session.ticket().err(), Some(NoTicket::Full));
        tickets.truncate(5);
        assert_eq!(session.ticket().as_ref().map(name), Ok((7, 5, 2)));
    }
}
