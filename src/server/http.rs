//! One listening socket: accepts, serves HTTP/1.1, drains.
//!
//! What a stranger can hold is bounded: connections in number, the time for a request's headers.
//! (Bodies and requests are bounded by `api`, upgraded connections by `rpc`.) A connection that
//! breaks the rules ends alone.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::types::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, DRAIN_TIMEOUT, HEADERS_TIMEOUT};

/// A socket that is served.
pub(super) struct Http {
    stopping: CancellationToken,
    connections: TaskTracker,
    upgrades: TaskTracker,
}

impl Http {
    /// Serves `router` on `listener` until `stopping` is cancelled; `upgrades` are the connections
    /// that have left HTTP, which end by the same token.
    pub(super) fn serve(
        listener: TcpListener,
        router: Router,
        stopping: CancellationToken,
        upgrades: TaskTracker,
    ) -> Self {
        let connections = TaskTracker::new();
        let http = Self { stopping, connections, upgrades };
        let accepting = accept(listener, router, http.stopping.clone(), http.connections.clone());
        http.connections.spawn(accepting);
        http
    }

    /// Takes nothing new and waits a while for what is under way.
    pub(super) async fn stop(self) {
        self.stopping.cancel();
        self.upgrades.close();
        self.connections.close();
        let drained = async {
            self.upgrades.wait().await;
            self.connections.wait().await;
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
    connections: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            // While all places are taken, newcomers wait in the kernel's queue.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stopping.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                let serving = serve(socket, router.clone(), stopping.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            // Out of file descriptors, mostly: others have to end first.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, router: Router, stopping: CancellationToken) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Service::call(&mut router, request.map(Body::new)).await
}
