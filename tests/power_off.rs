//! The power fails: every process of a cluster is killed at once, under load, and after a new
//! start every acknowledged write is there.

use std::slice;

use rustix::process::Signal;

use crate::common::group::Group;
use crate::common::load::Load;
use crate::common::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_write_survives_killing_every_process() {
    let mut world = World::alone().await;
    let mut groups = Vec::new();
    for name in ["red", "green", "blue"] {
        let mut group = world.group(name, 3, &["--id", name]);
        group.start();
        groups.push(group);
    }
    for group in &groups {
        group.until_ready(&world.http).await;
    }
    let mut coordinator = world.routed(&groups.iter().collect::<Vec<_>>()).await;
    let mut rounds = Vec::new();
    for round in ["first", "second"] {
        let load = Load::start(round, slice::from_ref(&coordinator.url), 16);
        load.until_more(1_000).await;
        // In the middle of the writes: the load ends only after that. Nobody waits for anybody.
        let replicas = groups.iter_mut().flat_map(|group| &mut group.nodes);
        for node in replicas.chain([&mut coordinator]) {
            node.process.as_mut().expect("it runs").signal(Signal::KILL);
        }
        for group in &mut groups {
            group.kill();
        }
        coordinator.kill();
        rounds.push(load.stop().await);

        groups.iter_mut().for_each(Group::start);
        coordinator.start().expect("the coordinator can be started");
        world.until_ready(&coordinator.url).await;
        for written in &rounds {
            written.verify(&world.http, &coordinator.url).await;
        }
    }
    world.http.put(&coordinator.url, "after", "all").await.expect(200);
}
