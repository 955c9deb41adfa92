//! Requests over a ring that exists.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::fake::{Mood, Net};
use super::{get, key, key_of, put, started, timeout, until, virtual_time};
use crate::api::{CoordinatorFace, Kv};
use crate::coordinator::Coordinator;
use crate::coordinator::topology;
use crate::types::command::{Action, Outcome};
use crate::types::error::{Error, WriteOutcome};
use crate::types::ids::{GroupId, NodeId};
use crate::types::key::Key;
use crate::types::kv::{Consistency, KvReply};
use crate::types::scan::{Found, Scan, Span, Want};
use crate::types::topology::{Group, Topology};

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_with_its_position() {
    let _time = virtual_time();
    let net = Net::new(3, 3);
    let coordinator = started(&net).await;
    for number in 0..100 {
        let KvReply::Written(written) = put(&coordinator, &key(number), 1000).await.expect("put")
        else {
            panic!("not a write's answer")
        };
        let route = coordinator.route(&key(number)).expect("a ring");
        assert_eq!(*written.at.group, *route.shard);
        for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::Stale] {
            let answer = get(&coordinator, &key(number), consistency).await.expect("get");
            let KvReply::Read(read) = answer else { panic!("not a read's answer") };
            assert_eq!((read.at, read.item.is_some()), (written.at.clone(), true));
        }
    }
    net.assert_no_foreign_keys();
    assert_eq!(net.lock().iter().map(|group| group.map.len()).sum::<usize>(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_sent_again_and_takes_effect_once() {
    let _time = virtual_time();
    let net = Net::new(2, 3);
    let coordinator = started(&net).await;
    let at = key_of(&coordinator, "shard-1");
    put(&coordinator, &at, 1000).await.expect("it opens a session");
    net.mood(0, Mood::Forgetful);
    let lost = put(&coordinator, &at, 5000);
    let heal = async {
        until("it is sent again", || net.asked() > 3).await;
        net.mood(0, Mood::Well);
    };
    let (written, ()) = tokio::join!(lost, heal);
    let KvReply::Written(written) = written.expect("answered") else { panic!("not a write's") };
    assert_eq!((written.version, net.lock()[0].index), (2, 2));
    // A read that any member can answer is asked again as often as there is time.
    net.mood(0, Mood::Hung);
    let asked = net.asked();
    let read = get(&coordinator, &at, Consistency::Stale).await;
    assert_eq!(read.expect_err("hung").outcome(), WriteOutcome::NotApplied);
    assert!(net.asked() > asked + 1, "{}", net.asked());
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_at_its_deadline_is_unknown_and_answered_in_time() {
    let _time = virtual_time();
    let net = Net::new(1, 1);
    let coordinator = started(&net).await;
    put(&coordinator, &key(1), 1000).await.expect("it opens a session");
    for mood in [Mood::Forgetful, Mood::Hung] {
        net.mood(0, mood);
        let deadline = timeout(300);
        let error = put(&coordinator, &key(1), 300).await.expect_err("lost");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{mood:?}: {error}");
        assert!(!deadline.has_passed(), "answered too late");
        assert_eq!(net.lock()[0].index, 2, "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_sent_before_there_is_a_session_for_it() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    net.mood(0, Mood::Forgetful);
    let error = put(&coordinator, &key(1), 300).await.expect_err("no session");
    assert_eq!((error.outcome(), net.asked()), (WriteOutcome::NotApplied, 0), "{error}");
    net.mood(0, Mood::Well);
    put(&coordinator, &key(1), 5000).await.expect("there is one");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_ended_is_replaced_unless_an_answer_was_lost_under_it() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    for _ in 0..2 {
        put(&coordinator, &key(1), 5000).await.expect("a new session");
        net.lock()[0].sessions.clear();
    }
    put(&coordinator, &key(1), 5000).await.expect("a new session");
    net.mood(0, Mood::Forgetful);
    let forget = async {
        until("it is sent", || net.lock()[0].index == 4).await;
        net.lock()[0].sessions.clear();
        net.mood(0, Mood::Well);
    };
    let at = key(1);
    let (lost, ()) = tokio::join!(put(&coordinator, &at, 5000), forget);
    let error = lost.expect_err("nobody knows");
    assert_eq!((error.outcome(), net.lock()[0].index), (WriteOutcome::Unknown, 4), "{error}");
    put(&coordinator, &key(1), 5000).await.expect("a new session");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_at_an_old_leader_is_taken_to_the_new_one() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    put(&coordinator, &key(1), 1000).await.expect("it opens a session");
    net.lock()[0].replicas[0].mood = Mood::Hung;
    let replace = async {
        until("it is sent", || net.asked() > 1).await;
        net.lock()[0].leader = Some(1);
    };
    let at = key(1);
    let (written, ()) = tokio::join!(put(&coordinator, &at, 2300), replace);
    written.expect("by the new leader");
}

/// It has too much to do already, and is not gone.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_slow_is_asked_once_and_still_known() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    put(&coordinator, &key(1), 1000).await.expect("it opens a session");
    let leader = coordinator.route(&key(1)).expect("a ring").url;
    net.mood(0, Mood::Slow);
    let asked = net.asked();
    let error = put(&coordinator, &key(1), 2500).await.expect_err("late");
    assert_eq!((error.outcome(), net.asked()), (WriteOutcome::Unknown, asked + 1), "{error}");
    let read = get(&coordinator, &key(1), Consistency::Linearizable).await;
    assert_eq!(read.expect_err("late").outcome(), WriteOutcome::NotApplied);
    assert_eq!(net.asked(), asked + 2);
    assert_eq!(coordinator.route(&key(1)).expect("a ring").url, leader);
    assert!(coordinator.ready().ready && coordinator.ready().reason.is_none());
    net.mood(0, Mood::Well);
    put(&coordinator, &key(1), 1000).await.expect("asked at once");
    assert_eq!(net.asked(), asked + 3);
}

#[tokio::test(start_paused = true)]
async fn a_span_is_deleted_in_every_group_and_each_key_counts_once() {
    let _time = virtual_time();
    let net = Net::new(3, 3);
    let coordinator = started(&net).await;
    for number in 0..100 {
        put(&coordinator, &key(number), 1000).await.expect("put");
    }
    // Of one group every answer is lost for a while.
    net.mood(1, Mood::Forgetful);
    let delete = coordinator.delete_span(Span::of_prefix(b"user:1"), timeout(5000));
    let heal = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        net.mood(1, Mood::Well);
    };
    let (deleted, ()) = tokio::join!(delete, heal);
    let deleted = deleted.expect("deleted");
    assert_eq!((deleted.keys, deleted.at.len()), (11, 3));
    assert_eq!(net.lock().iter().map(|group| group.map.len()).sum::<usize>(), 89);

    net.mood(1, Mood::Down);
    let error = coordinator.delete_span(Span::default(), timeout(500)).await.expect_err("down");
    assert_eq!(error.outcome(), WriteOutcome::Unknown, "{error}");
    let left: Vec<_> = net.lock().iter().map(|group| group.map.len()).collect();
    assert!(left[0] == 0 && left[1] > 0 && left[2] == 0, "{left:?}");
    let gone = 89 - left[1];
    assert!(error.to_string().contains(&format!("{gone} keys were deleted")), "{error}");
    let error = coordinator.delete_span(Span::default(), timeout(500)).await.expect_err("down");
    assert_eq!(error.outcome(), WriteOutcome::NotApplied, "nothing was there elsewhere: {error}");
}

#[tokio::test(start_paused = true)]
async fn groups_that_are_down_fail_in_time_as_not_applied_and_the_rest_is_served() {
    let _time = virtual_time();
    let net = Net::new(3, 3);
    let coordinator = started(&net).await;
    net.mood(1, Mood::Down);
    let deadline = timeout(400);
    let error = put(&coordinator, &key_of(&coordinator, "shard-2"), 400).await.expect_err("down");
    assert!(matches!(&error, Error::Unavailable { reason } if reason.contains("refused")));
    assert!(!deadline.has_passed(), "answered too late");
    for shard in ["shard-1", "shard-3"] {
        put(&coordinator, &key_of(&coordinator, shard), 1000).await.expect("served");
    }
    until("it is known", || {
        coordinator.ready().reason.as_deref() == Some("no leader is known of shard-2")
    })
    .await;
    assert!(coordinator.ready().ready);
    net.mood(1, Mood::Well);
    put(&coordinator, &key_of(&coordinator, "shard-2"), 5000).await.expect("back again");
}

#[tokio::test(start_paused = true)]
async fn writes_follow_the_leader_and_each_is_applied_once() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    for round in 0..30 {
        // The leader dies; for a moment there is none; then the next takes over.
        let (old, new) = (round % 3, (round + 1) % 3);
        {
            let group = &mut net.lock()[0];
            group.replicas[old].mood = Mood::Down;
            group.leader = None;
        }
        let at = key(1);
        let election = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            net.lock()[0].leader = Some(new);
        };
        let (written, ()) = tokio::join!(put(&coordinator, &at, 5000), election);
        written.expect("the new leader is found");
        net.lock()[0].replicas[old].mood = Mood::Well;
    }
    assert_eq!(net.lock()[0].index, 30);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_found_without_any_request() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    net.lock()[0].leader = Some(2);
    until("the route names it", || {
        coordinator.route(&key(1)).expect("a ring").url == "http://shard-1:3"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn readiness_names_the_groups_without_a_leader_even_when_nobody_writes() {
    let _time = virtual_time();
    let net = Net::new(3, 3);
    let coordinator = started(&net).await;
    net.lock()[0].replicas[0].mood = Mood::Down;
    net.mood(1, Mood::Down);
    let reason = "no leader is known of shard-1, shard-2";
    until("both are named", || coordinator.ready().reason.as_deref() == Some(reason)).await;
    assert!(coordinator.ready().ready);
    net.mood(2, Mood::Down);
    until("it is not ready", || !coordinator.ready().ready).await;
}

#[tokio::test(start_paused = true)]
async fn another_group_at_a_known_url_is_never_written_to() {
    let _time = virtual_time();
    let net = Net::new(2, 1);
    let coordinator = started(&net).await;
    let at = key_of(&coordinator, "shard-1");
    {
        let stranger = &mut net.lock()[0];
        (stranger.id, stranger.claim, stranger.confirmed) = (GroupId(77), None, false);
    }
    let error = put(&coordinator, &at, 300).await.expect_err("not the group");
    assert_eq!(error.outcome(), WriteOutcome::NotApplied, "{error}");
    assert!(net.lock()[0].map.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_hangs_is_left_for_the_one_that_took_over() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    {
        let group = &mut net.lock()[0];
        group.replicas[0].mood = Mood::Hung;
        group.leader = Some(1);
    }
    until("the route names it", || {
        coordinator.route(&key(1)).expect("a ring").url == "http://shard-1:2"
    })
    .await;
    put(&coordinator, &key(1), 300).await.expect("served by the new leader");
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_a_new_identity_at_its_old_url_is_served_again() {
    let _time = virtual_time();
    let net = Net::new(1, 1);
    let coordinator = started(&net).await;
    net.lock()[0].replicas[0].member.node = NodeId(4242);
    put(&coordinator, &key(1), 5000).await.expect("found again");
}

#[tokio::test(start_paused = true)]
async fn stale_reads_are_spread_over_the_members_that_answer() {
    let _time = virtual_time();
    let net = Net::new(1, 3);
    let coordinator = started(&net).await;
    put(&coordinator, &key(1), 1000).await.expect("put");
    let asked = || {
        let mut groups = net.lock();
        let replicas = groups[0].replicas.iter_mut();
        replicas.map(|replica| std::mem::take(&mut replica.asked)).collect::<Vec<u32>>()
    };
    asked();
    for _ in 0..30 {
        get(&coordinator, &key(1), Consistency::Stale).await.expect("get");
    }
    assert_eq!(asked(), [10, 10, 10]);
    net.lock()[0].replicas[1].mood = Mood::Hung;
    for _ in 0..30 {
        get(&coordinator, &key(1), Consistency::Stale).await.expect("get");
    }
    let spread = asked();
    assert!(spread[1] <= 2 && spread[0] >= 10 && spread[2] >= 10, "{spread:?}");
    net.mood(0, Mood::Well);
    for _ in 0..1000 {
        get(&coordinator, &key(1), Consistency::Stale).await.expect("get");
        if asked()[1] > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("a member that answers again is not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_with_an_old_ring_cannot_put_a_key_into_the_wrong_group() {
    let _time = virtual_time();
    let net = Net::new(3, 1);
    let two: Vec<String> = net.urls().into_iter().take(2).collect();
    let coordinator = super::start(&net, two);
    until("it is ready", || coordinator.ready().reason.is_none()).await;
    until("it is confirmed", || net.lock().iter().take(2).all(|group| group.confirmed)).await;
    let writes = || (0..200).map(key).collect::<Vec<_>>();
    let old = coordinator.route(&key(0)).expect("a ring").epoch;
    add_the_third(&net);
    let keys = writes();
    let written = join_all(keys.iter().map(|key| put(&coordinator, key, 5000))).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    net.assert_no_foreign_keys();
    let counts: Vec<usize> = net.lock().iter().map(|group| group.map.len()).collect();
    assert!(counts.iter().sum::<usize>() == 200 && counts[2] > 20, "{counts:?}");
    assert_eq!(coordinator.route(&key(0)).expect("a ring").epoch, old + 1);
    // Nobody is asked over and over while the newer ring is fetched.
    assert!(net.asked() < 2000, "{} attempts", net.asked());
}

/// Moves the ring to its next epoch, with all groups in it.
fn add_the_third(net: &Net) {
    let mut groups = net.lock();
    let old = groups[0].claim.as_ref().expect("claimed").topology.clone();
    let list = groups.iter().map(|group| Group {
        id: group.id,
        name: group.name.clone(),
        urls: vec![group.replicas[0].member.url.clone()],
    });
    let topology = Topology { epoch: old.epoch + 1, groups: list.collect(), ..old };
    for (at, (_, claim)) in topology::claims(&topology).enumerate() {
        let cluster = topology.cluster;
        assert_eq!(groups[at].apply(&Action::Claim(Box::new(claim))), Outcome::Done);
        assert_eq!(groups[at].apply(&Action::Confirm { cluster }), Outcome::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn the_cluster_is_shown_in_time_whoever_is_slow_or_gone() {
    let _time = virtual_time();
    let net = Net::new(2, 3);
    let coordinator = started(&net).await;
    net.lock()[0].replicas[1].mood = Mood::Down;
    net.lock()[1].replicas[2].mood = Mood::Hung;
    let begun = Instant::now();
    let cluster = coordinator.cluster(timeout(1000)).await.expect("a ring");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((cluster.epoch, cluster.vnodes, cluster.groups.len()), (1, 100, 2));
    let share: f64 = cluster.groups.iter().map(|group| group.share).sum();
    assert!((share - 1.0).abs() < 1e-5, "{share}");
    for (group, gone) in cluster.groups.iter().zip(["http://shard-1:2", "http://shard-2:3"]) {
        assert_eq!(group.leader, Some(format!("http://{}:1", group.name)));
        assert_eq!((group.members.len(), group.replicas.len()), (3, 2));
        let unreachable: Vec<&str> = group.unreachable.iter().map(|one| one.url.as_str()).collect();
        assert_eq!(unreachable, [gone]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_keeper_ends_when_it_is_told_to() {
    let _time = virtual_time();
    let net = Net::new(1, 1);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let options = crate::coordinator::CoordinatorOptions { shards: net.urls(), vnodes: 10 };
    let coordinator = Coordinator::over(net, options, shutdown.clone());
    shutdown.cancel();
    until("it has ended", || std::sync::Arc::strong_count(&coordinator.shared) == 1).await;
}

async fn scan(
    coordinator: &Coordinator<Net>,
    span: Span,
    want: Want,
) -> Result<(Vec<String>, bool, u64), Error> {
    let asked = Scan { span, want, consistency: Consistency::Linearizable };
    Ok(match coordinator.scan(asked, timeout(3000)).await?.found {
        Found::Count(count) => (Vec::new(), false, count),
        Found::Page { items, more } => {
            let keys: Vec<String> = items.iter().map(|item| item.key.to_string()).collect();
            let count = keys.len() as u64;
            (keys, more, count)
        }
    })
}

fn page(limit: u32) -> Want {
    Want::Page { limit, bytes: 1 << 20, reverse: false, keys_only: true }
}

#[tokio::test(start_paused = true)]
async fn a_scan_is_of_all_groups_and_outlives_their_leaders() {
    let _time = virtual_time();
    let net = Net::new(3, 3);
    let coordinator = started(&net).await;
    let mut expected: Vec<String> = (0..300).map(|number| key(number).to_string()).collect();
    for number in 0..300 {
        put(&coordinator, &key(number), 1000).await.expect("put");
    }
    expected.sort();
    let all = Span::of_prefix(b"user:");
    let (keys, more, _) = scan(&coordinator, all.clone(), page(120)).await.expect("a page");
    assert_eq!((&keys[..], more), (&expected[..120], true));
    // A leader is gone and another leads: the scan finds it.
    net.lock()[1].replicas[0].mood = Mood::Down;
    net.lock()[1].leader = Some(2);
    let rest = all.clone().behind(&Key::new(keys[119].clone()).expect("a key"), false);
    let (keys, more, _) = scan(&coordinator, rest, page(1000)).await.expect("a page");
    assert_eq!((&keys[..], more), (&expected[120..], false));
    assert_eq!(scan(&coordinator, all.clone(), Want::Count).await, Ok((Vec::new(), false, 300)));
    // Without one group there is no answer, rather than half of one.
    net.mood(2, Mood::Down);
    let error = scan(&coordinator, all, Want::Count).await.expect_err("a group is missing");
    assert!(error.to_string().contains("group shard-3"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn parts_of_another_ring_are_thrown_away() {
    let _time = virtual_time();
    let net = Net::new(2, 1);
    let coordinator = started(&net).await;
    put(&coordinator, &key(1), 1000).await.expect("put");
    let old = coordinator.topology(Topology::clone).expect("a ring");
    let newer = Topology { epoch: old.epoch + 1, ..old };
    // The groups go over to the next epoch one after the other.
    let mut claims = topology::claims(&newer).map(|(_, claim)| Action::Claim(Box::new(claim)));
    let mut go_over = |at: usize| {
        let claim = claims.next().expect("a claim for each");
        assert_eq!(net.lock()[at].apply(&claim), Outcome::Done);
    };
    go_over(0);
    let asked = net.asked();
    let later = async {
        until("all are asked again", || net.asked() >= asked + 4).await;
        go_over(1);
    };
    let (counted, ()) = tokio::join!(scan(&coordinator, Span::default(), Want::Count), later);
    assert_eq!(counted, Ok((Vec::new(), false, 1)));
    assert_eq!(coordinator.topology(|topology| topology.epoch), Some(newer.epoch));
}
