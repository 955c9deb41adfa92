//! The account of a leader's memory, over random histories of its log: never over the budget,
//! nothing refused that certainly fits, and all room given back in the end.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::raft::replica::ReplicaOptions;
use crate::raft::replica::tests::{alone, open};
use crate::store::apply::apply;
use crate::store::state::ITEM_OVERHEAD_BYTES;
use crate::types::command::Command;
use crate::types::log::{Entry, Payload};

/// Room for four items of 64 bytes.
const MAX: u64 = 4 * (ITEM_OVERHEAD_BYTES + 64);

#[derive(Clone, Debug)]
enum Step {
    Put(Key, usize),
    Delete(Key),
    /// The oldest entry on its way is applied.
    Apply,
    /// So many of the newest are cut from the log.
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || "[a-f]".prop_map(|text| Key::new(text).expect("a key"));
    prop_oneof![
        6 => (key(), 0..400_usize).prop_map(|(key, len)| Step::Put(key, len)),
        2 => key().prop_map(Step::Delete),
        6 => Just(Step::Apply),
        1 => (1..4_usize).prop_map(Step::Cut),
    ]
}

fn value(len: usize) -> Value {
    Value::bytes(vec![0; len])
}

/// A leader's log and state without the rest of it.
struct Leader {
    budget: Budget,
    state: State,
    published: Published,
    log: VecDeque<(Action, Option<Room>)>,
}

impl Leader {
    fn new() -> Self {
        let (state, published) = (State::default(), Published::default());
        Self { budget: Budget::new(MAX), state, published, log: VecDeque::new() }
    }

    fn put(&mut self, key: &Key, len: usize) -> bool {
        let value = value(len);
        let adds = Adds::Item(memory_of(key, &value, false));
        let Ok(room) = self.budget.admit(&self.published, &[(key, adds)]) else { return false };
        self.log.push_back((Action::Put { key: key.clone(), value }, Some(room)));
        true
    }

    fn apply(&mut self) {
        let Some((action, room)) = self.log.pop_front() else { return };
        let id = LogId { term: 1, leader: NodeId(1), index: self.state.next_index() };
        let payload = Payload::Command(Command { ts: 1, action });
        apply(&mut self.state, &Entry { id, payload });
        self.published.change(|state| *state = self.state.clone());
        drop(room);
        assert!(self.state.memory() <= MAX, "{} bytes", self.state.memory());
    }

    fn on_the_way(&self) -> u64 {
        lock(&self.budget.ledger).on_the_way
    }
}

proptest! {
    #[test]
    fn the_map_never_exceeds_the_budget_and_no_room_is_lost(steps in vec(step(), 0..80)) {
        let mut leader = Leader::new();
        for step in steps {
            match step {
                Step::Put(key, len) => {
                    let asked = memory_of(&key, &value(len), false);
                    let held = leader.state.map.get(&key);
                    let held = held.map_or(0, |item| memory_of(&key, &item.value, item.expires.at().is_some()));
                    let (alone, after) = (leader.log.is_empty(), leader.state.memory() - held + asked);
                    let admitted = leader.put(&key, len);
                    prop_assert!(admitted || asked > held, "refused although it makes it no larger");
                    if alone && asked > held {
                        prop_assert_eq!(admitted, after <= MAX, "decided wrongly at rest");
                    }
                }
                Step::Delete(key) => leader.log.push_back((Action::Delete { key }, None)),
                Step::Apply => leader.apply(),
                Step::Cut(count) => leader.log.truncate(leader.log.len().saturating_sub(count)),
            }
        }
        while !leader.log.is_empty() {
            leader.apply();
        }
        prop_assert_eq!(leader.on_the_way(), 0);
    }
}

