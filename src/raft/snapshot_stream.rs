//! A snapshot file on its way from the leader to a follower, in chunks.
//!
//! The file is sent as it lies on the disk, checksums included; the receiver writes it beside its
//! own, checks every byte of it, and only then tells Raft. Neither side holds more than a few
//! chunks in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::Snapshot as RaftSnapshot;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};

use crate::raft::catch_up::{Sending, resting};
use crate::raft::config::Raft;
use crate::raft::network::{frame, message};
use crate::raft::state_machine::{SnapshotData, on_disk};
use crate::raft::wire;
use crate::rpc::{FrameReceiver, FrameSender};
use crate::store::blocking::blocking;
use crate::store::disk::OpenFile;
use crate::store::rests::{Rests, shortage};
use crate::store::snapshot::{Received, Snapshot, Snapshots};
use crate::types::ids::Vote;
use crate::types::limits::{INSTALL_LONG_RESTS, SNAPSHOT_CHUNK_BYTES};
use crate::types::log::StoredMembership;
use crate::types::peer::{SnapshotHeader, SnapshotReply};

/// The most chunks that wait for the disk.
const CHUNKS_QUEUED_MAX: usize = 8;
/// How many times longer than a chunk the receiver may take to check and install a whole file.
const INSTALL_STALLS_MAX: u32 = 60;

/// Sends `snapshot` and waits until it is installed. Returns the receiver's vote.
pub(in crate::raft) async fn send(
    vote: Vote,
    (snapshot, file): (&Snapshot, OpenFile),
    (mut sender, mut receiver): (FrameSender, FrameReceiver),
    mut sending: Sending,
    stall: Duration,
) -> io::Result<Vote> {
    let header = SnapshotHeader {
        vote,
        last: snapshot.last,
        membership: StoredMembership::clone(&snapshot.membership),
        bytes: snapshot.bytes,
    };
    sender.send(frame(&header)).await?;
    let mut offset = 0;
    while offset < snapshot.bytes {
        let size = (snapshot.bytes - offset).min(SNAPSHOT_CHUNK_BYTES as u64);
        let mut chunk = vec![0; usize::try_from(size).unwrap_or(SNAPSHOT_CHUNK_BYTES)];
        let file = Arc::clone(&file);
        let read = move || file.read_exact_at(&mut chunk, offset).map(|()| chunk);
        let chunk = blocking(read).await??;
        tokio::time::timeout(stall, sender.send(Bytes::from(chunk))).await??;
        offset += size;
        sending.rest().await;
    }
    sender.finish().await?;
    let reply = tokio::time::timeout(stall * INSTALL_STALLS_MAX, receiver.next()).await??;
    let reply = reply.ok_or(io::ErrorKind::UnexpectedEof)?;
    message::<SnapshotReply>(&reply)?.map_err(io::Error::other)
}

/// Receives snapshots for one replica, one at a time.
#[derive(Debug)]
pub(in crate::raft) struct Receiving {
    snapshots: Snapshots,
    /// Held while one is received; when the last one was installed.
    last: Mutex<Option<Instant>>,
    stall: Duration,
}

impl Receiving {
    pub(in crate::raft) fn new(snapshots: Snapshots, stall: Duration) -> Self {
        Self { snapshots, last: Mutex::new(None), stall }
    }

    /// Serves one stream: receives a file, has Raft install it, answers.
    pub(in crate::raft) async fn receive(
        &self,
        raft: Raft,
        mut sender: FrameSender,
        mut receiver: FrameReceiver,
    ) -> io::Result<()> {
        let reply: SnapshotReply = match self.last.try_lock() {
            Ok(mut last) => {
                let resting = resting(*last, INSTALL_LONG_RESTS);
                let installed = self.install(raft, &mut receiver, resting).await;
                if installed.is_ok() {
                    *last = Some(Instant::now());
                }
                installed.map_err(|error| error.to_string())
            }
            Err(_) => Err("another snapshot is being received".into()),
        };
        if let Err(reason) = &reply {
            tracing::warn!(%reason, "a snapshot from the leader was not installed");
        }
        sender.send(frame(&reply)).await?;
        sender.finish().await
    }

    async fn install(
        &self,
        raft: Raft,
        receiver: &mut FrameReceiver,
        resting: Duration,
    ) -> io::Result<Vote> {
        let first = self.next(receiver).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let header = message::<SnapshotHeader>(&first)?;
        tracing::info!(last = ?header.last, bytes = header.bytes, "receiving a snapshot");
        let file = self.file(&header, receiver, resting).await?;
        let meta = wire::snapshot_meta(header.last.as_ref(), &header.membership)?;
        let snapshot = SnapshotData::Received(Box::new(file));
        let installed = raft
            .install_full_snapshot(wire::raft_vote(&header.vote), RaftSnapshot { meta, snapshot })
            .await
            .map_err(io::Error::other)?;
        tracing::info!(last = ?header.last, "installed a snapshot");
        Ok(wire::vote(&installed.vote))
    }

    async fn file(
        &self,
        header: &SnapshotHeader,
        receiver: &mut FrameReceiver,
        resting: Duration,
    ) -> io::Result<Received> {
        let (chunks, queue) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let (snapshots, bytes) = (self.snapshots.clone(), header.bytes);
        let writing = tokio::spawn(write(snapshots, bytes, queue, resting));
        while let Some(chunk) = self.next(receiver).await? {
            if chunks.send(chunk).await.is_err() {
                break; // The writer has failed and says why.
            }
        }
        drop(chunks);
        let file = writing.await.map_err(io::Error::other)??;
        let state = &file.state;
        if state.applied != header.last || *state.membership != header.membership {
            return Err(io::Error::other("the snapshot is not the one that was announced"));
        }
        Ok(file)
    }

    async fn next(&self, receiver: &mut FrameReceiver) -> io::Result<Option<Bytes>> {
        tokio::time::timeout(self.stall, receiver.next()).await?
    }
}

async fn write(
    snapshots: Snapshots,
    bytes: u64,
    mut chunks: mpsc::Receiver<Bytes>,
    resting: Duration,
) -> io::Result<Received> {
    let mut incoming = on_disk(move || snapshots.receive(bytes)).await?;
    // Meanwhile chunks queue up, and the leader waits.
    let mut rests = Rests::always(resting);
    // By this thread: who writes is another each time.
    let mut is_short = shortage();
    while let Some(chunk) = chunks.recv().await {
        rests.rested(); // To wait for a chunk is not work.
        incoming = on_disk(move || incoming.write(&chunk).map(|()| incoming)).await?;
        if let Some(rest) = rests.due().filter(|_| is_short()) {
            sleep(rest).await;
        }
    }
    on_disk(move || incoming.finish(Rests::when_short(resting))).await
}
