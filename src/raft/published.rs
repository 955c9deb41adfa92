//! The state of one replica as one task changes it and everybody else reads it.
//!
//! It is changed where it is, under a lock that is held for a few entries: a node of the map is
//! copied only while somebody holds a frozen state that has it too, a scan or a snapshot. Who reads one
//! key holds the lock for as long as that takes ([decision 019] has the figures).
//!
//! [decision 019]: ../../docs/decisions/019-state-behind-a-lock.md

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard};

use crate::planted::{self, Bug};
use crate::raft::replica::lock;
use crate::store::state::State;
use crate::types::ids::Index;

/// What a state that is half changed says to whoever would read it; Raft is told, and the process ends.
const HALF_CHANGED: &str = "no panic while the state was changed";

/// The state of one replica. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct Published(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: RwLock<State>,
    /// Of the state; raised before the lock is free.
    next_index: AtomicU64,
    /// Of the state, which never changes once there is one.
    name: OnceLock<Arc<str>>,
    /// For [`Bug::LatePublish`]: what readers are shown instead.
    late: Mutex<Option<State>>,
}

impl Published {
    /// Looks at the state, which stays as it is meanwhile: `look` must be short, for whoever applies entries waits for it.
    ///
    /// # Panics
    /// If a change has panicked.
    pub(in crate::raft) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        if planted::bug(Bug::LatePublish)
            && let Some(state) = &*lock(&self.0.late)
        {
            return look(state);
        }
        look(&self.live())
    }

    /// The state as it is now, for as long as the caller wants; what is changed meanwhile is copied first.
    ///
    /// # Panics
    /// As [`Published::read`] does.
    pub(in crate::raft) fn frozen(&self) -> State {
        self.read(State::clone)
    }

    /// The index of the entry to apply next. Whatever is read after this is of that state or a later one.
    pub(in crate::raft) fn next_index(&self) -> Index {
        self.0.next_index.load(Ordering::Acquire)
    }

    /// The index of the last entry applied.
    pub(in crate::raft) fn applied_index(&self) -> Option<Index> {
        self.next_index().checked_sub(1)
    }

    /// The name of the group, once it is founded.
    pub(in crate::raft) fn name(&self) -> Option<&Arc<str>> {
        self.0.name.get()
    }

    /// Changes the state; readers see all of the change as soon as this returns, and no part of it before.
    ///
    /// # Panics
    /// As [`Published::read`] does.
    pub(in crate::raft) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.state.write().expect(HALF_CHANGED);
        if planted::bug(Bug::LatePublish) {
            self.be_late(&state);
        }
        let changed = change(&mut state);
        if self.0.name.get().is_none()
            && let Some((_, name)) = &state.group
        {
            self.0.name.get_or_init(|| Arc::clone(name));
        }
        self.0.next_index.store(state.next_index(), Ordering::Release);
        changed
    }

    /// The state, whatever bug is planted.
    pub(in crate::raft) fn live(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().expect(HALF_CHANGED)
    }

    /// Has readers see what is there before a change, or what comes of it. How a group forms is always shown:
    /// otherwise nothing would come that could show it later.
    fn be_late(&self, before: &State) {
        let mut late = lock(&self.0.late);
        if before.map.is_empty() || !planted::one_of(2) {
            *late = None;
        } else {
            late.get_or_insert_with(|| before.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{GroupId, LogId, NodeId};

    fn id(index: Index) -> LogId {
        LogId { term: 1, leader: NodeId(1), index }
    }

    #[test]
    fn what_is_known_without_the_lock_is_of_the_state() {
        let published = Published::default();
        assert_eq!((published.next_index(), published.applied_index()), (0, None));
        assert_eq!(published.name(), None);
        published.change(|state| {
            state.applied = Some(id(0));
            state.group = Some((GroupId(7), Arc::from("seven")));
        });
        assert_eq!((published.next_index(), published.applied_index()), (1, Some(0)));
        assert_eq!(published.name().map(|name| &**name), Some("seven"));
    }

    #[test]
    fn a_frozen_state_stays_as_it_is() {
        let published = Published::default();
        let frozen = published.frozen();
        published.change(|state| state.applied = Some(id(3)));
        assert_eq!(frozen.applied, None);
        assert_eq!(published.read(|state| state.applied), Some(id(3)));
    }
}
