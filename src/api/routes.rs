//! Which path has which methods, on a shard and on a coordinator.
//!
//! Both routers answer unknown paths (404) and methods (405, with `Allow`) in JSON, take `HEAD`
//! wherever they take `GET`, and let the bodies that nobody read run out.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::map_request;
use axum::routing::{get, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::body::let_run_out;
use crate::api::error::About;
use crate::api::{CoordinatorFace, Kv, ShardFace};
use crate::api::{error, keys, kv, metrics, status, txn, upgrade};
use crate::rpc;
use crate::types::error::Error;
use crate::types::http::{
    PATH_BATCH, PATH_CLUSTER, PATH_COUNT, PATH_HEALTH, PATH_INCR, PATH_KEYS, PATH_KV, PATH_METRICS,
    PATH_READY, PATH_ROUTE, PATH_RPC, PATH_STATS, PATH_STATUS, PATH_TOUCH, PATH_TXN,
};
use crate::types::limits::{
    BODY_BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX, SCANS_IN_FLIGHT_MAX, VALUE_BYTES_DEFAULT,
};

/// What a router is told beside its store.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_value_bytes: VALUE_BYTES_DEFAULT }
    }
}

/// Who takes over the connections that are upgraded to rpc.
pub struct Rpc<R> {
    /// Answers on them.
    pub service: Arc<R>,
    /// Ends them.
    pub shutdown: CancellationToken,
    /// Knows how many there are.
    pub tracker: TaskTracker,
}

impl<R> Clone for Rpc<R> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            shutdown: self.shutdown.clone(),
            tracker: self.tracker.clone(),
        }
    }
}

impl<R> fmt::Debug for Rpc<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rpc").field("connections", &self.tracker.len()).finish_non_exhaustive()
    }
}

/// What the handlers of one router share.
pub(super) struct Shared<F> {
    /// The store.
    pub(super) face: Arc<F>,
    /// The largest value, in bytes.
    pub(super) max_value_bytes: usize,
    /// A permit for each byte of request bodies held.
    pub(super) body_budget: Arc<Semaphore>,
    /// A permit for each request under way.
    places: Arc<Semaphore>,
    /// A permit for each scan or count under way.
    scans: Arc<Semaphore>,
}

impl<F> Shared<F> {
    fn new(face: Arc<F>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            face,
            max_value_bytes: options.max_value_bytes,
            body_budget: Arc::new(Semaphore::new(BODY_BYTES_IN_FLIGHT_MAX)),
            places: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
            scans: Arc::new(Semaphore::new(SCANS_IN_FLIGHT_MAX)),
        })
    }

    /// A place for one more request, or the refusal at once.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let full = |_| Error::Overloaded { queue: "the list of requests under way".into() };
        Arc::clone(&self.places).try_acquire_owned().map_err(full)
    }

    /// A place for one more scan or count, or the refusal at once.
    pub(super) fn admit_scan(&self) -> Result<OwnedSemaphorePermit, Error> {
        let full = |_| Error::Overloaded { queue: "the list of scans under way".into() };
        Arc::clone(&self.scans).try_acquire_owned().map_err(full)
    }
}

/// The HTTP face of a replica, with the door to rpc.
pub fn shard_router<S: ShardFace, R: rpc::Service>(
    face: Arc<S>,
    options: Options,
    rpc: Rpc<R>,
) -> Router {
    let router = Router::new()
        .route(PATH_HEALTH, get(status::shard_health))
        .route(PATH_READY, get(status::shard_ready::<S>))
        .route(PATH_STATUS, get(status::status::<S>))
        .route(PATH_STATS, get(status::status::<S>))
        .route(PATH_METRICS, get(metrics::of_shard::<S>))
        .merge(kv_routes::<S>())
        .with_state(Shared::new(face, options))
        .merge(Router::new().route(PATH_RPC, get(upgrade::upgrade::<R>)).with_state(rpc));
    finish(router)
}

/// The HTTP face of a coordinator.
pub fn coordinator_router<C: CoordinatorFace>(face: Arc<C>, options: Options) -> Router {
    let router = Router::new()
        .route(PATH_HEALTH, get(status::coordinator_health))
        .route(PATH_READY, get(status::coordinator_ready::<C>))
        .route(PATH_ROUTE, get(status::route::<C>))
        .route(PATH_CLUSTER, get(status::cluster::<C>))
        .route(PATH_METRICS, get(metrics::of_coordinator::<C>))
        .merge(kv_routes::<C>())
        .with_state(Shared::new(face, options));
    finish(router)
}

/// The HTTP face of a process that can't serve yet: alive, not ready, and every other request is
/// refused with `reason`.
pub fn refusing_router(reason: String) -> Router {
    let error = Error::Unavailable { reason: reason.clone() };
    let refuse = async move |method: Method| error::refuse(error, About::of(&method));
    finish(
        Router::new()
            .route(PATH_HEALTH, get(status::shard_health))
            .route(PATH_READY, get(async move |uri: Uri| status::not_ready(&uri, reason))),
    )
    .fallback(refuse)
}

fn kv_routes<K: Kv>() -> Router<Arc<Shared<K>>> {
    Router::new()
        .route(PATH_KV, get(kv::get::<K>).put(kv::put::<K>).delete(kv::delete::<K>))
        .route(PATH_TOUCH, post(kv::touch::<K>))
        .route(PATH_INCR, post(kv::incr::<K>))
        .route(PATH_TXN, post(txn::txn::<K>))
        .route(PATH_BATCH, post(txn::batch::<K>))
        .route(PATH_KEYS, get(keys::list::<K>).delete(keys::delete::<K>))
        .route(PATH_COUNT, get(keys::count::<K>))
}

fn finish(router: Router) -> Router {
    router
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(map_request(async |request| let_run_out(request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_too_many_is_refused_at_once() {
        let shared = Shared::new(Arc::new(()), Options::default());
        let places: Vec<_> = (0..REQUESTS_IN_FLIGHT_MAX).map(|_| shared.admit()).collect();
        assert!(places.iter().all(Result::is_ok));
        assert!(matches!(shared.admit(), Err(Error::Overloaded { .. })));
        drop(places);
        assert!(shared.admit().is_ok());
        let scans: Vec<_> = (0..SCANS_IN_FLIGHT_MAX).map(|_| shared.admit_scan()).collect();
        assert!(scans.iter().all(Result::is_ok));
        assert!(matches!(shared.admit_scan(), Err(Error::Overloaded { .. })));
        assert!(shared.admit().is_ok(), "others go on");
    }
}
