//! A server over real sockets, with an HTTP front as small as can be, and a service whose calls
//! and streams do as they are told.

mod calls;
mod gathering;
mod lost;
mod proxy;
mod rules;
mod streams;

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::rpc::connection::{self, FrameReader, FrameWriter};
use crate::rpc::{
    Caller, Dialer, FrameReceiver, FrameSender, Service, Target, handshake, is_upgrade, serve,
};
use crate::types::command::KeyWrite;
use crate::types::deadline::Deadline;
use crate::types::ids::{GroupId, NodeId};
use crate::types::key::Key;
use crate::types::peer::{Hello, Lane, PROTOCOL_VERSION, Reply, Request};
use crate::types::value::Value;

/// More than the other side's kernel takes in while nobody reads, less than what both take.
const REFUSAL_BYTES: usize = 256 * 1024;
/// Nothing takes this long unless it is broken.
const FAR: Duration = Duration::from_secs(30);

/// A call that is answered at once, with its number.
fn echo(number: u64) -> Request {
    Request::Adopt { group: GroupId(number) }
}

/// The answer to [`echo`].
fn echoed(number: u64) -> Reply {
    Reply::NotReady(number.to_string())
}

/// A call that is answered once the gate lets it pass.
const HELD: Request = Request::Identify;
/// A call of this length that is never answered.
fn large(bytes: usize) -> Request {
    let key = Key::new("key").unwrap();
    let request = KeyWrite::put(key, Value::bytes(vec![0; bytes])).into();
    Request::Kv { request, timeout_ms: 0 }
}

/// A call that panics.
const PANIC: Request = Request::Status;

fn passed() -> Reply {
    Reply::NotReady("passed".into())
}

/// What the service does with a stream.
#[derive(Clone, Copy)]
enum Stream {
    /// Sends every message back and ends when it ends.
    Echo,
    /// Sends one large message, ends the stream, and reads nothing.
    Refuse,
    /// Sends one message and drops the stream.
    Break,
    /// Waits for ever.
    Stuck,
}

struct Puppet {
    gate: Semaphore,
    /// Calls and streams that have begun.
    begun: watch::Sender<usize>,
    /// How the last stream's receiver ended: whether in good order.
    ended: watch::Sender<Option<bool>>,
    stream: Stream,
    refusal: Option<String>,
}

impl Puppet {
    fn new() -> Arc<Self> {
        Self::with(Stream::Echo, None)
    }

    fn with(stream: Stream, refusal: Option<&str>) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(None),
            stream,
            refusal: refusal.map(str::to_owned),
        })
    }

    async fn until_begun(&self, count: usize) {
        let mut begun = self.begun.subscribe();
        timeout(FAR, begun.wait_for(|begun| *begun >= count)).await.expect("in time").unwrap();
    }
}

impl Service for Puppet {
    fn welcome(&self, _: &Hello) -> Result<(), String> {
        self.refusal.clone().map_or(Ok(()), Err)
    }

    async fn call(&self, _: Option<NodeId>, request: Request) -> Reply {
        self.begun.send_modify(|begun| *begun += 1);
        match request {
            HELD => {
                self.gate.acquire().await.unwrap().forget();
                passed()
            }
            Request::Adopt { group } => echoed(group.0),
            Request::Kv { .. } => pending().await,
            PANIC => std::panic::resume_unwind(Box::new("as told")),
            other => panic!("no puppet call: {other:?}"),
        }
    }

