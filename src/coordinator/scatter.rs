//! `GET /cluster`: asks every member of every group how it is, all at once, and puts the answers
//! beside the topology. A member that is slow or gone is listed as such and never holds up the
//! others.

use std::sync::Arc;

use futures::future::join_all;

use crate::coordinator::peers::Peers;
use crate::coordinator::roster::Roster;
use crate::coordinator::routing::Contact;
use crate::coordinator::shared::Shared;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::http::{ClusterBody, GroupBody, ShardStatus, Unreachable};
use crate::types::peer::{Reply, Request};

/// The cluster as it is just now; each member has half of the time until `deadline`.
pub(in crate::coordinator) async fn cluster<P: Peers>(
    shared: &Shared<P>,
    deadline: Deadline,
) -> Result<ClusterBody, Error> {
    let active = shared.active()?;
    let each = Deadline::after(deadline.left() / 2);
    let groups = active.rosters.iter().enumerate().map(async |(at, roster)| {
        let asking =
            roster.members().into_iter().map(|contact| status(shared, roster, contact, each));
        body(roster, active.ring.share_of(at), join_all(asking).await)
    });
    Ok(ClusterBody {
        cluster: active.topology.cluster,
        epoch: active.topology.epoch,
        vnodes: active.topology.vnodes,
        groups: join_all(groups).await,
    })
}

async fn status<P: Peers>(
    shared: &Shared<P>,
    roster: &Arc<Roster>,
    contact: Contact,
    deadline: Deadline,
) -> Result<ShardStatus, Unreachable> {
    let target = roster.target(&contact);
    let reason = match shared.peers.call(&target, &Request::Status, deadline).await {
        Ok(Reply::Status(status)) => return Ok(*status),
        Ok(Reply::NotReady(reason)) => reason,
        Ok(_) => "it did not say how it is".into(),
        Err(error) => error.to_string(),
    };
    Err(Unreachable { url: contact.url.to_string(), reason })
}

fn body(roster: &Roster, share: f64, answers: Vec<Result<ShardStatus, Unreachable>>) -> GroupBody {
    let (mut replicas, mut unreachable) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(status) => replicas.push(status),
            Err(silent) => unreachable.push(silent),
        }
    }
    // Of two leaders the one of the later term is it.
    let named = replicas.iter().filter(|status| status.leader_url.is_some());
    let leader =
        named.max_by_key(|status| status.term).and_then(|status| status.leader_url.clone());
    GroupBody {
        id: roster.id(),
        name: roster.name().to_owned(),
        share,
        leader: leader.or_else(|| roster.leader().map(|leader| leader.url.to_string())),
        members: roster.members().iter().map(|member| member.url.to_string()).collect(),
        replicas,
        unreachable,
    }
}
