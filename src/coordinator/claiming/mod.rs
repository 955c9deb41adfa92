//! How groups become one ring, and stay it.
//!
//! The ring's topology is the list of its groups by name. The first is the *home group*; every
//! group's claim holds a copy of the whole topology and the ranges that are the group's own. Any
//! number of coordinators may work on the same groups, crash at any step, hold lists that differ,
//! and see answers that are old. They agree through the home group's log alone, which decides
//! between two commands:
//!
//! ```text
//! claim:    Claim at home  →  Claim at the others, by name  →  CONFIRM AT HOME  →  Confirm at the others
//! release:                       RELEASE AT HOME  →  Release at the others
//! ```
//!
//! - A ring that nobody has claimed before gets a random identity, and `Claim` is sent to its home
//!   group *once*: a new attempt is a new ring with a new identity. So once `Release` has gone
//!   through the home group's log (done, or the claim was gone already), that ring is dead for
//!   ever: its home can never confirm it. Only then are the others released.
//! - `Confirm` goes to the home group only when every other group has said `Done` to its claim.
//!   Home accepts it only while it holds the claim, so the ring was not released: no group of it
//!   can have lost its claim, and none ever will, because `Release` at home is now refused.
//!   This is the point of no return; a ring is *active* from here on.
//! - A half-done claim is *resumed* by whoever finds it. What was done already is `Done` again.
//! - A half-done claim is *released* when it can't go on: one of its groups refused it (it holds
//!   foreign keys), or belongs to another ring, or its home group does not hold it (an *orphan*).
//!   That a lagging follower only made it look so costs a new attempt, never a ring: an active one
//!   answers `Confirmed`, and is then adopted.
//! - Groups are claimed in the order of their names, so two rings that overlap can't wait for each
//!   other for ever.
//!
//! A confirmed copy anywhere proves that the ring is active, so a coordinator serves by it even
//! when the home group is down.
//!
//! It promises that two active rings never share a group, and that a group of an active ring is
//! never without its claim (checked over every interleaving in `tests`). It refuses to begin a
//! ring before every given URL is known to belong to a group, and every group has a name and a
//! leader.

mod decide;
mod view;

#[cfg(test)]
mod tests;

pub(in crate::coordinator) use self::decide::{
    Plan, Proposal, Purpose, Step, Verdict, judge, next,
};
pub(in crate::coordinator) use self::view::{Refused, Seen, View};
