//! One listening socket: accepts, serves HTTP/1.1, drains.
//!
//! What a stranger can hold is bounded: connections in number, the time for a request's headers, the
//! time in which nothing of an answer is taken.
//! (Bodies and requests are bounded by `api`, upgraded connections by `rpc`.) A connection that
//! breaks the rules ends alone.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::api::let_run_out;
use crate::server::open_files;
use crate::server::unparsed::{Answered, Turn, Worded};
use crate::types::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, DRAIN_TIMEOUT, HEADERS_TIMEOUT, HTTP_BUFFER_BYTES_MAX,
    SLOW_READER_MAX,
};

/// How often a connection is looked at while [`HEADERS_TIMEOUT`] runs, which may last longer by one part in so many.
const LOOKS: u8 = 4;

/// Listens, with as many files as the system allows.
pub(super) async fn bind(listen: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    open_files::raise_limit();
    let address = SocketAddr::new(listen, port);
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("can't listen on {address}; is the port in use?"))
}

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
                connections.spawn(serve(socket, router.clone(), stopping.clone(), place));
            }
            // Out of file descriptors, mostly: others have to end first.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, which has its place until it ends.
async fn serve(
    socket: TcpStream,
    router: Router,
    stopping: CancellationToken,
    _place: Result<OwnedSemaphorePermit, AcquireError>,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let turn = Turn::default();
    let routers = turn.clone();
    let mut idle = std::pin::pin!(idle(turn.clone()));
    let service = service_fn(move |request| answer(router.clone(), routers.clone(), request));
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(SLOW_READER_MAX));
    let connection = http1::Builder::new()
        // See `idle`.
        .header_read_timeout(None)
        .max_buf_size(HTTP_BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Worded::new(Box::pin(socket), turn)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // First, so that a request that has come counts.
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => Some(ended),
                () = idle => None,
            }
        }
        () = idle.as_mut() => None,
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "a connection ended"),
        None => tracing::debug!("a connection was idle"),
    }
}

/// Ends when no request has come for [`HEADERS_TIMEOUT`], and none is under way. Hyper's own timeout sets and takes back a timer for
/// each request.
async fn idle(turn: Turn) {
    while turn.idle_looks() <= LOOKS {
        tokio::time::sleep(HEADERS_TIMEOUT / u32::from(LOOKS)).await;
    }
}

async fn answer(
    mut router: Router,
    turn: Turn,
    request: Request<Incoming>,
) -> Result<Response<Answered>, Infallible> {
    turn.of_router();
    let response = Service::call(&mut router, let_run_out(request)).await?;
    Ok(turn.answered(response))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::{any, get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A client that asks for more than fits on the way and takes none of it.
    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_reader_takes_nothing_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let large = || async { vec![0_u8; 64 * 1024 * 1024] };
        let (stopping, upgrades) = (CancellationToken::new(), TaskTracker::new());
        let router = Router::new().route("/", get(large));
        let http = Http::serve(listener, router, stopping, upgrades);
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is taken");
        // The listener and this connection.
        while http.connections.len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(SLOW_READER_MAX / 2).await;
        assert_eq!(http.connections.len(), 2, "it has time");
        tokio::time::sleep(SLOW_READER_MAX).await;
        while http.connections.len() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut answer = Vec::new();
        let ended = client.read_to_end(&mut answer).await;
        assert!(ended.is_err() || answer.len() < 64 * 1024 * 1024, "it was cut");
    }

    /// A server that reads a request's body and then takes so long for the answer, and a connection to it.
    async fn connected(takes: Duration) -> (Http, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let slow = async move |_: axum::body::Bytes| tokio::time::sleep(takes).await;
        let router = Router::new().route("/", any(slow));
        let http = Http::serve(listener, router, CancellationToken::new(), TaskTracker::new());
        (http, TcpStream::connect(address).await.expect("it listens"))
    }

    /// How long until the connection is closed, from now.
    async fn closed(client: &mut TcpStream) -> Duration {
        let began = tokio::time::Instant::now();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(2 * LONGEST, client.read_to_end(&mut rest)).await;
        ended.expect("it is closed").expect("in good order");
        began.elapsed()
    }

    const LONGEST: Duration = HEADERS_TIMEOUT.saturating_mul(5).checked_div(4).expect("not 0");

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n";

    /// Sends what makes a request, and waits for its answer.
    async fn answered(client: &mut TcpStream, request: &[u8]) {
        client.write_all(request).await.expect("it is taken");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(client.read_u8().await.expect("it is answered"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_no_request_comes_is_closed() {
        let (_http, mut silent) = connected(Duration::ZERO).await;
        let took = closed(&mut silent).await;
        assert!((HEADERS_TIMEOUT..=LONGEST).contains(&took), "{took:?}");
        // One that never comes to its end is none, be it the first or a later one.
        for before in [false, true] {
            let (_http, mut slow) = connected(Duration::ZERO).await;
            if before {
                answered(&mut slow, &[HEAD, b"\r\n"].concat()).await;
            }
            slow.write_all(HEAD).await.expect("it is taken");
            tokio::time::sleep(HEADERS_TIMEOUT / 2).await;
            slow.write_all(b"x: y\r\n").await.expect("it is taken");
            let took = closed(&mut slow).await + HEADERS_TIMEOUT / 2;
            assert!((HEADERS_TIMEOUT..=LONGEST).contains(&took), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_while_a_request_comes_or_its_answer_is_made_and_for_a_while() {
        let (_http, mut client) = connected(HEADERS_TIMEOUT * 3).await;
        answered(&mut client, &[HEAD, b"\r\n"].concat()).await;
        let upload = b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n";
        client.write_all(upload).await.expect("it is taken");
        tokio::time::sleep(HEADERS_TIMEOUT * 3).await;
        answered(&mut client, b"1").await;
        let took = closed(&mut client).await;
        assert!((HEADERS_TIMEOUT..=LONGEST).contains(&took), "{took:?}");
    }

    /// What such a connection holds is not to be held for ever by a process that goes on.
    #[tokio::test(start_paused = true)]
    async fn half_a_head_does_not_outlast_a_server_that_stops_for_long() {
        let (http, mut client) = connected(Duration::ZERO).await;
        client.write_all(HEAD).await.expect("it is taken");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let connections = http.connections.clone();
        http.stop().await;
        assert_eq!(connections.len(), 1, "it may still come");
        let took = closed(&mut client).await;
        assert!(took <= LONGEST, "{took:?}");
        connections.wait().await;
    }
}
