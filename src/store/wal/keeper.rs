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
use crate::types::limits::{WAL_KEEPER_JOBS_MAX, WAL_SPARES_MAX};

enum Job {
    Prepare { number: u64, fill: Fill },
    Free(Vec<Arc<Segment>>),
}

/// The writer's side of the keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    jobs: SyncSender<Job>,
    ready: Receiver<At<Segment>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts the thread. What fails in it fails the log.
    pub(super) fn start(kind: Kind, shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(WAL_KEEPER_JOBS_MAX);
        let (prepared, ready) = sync_channel(1);
        let keep = move || {
            let mut work = Keeping { kind, spares: Vec::new() };
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
        Ok(Self { jobs, ready, thread })
    }

    /// Asks for segment `number`.
    pub(super) fn prepare(&self, number: u64, fill: Fill) {
        self.send(Job::Prepare { number, fill });
    }

    /// Waits for the segment that was asked for.
    pub(super) fn prepared(&self) -> At<Segment> {
        self.ready.recv().unwrap_or_else(|_| panic!("the keeper answers every request"))
    }

    /// Takes away segments that are out of the log, oldest first.
    pub(super) fn free(&self, segments: Vec<Arc<Segment>>) {
        if !segments.is_empty() {
            self.send(Job::Free(segments));
        }
    }

    fn send(&self, job: Job) {
        assert!(self.jobs.send(job).is_ok(), "the keeper ends after the writer");
    }

    /// Waits until everything is done and ends the thread.
    pub(super) fn end(self) {
        drop(self.jobs);
        drop(self.ready);
        assert!(self.thread.join().is_ok(), "the keeper does not panic");
    }
}

struct Keeping {
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
