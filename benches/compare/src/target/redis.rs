//! A Redis master and two replicas, all of which sync each write to the append-only file before they go on. No snapshots.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};

use crate::connect::{AnyConnect, Redis, Reply};
use crate::fleet::Fleet;
use crate::target::{place, words};

const REPLICAS: usize = 2;

/// Starts them and waits until both replicas follow.
pub(super) async fn connect(fleet: &mut Fleet) -> Result<AnyConnect> {
    let master = fleet.port();
    start(fleet, "master", master, "")?;
    for at in 1..=REPLICAS {
        let port = fleet.port();
        start(fleet, &format!("replica-{at}"), port, &format!("--replicaof 127.0.0.1 {master}"))?;
    }
    let redis = Redis { place: place(master) };
    fleet.until("replicas of redis", async || follow(&redis).await).await?;
    Ok(AnyConnect::Redis(redis))
}

fn start(fleet: &mut Fleet, name: &str, port: u16, further: &str) -> Result<usize> {
    // Without the delay a replica waits five seconds for others before its first copy; rewriting its file in a
    // child would be time that is not counted.
    let mut args = words(&format!(
        "--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync always \
         --repl-diskless-sync-delay 0 --auto-aof-rewrite-percentage 0 {further}"
    ));
    args.extend(["--dir".into(), fleet.directory(name)?.display().to_string()]);
    args.extend(["--save".into(), String::new()]);
    fleet.start(name, Path::new("redis-server"), args)
}

/// Whether all replicas have the whole state and follow.
async fn follow(redis: &Redis) -> Result<()> {
    let reply = redis.connect().await?.command(&[b"INFO", b"replication"]).await?;
    let Reply::Bulk(Some(text)) = reply else { return Err(anyhow!("{reply:?}")) };
    let online = online(&String::from_utf8_lossy(&text));
    ensure!(online == REPLICAS, "{online} replicas are online");
    Ok(())
}

fn online(info: &str) -> usize {
    info.lines().filter(|line| line.starts_with("slave") && line.contains(",state=online,")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_is_being_copied_to_does_not_count() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=127.0.0.1,port=1,state=online,offset=14,lag=0\r\n\
            slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n";
        assert_eq!(online(info), 1);
        assert_eq!(online(""), 0);
    }
}
