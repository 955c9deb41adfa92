//! Watchers over groups that are lists: what they are told, whatever the groups forget, whoever leads,
//! and however slowly they take it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::types::ids::Index;
use crate::types::key::Key;
use crate::types::limits::{WATCH_LINGER, WATCH_TAIL_BYTES_MAX};
use crate::types::value::Value;
use crate::types::watch::{Change, Event, Filter};

/// Versions of group 1 begin here: a version tells which change it is.
const PER_GROUP: u64 = 1_000_000;

/// What the groups have: their changes, and the first entry that they still know.
#[derive(Debug, Default)]
struct Lists {
    groups: Vec<Mutex<List>>,
    silent: AtomicBool,
    gone: AtomicBool,
}

#[derive(Debug, Default)]
struct List {
    events: Vec<(Place, Event)>,
    oldest: Index,
    /// What the leader knows; others know all behind `oldest`.
    leader_knows: Index,
    next: Index,
    asked: usize,
}

impl Lists {
    fn new(groups: usize) -> Arc<Self> {
        // A group that serves has an entry already.
        let list = || List { next: 1, ..List::default() };
        let groups = (0..groups).map(|_| Mutex::new(list())).collect();
        Arc::new(Self { groups, ..Self::default() })
    }

    fn hub(self: &Arc<Self>) -> Arc<Hub> {
        let group =
            |number: usize| Group { id: GroupId(number as u64), name: format!("g{number}").into() };
        let groups = (0..self.groups.len()).map(group).collect();
        Hub::new(Arc::clone(self), 1, groups, CancellationToken::new())
    }

    /// One entry that changes these keys; its index.
    fn write(&self, group: usize, keys: &[&str]) -> Index {
        let mut list = lock(&self.groups[group]);
        let index = list.next;
        for (part, key) in (0..).zip(keys) {
            let change = Change::Put { value: Value::text("v"), expires: None };
            let key = Key::new(*key).expect("a key");
            let version = group as u64 * PER_GROUP + index * 100 + u64::from(part);
            let event = Event { key, change, ts: 0, version };
            list.events.push((Place { index, part }, event));
        }
        list.next += 1;
        index
    }

    fn forget(&self, group: usize, leader: Index, all: Index) {
        let mut list = lock(&self.groups[group]);
        list.leader_knows = leader.min(list.next);
        list.oldest = all.min(list.leader_knows);
    }

    fn answer(&self, group: usize, ask: &Ask, all: bool) -> Result<Told, Error> {
        if self.silent.load(Ordering::Relaxed) {
            return Err(Error::unavailable("it is silent"));
        }
        let mut list = lock(&self.groups[group]);
        list.asked += 1;
        let head = Place { index: list.next, part: 0 };
        if ask.from == Place::END {
            return Ok(Told { events: Vec::new(), next: head });
        }
        let oldest = if all { list.oldest } else { list.leader_knows };
        if ask.from.index < oldest || ask.from > head {
            let oldest = format!("g{group}:{}", oldest.saturating_sub(1));
            return Err(Error::Compacted { oldest });
        }
        let later = list.events.iter().filter(|(place, _)| *place >= ask.from);
        let mut told = later.filter(|(_, event)| ask.span.holds(&event.key)).cloned();
        let events: Vec<_> = told.by_ref().take(7).collect();
        let next = told.next().map_or(head, |(place, _)| place);
        Ok(Told { events, next })
    }
}

impl Source for Arc<Lists> {
    fn tell(&self, group: usize, ask: Ask, _: Deadline) -> Telling<'_> {
        Box::pin(async move {
            let answer = self.answer(group, &ask, false);
            if answer.as_ref().is_ok_and(|told| told.events.is_empty()) {
                tokio::time::sleep(Duration::from_millis(u64::from(ask.wait_ms) / 10)).await;
                return self.answer(group, &ask, false);
            }
            answer
        })
    }

    fn recall(&self, group: usize, ask: Ask, _: Deadline) -> Telling<'_> {
        Box::pin(async move { self.answer(group, &ask, true) })
    }

    fn stands(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(1))
}

async fn watch(hub: &Arc<Hub>, prefix: &str, since: Option<Since>) -> Watching {
    let watch = Watch { filter: Filter::Prefix(prefix.into()), since };
    hub.watch(watch, None, soon()).await.expect("it is watched")
}

