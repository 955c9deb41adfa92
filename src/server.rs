//! Assembly: bind, open, serve, drain. Used by the command line and by nothing else; what it
//! assembles is in the rooms below.
//!
//! The port is bound before the data directory is touched, so that a port in use changes nothing.
//! A process stops in this order: leadership is handed over, if there is somebody left to take it, no new request is taken,
//! those under way are answered, the log is closed.

mod dev;
mod http;
mod open_files;
mod unparsed;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::shard::Shard;
use crate::api::{self, Rpc, coordinator_router, shard_router};
use crate::coordinator::{Coordinator, CoordinatorOptions as RingOptions};
use crate::raft::{self, OpenError, Replica, ReplicaOptions, Timing};
use crate::rpc::Dialer;
use crate::server::http::{Http, bind};
use crate::store::check::check;
use crate::store::datadir::set_aside;
use crate::store::rejoins;
use crate::store::snapshot::Codec;
use crate::types::clock::{Clock, SystemClock};
use crate::types::limits::{REJOIN_WINDOW, REJOINS_MAX};

pub use self::dev::{DevOptions, DevServer, run_dev};

/// What one replica of one group is started with; checked already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardOptions {
    /// Where it listens; never 0.
    pub port: u16,
    /// On which address.
    pub listen: IpAddr,
    /// Its own URL, as others reach it: `http://host:port`.
    pub advertise: String,
    /// Its data directory.
    pub data: PathBuf,
    /// The URLs of the other members, `http://host:port` each, without itself or duplicates.
    pub replicas: Vec<String>,
    /// Replicas that must have a write on disk, at least; the majority counts if it is more.
    pub quorum: u32,
    /// The group's name, if one was given.
    pub id: Option<String>,
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// The time between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election.
    pub election_timeout_min: Duration,
    /// The longest such silence.
    pub election_timeout_max: Duration,
    /// A snapshot is taken after this many bytes of log.
    pub snapshot_log_bytes: u64,
    /// How snapshots are packed.
    pub snapshot_codec: Codec,
    /// Entries kept in the log behind the newest snapshot, for slow followers.
    pub keep_log_entries: u64,
    /// The most memory that keys and values may take, in bytes; unbounded without it.
    pub max_memory: Option<u64>,
    /// What is kept free on the disk, in bytes.
    pub min_free_disk: u64,
    /// How often log and snapshot are read again to find damage; never for zero.
    pub scrub_interval: Duration,
    /// The changes that are kept for watchers, in bytes.
    pub watch_history: u64,
}

/// What a coordinator is started with; checked already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoordinatorOptions {
    /// Where it listens; 0 for any free port.
    pub port: u16,
    /// On which address.
    pub listen: IpAddr,
    /// URLs of members of the groups, in any order, without duplicates.
    pub shards: Vec<String>,
    /// Tokens of each group, if this coordinator is the first.
    pub vnodes: u32,
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
}

/// A running replica. One that its group condemns is shut down and begun anew, as a new member, in
/// the same process.
pub struct ShardServer {
    options: ShardOptions,
    /// `None` while its successor comes.
    serving: Option<Serving>,
    successor: Option<JoinHandle<anyhow::Result<Serving>>>,
}

/// A replica that serves, or that waits for its group to form.
struct Serving {
    replica: Replica,
    http: Http,
    forming: JoinHandle<Result<(), String>>,
}

impl ShardServer {
    /// Binds, opens and serves; its group forms in the background.
    pub async fn start(options: ShardOptions) -> anyhow::Result<Self> {
        let serving = Serving::begin(&options, open(&options).await?);
        Ok(Self { options, serving: Some(serving), successor: None })
    }

    /// Waits until this replica can't go on, and says why. Never returns while all is well. May be
    /// dropped and called again at any time.
    pub async fn failed(&mut self) -> anyhow::Error {
        loop {
            if let Some(serving) = &mut self.serving {
                let replica = serving.replica.clone();
                let reason = tokio::select! {
                    error = serving.failed() => return error,
                    reason = replica.condemned() => reason,
                };
                let former = self.serving.take();
                let succeeding = succeed(former, self.options.clone(), reason);
                self.successor = Some(tokio::spawn(succeeding));
            }
            let Some(successor) = &mut self.successor else { return std::future::pending().await };
            match successor.await {
                Ok(Ok(serving)) => self.serving = Some(serving),
                Ok(Err(error)) => return error,
                Err(error) => return error.into(),
            }
            self.successor = None;
        }
    }

