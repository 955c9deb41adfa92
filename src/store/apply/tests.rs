//! Properties of `apply` over random histories, against a model that knows every version a key
//! ever had.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::script::claim;
use super::*;
use crate::store::state::size_of;
use crate::types::command::{Condition, KeyWrite, Write};
use crate::types::hash::Token;
use crate::types::ids::{Index, LogId, NodeId, SessionId};
use crate::types::item::Version;
use crate::types::log::Membership;
use crate::types::scan::Span;
use crate::types::txn::{Op, Txn};
use crate::types::value::ValueKind;

fn key() -> impl Strategy<Value = Key> {
    // Few keys, so that they meet again; some share a hash tag.
    "[a-f]|\\{t\\}[a-c]".prop_map(|text| Key::new(text).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    (0..3_usize, vec(any::<u8>(), 0..40)).prop_map(|(kind, data)| {
        let kind = [ValueKind::Text, ValueKind::Json, ValueKind::Bytes][kind];
        Value { kind, data: data.into() }
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Present),
        vec(0..20_u64, 1..6).prop_map(Condition::Version),
    ]
}

/// Beside times that are drawn from as few.
fn ttl_ms() -> impl Strategy<Value = u64> {
    prop_oneof![1..20_u64, Just(u64::MAX)]
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => value().prop_map(|value| Write::Put { value }),
        1 => Just(Write::Delete),
        2 => (value(), ttl_ms()).prop_map(|(value, ttl_ms)| Write::PutFor { value, ttl_ms }),
        1 => prop::option::of(ttl_ms()).prop_map(|ttl_ms| Write::Touch { ttl_ms }),
        2 => prop_oneof![-3..4_i64, Just(i64::MAX)].prop_map(|by| Write::Add { by }),
    ]
}

fn key_write() -> impl Strategy<Value = KeyWrite> {
    (key(), prop::option::of(condition()), write()).prop_map(|(key, condition, write)| KeyWrite {
        key,
        condition,
        write,
    })
}

/// Few names, so that they meet again.
fn write_id() -> impl Strategy<Value = WriteId> {
    (1..4_u64, 0..3_u32, 1..5_u64).prop_map(|(session, slot, seq)| WriteId {
        session: SessionId(session),
        slot,
        seq,
    })
}

fn once() -> impl Strategy<Value = Once> {
    prop_oneof![
        write_id().prop_map(Once::Session),
        "[k-m]".prop_map(|key| Once::Key(IdempotencyKey::new(&key).unwrap())),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let range = prop::sample::select(vec!["all", "none", "low", "high"]);
    let cluster = || (1..3_u64).prop_map(ClusterId);
    prop_oneof![
        20 => (key(), value()).prop_map(|(key, value)| Action::Put { key, value }),
        12 => key().prop_map(|key| Action::Delete { key }),
        12 => (key(), condition(), write()).prop_map(|(key, condition, write)| {
            Action::Conditional { key, condition, write }
        }),
        12 => (once(), key_write()).prop_map(|(once, write)| Action::Once { once, write }),
        2 => ("[a-d]{0,1}", 0..5_u32, prop::option::of(write_id())).prop_map(|(prefix, limit, once)| {
            Action::DeleteSpan { span: Span::of_prefix(prefix.as_bytes()), limit, once }
        }),
        6 => key_write().prop_map(Action::Write),
        4 => Just(Action::Expire),
        2 => (1..4_u64).prop_map(|id| Action::OpenSession { session: SessionId(id) }),
        1 => (1..3_u64).prop_map(|id| Action::Found { group: GroupId(id), name: "name".into() }),
        2 => (1..3_u64, 1..4_u64, range)
            .prop_map(|(cluster, epoch, range)| Action::Claim(Box::new(claim(cluster, epoch, range)))),
        1 => cluster().prop_map(|cluster| Action::Confirm { cluster }),
        2 => cluster().prop_map(|cluster| Action::Release { cluster }),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        1 => Just(Payload::Blank),
        1 => Just(Payload::Membership(Membership::default())),
        30 => (0..40_u64, action())
            .prop_map(|(ts, action)| Payload::Command(Command { ts, action })),
    ]
}

/// Of those that are carried out, and of those that are not after half of it.
fn txn() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        1 => key().prop_map(|key| Op::Get { key }),
        4 => (key(), write()).prop_map(|(key, write)| Op::Write { key, write }),
    ];
    (vec(op, 1..4), any::<bool>()).prop_map(|(ops, batch)| {
        let (compare, otherwise) = (Vec::new(), Vec::new());
        if batch { Txn::Batch { ops } } else { Txn::Atomic { compare, then: ops, otherwise } }
    })
}

