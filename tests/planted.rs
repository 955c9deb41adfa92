//! Each bug of `src/planted.rs` is there when it is asked for, and only then: what a harness must
//! find, made to show here in the shortest way. Needs the feature: `cargo test --features
//! planted-bugs --test promises planted`.

use crate::common::world::World;

/// The environment of a server can't break it.
#[cfg(not(feature = "planted-bugs"))]
#[tokio::test]
async fn without_the_feature_the_variable_means_nothing() {
    use crate::common::command::run_with;

    let world = World::new().await;
    let args = ["get", "k", "--url", "http://127.0.0.1:1"];
    let ended = run_with(world.directory(), &args, &[("SAGE_BUG", "no-such-bug")]).await;
    assert!(!ended.stderr.contains("BUG"), "{ended:?}");
    assert!(!ended.stderr.contains("broken on purpose"), "{ended:?}");
    ended.refused(&["127.0.0.1:1"]);
}

#[cfg(feature = "planted-bugs")]
mod on {
    use reqwest::Method;
    use rustix::process::Signal;
    use sagedb::client::{Client, WatchOptions, Watched};
    use serde_json::{Value, json};
    use tokio::io::copy_bidirectional;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{JoinHandle, JoinSet};

    use super::World;
    use crate::common::command::{exit, run_with};
    use crate::common::group::Group;
    use crate::common::http::{Answer, FORM};
    use crate::common::load::Load;
    use crate::common::node::{Node, url_of};
    use crate::common::until::{SOON, until};
    use crate::common::world::sage;

    /// Tries for what a bug does only now and then, or only when the machine is quick enough.
    const TRIES: u32 = 2_000;

    /// The server has this bug from its next start on.
    fn plant(bug: &str, node: &mut Node) {
        let program = std::mem::replace(&mut node.launch.program, "/usr/bin/env".into());
        let words = [format!("SAGE_BUG={bug}"), program.display().to_string()];
        node.launch.args.splice(0..0, words);
    }

    /// A group with this bug that has formed and serves.
    async fn broken(world: &mut World, bug: &str, replicas: usize, flags: &[&str]) -> Group {
        let mut group = world.group(bug, replicas, flags);
        group.nodes.iter_mut().for_each(|node| plant(bug, node));
        group.start();
        group.until_ready(&world.http).await;
        group
    }

    fn url(group: &Group, at: usize) -> String {
        group.nodes[at].url.clone()
    }

    fn signal(node: &mut Node, signal: Signal) {
        node.process.as_mut().expect("it runs").signal(signal);
    }

    /// Stops every replica but one where it is.
    fn pause_all_but(group: &mut Group, at: usize) {
        for other in (0..group.nodes.len()).filter(|other| *other != at) {
            signal(&mut group.nodes[other], Signal::STOP);
        }
    }

    /// A group of three whose leader is cut off from its followers, and the leader's URL.
    async fn cut_off(world: &mut World, bug: &str) -> (Group, String) {
        let mut group = broken(world, bug, 3, &[]).await;
        let leader = group.leader(&world.http).await;
        let url = url(&group, leader);
        world.http.put(&url, "key", "value").await.expect(200);
        pause_all_but(&mut group, leader);
        (group, url)
    }

    async fn get(world: &World, url: &str, key: &str, consistency: &str) -> u16 {
        let query = [("key", key), ("consistency", consistency), ("timeout", "3s")];
        world.http.get_with(url, &query).await.status
    }

    async fn version(world: &World, url: &str) -> Value {
        world.http.put(url, "key", "value").await.expect(200).json()["version"].clone()
    }

    async fn hashes_after_writes(bug: &str, writes: u32) -> Vec<String> {
        let mut world = World::new().await;
        let group = broken(&mut world, bug, 3, &[]).await;
        for number in 0..writes {
            world.http.put(group.url(), &format!("key-{number}"), "value").await.expect(200);
        }
        let seen = group.settled(&world.http).await;
        seen.iter().map(|status| status.hash.to_string()).collect()
    }

