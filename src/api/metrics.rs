//! `GET /metrics`: what `/status` has, as numbers for Prometheus.
//!
//! They are read when they are asked for, so nothing is counted in between and a request costs nothing
//! more. What is not known is left out. The text is `OpenMetrics`, which is the older Prometheus format as well,
//! as long as nothing but gauges is in it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api::accepted;
use crate::api::error::{About, plain, refuse};
use crate::api::extract::Query;
use crate::api::routes::Shared;
use crate::api::{CoordinatorFace, ShardFace};
use crate::types::error::Error;
use crate::types::http::{CONTENT_METRICS, MemberStatus, RingStatus, Role, ShardStatus};

type Number = Gauge<u64, AtomicU64>;
type Labels = Vec<(&'static str, String)>;

/// `GET /metrics` of a shard.
pub(super) async fn of_shard<S: ShardFace>(
    State(shared): State<Arc<Shared<S>>>,
    uri: Uri,
) -> Response {
    answer(&uri, || shard(&shared.face.status(), shared.face.ready().ready))
}

/// `GET /metrics` of a coordinator.
pub(super) async fn of_coordinator<C: CoordinatorFace>(
    State(shared): State<Arc<Shared<C>>>,
    uri: Uri,
) -> Response {
    answer(&uri, || coordinator(shared.face.ring().as_ref(), shared.face.ready().ready))
}

fn answer(uri: &Uri, collect: impl FnOnce() -> Metrics) -> Response {
    let text = Query::parse(uri, accepted::NONE).and_then(|_| {
        let mut text = String::new();
        let encoded = encode(&mut text, &collect().0);
        encoded.map(|()| text).map_err(|error| Error::unavailable(error.to_string()))
    });
    match text {
        Ok(text) => plain(StatusCode::OK, CONTENT_METRICS, text),
        Err(error) => refuse(error, About::Read),
    }
}

struct Metrics(Registry);

impl Metrics {
    fn new(role: &str) -> Self {
        let mut metrics = Self(Registry::with_prefix("sage"));
        let labels =
            vec![("role", role.to_owned()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
        metrics.labelled("process", "Which program this is; always 1", [(labels, 1)]);
        metrics
    }

    /// A number, if it is known.
    fn number(&mut self, name: &str, help: &str, value: impl Into<Option<u64>>) {
        let Some(value) = value.into() else { return };
        let gauge = Number::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// The same number of several things.
    fn labelled(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Number>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }
}

fn shard(status: &ShardStatus, ready: bool) -> Metrics {
    let mut metrics = Metrics::new("shard");
    let m = &mut metrics;
    let labels =
        vec![("node", status.node.to_string()), ("group", status.name.clone().unwrap_or_default())];
    m.labelled("replica", "Which replica this is; always 1", [(labels, 1)]);
    m.number("ready", "Whether requests can succeed", u64::from(ready));
    m.number("leader", "Whether this replica leads", u64::from(status.role == Role::Leader));
    m.number("term", "The Raft term it is in", status.term);
    m.number("last_index", "The last entry in its log", status.last_index);
    m.number("committed_index", "The last entry it knows to be committed", status.committed);
    m.number("applied_index", "The last entry in its state", status.applied.map(|id| id.index));
    m.number("purged_index", "The last entry purged from its log", status.purged);
    m.number("snapshot_index", "The last entry in its newest snapshot", status.snapshot_index);
    m.number("lag_milliseconds", "How old its state may be", status.lag_ms);
    let compared = "The newest entry after which a majority had the same state as this replica";
    m.number("compared_index", compared, status.compared);
    let differs = "Whether another member's state is known to differ from this replica's";
    m.number("differs", differs, u64::from(status.differs.is_some()));
    m.number("keys", "Keys in its state", status.keys);
    m.number("data_bytes", "Bytes of keys and values in its state", status.bytes);
    m.number("memory_bytes", "What these count for in memory", status.memory);
    m.number("memory_max_bytes", "The most that they may", status.max_memory);
    m.number("disk_full", "Whether its disk is nearly full", u64::from(status.disk_full));
    m.number("wal_bytes", "Bytes of its log on disk", status.wal_bytes);
    m.number("snapshot_bytes", "Bytes of its newest snapshot", status.snapshot_bytes);
    m.number("quorum", "Voters that must have a write on disk", u64::from(status.quorum));
    m.number("epoch", "The epoch of its group's claim; 0 without one", status.epoch);
    let labels = |member: &MemberStatus| {
        vec![("node", member.node.to_string()), ("url", member.url.clone())]
    };
    let voters = status.members.iter().map(|member| (labels(member), u64::from(member.voter)));
    m.labelled("member_votes", "Whether a member of the group votes", voters);
    let known = status.members.iter().filter_map(|member| Some((labels(member), member.matched?)));
    m.labelled(
        "member_matched_index",
        "The last entry that a member has, as far as a leader knows",
        known,
    );
    metrics
}

fn coordinator(ring: Option<&RingStatus>, ready: bool) -> Metrics {
    let mut metrics = Metrics::new("coordinator");
    let m = &mut metrics;
    m.number("ready", "Whether requests can succeed", u64::from(ready));
    m.number("epoch", "The epoch of the ring that is served", ring.map(|ring| ring.epoch));
    m.number("groups", "Groups in the ring", ring.map(|ring| ring.groups));
    let leaderless = ring.map(|ring| ring.leaderless);
    m.number("groups_without_leader", "Groups of which no leader is known", leaderless);
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let text = |ring: Option<&RingStatus>| {
            let mut text = String::new();
            encode(&mut text, &coordinator(ring, true).0).expect("text");
            text
        };
        let ring = RingStatus { epoch: 7, groups: 3, leaderless: 1 };
        assert!(text(Some(&ring)).contains("\nsage_groups_without_leader 1\n"));
        assert!(!text(None).contains("sage_groups") && text(None).contains("\nsage_ready 1\n"));
    }
}
