//! A value with a time to live ends, on every replica alike, and what was found to be over is never
//! read again: not from another replica, not after its leader is killed, not after all of them are.

use reqwest::Method;

use crate::common::http::{Answer, FORM};
use crate::common::until::{SOON, until};
use crate::common::world::World;

const KEYS: usize = 60;

fn key(number: usize) -> String {
    format!("k{number}")
}

async fn put(world: &World, url: &str, key: &str, ttl: &str) -> Answer {
    let query = [("key", key), ("ttl", ttl)];
    let body = Some((FORM, key.as_bytes().to_vec()));
    world.http.send(Method::PUT, (url, "/kv"), &query, body).await.expect("an answer").expect(200)
}

/// Whether there is a value, once somebody can say so.
async fn has(world: &World, url: &str, key: &str) -> bool {
    until("it can be said", SOON, async || match world.http.get(url, key).await.status {
        200 => Ok(true),
        404 => Ok(false),
        status => Err(format!("{status}")),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_over_is_never_read_again_through_the_death_of_leaders() {
    let mut world = World::new().await;
    let mut group = world.started("group", 3, &[]).await;
    let coordinator = world.routed(&[&group]).await;
    let url = coordinator.url.as_str();
    put(&world, url, "stays", "1h").await;
    for number in 0..KEYS {
        put(&world, url, &key(number), &format!("{}ms", 500 + 50 * number)).await;
    }
    let mut over = [false; KEYS];
    let mut kills = 0;
    until("all have ended", SOON, async || {
        for (number, over) in over.iter_mut().enumerate() {
            let there = has(&world, url, &key(number)).await;
            assert!(!(there && *over), "{} is back", key(number));
            *over |= !there;
        }
        let ended = over.iter().filter(|over| **over).count();
        if ended < KEYS && ended > kills * KEYS / 3 {
            kills += 1;
            let leader = group.leader(&world.http).await;
            group.nodes[leader].kill();
            group.nodes[leader].start().expect("it starts");
        }
        if ended == KEYS { Ok(()) } else { Err(format!("{ended} have ended")) }
    })
    .await;
    assert!(kills > 0, "no leader was killed");
    assert!(has(&world, url, "stays").await);

    // Each replica has removed them; and none comes back with the snapshot or the log.
    for round in 0..2 {
        for at in 0..3 {
            until("nothing that is over is left", SOON, async || {
                let keys = group.status(&world.http, at).await?.keys;
                if keys == 1 { Ok(()) } else { Err(format!("{keys} keys in round {round}")) }
            })
            .await;
        }
        group.kill();
        group.start();
        group.until_ready(&world.http).await;
    }
    for number in 0..KEYS {
        assert!(!has(&world, url, &key(number)).await, "{} is back", key(number));
    }
    assert!(has(&world, url, "stays").await);
}
