//! When a start makes room for others: while they serve the group's clients without this replica.
//!
//! Reading a log and a snapshot is a burst on processors that clients of the group may wait for, too, where they are short. It rests then, if somebody
//! leads the group. If nobody does, it may be this replica that the group waits for, and there are no rests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use crate::raft::replica::ReplicaOptions;
use crate::rpc::{Caller, Dialer, Target};
use crate::store::rests::Rests;
use crate::types::deadline::Deadline;
use crate::types::host;
use crate::types::limits::{CONNECT_TIMEOUT, START_RESTING_MAX};
use crate::types::peer::{Reply, Request};
use crate::types::topology::Member;

/// How often the others are asked whether somebody leads.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// The rests of a start, which begins now; the others are asked for as long as there is a clone of them.
pub(in crate::raft) fn rests(dialer: &Dialer, options: &ReplicaOptions) -> Rests {
    if options.peers.is_empty() || host::is_simulated() {
        return Rests::none();
    }
    let (dialer, own) = (dialer.of(None), options.url.clone());
    let target = |url: &String| Target { url: url.clone(), node: None, group: None };
    let caller = |url| Caller::new(dialer.clone(), target(url));
    let callers: Arc<[Caller]> = options.peers.iter().map(caller).collect();
    let led = Arc::new(AtomicBool::new(false));
    let is_led = move || {
        let (callers, own) = (Arc::clone(&callers), own.clone());
        async move {
            let leaders = join_all(callers.iter().map(leader)).await;
            leaders.into_iter().flatten().any(|leader| leader.url != own)
        }
    };
    drop(tokio::spawn(keep_asking(is_led, Arc::downgrade(&led))));
    Rests::when_short(START_RESTING_MAX).only_while(led)
}

/// Whom a replica knows to lead.
async fn leader(caller: &Caller) -> Option<Member> {
    match caller.call(&Request::Identify, Deadline::after(CONNECT_TIMEOUT)).await {
        Ok(Reply::Identity(identity)) => identity.leader,
        Ok(_) | Err(_) => None,
    }
}

/// Asks again and again, until nobody wants to know any more.
async fn keep_asking<F: Future<Output = bool>>(is_led: impl Fn() -> F, led: Weak<AtomicBool>) {
    loop {
        let answer = is_led().await;
        match led.upgrade() {
            Some(led) => led.store(answer, Ordering::Relaxed),
            None => return,
        }
        sleep(ASK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_hears_who_leads_for_as_long_as_it_takes() {
        let led = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let times = Arc::clone(&asked);
        // Somebody leads, then nobody, then somebody again.
        let is_led = move || {
            let time = times.fetch_add(1, Ordering::Relaxed);
            async move { time != 1 }
        };
        let asking = tokio::spawn(keep_asking(is_led, Arc::downgrade(&led)));
        for expected in [true, false, true] {
            sleep(ASK_INTERVAL / 2).await;
            assert_eq!(led.load(Ordering::Relaxed), expected);
            sleep(ASK_INTERVAL / 2).await;
        }
        drop(led);
        timeout(2 * ASK_INTERVAL, asking).await.expect("it ends").expect("no panic");
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}
