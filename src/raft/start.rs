//! When a start makes room for others: while they serve the group's clients without this replica.
//!
//! Reading a log and a snapshot is a burst on processors that clients of the group may wait for, too, where they are short. It rests then, if somebody
//! leads the group. If nobody does, or a write waits for more than a majority, it may be this replica that the group waits for, and there are no rests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::select_ok;
use tokio::time::sleep;

use crate::raft::formation::caller;
use crate::raft::quorum::majority;
use crate::raft::replica::ReplicaOptions;
use crate::rpc::{Caller, Dialer};
use crate::store::rests::Rests;
use crate::types::deadline::Deadline;
use crate::types::host;
use crate::types::limits::START_LONG_RESTS;
use crate::types::peer::{Identity, Reply, Request};

/// How often the others are asked whether somebody leads.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// How long an answer is waited for: one that starts, too, gives none.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// The rests of a start, which begins now; the others are asked for as long as there is a clone of them.
pub(in crate::raft) fn rests(dialer: &Dialer, options: &ReplicaOptions) -> Rests {
    if options.peers.is_empty() || host::is_simulated() {
        return Rests::none();
    }
    let dialer = dialer.of(None);
    let callers: Arc<[Caller]> = options.peers.iter().map(|url| caller(&dialer, url)).collect();
    let (own, quorum) = (options.url.clone(), options.quorum);
    let led = Arc::new(AtomicBool::new(false));
    let is_led = move || {
        let (callers, own) = (Arc::clone(&callers), own.clone());
        async move {
            let asked = callers.iter().map(|at| Box::pin(ask(at, (&own, quorum))));
            // One who says so is enough, whatever the others take.
            select_ok(asked).await.is_ok()
        }
    };
    drop(tokio::spawn(keep_asking(is_led, Asking(Arc::downgrade(&led)))));
    Rests::when_short(START_LONG_RESTS).only_while(led)
}

/// An error if it can't be said that the group does without the replica at this URL, with this `--quorum`.
async fn ask(at: &Caller, (own, quorum): (&str, u32)) -> Result<(), ()> {
    match at.call(&Request::Identify, Deadline::after(ANSWER_MAX)).await {
        Ok(Reply::Identity(identity)) if does_without(&identity, (own, quorum)) => Ok(()),
        Ok(_) | Err(_) => Err(()),
    }
}

/// Whether the member that says this leads the group of the replica at this URL, and can commit without it. Of others that isn't believed: a
/// follower also hears from a leader that has lost its majority.
fn does_without(identity: &Identity, (own, quorum): (&str, u32)) -> bool {
    let Identity { member, members, leader, .. } = identity;
    let is_ours = members.iter().any(|member| member.url == own) && member.url != own;
    let leads = leader.as_ref().is_some_and(|leader| leader.url == member.url);
    is_ours && leads && quorum <= majority(members.len())
}

/// Whoever asks. When he ends, however he does, nothing more is known: a thread that rests is not to hold up a process that stops.
struct Asking(Weak<AtomicBool>);

impl Asking {
    /// Whether anybody still wants to know.
    fn tell(&self, answer: bool) -> bool {
        self.0.upgrade().map(|led| led.store(answer, Ordering::Relaxed)).is_some()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// Asks again and again, until nobody wants to know any more.
async fn keep_asking<F: Future<Output = bool>>(is_led: impl Fn() -> F, asking: Asking) {
    while asking.tell(is_led().await) {
        sleep(ASK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::time::timeout;

    use super::*;
    use crate::types::ids::NodeId;
    use crate::types::topology::Member;

    /// Somebody leads, then nobody, then somebody again.
    fn on_off_on() -> impl Fn() -> std::future::Ready<bool> {
        let asked = AtomicUsize::new(0);
        move || std::future::ready(asked.fetch_add(1, Ordering::Relaxed) != 1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_hears_who_leads_for_as_long_as_it_takes() {
        let led = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(keep_asking(on_off_on(), Asking(Arc::downgrade(&led))));
        for expected in [true, false, true] {
            sleep(ASK_INTERVAL / 2).await;
            assert_eq!(led.load(Ordering::Relaxed), expected);
            sleep(ASK_INTERVAL / 2).await;
        }
        drop(led);
        timeout(2 * ASK_INTERVAL, asking).await.expect("it ends").expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_no_more_knows_nothing() {
        let led = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(keep_asking(on_off_on(), Asking(Arc::downgrade(&led))));
        sleep(ASK_INTERVAL / 2).await;
        assert!(led.load(Ordering::Relaxed));
        asking.abort();
        assert!(asking.await.is_err_and(|error| error.is_cancelled()));
        assert!(!led.load(Ordering::Relaxed), "the process stops");
    }

    #[test]
    fn only_who_leads_the_same_group_can_tell() {
        let member = |name: u64| Member { node: NodeId(name), url: format!("http://{name}") };
        let identity = |members: &[u64], leader: Option<u64>| Identity {
            member: member(2),
            group: None,
            name: None,
            fresh: false,
            seeds: Vec::new(),
            members: members.iter().copied().map(member).collect(),
            leader: leader.map(member),
            claim: None,
            confirmed: false,
        };
        let is_led = |identity| does_without(&identity, ("http://1", 2));
        assert!(is_led(identity(&[1, 2, 3], Some(2))));
        assert!(!does_without(&identity(&[1, 2, 3], Some(2)), ("http://1", 3)), "a write waits");
        assert!(!is_led(identity(&[1, 2, 3], Some(3))), "it may have lost its majority");
        assert!(!is_led(identity(&[1, 2, 3], Some(1))), "that was this one, before");
        assert!(!is_led(identity(&[1, 2, 3], None)));
        assert!(!is_led(identity(&[2, 3, 4], Some(2))), "another group");
    }
}
