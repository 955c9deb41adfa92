//! The lease of a leader: a promise of a majority to elect nobody else for a while, so that the
//! leader may answer reads alone.
//!
//! openraft's own lease is what a follower keeps by default: it elects nobody else for
//! `election_timeout_max` after each message. But a follower that sees its leader's process gone
//! gives that up at once (`raft::departure`), so a leader must not read by it. It reads by what is
//! kept here: followers that were *asked* for a lease and *granted* it.
//!
//! - A leader asks only while somebody reads by lease, so that without such reads a dead leader is
//!   replaced at once.
//! - A follower that grants [`owes`](Promises::owed_until) the lease for its own `election_timeout_max`,
//!   [`LEASE_MAX`] at most, by its own clock and from before Raft sees the message; it grants nothing
//!   that is longer. While it owes it releases nobody. Once it has released a leader it grants
//!   that one nothing, ever.
//! - The leader counts from when it *sent* what was granted, and three quarters of the time: the
//!   rest is for clocks that run at different rates. Its own vote counts too, since openraft
//!   serves no lease read once it has voted for another.
//!
//! So while a lease is valid, no majority can elect. A restarted follower does not know what it
//! owed, and elects nobody for one `election_timeout_max`, and never less than [`LEASE_MAX`], for it may
//! have had another timeout before. A vote that goes around leases, since a leader hands over, is for a
//! later term than that leader's: one that was under way for long is taken for an ordinary one
//! ([`Lease::protects`]). All of it assumes monotonic clocks that
//! go on while a process is stopped; they need not show the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::raft::config::Timing;
use crate::raft::replica::lock;
use crate::types::ids::{NodeId, Term, Vote};
use crate::types::limits::{LEASE_MAX, LEASE_WANTED};

/// Names one leadership; ordered as votes are.
fn leadership(vote: &Vote) -> (Term, NodeId) {
    (vote.term, vote.node)
}

/// What a follower has promised to leaders, and taken back.
#[derive(Debug, Default)]
struct Promises {
    /// Until when the last lease that was granted runs.
    owed_until: Option<Instant>,
    /// The newest term of a leader that was granted one.
    owed_term: Term,
    /// The newest leadership that was released, and when.
    released: Option<((Term, NodeId), Instant)>,
    /// When a message from that leader came after all.
    heard: Option<Instant>,
}

impl Promises {
    fn grant(&mut self, vote: &Vote, now: Instant, length: Duration) -> bool {
        if self.released.is_some_and(|(released, _)| leadership(vote) <= released) {
            return false;
        }
        self.owed_until = self.owed_until.max(Some(now + length));
        self.owed_term = self.owed_term.max(vote.term);
        true
    }

    fn release(&mut self, vote: &Vote, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.owed_until
            && now < until
        {
            return Err(until);
        }
        if self.released.is_none_or(|(released, _)| released <= leadership(vote)) {
            self.released = Some((leadership(vote), now));
            self.heard = None;
        }
        Ok(())
    }

    fn protects(&self, term: Term, now: Instant) -> bool {
        self.owed_until.is_some_and(|until| now < until) && term <= self.owed_term
    }

    fn heard(&mut self, vote: &Vote, received: Instant) {
        if let Some((released, since)) = self.released
            && released == leadership(vote)
            && received > since
        {
            self.heard = self.heard.max(Some(received));
        }
    }

    fn is_released(&self, vote: &Vote) -> bool {
        self.released.is_some_and(|(released, _)| released == leadership(vote))
    }

    fn is_back(&self, now: Instant, patience: Duration) -> bool {
        self.heard.is_some_and(|heard| now < heard + patience)
    }
}

/// What followers have granted to this replica as a leader.
#[derive(Debug, Default)]
struct Grants {
    /// As which leader.
    leadership: Option<(Term, NodeId)>,
    /// When the newest message that each has granted was sent.
    sent: BTreeMap<NodeId, Instant>,
}

impl Grants {
    fn granted(&mut self, vote: &Vote, by: NodeId, sent: Instant) {
        let granted = Some(leadership(vote));
        if granted < self.leadership {
            return;
        }
        if granted > self.leadership {
            *self = Self { leadership: granted, sent: BTreeMap::new() };
        }
        let newest = self.sent.entry(by).or_insert(sent);
        *newest = sent.max(*newest);
    }

    /// Whether a majority of each of these sets has granted, less than `length` ago.
    fn valid(
        &self,
        vote: &Vote,
        voters: &[BTreeSet<NodeId>],
        now: Instant,
        length: Duration,
    ) -> bool {
        let holds = |node: &&NodeId| {
            let granted = self.sent.get(node).is_some_and(|sent| now < *sent + length);
            **node == vote.node || (granted && self.leadership == Some(leadership(vote)))
        };
        let majority = |set: &BTreeSet<NodeId>| set.iter().filter(holds).count() > set.len() / 2;
        !voters.is_empty() && voters.iter().all(majority)
    }
}

/// A message that is on its way, for its answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::raft) struct Asked {
    vote: Vote,
    sent: Instant,
}

