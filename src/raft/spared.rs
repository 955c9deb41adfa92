//! When a replica may give up damaged data and rejoin its group as a new member.
//!
//! What it acknowledged may be gone, so it must not vote or lead as its former self any more: it
//! becomes like one that lost its disk. But damage can strike several at once, and whoever gives its
//! data up takes one of the last copies away. So it first waits until its group has shown that it can
//! do without: a leader that still counts it among the voters, and that a quorum has followed since
//! the damaged replica was started, when it can't have been part of it. Such a leader has everything
//! that was ever committed (leader completeness, Raft thesis §3.6.3), and a majority behind it.
//!
//! See `docs/decisions/010-damage.md`.

use std::time::Duration;

use tokio::time::Instant;

use crate::raft::config::Timing;
use crate::rpc::{Caller, Dialer, Target};
use crate::types::deadline::Deadline;
use crate::types::http::{Role, ShardStatus};
use crate::types::limits::{CONNECT_TIMEOUT, SPARED_LOOK_INTERVAL};
use crate::types::peer::{Reply, Request};

/// Between two lines about what is waited for.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until the group of the replica at `url`, of which `peers` are the others, can do without
/// its data. Asks them through `dialer`. Never gives up: only the group, or a person, can help.
pub async fn until_spared(url: &str, peers: &[String], timing: Timing, dialer: &Dialer) {
    let callers: Vec<Caller> = peers
        .iter()
        .map(|peer| Target { url: peer.clone(), node: None, group: None })
        .map(|target| Caller::new(dialer.clone(), target))
        .collect();
    let begun = Instant::now();
    let mut logged: Option<Instant> = None;
    loop {
        let asked = callers.iter().zip(peers).map(async |(caller, peer)| {
            match caller.call(&Request::Status, Deadline::after(CONNECT_TIMEOUT)).await {
                Ok(Reply::Status(status)) => Ok(*status),
                Ok(other) => Err(format!("{peer}: unexpected answer {other:?}")),
                Err(error) => Err(format!("{peer} does not answer: {error}")),
            }
        });
        let answers = futures::future::join_all(asked).await;
        match spared(url, &answers, begun.elapsed(), timing) {
            Ok(()) => return,
            Err(waiting) if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) => {
                logged = Some(Instant::now());
                tracing::warn!(%waiting, "the data is damaged");
            }
            Err(_) => {}
        }
        tokio::time::sleep(SPARED_LOOK_INTERVAL).await;
    }
}

/// Decides it, from what the others say; otherwise what is waited for. `waited` is how long this
/// replica has not been part of any quorum.
fn spared(
    url: &str,
    answers: &[Result<ShardStatus, String>],
    waited: Duration,
    timing: Timing,
) -> Result<(), String> {
    let Some(leader) = answers.iter().flatten().find(|status| status.role == Role::Leader) else {
        let silent = answers.iter().find_map(|answer| answer.as_ref().err().cloned());
        return Err(silent.unwrap_or_else(|| "waiting for a leader among the others".into()));
    };
    if !leader.members.iter().any(|member| member.voter && member.url == url) {
        return Err(format!(
            "{} leads a group in which {url} has no vote; check --replicas and --advertise",
            leader.url
        ));
    }
    let silence_max = timing.election_timeout_max;
    let followed = leader.lag_ms.map(Duration::from_millis);
    if waited <= silence_max * 2 || followed.is_none_or(|followed| followed > silence_max) {
        return Err(format!("waiting until a quorum follows {} without this replica", leader.url));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::http::MemberStatus;
    use crate::types::ids::{NodeId, StateHash};

    const URL: &str = "http://c";

    fn status(role: Role, lag_ms: Option<u64>) -> ShardStatus {
        let member = |node, url: &str, voter| MemberStatus {
            node: NodeId(node),
            url: url.into(),
            voter,
            matched: None,
        };
        ShardStatus {
            node: NodeId(1),
            url: "http://a".into(),
            group: None,
            name: None,
            role,
            term: 1,
            leader: None,
            leader_url: None,
            last_index: None,
            committed: None,
            applied: None,
            hash: StateHash(0),
            compared: None,
            differs: None,
            lag_ms,
            members: vec![member(1, "http://a", true), member(3, URL, true)],
            quorum: 1,
            keys: 0,
            bytes: 0,
            memory: 0,
            max_memory: None,
            disk_full: false,
            cluster: None,
            epoch: 0,
            wal_bytes: 0,
            snapshot_bytes: 0,
            snapshot_index: None,
            purged: None,
        }
    }

    fn decide(answers: &[Result<ShardStatus, String>], waited_ms: u64) -> Result<(), String> {
        spared(URL, answers, Duration::from_millis(waited_ms), Timing::default())
    }

    #[test]
    fn data_is_given_up_only_to_a_leader_with_a_quorum_of_others() {
        let leads = || Ok(status(Role::Leader, Some(50)));
        let follows = || Ok(status(Role::Follower, Some(50)));
        let silent = || Err("http://b does not answer".to_string());
        assert_eq!(decide(&[leads(), follows()], 5000), Ok(()));
        assert_eq!(decide(&[silent(), leads()], 5000), Ok(()));
        for (answers, waited_ms) in [
            // Its own last acknowledgement may be the leader's quorum.
            (vec![leads(), follows()], 1900),
            (vec![Ok(status(Role::Leader, Some(1001))), follows()], 5000),
            (vec![Ok(status(Role::Leader, None)), follows()], 5000),
            (vec![follows(), follows()], 5000),
            (vec![silent(), silent()], 5000),
            (vec![Ok(status(Role::Forming, None)), silent()], 5000),
        ] {
            assert!(decide(&answers, waited_ms).is_err(), "{answers:?} after {waited_ms} ms");
        }
    }

    #[test]
    fn a_leader_of_others_is_none_of_its_group() {
        let mut stranger = status(Role::Leader, Some(0));
        stranger.members.retain(|member| member.url != URL);
        assert!(decide(&[Ok(stranger.clone())], 5000).unwrap_err().contains("no vote"));
        stranger.members.push(MemberStatus {
            node: NodeId(3),
            url: URL.into(),
            voter: false,
            matched: None,
        });
        assert!(decide(&[Ok(stranger)], 5000).is_err(), "a learner has nothing to replace");
    }
}