/// The versions that a watcher is told until nothing more comes, and where to resume.
async fn told(watching: &mut Watching, most: usize) -> (Vec<u64>, Resume) {
    let (mut versions, mut at) = (Vec::new(), watching.resume());
    while versions.len() < most {
        match watching.next().await.expect("it goes on") {
            News::Event { event, resume } => {
                versions.push(event.version);
                at = resume;
            }
            News::Progress(resume) => return (versions, resume),
        }
    }
    (versions, at)
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_what_comes_after_it_and_nothing_else() {
    let lists = Lists::new(2);
    let hub = lists.hub();
    lists.write(0, &["a1"]);
    let mut watching = watch(&hub, "a", None).await;
    lists.write(0, &["b"]);
    lists.write(0, &["a2", "a3"]);
    lists.write(1, &["a4"]);
    let (mut versions, _) = told(&mut watching, 9).await;
    versions.sort_unstable();
    assert_eq!(versions, [300, 301, PER_GROUP + 100]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_goes_on_behind_any_id_without_a_loss_or_a_repetition() {
    let lists = Lists::new(1);
    let hub = lists.hub();
    let mut first = watch(&hub, "", None).await;
    let written: Vec<u64> = (0..200)
        .flat_map(|_| [lists.write(0, &["a", "b", "c"]) * 100].map(|v| [v, v + 1, v + 2]))
        .flatten()
        .collect();
    let mut seen = Vec::new();
    for most in [1, 1, 3, 200, 9999] {
        let (versions, resume) = told(&mut first, most).await;
        seen.extend(versions);
        // At another process, which has never followed the group.
        let hub = lists.hub();
        first = watch(&hub, "", Some(Since::Resume(resume))).await;
    }
    assert_eq!(seen, written);
}

#[tokio::test(start_paused = true)]
async fn a_position_of_a_read_is_one_to_watch_from() {
    let lists = Lists::new(2);
    let hub = lists.hub();
    let at = lists.write(0, &["a"]);
    lists.write(0, &["b"]);
    let position = |group: &str, index| GroupIndex { group: group.into(), index };
    let both = vec![position("g1", 0), position("g0", at)];
    let mut watching = watch(&hub, "", Some(Since::Indexes(both))).await;
    assert_eq!(told(&mut watching, 9).await.0, [200]);
    let filter = Filter::Prefix(String::new());
    let since = Some(Since::Indexes(vec![position("g0", at)]));
    let error = hub.watch(Watch { filter, since }, None, soon()).await.expect_err("one is missing");
    assert!(matches!(error, Error::InvalidParameter { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_refused_with_what_is_not() {
    let lists = Lists::new(2);
    let hub = lists.hub();
    let resume = watch(&hub, "", None).await.resume();
    for _ in 0..10 {
        lists.write(0, &["a"]);
    }
    lists.forget(0, 5, 5);
    let again = |since| {
        let watch = Watch { filter: Filter::Prefix(String::new()), since: Some(since) };
        let hub = lists.hub();
        async move { hub.watch(watch, None, soon()).await }
    };
    let error = again(Since::Resume(resume.clone())).await.expect_err("it is forgotten");
    let Error::Compacted { oldest } = error else { panic!("{error:?}") };
    assert_eq!(oldest, "g0:4, g1:0");
    let positions = oldest.split(", ").map(|at| at.parse().expect("a position")).collect();
    let mut watching = again(Since::Indexes(positions)).await.expect("the oldest is there");
    assert_eq!(told(&mut watching, 9).await.0, [500, 600, 700, 800, 900, 1000]);
    // Another than the leader may know more.
    lists.forget(0, 9, 0);
    let mut watching = again(Since::Resume(resume)).await.expect("somebody has it");
    assert_eq!(told(&mut watching, 20).await.0.len(), 10);
    let Resume { scope, places, .. } = watch(&lists.hub(), "", None).await.resume();
    let ahead = places.iter().map(|place| place.next()).collect();
    for places in [ahead, vec![Place::END; 2]] {
        let nobody = again(Since::Resume(Resume::new(scope, places)));
        let error = nobody.await.expect_err("nobody was ever there");
        assert!(matches!(error, Error::Compacted { .. }), "{error:?}");
    }
    let other = Resume::new(77, vec![Place::default(); 2]);
    let error = again(Since::Resume(other)).await.expect_err("it is of another ring");
    assert!(matches!(error, Error::Compacted { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_knows_less_loses_nobody_anything() {
    let lists = Lists::new(1);
    let hub = lists.hub();
    let mut watching = watch(&hub, "", None).await;
    lists.write(0, &["a"]);
    assert_eq!(told(&mut watching, 1).await.0, [100]);
    // All of this happens between two answers.
    for _ in 0..30 {
        lists.write(0, &["a"]);
    }
    lists.forget(0, 25, 0);
    assert_eq!(told(&mut watching, 99).await.0.len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_costs_nothing_and_catches_up() {
    let lists = Lists::new(1);
    let hub = lists.hub();
    let mut slow = watch(&hub, "", None).await;
    let large = "k".repeat(4000);
    let count = WATCH_TAIL_BYTES_MAX / 4000 * 2;
    for _ in 0..count {
        lists.write(0, &[&large]);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (versions, _) = told(&mut slow, count + 1).await;
    assert_eq!(versions, (1..=count as u64).map(|index| index * 100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn watchers_end_where_silence_could_be_taken_for_peace() {
    let lists = Lists::new(1);
    let hub = lists.hub();
    let mut watching = watch(&hub, "", None).await;
    lists.silent.store(true, Ordering::Relaxed);
    let ended = loop {
        if let Err(ended) = watching.next().await {
            break ended;
        }
    };
    assert!(ended.contains("g0 has not answered for 10 s"), "{ended}");
    lists.silent.store(false, Ordering::Relaxed);
    let index = lists.write(0, &["a"]);
    let mut again = watch(&hub, "", Some(Since::Resume(watching.resume()))).await;
    assert_eq!(told(&mut again, 9).await.0, [index * 100]);
    lists.gone.store(true, Ordering::Relaxed);
    let ended = loop {
        if let Err(ended) = again.next().await {
            break ended;
        }
    };
    assert!(ended.contains("ring"), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_followed_once_and_only_while_somebody_watches() {
    let lists = Lists::new(1);
    let hub = lists.hub();
    let mut many = Vec::new();
    for _ in 0..100 {
        many.push(watch(&hub, "x", None).await);
    }
    for watching in &mut many {
        assert_eq!(told(watching, 1).await.0, [] as [u64; 0]);
    }
    let asked = || lock(&lists.groups[0]).asked;
    let before = asked();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rate = asked() - before;
    assert!((10..=100).contains(&rate), "{rate} questions in a second");
    drop(many);
    tokio::time::sleep(WATCH_LINGER * 2).await;
    let after = asked();
    tokio::time::sleep(WATCH_LINGER).await;
    assert_eq!(asked(), after, "nobody asks any more");
    let mut again = watch(&hub, "x", None).await;
    lists.write(0, &["x"]);
    assert_eq!(told(&mut again, 1).await.0.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// However much is written, however little of it is taken, wherever it goes on: each watcher is told
    /// its changes of each group, once and in order.
    #[test]
    fn nothing_is_lost_or_told_twice(
        steps in vec((0..2_usize, vec("[ab][ab]?", 1..4), 0..40_usize, any::<bool>()), 1..40),
        prefix in "[ab]?",
        many in 1..90,
    ) {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let (seen, written) = runtime.block_on(async {
            let lists = Lists::new(2);
            let mut watching = watch(&lists.hub(), &prefix, None).await;
            let (mut seen, mut written) = (Vec::new(), Vec::new());
            for (group, keys, take, comes_again) in &steps {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                for _ in 0..many {
                    let first = *group as u64 * PER_GROUP + lists.write(*group, &keys) * 100;
                    let ours = (first..).zip(&keys).filter(|(_, key)| key.starts_with(&prefix));
                    written.extend(ours.map(|(version, _)| version));
                }
                seen.extend(told(&mut watching, *take).await.0);
                if *comes_again {
                    let since = Since::Resume(watching.resume());
                    watching = watch(&lists.hub(), &prefix, Some(since)).await;
                }
            }
            seen.extend(told(&mut watching, usize::MAX).await.0);
            (seen, written)
        });
        // Each group's are in order, and those of both in any.
        for group in [0, 1] {
            let of = |all: &[u64]| {
                all.iter().filter(|version| **version / PER_GROUP == group).copied().collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&seen), of(&written));
        }
    }
}
