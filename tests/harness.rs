//! What the tests stand on keeps its own promises: ports are never shared, processes never outlive
//! their owner, a test that wants the machine for itself has it.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, test_kill_process};

use crate::common::ports::Ports;
use crate::common::process::{Launch, Process};
use crate::common::slots::Slots;
use crate::common::until::{SOON, until};
use crate::common::world::World;

fn sleeper(world: &World) -> Launch {
    Launch {
        name: "sleeper".into(),
        program: "/bin/sh".into(),
        args: ["-c", "echo started; exec sleep 1000"].map(String::from).to_vec(),
        directory: world.directory().into(),
        env: Vec::new(),
    }
}

#[test]
fn ports_are_never_given_out_twice() {
    let mut holders: Vec<Ports> = (0..4).map(|_| Ports::hold()).collect();
    let ports = holders.iter_mut().flat_map(|holder| [(); 50].map(|()| holder.take()));
    let distinct: BTreeSet<u16> = ports.collect();
    assert_eq!(distinct.len(), 200);
}

#[tokio::test]
async fn a_process_never_outlives_its_owner() {
    let world = World::new().await;
    let launch = sleeper(&world);
    let mut process = Process::start(&launch).expect("a shell can be started");
    until("it prints", SOON, async || {
        let log = std::fs::read_to_string(launch.log()).unwrap_or_default();
        if log.lines().nth(1) == Some("started") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(process.ended(), None);
    let pid = Pid::from_child(&process.child);
    drop(process);
    assert!(test_kill_process(pid).is_err(), "{pid:?} is still there");

    let mut process = Process::start(&launch).expect("a shell can be started");
    process.signal(Signal::TERM);
    let ended = until("it ends", SOON, async || process.ended().ok_or("it runs".into())).await;
    assert!(!ended.success());
    // A signal to what has ended reaches nobody, whoever has the number now.
    process.signal(Signal::KILL);
    assert_eq!(process.ended(), Some(ended));
}

#[tokio::test]
async fn a_test_that_wants_the_machine_has_it_alone() {
    let all = Slots::all().await;
    assert!(!Slots::is_one_free());
    drop(all);
    drop(Slots::one().await);
}

#[tokio::test]
#[should_panic(expected = "the moon is green; the last look showed: white")]
async fn what_never_comes_true_fails_with_what_was_seen_instead() {
    until::<()>("the moon is green", Duration::ZERO, async || Err("white".into())).await;
}