    async fn stream(&self, _: Hello, mut sender: FrameSender, mut receiver: FrameReceiver) {
        self.begun.send_modify(|begun| *begun += 1);
        let message = Bytes::from_static(b"hello");
        match self.stream {
            Stream::Echo => {
                let ended = loop {
                    match receiver.next().await {
                        Ok(Some(message)) => {
                            if sender.send(message).await.is_err() {
                                break false;
                            }
                        }
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                };
                if ended {
                    sender.finish().await.unwrap();
                }
                self.ended.send_replace(Some(ended));
            }
            Stream::Refuse => {
                sender.send(vec![7; REFUSAL_BYTES].into()).await.unwrap();
                sender.finish().await.unwrap();
                self.ended.send_replace(Some(true));
            }
            Stream::Break => sender.send(message).await.unwrap(),
            Stream::Stuck => pending().await,
        }
    }
}

/// A process as others see it.
struct Server {
    address: SocketAddr,
    url: String,
    connections: watch::Sender<usize>,
    shutdown: CancellationToken,
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    async fn start(service: Arc<Puppet>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), service).await
    }

    async fn start_at(address: SocketAddr, service: Arc<Puppet>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            address,
            url: format!("http://{address}"),
            connections: watch::Sender::new(0),
            shutdown: CancellationToken::new(),
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let front = Front {
            service,
            connections: server.connections.clone(),
            shutdown: server.shutdown.clone(),
            killed: server.killed.clone(),
            tasks: server.tasks.clone(),
        };
        server.tasks.spawn(server.killed.clone().run_until_cancelled_owned(front.accept(listener)));
        server
    }

    fn caller(&self) -> Caller {
        Caller::new(Dialer::new(None), self.target())
    }

    fn target(&self) -> Target {
        target(&self.url)
    }

    async fn open(&self) -> (FrameSender, FrameReceiver) {
        Dialer::new(None).open(&self.target(), Lane::Append, far()).await.unwrap()
    }

    /// Ends everything at once, as the kernel does it for a process that is killed.
    async fn kill(&self) {
        self.killed.cancel();
        self.tasks.close();
        timeout(FAR, self.tasks.wait()).await.expect("all tasks end");
    }
}

#[derive(Clone)]
struct Front {
    service: Arc<Puppet>,
    connections: watch::Sender<usize>,
    shutdown: CancellationToken,
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl Front {
    async fn accept(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let front = self.clone();
            self.spawn(async move {
                let answer = service_fn(async |request| Ok::<_, Infallible>(front.answer(request)));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .with_upgrades();
                connection.await.ok();
            });
        }
    }

    fn answer(&self, request: HttpRequest<Incoming>) -> Response<String> {
        let mut response = Response::new(String::new());
        if is_upgrade(request.headers()) {
            let upgrade = request.headers()[UPGRADE].clone();
            self.connections.send_modify(|connections| *connections += 1);
            let (service, shutdown) = (Arc::clone(&self.service), self.shutdown.clone());
            self.spawn(async move {
                if let Ok(upgraded) = hyper::upgrade::on(request).await {
                    serve(TokioIo::new(upgraded), service, shutdown).await;
                }
            });
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(CONNECTION, "Upgrade".parse().unwrap());
            response.headers_mut().insert(UPGRADE, upgrade);
        } else {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.killed.clone().run_until_cancelled_owned(task));
    }
}

fn target(url: &str) -> Target {
    Target { url: url.into(), node: None, group: None }
}

fn far() -> Deadline {
    Deadline::after(FAR)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(50))
}

fn hello(lane: Lane) -> Hello {
    Hello { version: PROTOCOL_VERSION, lane, from: None, to: None, group: None }
}

/// A served connection without a network, seen as frames by the side that opened it.
async fn served(
    service: &Arc<Puppet>,
    lane: Lane,
) -> (FrameReader, FrameWriter, tokio::task::JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn(serve(server, Arc::clone(service), CancellationToken::new()));
    let (mut reader, mut writer) = connection::split(client);
    handshake::introduce(&mut reader, &mut writer, &hello(lane)).await.unwrap().unwrap();
    (reader, writer, serving)
}

/// A pipe of frames without a network or a service.
fn pipe(bytes: usize) -> ((FrameReader, FrameWriter), DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(bytes);
    (connection::split(ours), theirs)
}

/// A server that does with each of its connections what `each` says; its URL.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    each: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            tokio::spawn(each(listener.accept().await.unwrap().0));
        }
    });
    url
}