/// Both sides of one replica.
#[derive(Debug)]
pub(in crate::raft) struct Lease {
    /// What a follower keeps.
    length: Duration,
    /// How long a released leader counts as there after a message from it.
    patience: Duration,
    promises: Mutex<Promises>,
    grants: Mutex<Grants>,
    wanted_until: Mutex<Option<Instant>>,
}

impl Lease {
    pub(in crate::raft) fn new(timing: Timing) -> Self {
        Self {
            length: timing.election_timeout_max.min(LEASE_MAX),
            patience: timing.heartbeat * 5 / 2,
            promises: Mutex::default(),
            grants: Mutex::default(),
            wanted_until: Mutex::default(),
        }
    }

    /// Somebody reads by lease.
    pub(in crate::raft) fn want(&self) {
        *lock(&self.wanted_until) = Some(Instant::now() + LEASE_WANTED);
    }

    /// How long a lease messages should ask for, in milliseconds, if any.
    pub(in crate::raft) fn wanted_ms(&self) -> Option<u32> {
        let wanted = lock(&self.wanted_until).is_some_and(|until| Instant::now() < until);
        wanted.then(|| u32::try_from(self.length.as_millis()).unwrap_or(u32::MAX))
    }

    /// Call it before a message of this leadership is sent.
    pub(in crate::raft) fn ask(vote: Vote) -> Asked {
        Asked { vote, sent: Instant::now() }
    }

    /// A follower has granted what was asked.
    pub(in crate::raft) fn granted(&self, asked: Asked, by: NodeId) {
        lock(&self.grants).granted(&asked.vote, by, asked.sent);
    }

    /// Whether the leader with this vote may read alone now, if these are the voters of its newest
    /// configuration: one set, or each of a joint one.
    pub(in crate::raft) fn valid(&self, vote: &Vote, voters: &[BTreeSet<NodeId>]) -> bool {
        let length = self.length * 3 / 4;
        lock(&self.grants).valid(vote, voters, Instant::now(), length)
    }

    /// Grants the leader a lease that asks for so many milliseconds, if it asks, unless it was released
    /// or asks for too long. Call it before Raft sees the message; what is promised holds even if
    /// Raft then refuses that.
    pub(in crate::raft) fn grant(&self, vote: &Vote, asked_ms: Option<u32>) -> bool {
        let asked = asked_ms.map(|ms| Duration::from_millis(ms.into()));
        asked.is_some_and(|asked| asked <= self.length)
            && lock(&self.promises).grant(vote, Instant::now(), self.length)
    }

    /// Whether a lease is owed to a leader of this term or a later one: no leader of an earlier term
    /// can hand that over.
    pub(in crate::raft) fn protects(&self, term: Term) -> bool {
        lock(&self.promises).protects(term, Instant::now())
    }

    /// Takes note that this leader gets no lease any more; when one is owed to any leader, refuses
    /// and says until when.
    pub(in crate::raft) fn release(&self, vote: &Vote) -> Result<(), Instant> {
        lock(&self.promises).release(vote, Instant::now())
    }

    /// Takes note of a message from a leader that Raft has accepted.
    pub(in crate::raft) fn heard(&self, vote: &Vote, received: Instant) {
        lock(&self.promises).heard(vote, received);
    }

    /// Whether this leader was released and has been silent since.
    pub(in crate::raft) fn has_departed(&self, vote: &Vote) -> bool {
        let promises = lock(&self.promises);
        promises.is_released(vote) && !promises.is_back(Instant::now(), self.patience)
    }

