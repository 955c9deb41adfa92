//! A transaction happens as a whole or not at all, through any coordinator and replica and through the
//! death of leaders; it keeps to one group. A batch reaches all groups, each operation by itself.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::common::http::{Answer, Http};
use crate::common::until::{SOON, until};
use crate::common::world::World;

const ACCOUNTS: usize = 5;
const EACH: i64 = 100;
const TOTAL: i64 = 500;

async fn post(http: &Http, url: &str, path: &str, body: &Json) -> Answer {
    let body = Some(("application/json", body.to_string().into_bytes()));
    http.send(Method::POST, (url, path), &[], body).await.expect("an answer")
}

fn account(number: usize) -> String {
    format!("{{bank}}{number}")
}

/// All of them, as of one moment.
async fn balances(http: &Http, url: &str) -> Vec<i64> {
    let ops: Vec<Json> = (0..ACCOUNTS).map(|at| json!({"op": "get", "key": account(at)})).collect();
    let answer = until("it can be read", SOON, async || {
        let answer = post(http, url, "/txn", &json!({"then": ops})).await;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
    })
    .await;
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|result| result["value"].as_i64().expect("a balance")).collect()
}

/// Moves money from one to the next, for ever; how often it was told that it did.
async fn transfer(http: Http, url: String, from: usize) {
    let to = (from + 1) % ACCOUNTS;
    for amount in 1.. {
        let amount = amount % 7;
        let body = json!({"then": [
            {"op": "incr", "key": account(from), "by": -amount},
            {"op": "incr", "key": account(to), "by": amount},
        ]});
        post(&http, &url, "/txn", &body).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_neither_made_nor_lost_while_leaders_die() {
    let mut world = World::new().await;
    let mut red = world.started("red", 3, &["--id", "red"]).await;
    let mut green = world.started("green", 3, &["--id", "green"]).await;
    let coordinators = [world.routed(&[&red, &green]).await, world.routed(&[&red, &green]).await];
    let puts: Vec<Json> =
        (0..ACCOUNTS).map(|at| json!({"op": "put", "key": account(at), "value": EACH})).collect();
    assert_eq!(
        post(&world.http, &coordinators[0].url, "/txn", &json!({"then": puts})).await.status,
        200
    );
    let moving: Vec<_> = (0..ACCOUNTS)
        .map(|from| tokio::spawn(transfer(Http::new(), coordinators[from % 2].url.clone(), from)))
        .collect();
    let mut seen = BTreeSet::new();
    for round in 0..60 {
        let held = balances(&world.http, &coordinators[round % 2].url).await;
        assert_eq!(held.iter().sum::<i64>(), TOTAL, "{held:?}");
        seen.insert(held);
        if round % 20 == 10 {
            // Whichever has the accounts.
            for group in [&mut red, &mut green] {
                let leader = group.leader(&world.http).await;
                group.nodes[leader].kill();
                group.nodes[leader].start().expect("it starts");
            }
        }
    }
    assert!(seen.len() > 10, "money moved: {} states", seen.len());
    moving.iter().for_each(tokio::task::JoinHandle::abort);
    let held = balances(&world.http, &coordinators[0].url).await;
    assert_eq!(held.iter().sum::<i64>(), TOTAL, "{held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_keeps_to_one_group_and_a_batch_reaches_all() {
    let mut world = World::new().await;
    let groups = [
        world.started("red", 1, &["--id", "red"]).await,
        world.started("green", 1, &["--id", "green"]).await,
    ];
    let coordinator = world.routed(&[&groups[0], &groups[1]]).await;
    let url = coordinator.url.as_str();
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    let puts: Vec<Json> =
        keys.iter().map(|key| json!({"op": "put", "key": key, "value": key})).collect();
    let refused = post(&world.http, url, "/txn", &json!({"then": puts})).await.expect(400).json();
    assert_eq!(
        (&refused["code"], &refused["outcome"]),
        (&json!("cross_shard"), &json!("not_applied"))
    );
    let sentence = refused["error"].as_str().expect("text");
    assert!(sentence.contains("red") && sentence.contains("green"), "{sentence}");

    let put = post(&world.http, url, "/batch", &json!({"ops": puts})).await.expect(200);
    let index = put.header("x-sage-index");
    assert!(index.contains("red:") && index.contains("green:"), "{index}");
    let gets: Vec<Json> = keys.iter().map(|key| json!({"op": "get", "key": key})).collect();
    let read = post(&world.http, url, "/batch", &json!({"ops": gets})).await.expect(200).json();
    let read = read["results"].as_array().expect("results");
    assert!(keys.iter().zip(read).all(|(key, result)| result["value"] == json!(key)), "{read:?}");

    // A replica takes what is its group's own, and refuses the rest.
    let mut owned = 0;
    for key in &keys {
        let one = json!({"then": [{"op": "get", "key": key}]});
        let answer = post(&world.http, groups[0].url(), "/txn", &one).await;
        match answer.status {
            200 => owned += 1,
            421 => assert_eq!(answer.json()["code"], "wrong_shard"),
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(owned > 0 && owned < keys.len(), "{owned}");

    // One group is away: the operations of the other are carried out all the same.
    let [_red, mut green] = groups;
    green.kill();
    let body = json!({"ops": gets});
    let query = [("timeout", "1s")];
    let part = Some(("application/json", body.to_string().into_bytes()));
    let answer =
        world.http.send(Method::POST, (url, "/batch"), &query, part).await.expect("an answer");
    let answer = answer.expect(200).json();
    let results = answer["results"].as_array().expect("results");
    let served = results.iter().filter(|result| result["status"] == 200).count();
    assert_eq!(served, owned, "{answer}");
    assert!(
        results.iter().all(|result| result["status"] == 200 || result["status"] == 503),
        "{answer}"
    );
    // As a single read would say it: what changes nothing has no outcome.
    assert!(results.iter().all(|result| result.get("outcome").is_none()), "{answer}");
}
