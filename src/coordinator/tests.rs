//! Coordinators over groups that live in a map: races, crashes in the middle of a claim, lost
//! answers. The groups keep the rules of `Action::Claim`, `Confirm` and `Release` as the state
//! machine does; every call yields, so that coordinators interleave differently from seed to seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use crate::coordinator::CoordinatorOptions;
use crate::coordinator::inner::Inner;
use crate::coordinator::peers::Peers;
use crate::rpc::{CallError, Target};
use crate::types::command::{Action, Outcome, Refusal};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::ids::{ClusterId, GroupId, NodeId};
use crate::types::key::Key;
use crate::types::kv::{GroupIndex, KvReply, KvRequest, Written};
use crate::types::peer::{Identity, Reply, Request};
use crate::types::topology::{Claim, Member};
use crate::types::value::Value;

/// One group of one replica.
#[derive(Clone, Debug)]
struct FakeGroup {
    id: u64,
    claim: Option<Claim>,
    confirmed: bool,
    foreign_keys: u64,
    puts: usize,
}

impl FakeGroup {
    fn propose(&mut self, action: &Action) -> Result<(), Refusal> {
        let other = |claim: &Claim| Refusal::OtherCluster {
            cluster: claim.topology.cluster,
            epoch: claim.topology.epoch,
        };
        let of = |cluster: ClusterId| match &self.claim {
            Some(mine) if mine.topology.cluster == cluster => Ok(()),
            Some(mine) => Err(other(mine)),
            None => Err(Refusal::NotClaimed),
        };
        match action {
            Action::Claim(claim) => match &self.claim {
                Some(mine) if mine.topology.cluster != claim.topology.cluster => Err(other(mine)),
                Some(_) => Ok(()),
                None if self.foreign_keys > 0 => {
                    Err(Refusal::ForeignKeys { keys: self.foreign_keys })
                }
                None => {
                    self.claim = Some((**claim).clone());
                    Ok(())
                }
            },
            Action::Confirm { cluster } => of(*cluster).map(|()| self.confirmed = true),
            Action::Release { cluster } => {
                of(*cluster)?;
                if self.confirmed {
                    return Err(Refusal::Confirmed);
                }
                self.claim = None;
                Ok(())
            }
            Action::Found { .. } | Action::Put { .. } | Action::Delete { .. } => {
                panic!("{action:?} is not for coordinators")
            }
        }
    }

    fn identity(&self) -> Identity {
        let member = Member { node: NodeId(self.id), url: url(self.id) };
        Identity {
            member: member.clone(),
            group: Some(GroupId(self.id)),
            name: Some(format!("shard-{}", self.id)),
            fresh: false,
            seeds: Vec::new(),
            members: vec![member.clone()],
            leader: Some(member),
            claim: self.claim.clone(),
            confirmed: self.confirmed,
        }
    }

    fn put(&mut self, key: &Key) -> Result<KvReply, Error> {
        if let Some(claim) = self.claim.as_ref().filter(|claim| !claim.owns(Token::of_key(key))) {
            return Err(Error::WrongShard { epoch: claim.topology.epoch });
        }
        self.puts += 1;
        let at = GroupIndex { group: format!("shard-{}", self.id).into(), index: 1 };
        let written = Written { at, ts: 1, version: 1, existed: false, acks: 1, quorum: 1 };
        Ok(KvReply::Written(written))
    }
}

fn url(id: u64) -> String {
    format!("http://g{id}")
}

type World = Arc<Mutex<BTreeMap<String, FakeGroup>>>;

fn world(count: u64) -> World {
    let group = |id| FakeGroup { id, claim: None, confirmed: false, foreign_keys: 0, puts: 0 };
    Arc::new(Mutex::new((1..=count).map(|id| (url(id), group(id))).collect()))
}

/// One coordinator's way to the groups.
struct Fake {
    world: World,
    /// After this many calls it reaches nobody any more: its process is gone.
    calls_left: AtomicUsize,
    /// How often to yield before each call, in turn.
    yields: Vec<u8>,
    calls: AtomicUsize,
    /// Whether answers to puts are lost on the way back.
    loses_answers: bool,
}

