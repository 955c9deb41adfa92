//! A whole cluster in one process: `sage dev`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::bail;

use crate::raft::Timing;
use crate::server::{
    CoordinatorOptions, CoordinatorServer, ShardOptions, ShardServer, stop_requested,
};
use crate::store::snapshot::Codec;
use crate::types::limits::{
    KEEP_LOG_ENTRIES_DEFAULT, MIN_FREE_DISK_DEFAULT, SCRUB_INTERVAL_DEFAULT,
    SNAPSHOT_LOG_BYTES_DEFAULT, VALUE_BYTES_DEFAULT, VNODES_DEFAULT, WATCH_HISTORY_BYTES_DEFAULT,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// From the coordinator's port to the first replica's: 4000 and 4101.
const DEV_PORT_OFFSET: u16 = 101;

/// What a whole cluster in one process is started with; checked already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevOptions {
    /// Groups.
    pub shards: u32,
    /// Replicas of each group.
    pub replicas: u32,
    /// The coordinator's port.
    pub port: u16,
    /// The directory under which every replica keeps its own.
    pub data: PathBuf,
    /// The most memory that keys and values of each replica may take, in bytes; unbounded without it.
    pub max_memory: Option<u64>,
}

/// A running cluster in one process.
pub struct DevServer {
    shards: Vec<ShardServer>,
    coordinator: CoordinatorServer,
    /// The coordinator's URL.
    pub url: String,
    /// The URLs of each group's replicas.
    pub replicas: Vec<Vec<String>>,
}

impl DevServer {
    /// Starts everything; returns before it is ready.
    pub async fn start(options: DevOptions) -> anyhow::Result<Self> {
        let plan = dev_plan(&options)?;
        let starts = plan.iter().flatten().cloned().map(ShardServer::start);
        let shards = futures::future::try_join_all(starts).await?;
        let replicas: Vec<Vec<String>> = plan
            .iter()
            .map(|group| group.iter().map(|shard| shard.advertise.clone()).collect())
            .collect();
        let coordinator = CoordinatorServer::start(CoordinatorOptions {
            port: options.port,
            listen: LOOPBACK,
            shards: replicas.concat(),
            vnodes: VNODES_DEFAULT,
            max_value_bytes: VALUE_BYTES_DEFAULT,
        })
        .await?;
        let url = format!("http://{LOOPBACK}:{}", options.port);
        Ok(Self { shards, coordinator, url, replicas })
    }

    /// Drains and closes everything.
    pub async fn stop(self) {
        self.coordinator.stop().await;
        futures::future::join_all(self.shards.into_iter().map(ShardServer::close)).await;
    }
}

fn dev_plan(options: &DevOptions) -> anyhow::Result<Vec<Vec<ShardOptions>>> {
    let count = u64::from(options.shards) * u64::from(options.replicas);
    let first = u64::from(options.port) + u64::from(DEV_PORT_OFFSET);
    if first + count > u64::from(u16::MAX) {
        bail!("--port {} leaves no room for {count} replicas above it", options.port);
    }
    let timing = Timing::default();
    let port = |group: u32, replica: u32| {
        u16::try_from(first + u64::from(group * options.replicas + replica))
            .expect("bounded by the check above")
    };
    let url = |group, replica| format!("http://{LOOPBACK}:{}", port(group, replica));
    let shard = |group: u32, replica: u32| ShardOptions {
        port: port(group, replica),
        listen: LOOPBACK,
        advertise: url(group, replica),
        data: options.data.join(format!("shard-{}", group + 1)).join(format!("{}", replica + 1)),
        replicas: (0..options.replicas)
            .filter(|other| *other != replica)
            .map(|other| url(group, other))
            .collect(),
        quorum: 1,
        id: Some(format!("shard-{}", group + 1)),
        max_value_bytes: VALUE_BYTES_DEFAULT,
        heartbeat: timing.heartbeat,
        election_timeout_min: timing.election_timeout_min,
        election_timeout_max: timing.election_timeout_max,
        snapshot_log_bytes: SNAPSHOT_LOG_BYTES_DEFAULT,
        snapshot_codec: Codec::default(),
        keep_log_entries: KEEP_LOG_ENTRIES_DEFAULT,
        max_memory: options.max_memory,
        min_free_disk: MIN_FREE_DISK_DEFAULT,
        scrub_interval: SCRUB_INTERVAL_DEFAULT,
        watch_history: WATCH_HISTORY_BYTES_DEFAULT,
    };
    let group = |group| (0..options.replicas).map(|replica| shard(group, replica)).collect();
    Ok((0..options.shards).map(group).collect())
}

/// Runs a whole cluster until it is told to stop, or a replica can't go on: that is the error.
/// Calls `ready` once, when requests can succeed.
pub async fn run_dev(options: DevOptions, ready: impl FnOnce(&DevServer)) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop_requested()?);
    let mut server = tokio::select! {
        server = DevServer::start(options) => server?,
        () = &mut stop => return Ok(()),
    };
    let mut ready = Some(ready);
    let failure = loop {
        let is_ready = async {
            match ready {
                Some(_) => server.coordinator.ready().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = is_ready => {}
            error = first_failure(&mut server.shards) => break Some(error),
            () = &mut stop => break None,
        }
        if let Some(ready) = ready.take() {
            ready(&server);
        }
    };
    server.stop().await;
    failure.map_or(Ok(()), Err)
}

/// Waits until one of these replicas can't go on, and says why.
async fn first_failure(shards: &mut [ShardServer]) -> anyhow::Error {
    let failures = shards.iter_mut().map(|shard| Box::pin(shard.failed()));
    futures::future::select_all(failures).await.0
}