fn with_transactions() -> impl Strategy<Value = Vec<Entry>> {
    let txn = (0..40_u64, txn()).prop_map(|(ts, txn)| {
        Payload::Command(Command { ts, action: Action::Txn { once: None, txn } })
    });
    vec(prop_oneof![3 => payload(), 1 => txn], 0..60).prop_map(|payloads| {
        (0..).zip(payloads).map(|(index, payload)| entry(index, payload)).collect()
    })
}

fn entry(index: Index, payload: Payload) -> Entry {
    Entry { id: LogId { term: 1, leader: NodeId(1), index }, payload }
}

/// A log from its first entry on.
pub(in crate::store) fn history() -> impl Strategy<Value = Vec<Entry>> {
    vec(payload(), 0..200)
        .prop_map(|payloads| (0..).zip(payloads).map(|(i, p)| entry(i, p)).collect())
}

fn bytes_of(state: &State) -> u64 {
    state.map.iter().map(|(key, item)| size_of(key, item)).sum()
}

/// What has been written, as seen from outside.
#[derive(Default)]
struct Model {
    values: BTreeMap<Key, (Value, TimestampMs, Option<TimestampMs>)>,
    versions: BTreeMap<Key, Version>,
    clock: TimestampMs,
}

impl Model {
    /// Values come to their end by the time of the log, which never goes back.
    fn at(&mut self, clock: TimestampMs) {
        assert!(clock >= self.clock, "from {} to {clock}", self.clock);
        self.clock = clock;
        self.values.retain(|_, (_, _, expires)| expires.is_none_or(|expires| expires > clock));
    }

    /// The last millisecond that a number tells is kept for what is never over.
    fn after(&self, ttl_ms: u64) -> TimestampMs {
        self.clock.saturating_add(ttl_ms).min(TimestampMs::MAX - 1)
    }

    /// Checks the outcome of a write and follows it.
    fn key_write(
        &mut self,
        (key, condition, write): (&Key, Option<&Condition>, &Write),
        ts: TimestampMs,
        outcome: &Outcome,
    ) {
        let version = self.values.contains_key(key).then(|| self.versions[key]);
        let happens = condition.is_none_or(|condition| condition.holds(version));
        match (outcome, write) {
            (Outcome::Mismatch { version: said }, _) => {
                assert!(!happens, "{condition:?}");
                assert_eq!(*said, version);
            }
            (Outcome::Written { .. }, Write::Put { value }) => {
                self.write(key, Some((value.clone(), ts, None)), outcome);
            }
            (Outcome::Written { .. }, Write::Delete) => self.write(key, None, outcome),
            (Outcome::Lasting { expires, .. }, Write::PutFor { value, ttl_ms }) => {
                assert_eq!(*expires, Some(self.after(*ttl_ms)));
                self.write(key, Some((value.clone(), ts, *expires)), outcome);
            }
            (Outcome::Lasting { version: said, existed, expires }, Write::Touch { ttl_ms }) => {
                assert_eq!((Some(*said), *existed), (version, true));
                assert_eq!(*expires, ttl_ms.map(|ttl_ms| self.after(ttl_ms)));
                self.values.get_mut(key).expect("it has a value").2 = *expires;
            }
            (Outcome::NoValue, Write::Touch { .. }) => assert_eq!(version, None),
            (Outcome::Counted { value, expires, .. }, Write::Add { by }) => {
                let held = self.values.get(key);
                assert_eq!(*expires, held.and_then(|held| held.2));
                let held = held.map_or(Some(0), |(value, _, _)| value.as_integer());
                assert_eq!(held.and_then(|held| held.checked_add(*by)), Some(*value));
                self.write(key, Some((Value::integer(*value), ts, *expires)), outcome);
            }
            (Outcome::NotAnInteger, Write::Add { by }) => {
                let held = self.values.get(key).map_or(Some(0), |(value, _, _)| value.as_integer());
                assert_eq!(held.and_then(|held| held.checked_add(*by)), None);
            }
            (
                Outcome::WrongShard { .. }
                | Outcome::Again(_)
                | Outcome::NoSession
                | Outcome::Superseded
                | Outcome::KeyReused
                | Outcome::KeysFull,
                _,
            ) => return,
            _ => panic!("{outcome:?} of {write:?}"),
        }
        assert_eq!(happens, !matches!(outcome, Outcome::Mismatch { .. }), "{condition:?}");
    }

