//! Three members of etcd with nothing changed but ports and data; clients talk to the leader, so that no request is
//! handed on.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sagedb::bench::{Answer, Http1};
use serde::Deserialize;

use crate::connect::{AnyConnect, EtcdGrpc, EtcdJson, get, post};
use crate::fleet::Fleet;
use crate::target::{place, words};

const MEMBERS: usize = 3;

/// Clients of the JSON gateway.
pub(super) async fn json(fleet: &mut Fleet) -> Result<AnyConnect> {
    Ok(AnyConnect::EtcdJson(EtcdJson { place: start(fleet).await?.leader }))
}

/// Clients over gRPC.
pub(super) async fn grpc(fleet: &mut Fleet) -> Result<AnyConnect> {
    to(&start(fleet).await?.leader)
}

/// Clients' connections over gRPC to one member.
pub(crate) fn to(place: &str) -> Result<AnyConnect> {
    Ok(AnyConnect::EtcdGrpc(EtcdGrpc::new(place)?))
}

/// Where the servers are.
pub(crate) struct Places {
    /// All members, in the order of their processes.
    pub(crate) members: Vec<String>,
    /// The one that leads.
    pub(crate) leader: String,
}

/// The name of a member and of its data directory.
pub(crate) fn name(at: usize) -> String {
    format!("m{at}")
}

/// Starts a cluster and waits for a leader that all members know. Members are the first processes of the fleet.
pub(crate) async fn start(fleet: &mut Fleet) -> Result<Places> {
    let ports: Vec<(u16, u16)> = (0..MEMBERS).map(|_| (fleet.port(), fleet.port())).collect();
    let member =
        |(at, (_, peer)): (usize, &(u16, u16))| format!("{}=http://{}", name(at), place(*peer));
    let cluster: Vec<String> = ports.iter().enumerate().map(member).collect();
    for (at, (client, peer)) in ports.iter().enumerate() {
        let name = name(at);
        let (client, peer) = (place(*client), place(*peer));
        let mut args = words(&format!(
            "--name {name} --listen-client-urls http://{client} --advertise-client-urls http://{client} \
             --listen-peer-urls http://{peer} --initial-advertise-peer-urls http://{peer} \
             --initial-cluster-state new --initial-cluster {}",
            cluster.join(",")
        ));
        args.extend(["--data-dir".into(), fleet.directory(&name)?.display().to_string()]);
        fleet.start(&name, Path::new("etcd"), args)?;
    }
    let members: Vec<String> = ports.iter().map(|(client, _)| place(*client)).collect();
    let leader = fleet.until("a leader of etcd", async || leader(&members).await).await?;
    Ok(Places { members, leader })
}

/// Whether a member says that it can read and write.
pub(crate) async fn healthy(place: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Health {
        health: String,
    }
    let Answer { status, body } = get(place, "/health").await?;
    let health = serde_json::from_slice::<Health>(&body).is_ok_and(|body| body.health == "true");
    ensure!(status.is_success() && health, "{status} {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// What a member says of itself. The gateway writes 64-bit numbers as text.
#[derive(Deserialize)]
struct Status {
    header: Header,
    leader: String,
}

#[derive(Deserialize)]
struct Header {
    member_id: String,
}

/// The member that leads, once all know it.
async fn leader(members: &[String]) -> Result<String> {
    let mut leaders = Vec::new();
    let mut found = None;
    for member in members {
        let mut http = Http1::open(member).await?;
        let Answer { status, body } = post(&mut http, "/v3/maintenance/status", "{}").await?;
        ensure!(status.is_success(), "{status} {}", String::from_utf8_lossy(&body));
        let Status { header, leader } = serde_json::from_slice(&body)?;
        if header.member_id == leader {
            found = Some(member.clone());
        }
        leaders.push(leader);
    }
    leaders.dedup();
    ensure!(leaders.len() == 1, "members name several leaders: {}", leaders.join(", "));
    found.context("nobody leads")
}