    #[tokio::test]
    async fn a_bug_that_nobody_knows_is_refused() {
        let world = World::new().await;
        for command in ["shard", "coordinator"] {
            let args = [command, "--shards", "http://127.0.0.1:1"];
            let args = if command == "shard" { &args[..1] } else { &args[..] };
            let env = [("SAGE_BUG", "no-such-bug")];
            let ended = run_with(world.directory(), args, &env).await;
            ended.refused(&["SAGE_BUG=no-such-bug", "ack-before-sync", "retry-unknown"]);
        }
        assert!(!world.directory().join("data").exists());
    }

    #[tokio::test]
    async fn a_server_with_a_bug_says_so() {
        let mut world = World::new().await;
        let group = broken(&mut world, "own-clock", 1, &[]).await;
        let log = std::fs::read_to_string(group.nodes[0].launch.log()).expect("it has a log");
        assert!(log.contains("BROKEN ON PURPOSE") && log.contains("own-clock"), "{log}");
    }

    #[tokio::test]
    async fn ack_before_sync_loses_what_it_acknowledged() {
        let mut world = World::new().await;
        let mut group = broken(&mut world, "ack-before-sync", 1, &[]).await;
        for attempt in 0..10 {
            let key = format!("key-{attempt}");
            world.http.put(group.url(), &key, "value").await.expect(200);
            group.kill();
            group.start();
            group.until_ready(&world.http).await;
            if world.http.get(group.url(), &key).await.status == 404 {
                return;
            }
        }
        panic!("every write survived");
    }

    #[tokio::test]
    async fn forget_vote_lets_a_term_go_back() {
        let mut world = World::new().await;
        let mut group = broken(&mut world, "forget-vote", 3, &[]).await;
        let before = group.status(&world.http, 0).await.expect("it answers").term;
        group.kill();
        group.nodes[0].start().expect("a replica can be started");
        let after = until("it answers", SOON, async || group.status(&world.http, 0).await).await;
        assert!(after.term < before, "{before} then {}", after.term);
    }

    #[tokio::test]
    async fn skip_read_index_asks_nobody() {
        let mut world = World::new().await;
        let (_group, url) = cut_off(&mut world, "skip-read-index").await;
        assert_eq!(get(&world, &url, "key", "linearizable").await, 200);
    }

    #[tokio::test]
    async fn stale_lease_never_ends() {
        let mut world = World::new().await;
        let (_group, url) = cut_off(&mut world, "stale-lease").await;
        // Nobody confirms it for three seconds: the lease of one second is over.
        assert_eq!(get(&world, &url, "key", "linearizable").await, 503);
        assert_eq!(get(&world, &url, "key", "lease").await, 200);
    }

    #[tokio::test]
    async fn ack_minority_answers_what_nobody_else_has() {
        let mut world = World::new().await;
        let (_group, url) = cut_off(&mut world, "ack-minority").await;
        world.http.put(&url, "lonely", "value").await.expect(200);
        assert_eq!(get(&world, &url, "lonely", "stale").await, 404, "it is not committed");
    }