    /// Whether the leader with this vote was released, and yet was heard a moment ago.
    pub(in crate::raft) fn is_back(&self, vote: &Vote) -> bool {
        let promises = lock(&self.promises);
        promises.is_released(vote) && promises.is_back(Instant::now(), self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(1);

    fn vote(term: Term, node: u64) -> Vote {
        Vote { term, node: NodeId(node), committed: true }
    }

    fn nodes(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn nobody_is_released_while_a_lease_is_owed() {
        let mut promises = Promises::default();
        let start = Instant::now();
        assert!(promises.grant(&vote(3, 1), start, LENGTH));
        let just_before = start + Duration::from_millis(999);
        assert_eq!(promises.release(&vote(3, 1), just_before), Err(start + LENGTH));
        assert_eq!(promises.release(&vote(4, 2), just_before), Err(start + LENGTH));
        assert!(promises.grant(&vote(3, 1), just_before, LENGTH), "a refusal takes nothing back");
        assert_eq!(promises.release(&vote(3, 1), start + LENGTH), Err(just_before + LENGTH));
        assert_eq!(promises.release(&vote(3, 1), just_before + LENGTH), Ok(()));
    }

    #[test]
    fn nothing_longer_than_what_is_kept_here_is_granted() {
        let timing =
            |ms| Timing { election_timeout_max: Duration::from_millis(ms), ..Timing::default() };
        let follower = Lease::new(timing(800));
        assert!(!follower.grant(&vote(1, 1), None));
        assert!(!follower.grant(&vote(1, 1), Some(801)));
        assert!(follower.grant(&vote(1, 1), Some(800)));
        let leader = Lease::new(timing(60_000));
        leader.want();
        assert_eq!(leader.wanted_ms(), Some(1000), "whatever the timeout is");
    }

    #[test]
    fn a_vote_for_an_heir_goes_around_no_later_leaders_lease() {
        let mut promises = Promises::default();
        let now = Instant::now();
        assert!(!promises.protects(4, now));
        assert!(promises.grant(&vote(4, 1), now, LENGTH));
        assert!(promises.protects(4, now), "the heir of term 3's leader comes too late");
        assert!(!promises.protects(5, now), "the heir of term 4's leader");
        assert!(!promises.protects(4, now + LENGTH));
    }

    #[test]
    fn a_released_leader_is_granted_nothing_and_its_successor_is() {
        let mut promises = Promises::default();
        let now = Instant::now();
        assert_eq!(promises.release(&vote(3, 5), now), Ok(()));
        assert!(!promises.grant(&vote(3, 5), now, LENGTH));
        assert!(!promises.grant(&vote(3, 4), now, LENGTH), "an older one neither");
        assert!(promises.grant(&vote(3, 6), now, LENGTH), "of two of a term the greater is newer");
        assert!(promises.grant(&vote(4, 1), now, LENGTH));
        // Releasing an older one later does not make the newer one's grants possible again.
        assert_eq!(promises.release(&vote(5, 1), now + LENGTH), Ok(()));
        assert_eq!(promises.release(&vote(3, 5), now + LENGTH), Ok(()));
        assert!(!promises.grant(&vote(5, 1), now + LENGTH, LENGTH));
    }

    #[test]
    fn a_released_leader_is_back_when_it_is_heard_again() {
        let mut promises = Promises::default();
        let (start, patience) = (Instant::now(), Duration::from_millis(250));
        promises.heard(&vote(3, 5), start);
        assert_eq!(promises.release(&vote(3, 5), start), Ok(()));
        promises.heard(&vote(3, 5), start);
        promises.heard(&vote(4, 5), start + patience);
        assert!(!promises.is_back(start, patience), "that was before, or another");
        promises.heard(&vote(3, 5), start + patience);
        assert!(promises.is_back(start + patience, patience));
        assert!(!promises.is_back(start + 2 * patience, patience));
        assert_eq!(promises.release(&vote(3, 5), start + patience), Ok(()));
        assert!(!promises.is_back(start + patience, patience), "it was seen gone once more");
    }

    #[test]
    fn a_lease_holds_while_a_majority_has_granted_it_lately() {
        let mut grants = Grants::default();
        let start = Instant::now();
        let (me, five) = (vote(3, 1), [nodes(&[1, 2, 3, 4, 5])]);
        grants.granted(&me, NodeId(2), start);
        grants.granted(&me, NodeId(9), start);
        assert!(!grants.valid(&me, &five, start, LENGTH), "2 of 5, and a learner");
        grants.granted(&me, NodeId(3), start + LENGTH / 2);
        assert!(grants.valid(&me, &five, start + LENGTH / 2, LENGTH));
        assert!(!grants.valid(&me, &five, start + LENGTH, LENGTH), "the first is over");
        grants.granted(&me, NodeId(2), start + LENGTH / 2);
        grants.granted(&me, NodeId(2), start);
        assert!(grants.valid(&me, &five, start + LENGTH, LENGTH), "answers may overtake");
        assert!(!grants.valid(&me, &five, start + LENGTH / 2 + LENGTH, LENGTH));
    }

    #[test]
    fn a_lease_belongs_to_one_leadership() {
        let mut grants = Grants::default();
        let now = Instant::now();
        let three = [nodes(&[1, 2, 3])];
        grants.granted(&vote(3, 1), NodeId(2), now);
        assert!(!grants.valid(&vote(4, 1), &three, now, LENGTH));
        grants.granted(&vote(4, 1), NodeId(3), now);
        grants.granted(&vote(3, 1), NodeId(2), now);
        assert!(grants.valid(&vote(4, 1), &three, now, LENGTH));
        assert!(!grants.valid(&vote(3, 1), &three, now, LENGTH));
        assert!(!grants.valid(&vote(4, 1), &[nodes(&[1, 2, 4])], now, LENGTH), "2 is of term 3");
    }

    #[test]
    fn a_joint_configuration_needs_a_majority_of_each_part() {
        let mut grants = Grants::default();
        let now = Instant::now();
        let me = vote(3, 1);
        let joint = [nodes(&[1, 2, 3]), nodes(&[2, 3, 4])];
        grants.granted(&me, NodeId(2), now);
        assert!(!grants.valid(&me, &joint, now, LENGTH), "1 of the second");
        grants.granted(&me, NodeId(4), now);
        assert!(grants.valid(&me, &joint, now, LENGTH));
        assert!(!grants.valid(&me, &[], now, LENGTH), "nobody is no majority");
        assert!(Grants::default().valid(&me, &[nodes(&[1])], now, LENGTH), "alone");
    }
}