    /// The first keys of the span are gone, and each has a version above its last.
    fn delete_span(&mut self, span: &Span, limit: u32, outcome: &Outcome) {
        let Outcome::Deleted { keys, more, .. } = *outcome else { return };
        let inside = |key: &&Key| {
            let to = span.to.as_ref();
            span.from <= *key.as_bytes() && to.is_none_or(|to| key.as_bytes() < &to[..])
        };
        let inside: Vec<Key> = self.values.keys().filter(inside).cloned().collect();
        let doomed = inside.len().min(limit as usize);
        // What was over took some of the limit, if there was such.
        let doomed = doomed.min(keys as usize);
        assert!(keys as usize == doomed && (more || inside.len() == doomed), "{outcome:?}");
        for key in &inside[..doomed] {
            self.values.remove(key);
            *self.versions.get_mut(key).expect("it has a value") += 1;
        }
    }

    fn write(
        &mut self,
        key: &Key,
        new: Option<(Value, TimestampMs, Option<TimestampMs>)>,
        outcome: &Outcome,
    ) {
        let (Outcome::Written { version, existed }
        | Outcome::Lasting { version, existed, .. }
        | Outcome::Counted { version, existed, .. }) = *outcome
        else {
            return;
        };
        assert_eq!(existed, self.values.contains_key(key));
        let last = self.versions.entry(key.clone()).or_default();
        if existed || new.is_some() {
            assert!(version > *last, "{key} went from {last} to {version}");
            *last = version;
        } else {
            assert!(version >= *last, "{key} had {last}, its floor is {version}");
        }
        match new {
            Some(new) => self.values.insert(key.clone(), new),
            None => self.values.remove(key),
        };
    }
}