    /// Hands leadership over, drains and closes.
    pub async fn stop(self) {
        if let Some(serving) = &self.serving {
            serving.hand_over().await;
        }
        self.close().await;
    }

    /// Drains and closes, whoever leads: for when the whole group does.
    async fn close(self) {
        if let Some(serving) = self.serving {
            serving.stop().await;
        }
        if let Some(successor) = self.successor {
            successor.abort(); // It has nothing that is not on disk.
        }
    }
}

/// Shuts a condemned replica down and begins it anew.
async fn succeed(
    former: Option<Serving>,
    options: ShardOptions,
    reason: String,
) -> anyhow::Result<Serving> {
    if let Some(former) = former {
        former.stop().await;
    }
    let listener = bind(options.listen, options.port).await?;
    let condemned = OpenError::Condemned { path: options.data.clone(), reason };
    Ok(Serving::begin(&options, rejoin(&options, listener, condemned).await?))
}

impl Serving {
    fn begin(options: &ShardOptions, (listener, replica): (TcpListener, Replica)) -> Self {
        let (stopping, upgrades) = (CancellationToken::new(), TaskTracker::new());
        let router = shard_router(
            Arc::new(Shard::new(replica.clone(), stopping.clone())),
            api::Options { max_value_bytes: options.max_value_bytes, stopping: stopping.clone() },
            Rpc {
                service: Arc::new(replica.clone()),
                shutdown: stopping.clone(),
                tracker: upgrades.clone(),
            },
        );
        let http = Http::serve(listener, router, stopping, upgrades);
        tracing::info!(
            node = %replica.member().node,
            url = %options.advertise,
            data = %options.data.display(),
            "replica serves"
        );
        let former = replica.clone();
        let forming = tokio::spawn(async move { former.form().await });
        Self { replica, http, forming }
    }

    async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            reason = self.replica.failed() => anyhow::anyhow!("the replica has failed: {reason}"),
            reason = refused(&mut self.forming) => anyhow::anyhow!(reason),
        }
    }

    async fn hand_over(&self) {
        self.forming.abort();
        if !self.replica.is_condemned() {
            self.replica.hand_over().await;
        }
    }

    async fn stop(self) {
        self.forming.abort();
        if self.replica.is_condemned() {
            // First: as long as it leads, others may get what it has.
            self.replica.shutdown().await;
            return self.http.stop().await;
        }
        self.http.stop().await;
        self.replica.shutdown().await;
    }
}

/// Binds and opens the data. If that is damaged, and there is a group to have it from again, waits
/// until the group can do without this replica, and begins anew. One that is alone says what is lost.
async fn open(options: &ShardOptions) -> anyhow::Result<(TcpListener, Replica)> {
    let listener = bind(options.listen, options.port).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    match Replica::open(replica_options(options), clock).await {
        Ok(replica) => Ok((listener, replica)),
        Err(error) if error.is_damage() => rejoin(options, listener, error).await,
        Err(error) => Err(error.into()),
    }
}

/// Gives up data that must not be served from, once the group can do without it, and begins anew.
async fn rejoin(
    options: &ShardOptions,
    listener: TcpListener,
    damage: OpenError,
) -> anyhow::Result<(TcpListener, Replica)> {
    if options.replicas.is_empty() {
        // Nobody else has it.
        let data = options.data.clone();
        let checked = tokio::task::spawn_blocking(move || check(&data)).await?;
        let cure = checked.map_or_else(|error| error.to_string(), |report| report.cure());
        bail!("{damage}; {cure}");
    }
    let (data, now) = (options.data.clone(), SystemClock.now_ms());
    if tokio::task::spawn_blocking(move || rejoins::too_often(&data, now)).await?? {
        bail!(
            "{damage}; this replica has rejoined its group {REJOINS_MAX} times within {} hours because its \
             data was wrong: replace the disk, or move it to another machine, and start with an empty \
             data directory; once the cause is gone, deleting {} lets it rejoin from here too",
            REJOIN_WINDOW.as_secs() / 3600,
            rejoins::file(&options.data).display()
        );
    }
    tracing::error!(%damage, "the data is damaged; this replica serves nothing until its group can do without it");
    let router = api::refusing_router(format!("the data of this replica is damaged: {damage}"));
    let waiting = Http::serve(listener, router, CancellationToken::new(), TaskTracker::new());
    let timing = replica_options(options).timing;
    raft::until_spared(&options.advertise, &options.replicas, timing, &Dialer::new(None)).await;
    waiting.stop().await;
    let (data, now) = (options.data.clone(), SystemClock.now_ms());
    let aside = tokio::task::spawn_blocking(move || set_aside(&data, now)).await??;
    tracing::warn!(?aside, "rejoining as a new member; the damaged data was set aside");
    let listener = bind(options.listen, options.port).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok((listener, Replica::open(replica_options(options), clock).await?))
}

