//! What a process says of itself: `/health`, `/ready`, `/status`, `/cluster`, `/route`.
//!
//! All but `/cluster`, which asks other processes, answer at once from what is known.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use tokio::time::timeout_at;

use crate::api::accepted;
use crate::api::error::{About, json, refuse};
use crate::api::extract::Query;
use crate::api::routes::Shared;
use crate::api::{CoordinatorFace, ShardFace};
use crate::types::error::Error;
use crate::types::http::{ClusterBody, HealthBody, ReadyBody, RouteBody};
use crate::types::limits::DEADLINE_MARGIN;

/// `GET /health` of a shard.
pub(super) async fn shard_health(uri: Uri) -> Response {
    health(&uri, "shard")
}

/// `GET /health` of a coordinator.
pub(super) async fn coordinator_health(uri: Uri) -> Response {
    health(&uri, "coordinator")
}

fn health(uri: &Uri, role: &str) -> Response {
    let body = HealthBody {
        status: "ok".into(),
        role: role.into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    match no_parameters(uri) {
        Ok(()) => json(StatusCode::OK, &body),
        Err(error) => refuse(error, About::Read),
    }
}

/// `GET /ready` of a shard.
pub(super) async fn shard_ready<S: ShardFace>(
    State(shared): State<Arc<Shared<S>>>,
    uri: Uri,
) -> Response {
    ready(&uri, || shared.face.ready())
}

/// `GET /ready` of a coordinator.
pub(super) async fn coordinator_ready<C: CoordinatorFace>(
    State(shared): State<Arc<Shared<C>>>,
    uri: Uri,
) -> Response {
    ready(&uri, || shared.face.ready())
}

/// `GET /ready` of a process that is not.
pub(super) fn not_ready(uri: &Uri, reason: String) -> Response {
    ready(uri, || ReadyBody { ready: false, reason: Some(reason) })
}

fn ready(uri: &Uri, ask: impl FnOnce() -> ReadyBody) -> Response {
    if let Err(error) = no_parameters(uri) {
        return refuse(error, About::Read);
    }
    let body = ask();
    let status = if body.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &body)
}

/// `GET /status` and `GET /stats` of a shard.
pub(super) async fn status<S: ShardFace>(
    State(shared): State<Arc<Shared<S>>>,
    uri: Uri,
) -> Response {
    match no_parameters(&uri) {
        Ok(()) => json(StatusCode::OK, &shared.face.status()),
        Err(error) => refuse(error, About::Read),
    }
}

/// `GET /route` of a coordinator.
pub(super) async fn route<C: CoordinatorFace>(
    State(shared): State<Arc<Shared<C>>>,
    uri: Uri,
) -> Response {
    match try_route(&*shared.face, &uri) {
        Ok(body) => json(StatusCode::OK, &body),
        Err(error) => refuse(error, About::Read),
    }
}

fn try_route<C: CoordinatorFace>(face: &C, uri: &Uri) -> Result<RouteBody, Error> {
    let query = Query::parse(uri, accepted::ONE_KEY)?;
    query.deadline()?;
    face.route(&query.key()?)
}

/// `GET /cluster` of a coordinator.
pub(super) async fn cluster<C: CoordinatorFace>(
    State(shared): State<Arc<Shared<C>>>,
    uri: Uri,
) -> Response {
    match try_cluster(&shared, &uri).await {
        Ok(body) => json(StatusCode::OK, &body),
        Err(error) => refuse(error, About::Read),
    }
}

async fn try_cluster<C: CoordinatorFace>(
    shared: &Shared<C>,
    uri: &Uri,
) -> Result<ClusterBody, Error> {
    let deadline = Query::parse(uri, accepted::ONLY_TIMEOUT)?.deadline()?;
    let _place = shared.admit()?;
    let answer = shared.face.cluster(deadline.earlier_by(DEADLINE_MARGIN));
    let late = || Err(Error::unavailable("the members did not answer before the deadline"));
    timeout_at(deadline.instant().into(), answer).await.unwrap_or_else(|_| late())
}

/// These paths answer at once, but a client may send its `timeout` with every request.
pub(super) fn no_parameters(uri: &Uri) -> Result<(), Error> {
    Query::parse(uri, accepted::ONLY_TIMEOUT)?.deadline().map(|_| ())
}