proptest! {
    #[test]
    fn the_same_entries_give_the_same_state_and_outcomes(history in history()) {
        let (mut one, mut two) = (State::default(), State::default());
        for entry in &history {
            // A clone in between must not show: it is what readers hold.
            let frozen = two.clone();
            let before = bytes_of(&frozen);
            prop_assert_eq!(apply(&mut one, entry), apply(&mut two, entry));
            prop_assert_eq!(bytes_of(&frozen), before);
            prop_assert_eq!(frozen.next_index(), entry.id.index);
        }
        prop_assert_eq!(one, two);
    }

    #[test]
    fn versions_rise_through_deletes_and_values_are_the_last_written(history in history()) {
        let (mut state, mut model) = (State::default(), Model::default());
        for entry in &history {
            let outcome = apply(&mut state, entry);
            model.at(state.clock);
            if let Payload::Command(Command { ts, action }) = &entry.payload {
                let mut check = |key, condition, write: &Write| {
                    model.key_write((key, condition, write), *ts, &outcome);
                };
                match action {
                    Action::Put { key, value } => check(key, None, &Write::Put { value: value.clone() }),
                    Action::Delete { key } => check(key, None, &Write::Delete),
                    Action::Conditional { key, condition, write } => check(key, Some(condition), write),
                    Action::Write(KeyWrite { key, condition, write })
                    | Action::Once { write: KeyWrite { key, condition, write }, .. } => {
                        check(key, condition.as_ref(), write);
                    }
                    Action::DeleteSpan { span, limit, .. } => {
                        model.delete_span(span, *limit, &outcome);
                    }
                    _ => {}
                }
            }
            let held: BTreeMap<_, _> = state
                .span(&Span::default())
                .map(|(key, item)| (key.clone(), (item.value.clone(), item.ts, item.expires.at())))
                .collect();
            prop_assert_eq!(state.keys_with_value(), held.len() as u64);
            prop_assert_eq!(&held, &model.values);
        }
    }

    /// Who was told of every change has what the state has, a touch aside, which changes no value.
    #[test]
    fn what_watchers_are_told_comes_to_the_same_state(history in with_transactions()) {
        let mut state = State { changes: Some(Vec::new()), ..State::default() };
        let mut told = BTreeMap::new();
        let mut versions = BTreeMap::new();
        for entry in &history {
            apply(&mut state, entry);
            for Event { key, change, ts, version } in state.changes.replace(Vec::new()).unwrap() {
                prop_assert!(versions.insert(key.clone(), version) < Some(version), "{key} goes back");
                match change {
                    Change::Put { value, .. } => told.insert(key, (value, ts, version)),
                    Change::Delete | Change::Expire => {
                        let before = told.remove(&key);
                        prop_assert!(before.is_some(), "{key} had no value");
                        before
                    }
                };
            }
            let held = state.map.iter().map(|(key, item)| {
                (key.clone(), (item.value.clone(), item.ts, item.version))
            });
            prop_assert_eq!(&told, &held.collect());
        }
    }

    #[test]
    fn bytes_are_exact_and_every_key_is_owned(history in history()) {
        let mut state = State::default();
        for entry in &history {
            let before = state.clone();
            let outcome = apply(&mut state, entry);
            prop_assert_eq!(state.bytes, bytes_of(&state));
            prop_assert_eq!(state.applied, Some(entry.id));
            if let Some(claim) = &state.claim {
                prop_assert_eq!(state.keys_foreign_to(claim), 0);
            }
            prop_assert!(state.claim.is_some() || !state.confirmed);
            if matches!(outcome, Outcome::Refused(_) | Outcome::WrongShard { .. }) {
                // Time goes by, and so does what is remembered.
                let State { applied, clock, ref answers, .. } = before;
                prop_assert!(state.answers.count() <= answers.count());
                let answers = answers.clone();
                prop_assert_eq!(State { applied, clock, answers, ..state.clone() }, before);
            }
        }
    }
}

#[test]
#[should_panic(expected = "hole in log")]
fn a_hole_in_the_log_ends_the_process() {
    let mut state = State::default();
    apply(&mut state, &entry(0, Payload::Blank));
    apply(&mut state, &entry(2, Payload::Blank));
}

#[test]
#[should_panic(expected = "hole in log")]
fn an_entry_is_never_applied_twice() {
    let mut state = State::default();
    apply(&mut state, &entry(0, Payload::Blank));
    apply(&mut state, &entry(0, Payload::Blank));
}

#[test]
fn a_reader_is_told_the_epoch_when_the_key_is_not_owned() {
    let key = Key::new("c").unwrap();
    assert!(Token::of_key(&key) < Token(1 << 63), "`c` lies in the lower half");
    let claim = Some(Arc::new(claim(1, 6, "high")));
    let state = State { claim, ..State::default() };
    assert_eq!(state.read(&key), Err(WrongShard { epoch: 6 }));
    assert_eq!(State::default().read(&key), Ok(None));
}

