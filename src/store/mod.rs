//! What a replica keeps: the log on disk, the state in memory, snapshots, and its identity.
//!
//! ```text
//! DataDir   LOCK                        one process at a time           datadir
//!           REJOINED                    when it gave up its data        rejoins
//!           meta/                       node and group identity         meta
//!           wal/<segment>.log           entries, votes, marks           wal
//!           snapshot/<index>-<term>.snap  the state as of one entry     snapshot
//! files     Disk                        all of it but LOCK and meta/    disk
//! memory    State                       what entries come to            state, apply, digest
//!           History                     what they changed last          history
//! ```
//!
//! An entry is first in the log, synced; once it is committed, [`apply::apply`] turns it into
//! [`state::State`], which readers look at between two changes. From time to time a clone is
//! written as a snapshot, and the log up to it may go. A start reads the newest snapshot and
//! applies the log behind it again.
//!
//! Promises: what a method calls durable survives a power loss once it has returned; damaged bytes
//! are an error with the file's name in it, never data and never a panic. Refuses to know Raft or
//! the network: it is told what to append, apply and purge, and asks nobody.

pub mod answers;
pub mod apply;
pub mod blocking;
pub mod check;
#[cfg(test)]
mod crashes;
pub mod datadir;
pub mod digest;
pub mod disk;
pub mod history;
pub mod meta;
mod note;
pub mod rejoins;
pub mod repair;
pub mod rests;
pub mod snapshot;
pub mod state;
pub mod wal;
