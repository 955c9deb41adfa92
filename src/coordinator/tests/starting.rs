//! From URLs to a ring.

use std::collections::BTreeSet;

use super::fake::{Mood, Net};
use super::{key, key_of, put, start, started, timeout, until, virtual_time};
use crate::api::CoordinatorFace;
use crate::coordinator::ring::Ring;
use crate::types::command::{Action, Outcome};
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::ids::ClusterId;
use crate::types::item::{Expiry, Item};
use crate::types::topology::Topology;

/// The only ring that groups of `net` belong to, all of it confirmed.
fn only_ring(net: &Net) -> Option<Topology> {
    let groups = net.lock();
    let mut rings: Vec<Topology> = Vec::new();
    for group in groups.iter() {
        let claim = group.claim.as_ref().filter(|_| group.confirmed)?;
        rings.push(claim.topology.clone());
    }
    rings.dedup();
    let [ring] = &rings[..] else { panic!("more than one ring: {rings:?}") };
    Some(ring.clone())
}

#[tokio::test(start_paused = true)]
async fn the_first_coordinator_claims_fresh_groups() {
    let _time = virtual_time();
    let net = Net::new(3, 3);
    let coordinator = started(&net).await;
    until("all is confirmed", || only_ring(&net).is_some()).await;
    let ring = only_ring(&net).expect("confirmed");
    let names: Vec<&str> = ring.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["shard-1", "shard-2", "shard-3"]);
    assert_eq!((ring.epoch, ring.vnodes), (1, 100));
    assert_eq!(ring.groups[0].urls.len(), 3);
    let owners = Ring::of(&ring);
    for number in 0..1000 {
        let route = coordinator.route(&key(number)).expect("a ring");
        assert_eq!(route.shard, names[owners.owner(Token::of_key(&key(number)))]);
        assert_eq!(route.url, format!("http://{}:1", route.shard));
        assert_eq!((route.replicas.len(), route.epoch, route.hash.len()), (3, 1, 16));
    }
}