/// Random histories have few keys; this one has a tree of several levels, which is split, merged
/// and shared with clones all the time.
#[test]
fn frozen_clones_of_a_large_state_never_change() {
    let mut state = State::default();
    let mut model = BTreeMap::new();
    let mut frozen = vec![];
    let mut random = 1_u64;
    for index in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = Key::new(format!("key{}", (random >> 33) % 5_000)).unwrap();
        // Grows at first, shrinks later.
        let action = if (random >> 20) % 20_000 >= index {
            let value = Value::text(index.to_string());
            model.insert(key.clone(), value.clone());
            Action::Put { key, value }
        } else {
            model.remove(&key);
            Action::Delete { key }
        };
        let command = Command { ts: index, action };
        apply(&mut state, &entry(index, Payload::Command(command)));
        if index % 2_000 == 0 {
            frozen.push((state.clone(), model.clone()));
        }
    }
    frozen.push((state, model));
    assert!(frozen.iter().any(|(state, _)| state.keys() > 2_000));
    for (state, model) in frozen {
        let held = state.map.iter().map(|(key, item)| (key, &item.value));
        assert!(held.eq(&model), "as of entry {:?}", state.applied);
        assert_eq!(state.bytes, bytes_of(&state));
    }
}

/// Writes that are sent again and again, within minutes.
fn repeated() -> impl Strategy<Value = Vec<(u64, Once, KeyWrite)>> {
    let writes = vec((once(), key_write()), 1..12);
    writes.prop_flat_map(|writes| {
        vec((0..60_000_u64, prop::sample::select(writes)), 0..120).prop_map(|sent| {
            let mut now = 0;
            let at = |(pause, (once, write))| {
                now += pause / 120;
                (now, once, write)
            };
            sent.into_iter().map(at).collect()
        })
    })
}

proptest! {
    #[test]
    fn a_write_with_a_name_takes_effect_once_and_says_the_same_ever_after(sent in repeated()) {
        let mut state = State::default();
        let mut commands = vec![];
        for session in 1..3 {
            commands.push((0, Action::OpenSession { session: SessionId(session) }));
        }
        commands.extend(sent.into_iter().map(|(ts, once, write)| (ts, Action::Once { once, write })));
        let mut first = Vec::<(Once, KeyWrite, Outcome)>::new();
        let mut newest = BTreeMap::new();
        for (index, (ts, action)) in (0..).zip(commands) {
            let command = Command { ts, action: action.clone() };
            let before = state.clone();
            let outcome = apply(&mut state, &entry(index, Payload::Command(command)));
            let Action::Once { once, write } = action else { continue };
            let settled = matches!(
                outcome,
                Outcome::Written { .. }
                    | Outcome::Mismatch { .. }
                    | Outcome::Lasting { .. }
                    | Outcome::NoValue
                    | Outcome::Counted { .. }
                    | Outcome::NotAnInteger
            );
            if !settled {
                prop_assert_eq!(&state.map, &before.map);
            }
            let known = first.iter().find(|(name, _, _)| *name == once);
            match (&once, &outcome) {
                (Once::Session(id), Outcome::NoSession) => prop_assert_eq!(id.session, SessionId(3)),
                (Once::Session(id), Outcome::Superseded) => {
                    prop_assert!(newest[&(id.session, id.slot)] > id.seq);
                }
                (Once::Key(_), Outcome::KeyReused) => {
                    prop_assert!(known.is_some_and(|(_, first, _)| *first != write));
                }
                (_, Outcome::Again(answer)) => {
                    let (_, _, outcome) = known.expect("there was a first time");
                    let same = answer.result.clone().into();
                    prop_assert_eq!(outcome, &same);
                    prop_assert!(answer.index < index);
                }
                (once, _) if settled => {
                    prop_assert!(known.is_none(), "{:?} took effect twice", once);
                    if let Once::Session(id) = once {
                        let seq = newest.entry((id.session, id.slot)).or_insert(0);
                        prop_assert!(id.seq > *seq, "{:?} came too late", once);
                        *seq = id.seq;
                    }
                    first.push((once.clone(), write, outcome));
                }
                (_, outcome) => prop_assert!(false, "{:?}", outcome),
            }
        }
    }
}