    /// Carries connections to a server, until it is aborted: then they break, all at once.
    async fn bridge(port: u16, to: u16) -> JoinHandle<()> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        tokio::spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                carried.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    copy_bidirectional(&mut near, &mut far).await.ok();
                });
            }
        })
    }

    /// A group of three whose members reach each other by bridges only, one to each.
    async fn bridged(world: &mut World, bug: &str) -> (Group, Vec<JoinHandle<()>>) {
        let ports = [(); 3].map(|()| (world.port(), world.port()));
        let (mut nodes, mut bridges) = (Vec::new(), Vec::new());
        for (port, outside) in ports {
            let others = ports.iter().filter(|other| other.1 != outside);
            let peers: Vec<String> = others.map(|other| url_of(other.1)).collect();
            let flags = ["--advertise".into(), url_of(outside)];
            let name = format!("{bug}-{port}");
            let mut node = Node::shard(&sage(), world.directory(), (&name, port), &peers, &flags);
            plant(bug, &mut node);
            nodes.push(node);
            bridges.push(bridge(outside, port).await);
        }
        let mut group = Group { nodes };
        group.start();
        group.until_ready(&world.http).await;
        (group, bridges)
    }

    #[tokio::test]
    async fn skip_term_check_lets_a_deposed_leader_go_on() {
        let mut world = World::new().await;
        let (mut group, bridges) = bridged(&mut world, "skip-term-check").await;
        let old = group.leader(&world.http).await;
        // It can be reached by nobody, and does not know, while another is elected and writes.
        signal(&mut group.nodes[old], Signal::STOP);
        bridges[old].abort();
        let others: Vec<String> =
            (0..3).filter(|at| *at != old).map(|at| url(&group, at)).collect();
        until("another leads", SOON, async || {
            for url in &others {
                let put = world.http.put(url, "key", "value").await;
                if put.status == 200 {
                    return Ok(());
                }
            }
            Err("nobody does".into())
        })
        .await;
        signal(&mut group.nodes[old], Signal::CONT);
        let url = url(&group, old);
        let put = until("the old leader serves again", SOON, async || {
            let put = world.http.put(&url, "other", "value").await;
            if put.status == 200 { Ok(put) } else { Err(put.text()) }
        })
        .await;
        assert_eq!(put.json()["quorum"], json!(2));
        assert_eq!(get(&world, &url, "key", "linearizable").await, 404, "a stale read");
    }

    #[tokio::test]
    async fn apply_twice_makes_replicas_differ() {
        let hashes = hashes_after_writes("apply-twice", 500).await;
        assert!(hashes.iter().any(|hash| *hash != hashes[0]), "{hashes:?}");
    }

    #[tokio::test]
    async fn own_clock_makes_replicas_differ() {
        let hashes = hashes_after_writes("own-clock", 100).await;
        assert!(hashes.iter().any(|hash| *hash != hashes[0]), "{hashes:?}");
    }

    #[tokio::test]
    async fn short_snapshot_loses_the_last_key() {
        let mut world = World::new().await;
        let flags = ["--snapshot-log-size", "65536", "--keep-log-entries", "10"];
        let mut group = broken(&mut world, "short-snapshot", 1, &flags).await;
        world.http.put(group.url(), "zzz", "value").await.expect(200);
        let written = group.status(&world.http, 0).await.expect("it answers").last_index;
        let text = "x".repeat(10_000);
        until("a snapshot holds it", SOON, async || {
            world.http.put(group.url(), "aaa", &text).await.expect(200);
            let status = group.status(&world.http, 0).await?;
            if status.snapshot_index > written { Ok(()) } else { Err("none yet".into()) }
        })
        .await;
        world.http.get(group.url(), "zzz").await.expect(200);
        group.kill();
        group.start();
        group.until_ready(&world.http).await;
        world.http.get(group.url(), "aaa").await.expect(200);
        world.http.get(group.url(), "zzz").await.expect(404);
    }

    #[tokio::test]
    async fn ignore_ownership_takes_foreign_keys() {
        let mut world = World::new().await;
        let one = broken(&mut world, "ignore-ownership", 1, &["--id", "one"]).await;
        let two = world.started("two", 1, &["--id", "two"]).await;
        let _coordinator = world.routed(&[&one, &two]).await;
        let mut foreign = 0;
        for number in 0..20 {
            let key = format!("key-{number}");
            foreign += u32::from(world.http.put(two.url(), &key, "value").await.status == 421);
            world.http.put(one.url(), &key, "value").await.expect(200);
        }
        assert!((1..20).contains(&foreign), "{foreign} of 20 keys are the first group's");
    }

    #[tokio::test]
    async fn retry_unknown_calls_a_write_refused_that_was_logged() {
        let mut world = World::new().await;
        let (_servers, answer) = orphaned_write(&mut world, "retry-unknown").await;
        let answer = answer.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status, 503, "{}", answer.text());
    }

    #[tokio::test]
    async fn impatient_gives_a_write_up_that_could_be_sent_again() {
        let mut world = World::new().await;
        let ((mut group, _coordinator), answer) = orphaned_write(&mut world, "impatient").await;
        for node in group.nodes.iter_mut().filter(|node| node.process.is_some()) {
            signal(node, Signal::CONT);
        }
        let answer = answer.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status, 504, "{}", answer.text());
    }

    /// A write through a coordinator with this bug whose leader has it in its log, alone, and is
    /// killed; the other replicas are paused.
    async fn orphaned_write(
        world: &mut World,
        bug: &str,
    ) -> ((Group, Node), JoinHandle<Result<Answer, reqwest::Error>>) {
        let mut group = world.started("group", 3, &[]).await;
        let shards = group.urls();
        let mut coordinator = world.coordinator(&shards);
        plant(bug, &mut coordinator);
        coordinator.start().expect("the coordinator can be started");
        world.until_ready(&coordinator.url).await;
        // Its session is open from now on: that would need a majority, too.
        let first = world.http.put(&coordinator.url, "key", "first").await;
        // Not the status, which may be a moment older than that answer.
        let (_, before) = first.header("x-sage-index").rsplit_once(':').expect("a position");
        let before: u64 = before.parse().expect("an index");
        first.expect(200);
        let leader = group.leader(&world.http).await;
        pause_all_but(&mut group, leader);
        let write = tokio::spawn({
            let (http, url) = (world.http.clone(), coordinator.url.clone());
            async move {
                let body = Some((FORM, b"value".to_vec()));
                http.send(Method::PUT, (&url, "/kv"), &[("key", "key")], body).await
            }
        });
        until("the leader has it in its log", SOON, async || {
            let last = group.status(&world.http, leader).await?.last_index;
            if last > Some(before) { Ok(()) } else { Err("not yet".into()) }
        })
        .await;
        group.nodes[leader].kill();
        ((group, coordinator), write)
    }

    #[tokio::test]
    async fn late_publish_hides_an_acknowledged_write() {
        let mut world = World::new().await;
        let group = broken(&mut world, "late-publish", 1, &[]).await;
        for number in 0..TRIES {
            let value = number.to_string();
            world.http.put(group.url(), "key", &value).await.expect(200);
            let read = world.http.get(group.url(), "key").await;
            if read.status == 404 || read.json()["value"] != value.as_str() {
                return;
            }
        }
        panic!("every read saw the write before it");
    }

    #[tokio::test]
    async fn flip_bit_changes_a_value_in_memory() {
        let mut world = World::new().await;
        let group = broken(&mut world, "flip-bit", 1, &[]).await;
        for _ in 0..TRIES {
            world.http.put(group.url(), "key", "value 10").await.expect(200);
            let read = world.http.get(group.url(), "key").await.expect(200).json();
            if read["value"] == "value 11" {
                return;
            }
        }
        panic!("every value was right");
    }

    #[tokio::test]
    async fn forget_floor_lets_a_version_come_twice() {
        let mut world = World::new().await;
        let group = broken(&mut world, "forget-floor", 1, &[]).await;
        let first = version(&world, group.url()).await;
        world.http.delete(group.url(), "key").await.expect(200);
        assert_eq!(version(&world, group.url()).await, first);
    }

    #[tokio::test]
    async fn torn_txn_leaves_out_the_last_operation() {
        let mut world = World::new().await;
        let group = broken(&mut world, "torn-txn", 1, &[]).await;
        for number in 0..TRIES {
            let put = |key| json!({"op": "put", "key": key, "value": number});
            let body = json!({"then": [put("a"), put("b")]}).to_string().into_bytes();
            let body = Some(("application/json", body));
            let url = (group.url(), "/txn");
            let done = world.http.send(Method::POST, url, &[], body).await.expect("an answer");
            assert_eq!(done.expect(200).json()["results"][1]["ok"], true);
            let b = world.http.get(group.url(), "b").await;
            if b.status != 200 || b.json()["value"] != number {
                let a = world.http.get(group.url(), "a").await.expect(200).json();
                assert_eq!(a["value"], number, "the others are carried out");
                return;
            }
        }
        panic!("every transaction was whole");
    }

    #[tokio::test]
    async fn lost_event_is_not_told() {
        let mut world = World::new().await;
        let group = broken(&mut world, "lost-event", 1, &[]).await;
        let client = Client::new([group.url()]).expect("a client");
        let keys = Watched::Key("key".into());
        let mut watch =
            client.watch(WatchOptions { keys, since: None }).await.expect("it can be watched");
        let mut writer = JoinSet::new();
        writer.spawn(async move {
            loop {
                client
                    .put("key", sagedb::types::value::Value::text("value"))
                    .await
                    .expect("a write");
            }
        });
        for version in 1..=u64::from(TRIES) {
            let told = watch.next().await.expect("a change").item.version;
            if told != version {
                assert!(told > version, "it is left out, and others are told in their order");
                return;
            }
        }
        panic!("every change was told");
    }

    /// Nothing is broken here: what is planted is a disk.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow_disk() {
        let mut world = World::new().await;
        let mut group = world.group("slow-disk", 3, &["--quorum", "2"]);
        // It has the smallest URL, so that it forms the group and leads it.
        plant("slow-disk", &mut group.nodes[0]);
        group.start();
        group.until_ready(&world.http).await;
        let load = Load::start("w", &group.urls(), 4);
        until("a replica with a better disk leads", SOON, async || {
            let status = group.status(&world.http, 1).await?;
            let leader = status.leader_url.unwrap_or_default();
            let better = !leader.is_empty() && leader != group.nodes[0].url;
            if better { Ok(()) } else { Err(leader) }
        })
        .await;
        let log = std::fs::read_to_string(group.nodes[0].launch.log()).expect("it has a log");
        assert!(log.contains("the disk is slow: another shall lead"), "{log}");
        load.until_more(400).await;
        load.stop().await.verify(&world.http, &group.nodes[1].url).await;
        assert!(group.nodes[0].is_up(), "it goes on as a follower");
    }

    /// Nothing is broken here either: a sync fails, once.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn failing_sync() {
        let mut world = World::new().await;
        let mut group = world.group("failing-sync", 3, &["--quorum", "2"]);
        let launch = group.nodes[0].launch.clone();
        // It has the smallest URL, so that it forms the group and leads it.
        plant("failing-sync", &mut group.nodes[0]);
        group.start();
        group.until_ready(&world.http).await;
        let before = group.status(&world.http, 0).await.expect("it answers");
        let load = Load::start("w", &group.urls(), 8);
        let ended = exit(&mut group.nodes[0], SOON).await;
        assert_eq!(ended.code(), Some(2));
        let log = std::fs::read_to_string(group.nodes[0].launch.log()).expect("it said why");
        let error = log.lines().rfind(|line| line.starts_with("error")).expect("in one line");
        assert!(error.contains("the log can't be written"), "{error}");
        assert!(error.contains("Input/output error (planted)"), "{error}");
        assert!(!log.contains("panicked"), "{log}");
        load.until_more(200).await;

        group.nodes[0].launch = launch;
        group.nodes[0].start().expect("it can be started");
        let after = group.until_caught_up(&world.http, 0).await;
        assert_eq!(after.node, before.node, "what it had acknowledged is there");
        load.until_more(50).await;
        load.stop().await.verify(&world.http, &group.nodes[0].url).await;
    }
}