impl Fake {
    fn new(world: &World) -> Self {
        Self {
            world: Arc::clone(world),
            calls_left: AtomicUsize::new(usize::MAX),
            yields: vec![0],
            calls: AtomicUsize::new(0),
            loses_answers: false,
        }
    }
}

impl Peers for Fake {
    async fn call(
        &self,
        target: &Target,
        request: &Request,
        _deadline: Deadline,
    ) -> Result<Reply, CallError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        for _ in 0..self.yields[call % self.yields.len()] {
            tokio::task::yield_now().await;
        }
        if call >= self.calls_left.load(Ordering::Relaxed) {
            return Err(CallError::NotSent("this coordinator is gone".into()));
        }
        let mut world = self.world.lock().expect("no panic");
        let Some(group) = world.get_mut(&target.url) else {
            return Err(CallError::NotSent("nobody there".into()));
        };
        match request {
            Request::Identify => Ok(Reply::Identity(Box::new(group.identity()))),
            Request::Propose { action, .. } => {
                let refusal = group.propose(action).err();
                Ok(Reply::Proposed(Ok(refusal.map_or(Outcome::Done, Outcome::Refused))))
            }
            Request::Kv { request, .. } => {
                let answer = group.put(request.key());
                if self.loses_answers {
                    return Err(CallError::Lost("the line was cut".into()));
                }
                Ok(Reply::Kv(answer))
            }
            other => panic!("{other:?} is not for these groups"),
        }
    }
}

fn coordinator(shards: &[u64], fake: Fake) -> Inner<Fake> {
    let shards = shards.iter().copied().map(url).collect();
    Inner::new(CoordinatorOptions { shards, vnodes: 8 }, fake)
}

/// Rounds until it serves; the number that it took.
async fn until_serving(coordinator: &Inner<Fake>) -> u32 {
    for round in 0..20 {
        coordinator.round(round).await;
        if coordinator.serving().is_some() {
            return round;
        }
    }
    panic!("not within 20 rounds: {}", coordinator.waiting());
}

/// The one cluster that all these groups belong to, for good.
fn one_cluster(world: &World, groups: &[u64]) -> ClusterId {
    let world = world.lock().expect("no panic");
    let clusters: Vec<ClusterId> = groups
        .iter()
        .map(|id| {
            let group = &world[&url(*id)];
            assert!(group.confirmed, "{group:?}");
            group.claim.as_ref().expect("claimed").topology.cluster
        })
        .collect();
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]), "{clusters:?}");
    clusters[0]
}

