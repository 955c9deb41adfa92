//! `SageDB`: groups of three `sage shard` and one `sage coordinator`, with nothing changed but ports and data.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sagedb::bench::{Answer, HttpConnect};
use sagedb::types::http::{PATH_READY, PATH_STATUS, Role, ShardStatus};
use sagedb::types::kv::Consistency;
use sagedb::types::limits::REQUEST_TIMEOUT_DEFAULT;

use crate::connect::{AnyConnect, get};
use crate::fleet::Fleet;
use crate::target::place;

/// Replicas of each group.
const REPLICAS: usize = 3;

/// Where the servers are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The coordinator.
    pub(crate) coordinator: String,
    /// All replicas, group by group.
    pub(crate) replicas: Vec<String>,
}

/// Starts groups behind a coordinator; clients are to talk to that.
pub(super) async fn connect(fleet: &mut Fleet, sage: &Path, groups: usize) -> Result<AnyConnect> {
    to(&start(fleet, sage, groups, &[]).await?.coordinator)
}

/// Starts one group behind a coordinator; clients are to talk to the leader.
pub(super) async fn connect_to_leader(fleet: &mut Fleet, sage: &Path) -> Result<AnyConnect> {
    let places = start(fleet, sage, 1, &[]).await?;
    to(&fleet.until("a leader", async || leader(&places.replicas).await).await?)
}

/// Clients' connections to one server.
pub(crate) fn to(place: &str) -> Result<AnyConnect> {
    let urls = [format!("http://{place}")];
    // The default is not in the request, and a shorter one is no different to a server that answers.
    let http = HttpConnect::new(&urls, Consistency::Linearizable, REQUEST_TIMEOUT_DEFAULT)?;
    Ok(AnyConnect::Http(http))
}

/// The name of a replica, counted from 0, of a group, counted from 1; and of its data directory.
pub(crate) fn name(group: usize, at: usize) -> String {
    format!("g{group}-r{}", at + 1)
}

/// Starts `groups` groups with these further flags and a coordinator, and waits until all say that they serve. Replicas are the first
/// processes of the fleet.
pub(crate) async fn start(
    fleet: &mut Fleet,
    sage: &Path,
    groups: usize,
    flags: &[String],
) -> Result<Places> {
    let mut replicas = Vec::new();
    for group in 1..=groups {
        let ports: Vec<u16> = (0..REPLICAS).map(|_| fleet.port()).collect();
        for (at, port) in ports.iter().enumerate() {
            let name = name(group, at);
            let others = ports.iter().filter(|other| *other != port);
            let others: Vec<String> = others.map(|other| url(*other)).collect();
            let data = fleet.directory(&name)?.display().to_string();
            let mut args = vec!["shard".into(), "--port".into(), port.to_string()];
            args.extend(["--id".into(), format!("g{group}"), "--data".into(), data]);
            args.extend(["--replicas".into(), others.join(",")]);
            args.extend_from_slice(flags);
            fleet.start(&name, sage, args)?;
            replicas.push(place(*port));
        }
    }
    let port = fleet.port();
    let shards: Vec<String> = replicas.iter().map(|place| format!("http://{place}")).collect();
    let mut args = vec!["coordinator".into(), "--port".into(), port.to_string()];
    args.extend(["--shards".into(), shards.join(",")]);
    fleet.start("coordinator", sage, args)?;
    let places = Places { coordinator: place(port), replicas };
    for server in places.replicas.iter().chain([&places.coordinator]) {
        fleet.until(&format!("{server}/ready"), async || ready(server).await).await?;
    }
    Ok(places)
}

fn url(port: u16) -> String {
    format!("http://{}", place(port))
}

/// Whether a server says that requests can succeed.
pub(crate) async fn ready(place: &str) -> Result<()> {
    let Answer { status, body } = get(place, PATH_READY).await?;
    ensure!(status.is_success(), "{status} {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// What a replica says of itself.
pub(crate) async fn status(place: &str) -> Result<ShardStatus> {
    let Answer { status, body } = get(place, PATH_STATUS).await?;
    ensure!(status.is_success(), "{status} {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).context("the status can't be read")
}

/// Which of these replicas leads.
pub(crate) async fn leader(replicas: &[String]) -> Result<String> {
    for replica in replicas {
        if status(replica).await?.role == Role::Leader {
            return Ok(replica.clone());
        }
    }
    anyhow::bail!("none of {} leads", replicas.join(", "))
}