#[tokio::test(start_paused = true)]
async fn coordinators_that_race_end_on_one_ring_and_route_alike() {
    let _time = virtual_time();
    for _ in 0..20 {
        let net = Net::new(4, 1);
        let mut urls = net.urls();
        let coordinators: Vec<_> = (0..4)
            .map(|_| {
                urls.rotate_left(1);
                start(&net, urls.clone())
            })
            .collect();
        for coordinator in &coordinators {
            until("it is ready", || coordinator.ready().ready).await;
        }
        until("all is confirmed", || only_ring(&net).is_some()).await;
        let ring = only_ring(&net).expect("confirmed");
        for coordinator in &coordinators {
            let cluster = coordinator.cluster(timeout(1000)).await.expect("a ring");
            assert_eq!(cluster.cluster, ring.cluster);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_coordinators_with_shards_in_another_order_route_10000_keys_alike() {
    let _time = virtual_time();
    let net = Net::new(3, 1);
    let one = started(&net).await;
    let mut urls = net.urls();
    urls.reverse();
    let two = start(&net, urls);
    until("the second is ready", || two.ready().reason.is_none()).await;
    for number in 0..10_000 {
        assert_eq!(one.route(&key(number)), two.route(&key(number)));
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_every_shard_before_it_claims_and_says_for_which() {
    let _time = virtual_time();
    let net = Net::new(2, 1);
    net.mood(1, Mood::Down);
    let coordinator = start(&net, net.urls());
    let reason = "http://shard-2:1 does not answer";
    let waits = || coordinator.ready().reason.is_some_and(|text| text.starts_with(reason));
    until("it waits", waits).await;
    assert!(!coordinator.ready().ready && net.lock()[0].claim.is_none());
    // A request waits with it, and is answered in time with the reason.
    let error = put(&coordinator, &key(1), 100).await.expect_err("no ring");
    assert!(matches!(&error, Error::Unavailable { reason: text } if text.starts_with(reason)));
    let at = key(1);
    let (written, ()) =
        tokio::join!(put(&coordinator, &at, 5000), async { net.mood(1, Mood::Well) });
    written.expect("served as soon as the ring is there");
}

#[tokio::test(start_paused = true)]
async fn a_ring_is_served_by_any_confirmed_copy_while_the_home_group_is_down() {
    let _time = virtual_time();
    let net = Net::new(3, 1);
    drop(started(&net).await);
    until("all is confirmed", || only_ring(&net).is_some()).await;
    net.mood(0, Mood::Down);
    let coordinator = start(&net, net.urls());
    until("it is ready", || coordinator.ready().ready).await;
    until("leaders are known", || {
        coordinator.ready().reason.as_deref() == Some("no leader is known of shard-1")
    })
    .await;
    put(&coordinator, &key_of(&coordinator, "shard-2"), 1000).await.expect("served");
}

#[tokio::test(start_paused = true)]
async fn one_url_is_enough_to_find_a_ring_that_exists() {
    let _time = virtual_time();
    let net = Net::new(3, 3);
    drop(started(&net).await);
    let coordinator = start(&net, vec!["http://shard-2:3/".into()]);
    until("it knows all leaders", || {
        let ready = coordinator.ready();
        ready.ready && ready.reason.is_none()
    })
    .await;
    for shard in ["shard-1", "shard-2", "shard-3"] {
        put(&coordinator, &key_of(&coordinator, shard), 1000).await.expect("served");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_not_claimed_is_ignored() {
    let _time = virtual_time();
    let net = Net::new(3, 1);
    let two: Vec<String> = net.urls().into_iter().take(2).collect();
    let first = start(&net, two);
    until("it is ready", || first.ready().reason.is_none()).await;
    let second = start(&net, net.urls());
    until("it is ready", || second.ready().reason.is_none()).await;
    let shards: BTreeSet<String> =
        (0..300).map(|number| second.route(&key(number)).expect("a ring").shard).collect();
    assert_eq!(shards, ["shard-1", "shard-2"].map(String::from).into());
    assert_eq!(net.lock()[2].claim, None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_a_group_refuses_is_taken_back_and_explained() {
    let _time = virtual_time();
    let net = Net::new(2, 1);
    let item = {
        let value = crate::types::value::Value::text("old");
        Item { value, ts: 1, version: 1, expires: Expiry::NEVER }
    };
    // Keys from before there was a ring: some of them would be the first group's.
    net.lock()[1].map.extend((0..50).map(|number| (key(number), item.clone())));
    let coordinator = start(&net, net.urls());
    until("it says why", || {
        let reason = coordinator.ready().reason.unwrap_or_default();
        reason.starts_with("group shard-2: the group holds ")
            && reason.ends_with("delete them first")
    })
    .await;
    assert!(net.lock().iter().all(|group| group.claim.is_none()), "not taken back");
    assert!(!coordinator.ready().ready);
}

#[tokio::test(start_paused = true)]
async fn another_takes_over_after_any_step_of_a_claim() {
    let _time = virtual_time();
    // The steps of a claim over two groups: claim, claim, confirm, confirm.
    for steps in 0..=4 {
        let net = Net::new(2, 1);
        half_claim(&net, steps);
        let coordinator = started(&net).await;
        until("all is confirmed", || only_ring(&net).is_some()).await;
        let ring = only_ring(&net).expect("confirmed");
        let cluster = coordinator.cluster(timeout(1000)).await.expect("a ring").cluster;
        assert_eq!(cluster, ring.cluster);
        assert_eq!(ring.cluster == ClusterId(7), steps > 0, "after {steps} steps");
    }
}

/// What another coordinator did before it crashed.
fn half_claim(net: &Net, steps: usize) {
    let mut groups = net.lock();
    let list = groups.iter().map(|group| crate::types::topology::Group {
        id: group.id,
        name: group.name.clone(),
        urls: vec![group.replicas[0].member.url.clone()],
    });
    let cluster = ClusterId(7);
    let topology =
        crate::coordinator::topology::draft(list.collect(), cluster, 10).expect("a ring");
    let claims = crate::coordinator::topology::claims(&topology)
        .map(|(_, claim)| Action::Claim(Box::new(claim)));
    let confirms = [Action::Confirm { cluster }, Action::Confirm { cluster }];
    for (at, action) in claims.chain(confirms).take(steps).enumerate() {
        assert_eq!(groups[at % 2].apply(&action), Outcome::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_released_and_its_group_becomes_part_of_a_ring() {
    let _time = virtual_time();
    let net = Net::new(2, 1);
    half_claim(&net, 2);
    net.lock()[0].apply(&Action::Release { cluster: ClusterId(7) });
    drop(started(&net).await);
    until("all is confirmed", || only_ring(&net).is_some()).await;
    assert_ne!(only_ring(&net).expect("confirmed").cluster, ClusterId(7));
}

#[tokio::test(start_paused = true)]
async fn lost_answers_to_claims_end_in_a_ring_all_the_same() {
    let _time = virtual_time();
    let net = Net::new(2, 1);
    net.mood(0, Mood::Forgetful);
    let coordinator = start(&net, net.urls());
    until("home is claimed", || net.lock()[0].claim.is_some()).await;
    net.mood(0, Mood::Well);
    until("it is ready", || coordinator.ready().reason.is_none()).await;
    until("all is confirmed", || only_ring(&net).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_fails_requests_at_once() {
    let _time = virtual_time();
    let net = Net::new(2, 1);
    net.lock()[1].name = "shard-1".into();
    let coordinator = start(&net, net.urls());
    until("it is refused", || {
        coordinator.ready().reason.is_some_and(|text| text.starts_with("two groups are called"))
    })
    .await;
    let deadline = timeout(60_000);
    let request = crate::types::command::KeyWrite::delete(key(1)).into();
    let error = crate::api::Kv::call(&coordinator, request, deadline).await.expect_err("no ring");
    assert!(error.to_string().contains("two groups are called shard-1"), "{error}");
    assert!(deadline.left().as_secs() > 30, "it waited");
}