/// Waits until a formation is refused; one that succeeds is never heard of again.
async fn refused(forming: &mut JoinHandle<Result<(), String>>) -> String {
    if forming.is_finished() {
        return std::future::pending().await;
    }
    match forming.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(reason)) => reason,
        Err(error) => format!("forming the group ended with a panic: {error}"),
    }
}

/// A running coordinator.
pub struct CoordinatorServer {
    coordinator: Arc<Coordinator>,
    http: Http,
    stopping: CancellationToken,
}

impl CoordinatorServer {
    /// Binds and serves; the ring is found or claimed in the background.
    pub async fn start(options: CoordinatorOptions) -> anyhow::Result<Self> {
        let listener = bind(options.listen, options.port).await?;
        let stopping = CancellationToken::new();
        let ring = RingOptions { shards: options.shards, vnodes: options.vnodes };
        let coordinator = Arc::new(Coordinator::start(ring, Dialer::new(None), stopping.clone()));
        let (serving, upgrades) = (stopping.child_token(), TaskTracker::new());
        let router = coordinator_router(
            Arc::clone(&coordinator),
            api::Options { max_value_bytes: options.max_value_bytes, stopping: serving.clone() },
        );
        let http = Http::serve(listener, router, serving, upgrades);
        tracing::info!(port = options.port, "coordinator serves");
        Ok(Self { coordinator, http, stopping })
    }

    /// Waits until requests for every key can succeed.
    pub async fn ready(&self) {
        self.coordinator.until_ready().await;
    }

    /// Drains and ends.
    pub async fn stop(self) {
        self.http.stop().await;
        self.stopping.cancel();
    }
}

fn replica_options(options: &ShardOptions) -> ReplicaOptions {
    ReplicaOptions {
        data: options.data.clone(),
        url: options.advertise.clone(),
        peers: options.replicas.clone(),
        name: options.id.clone(),
        default_name: format!("shard-{}", options.port),
        quorum: options.quorum,
        timing: Timing {
            heartbeat: options.heartbeat,
            election_timeout_min: options.election_timeout_min,
            election_timeout_max: options.election_timeout_max,
        },
        snapshot_log_bytes: options.snapshot_log_bytes,
        snapshot_codec: options.snapshot_codec,
        keep_log_entries: options.keep_log_entries,
        max_memory: options.max_memory,
        min_free_disk: options.min_free_disk,
        scrub_interval: options.scrub_interval,
        watch_history: options.watch_history,
    }
}

/// Runs one replica until it is told to stop, or can't go on: that is the error.
pub async fn run_shard(options: ShardOptions) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop_requested()?);
    let mut server = tokio::select! {
        server = ShardServer::start(options) => server?,
        () = &mut stop => return Ok(()),
    };
    tokio::select! {
        error = server.failed() => return Err(error),
        () = stop => {}
    }
    server.stop().await;
    Ok(())
}

/// Runs a coordinator until it is told to stop.
pub async fn run_coordinator(options: CoordinatorOptions) -> anyhow::Result<()> {
    let stop = stop_requested()?;
    let server = CoordinatorServer::start(options).await?;
    stop.await;
    server.stop().await;
    Ok(())
}

/// Takes Ctrl-C and SIGTERM over from now on; what it returns waits for one of them.
fn stop_requested() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
