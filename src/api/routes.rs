//! Which path has which methods, on a shard and on a coordinator.
//!
//! Both routers answer unknown paths (404) and methods (405, with `Allow`) in JSON, and take `HEAD`
//! wherever they take `GET`.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::routing::{MethodRouter, delete, get, post, put};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::error::About;
use crate::api::openapi::{self, Documents, Method as Described, Served};
use crate::api::{CoordinatorFace, Kv, ShardFace};
use crate::api::{error, keys, kv, metrics, status, txn, upgrade, watch};
use crate::rpc;
use crate::types::error::Error;
use crate::types::http::{
    PATH_BATCH, PATH_CLUSTER, PATH_COUNT, PATH_DOCS, PATH_HEALTH, PATH_INCR, PATH_KEYS, PATH_KV,
    PATH_METRICS, PATH_OPENAPI, PATH_READY, PATH_ROUTE, PATH_RPC, PATH_STATS, PATH_STATUS,
    PATH_TOUCH, PATH_TXN, PATH_WATCH,
};
use crate::types::limits::{
    BODY_BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX, SCANS_IN_FLIGHT_MAX, VALUE_BYTES_DEFAULT,
    WATCHES_MAX,
};

/// What a router is told beside its store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// Ends what would go on for ever.
    pub stopping: CancellationToken,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_value_bytes: VALUE_BYTES_DEFAULT, stopping: CancellationToken::new() }
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
    /// A permit for each watch.
    watches: Arc<Semaphore>,
    /// Ends them.
    pub(super) stopping: CancellationToken,
}

impl<F> Shared<F> {
    fn new(face: Arc<F>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            face,
            max_value_bytes: options.max_value_bytes,
            body_budget: Arc::new(Semaphore::new(BODY_BYTES_IN_FLIGHT_MAX)),
            places: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
            scans: Arc::new(Semaphore::new(SCANS_IN_FLIGHT_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            stopping: options.stopping,
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

    /// A place for one more watch, or the refusal at once.
    pub(super) fn admit_watch(&self) -> Result<OwnedSemaphorePermit, Error> {
        let full = |_| Error::Overloaded { queue: "the list of watches".into() };
        Arc::clone(&self.watches).try_acquire_owned().map_err(full)
    }
}

/// The HTTP face of a replica, with the door to rpc.
pub fn shard_router<S: ShardFace, R: rpc::Service>(
    face: Arc<S>,
    options: Options,
    rpc: Rpc<R>,
) -> Router {
    let routes = kv_routes::<S>()
        .get(PATH_HEALTH, status::shard_health)
        .get(PATH_READY, status::shard_ready::<S>)
        .get(PATH_STATUS, status::status::<S>)
        .get(PATH_STATS, status::status::<S>)
        .get(PATH_METRICS, metrics::of_shard::<S>)
        .with_state(Shared::new(face, options));
    let rpc = Routes::default().get(PATH_RPC, upgrade::upgrade::<R>).with_state(rpc);
    finish(routes.merge(rpc).described())
}

/// The HTTP face of a coordinator.
pub fn coordinator_router<C: CoordinatorFace>(face: Arc<C>, options: Options) -> Router {
    let routes = kv_routes::<C>()
        .get(PATH_HEALTH, status::coordinator_health)
        .get(PATH_READY, status::coordinator_ready::<C>)
        .get(PATH_ROUTE, status::route::<C>)
        .get(PATH_CLUSTER, status::cluster::<C>)
        .get(PATH_METRICS, metrics::of_coordinator::<C>)
        .with_state(Shared::new(face, options));
    finish(routes.described())
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

fn kv_routes<K: Kv>() -> Routes<Arc<Shared<K>>> {
    Routes::default()
        .get(PATH_KV, kv::get::<K>)
        .put(PATH_KV, kv::put::<K>)
        .delete(PATH_KV, kv::delete::<K>)
        .post(PATH_TOUCH, kv::touch::<K>)
        .post(PATH_INCR, kv::incr::<K>)
        .post(PATH_TXN, txn::txn::<K>)
        .post(PATH_BATCH, txn::batch::<K>)
        .get(PATH_KEYS, keys::list::<K>)
        .delete(PATH_KEYS, keys::delete::<K>)
        .get(PATH_COUNT, keys::count::<K>)
        .get(PATH_WATCH, watch::watch::<K>)
}

/// A router, and what it serves: axum does not tell, and the document must say exactly that.
struct Routes<S = ()> {
    router: Router<S>,
    served: Vec<Served>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), served: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.add((Described::Get, path), get(handler))
    }

    fn put<T: 'static>(self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.add((Described::Put, path), put(handler))
    }

    fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.add((Described::Post, path), post(handler))
    }

    fn delete<T: 'static>(self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.add((Described::Delete, path), delete(handler))
    }

    fn add(mut self, served: Served, handler: MethodRouter<S>) -> Self {
        self.served.push(served);
        Self { router: self.router.route(served.1, handler), ..self }
    }

    fn with_state(self, state: S) -> Routes {
        Routes { router: self.router.with_state(state), served: self.served }
    }
}

impl Routes {
    fn merge(mut self, other: Self) -> Self {
        self.served.extend(other.served);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// All of it, and the documents that describe it, themselves included.
    fn described(self) -> Router {
        let own: [Served; 2] = [(Described::Get, PATH_OPENAPI), (Described::Get, PATH_DOCS)];
        let documents = Documents::of(&[&self.served[..], &own].concat());
        let own = Routes::default().get(PATH_OPENAPI, openapi::json).get(PATH_DOCS, openapi::page);
        self.merge(own.with_state(documents)).router
    }
}

fn finish(router: Router) -> Router {
    router.fallback(error::unknown_path).method_not_allowed_fallback(error::method_not_allowed)
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
