//! The thread that prepares segments ahead of the writer and takes freed ones away.
//!
//! A prepared segment is complete on disk, name and header included, before the writer gets it. A
//! freed one is reused if nobody reads it any more and few are kept, else deleted. Segments are
//! taken away oldest first, each durably before the next, so that a crash never leaves a gap.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::store::wal::segment::{self, At, Fill, Kind, Segment};
use crate::store::wal::shared::Shared;
use crate::types::host;
use crate::types::limits::{WAL_KEEPER_JOBS_MAX, WAL_SPARES_MAX};

/// What there is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Make this segment.
    Prepare { number: u64, fill: Fill },
    /// Take these away.
    Free(Vec<Arc<Segment>>),
}

/// The writer's side of the keeper.
#[derive(Debug)]
pub(super) enum Keeper {
    /// It is a thread.
    Thread { jobs: SyncSender<Job>, ready: Receiver<At<Segment>>, thread: JoinHandle<()> },
    /// The writer does its work, in a simulation.
    Here { work: Keeping, ready: Option<At<Segment>>, shared: Arc<Shared> },
}

impl Keeper {
    /// Starts the thread. What fails in it fails the log.
    pub(super) fn start(kind: Kind, shared: Arc<Shared>) -> io::Result<Self> {
        let mut work = Keeping { kind, spares: Vec::new() };
        if host::is_simulated() {
            return Ok(Self::Here { work, ready: None, shared });
        }
        let (jobs, queue) = sync_channel(WAL_KEEPER_JOBS_MAX);
        let (prepared, ready) = sync_channel(1);
        let keep = move || {
            for job in queue {
                match job {
                    // If the writer is gone, the segment lies ready for the next run.
                    Job::Prepare { number, fill } => {
                        drop(prepared.send(work.prepare(number, fill)));
                    }
                    Job::Free(segments) => {
                        work.free(segments).unwrap_or_else(|error| shared.fail(error));
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("wal-keeper".into()).spawn(keep)?;
        Ok(Self::Thread { jobs, ready, thread })
    }

    /// Asks for segment `number`.
    pub(super) fn prepare(&mut self, number: u64, fill: Fill) {
        match self {
            Self::Thread { jobs, .. } => send(jobs, Job::Prepare { number, fill }),
            Self::Here { work, ready, .. } => *ready = Some(work.prepare(number, fill)),
        }
    }

    /// Waits for the segment that was asked for.
    pub(super) fn prepared(&mut self) -> At<Segment> {
        match self {
            Self::Thread { ready, .. } => ready.recv().ok(),
            Self::Here { ready, .. } => ready.take(),
        }
        .unwrap_or_else(|| panic!("the keeper answers every request"))
    }

    /// Takes away segments that are out of the log, oldest first.
    pub(super) fn free(&mut self, segments: Vec<Arc<Segment>>) {
        if segments.is_empty() {
            return;
        }
        match self {
            Self::Thread { jobs, .. } => send(jobs, Job::Free(segments)),
            Self::Here { work, shared, .. } => {
                work.free(segments).unwrap_or_else(|error| shared.fail(error));
            }
        }
    }

    /// Waits until everything is done and ends the thread.
    pub(super) fn end(self) {
        if let Self::Thread { jobs, ready, thread } = self {
            drop(jobs);
            drop(ready);
            assert!(thread.join().is_ok(), "the keeper does not panic");
        }
    }
}

fn send(jobs: &SyncSender<Job>, job: Job) {
    assert!(jobs.send(job).is_ok(), "the keeper ends after the writer");
}

/// Does the work.
#[derive(Debug)]
pub(super) struct Keeping {
    kind: Kind,
    spares: Vec<Segment>,
}

impl Keeping {
    fn prepare(&mut self, number: u64, fill: Fill) -> At<Segment> {
        match self.spares.pop() {
            Some(spare) => spare.recycle(&self.kind, number),
            None => Segment::create(&self.kind, number, fill),
        }
    }

    fn free(&mut self, segments: Vec<Arc<Segment>>) -> At<()> {
        for segment in segments {
            let path = segment.path().to_owned();
            match Arc::into_inner(segment) {
                // Nobody reads it: it may be written again.
                Some(free)
                    if self.spares.len() < WAL_SPARES_MAX && free.len()? == self.kind.bytes =>
                {
                    self.spares.push(free.retire(&self.kind)?);
                }
                Some(_) | None => segment::remove(&*self.kind.disk, &path)?,
            }
        }
        Ok(())
    }
}