fn put(key: &str) -> KvRequest {
    KvRequest::Put { key: Key::new(key.to_owned()).expect("key"), value: Value::text("v") }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

#[tokio::test]
async fn the_first_claims_and_the_next_adopts() {
    let world = world(3);
    let first = coordinator(&[3, 1, 2], Fake::new(&world));
    until_serving(&first).await;
    let second = coordinator(&[2], Fake::new(&world));
    assert_eq!(until_serving(&second).await, 0);
    let cluster = one_cluster(&world, &[1, 2, 3]);
    for coordinator in [&first, &second] {
        let serving = coordinator.serving().expect("serving");
        assert_eq!(serving.topology.cluster, cluster);
        assert_eq!(serving.topology.groups.len(), 3);
    }
}

#[tokio::test]
async fn a_claim_that_one_group_refuses_leaves_nothing_behind() {
    let world = world(3);
    world.lock().expect("no panic").get_mut(&url(2)).expect("a group").foreign_keys = 7;
    let coordinator = coordinator(&[1, 2, 3], Fake::new(&world));
    coordinator.round(0).await;
    assert!(coordinator.waiting().contains("7 keys"), "{}", coordinator.waiting());
    assert!(world.lock().expect("no panic").values().all(|group| group.claim.is_none()));
    // When the keys are gone the next try succeeds.
    world.lock().expect("no panic").get_mut(&url(2)).expect("a group").foreign_keys = 0;
    until_serving(&coordinator).await;
    one_cluster(&world, &[1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn whenever_a_coordinator_dies_another_finishes_the_claim_or_takes_it_back() {
    for calls in 0..20 {
        let world = world(3);
        let dying = Fake { calls_left: AtomicUsize::new(calls), ..Fake::new(&world) };
        let dying = coordinator(&[1, 2, 3], dying);
        // It goes on trying in vain; in paused time that takes none.
        drop(tokio::time::timeout(Duration::from_secs(1), dying.round(0)).await);
        let heir = coordinator(&[1, 2, 3], Fake::new(&world));
        until_serving(&heir).await;
        heir.round(0).await;
        one_cluster(&world, &[1, 2, 3]);
    }
}

#[tokio::test]
async fn an_orphaned_claim_is_released() {
    let world = world(2);
    let first = coordinator(&[1, 2], Fake::new(&world));
    until_serving(&first).await;
    {
        let mut world = world.lock().expect("no panic");
        let home = world.get_mut(&url(1)).expect("a group");
        (home.claim, home.confirmed) = (None, false);
        world.get_mut(&url(2)).expect("a group").confirmed = false;
    }
    let second = coordinator(&[1, 2], Fake::new(&world));
    until_serving(&second).await;
    one_cluster(&world, &[1, 2]);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_never_sent_again() {
    let world = world(1);
    let coordinator = coordinator(&[1], Fake { loses_answers: true, ..Fake::new(&world) });
    until_serving(&coordinator).await;
    let answer = coordinator.answer(put("k"), soon()).await;
    assert!(matches!(answer, Err(Error::OutcomeUnknown { .. })), "{answer:?}");
    assert_eq!(world.lock().expect("no panic")[&url(1)].puts, 1);
}

#[tokio::test]
async fn a_coordinator_with_an_old_ring_is_told_and_asks_the_owner() {
    let world = world(2);
    let old = Arc::new(coordinator(&[1], Fake::new(&world)));
    until_serving(&old).await;
    // Meanwhile the ring has grown by the second group.
    {
        let mut topology = old.serving().expect("serving").topology.clone();
        topology.epoch = 2;
        let second = crate::types::topology::Group {
            id: GroupId(2),
            name: "shard-2".into(),
            urls: vec![url(2)],
        };
        topology.groups.push(second);
        let mut world = world.lock().expect("no panic");
        for (group, claim) in crate::coordinator::claiming::claims(&topology) {
            let group = world.get_mut(&url(group.id.0)).expect("a group");
            (group.claim, group.confirmed) = (Some(claim), true);
        }
    }
    let keeper = Arc::clone(&old);
    let keeper = tokio::spawn(async move { keeper.keep().await });
    for i in 0..50 {
        let written = old.answer(put(&format!("key-{i}")), soon()).await;
        assert!(written.is_ok(), "{written:?}");
    }
    keeper.abort();
    assert_eq!(old.serving().expect("serving").topology.epoch, 2);
    let world = world.lock().expect("no panic");
    assert!(world.values().all(|group| group.puts > 0), "{world:?}");
    assert_eq!(world.values().map(|group| group.puts).sum::<usize>(), 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Two coordinators with overlapping lists start at once on fresh groups.
    #[test]
    fn however_two_race_there_is_one_cluster(
        yields in prop::collection::vec(0_u8..4, 1..12),
        others in prop::collection::vec(0_u8..4, 1..12),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let world = world(2);
            let a = coordinator(&[1, 2], Fake { yields, ..Fake::new(&world) });
            let b = coordinator(&[2, 1], Fake { yields: others, ..Fake::new(&world) });
            let (_, _) = tokio::join!(until_serving(&a), until_serving(&b));
            let cluster = one_cluster(&world, &[1, 2]);
            for racer in [&a, &b] {
                assert_eq!(racer.serving().expect("serving").topology.cluster, cluster);
            }
        });
    }
}
