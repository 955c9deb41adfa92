//! Three members of etcd with nothing changed but ports and data; clients talk to the leader, so that no request is
//! handed on.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::connect::{AnyConnect, EtcdGrpc, EtcdJson, Http1};
use crate::fleet::Fleet;
use crate::target::{place, words};

const MEMBERS: usize = 3;

/// Clients of the JSON gateway.
pub(super) async fn json(fleet: &mut Fleet) -> Result<AnyConnect> {
    Ok(AnyConnect::EtcdJson(EtcdJson { place: start(fleet).await? }))
}

/// Clients over gRPC.
pub(super) async fn grpc(fleet: &mut Fleet) -> Result<AnyConnect> {
    Ok(AnyConnect::EtcdGrpc(EtcdGrpc::new(&start(fleet).await?)?))
}

/// Starts a cluster and waits for a leader that all members know; where clients reach it.
async fn start(fleet: &mut Fleet) -> Result<String> {
    let ports: Vec<(u16, u16)> = (0..MEMBERS).map(|_| (fleet.port(), fleet.port())).collect();
    let member = |(at, (_, peer)): (usize, &(u16, u16))| format!("m{at}=http://{}", place(*peer));
    let cluster: Vec<String> = ports.iter().enumerate().map(member).collect();
    for (at, (client, peer)) in ports.iter().enumerate() {
        let name = format!("m{at}");
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
    let clients: Vec<String> = ports.iter().map(|(client, _)| place(*client)).collect();
    fleet.until("a leader of etcd", async || leader(&clients).await).await
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
        let (status, body) = http.post("/v3/maintenance/status", "{}".into()).await?;
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