#[test]
fn a_leader_counts_all_once_it_has_applied_an_entry_of_its_own() {
    let id = |term, leader| LogId { term, leader: NodeId(leader), index: 9 };
    let cases = [
        (true, 5, Some(id(5, 1)), true),
        (true, 5, Some(id(4, 1)), false),
        (true, 5, Some(id(5, 2)), false),
        (true, 5, None, false),
        (false, 5, Some(id(5, 1)), false),
    ];
    for (committed, term, applied, all) in cases {
        let vote = Vote { term, node: NodeId(1), committed };
        assert_eq!(counts_all(&vote, NodeId(1), applied.as_ref()), all, "{vote:?} {applied:?}");
    }
    let other = Vote { term: 5, node: NodeId(2), committed: true };
    assert!(!counts_all(&other, NodeId(1), Some(&id(5, 2))), "it does not lead");
}

#[test]
fn room_that_a_delete_on_its_way_will_leave_is_not_given_twice() {
    let key = |text: &'static str| Key::new(text).expect("a key");
    let mut leader = Leader::new();
    for full in ["a", "b", "c", "d"] {
        assert!(leader.put(&key(full), 63), "{full} fits");
        leader.apply();
    }
    assert_eq!(leader.state.memory(), MAX);
    leader.log.push_back((Action::Delete { key: key("a") }, None));
    assert!(leader.put(&key("a"), 63), "it is as large as what is there");
    leader.apply();
    assert!(!leader.put(&key("e"), 0), "the room is promised to the second a");
    leader.apply();
    assert_eq!((leader.state.memory(), leader.on_the_way()), (MAX, 0));
}

#[test]
fn that_it_is_full_is_said_once_and_again_only_after_there_was_room() {
    let key = |text: &'static str| Key::new(text).expect("a key");
    let mut leader = Leader::new();
    let full = |leader: &Leader| lock(&leader.budget.ledger).refused.is_some();
    assert!(!leader.put(&key("a"), 10_000) && !full(&leader), "larger than all that there is");
    for fits in ["a", "b", "c", "d"] {
        assert!(leader.put(&key(fits), 60), "{fits} fits");
        leader.apply();
    }
    assert!(!leader.put(&key("e"), 0) && full(&leader));
    assert!(leader.put(&key("a"), 1));
    leader.apply();
    leader.budget.note(&leader.published);
    assert!(full(&leader), "what was refused would not fit yet");
    leader.log.push_back((Action::Delete { key: key("a") }, None));
    leader.apply();
    leader.budget.note(&leader.published);
    assert!(!full(&leader), "now it would");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_nobody_waits_for_keeps_its_room_until_it_is_applied() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let replica = open(ReplicaOptions { max_memory: Some(MAX), ..alone(dir.path()) }).await;
    replica.form().await.expect("it forms");
    let deadline = || Deadline::after(Duration::from_secs(10));
    let put = |text: &str, len| {
        let key = Key::new(text).expect("a key");
        replica.write(Action::Put { key, value: value(len) }, deadline())
    };
    put("first", 10).await.expect("there is room");
    let on_the_way = || lock(&replica.budget().expect("bounded").ledger).on_the_way;
    let settled = async || {
        let settled = async {
            while on_the_way() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), settled).await.expect("all settle");
    };
    for _ in 0..100 {
        // Polled once, then dropped: it may not even get into the log, and gives its room back all the same.
        drop(put("second", 10).now_or_never());
    }
    settled().await;
    let mut unanswered: u64 = 0;
    let abandoned = async {
        // As many as it takes: one may be applied before it is seen in the log.
        while unanswered < 10 {
            let last = replica.wal().last();
            let mut write = pin!(put("first", 10));
            while write.as_mut().now_or_never().is_none() {
                if replica.wal().last() > last {
                    unanswered += 1;
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), abandoned).await.expect("some are seen there");
    settled().await;
    let state = replica.published().frozen();
    assert!(state.memory() <= MAX, "{} bytes", state.memory());
    let first = Key::new("first").expect("a key");
    let version = state.read(&first).expect("it is owned").expect("it was put").version;
    assert!(version > unanswered, "version {version}, and {unanswered} were in the log");
    replica.shutdown().await;
}
