//! Opens connections: HTTP, then the upgrade, then the handshake.
//!
//! A connection starts as `GET {url}/rpc` with `Upgrade: sage-rpc/1`, so that it needs no port of
//! its own and passes through whatever passes HTTP. The usual proxy environment variables are
//! honoured (`HTTP_PROXY`, `NO_PROXY`), redirects are not followed, and a connection serves one
//! upgrade only. Everything together takes no longer than [`CONNECT_TIMEOUT`] and the caller's
//! deadline. Whatever goes wrong here is [`CallError::NotSent`]: nothing was asked yet.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use hyper::header::{CONNECTION, HeaderMap, UPGRADE};
use reqwest::{Client, StatusCode, redirect};
use tokio::time::timeout_at;

use crate::rpc::connection::{self, FrameReader, FrameWriter, Io};
use crate::rpc::handshake;
use crate::rpc::stream::{self, FrameReceiver, FrameSender};
use crate::rpc::{CallError, Target};
use crate::types::deadline::Deadline;
use crate::types::http::{PATH_RPC, UPGRADE_PROTOCOL};
use crate::types::ids::NodeId;
use crate::types::limits::CONNECT_TIMEOUT;
use crate::types::peer::{Hello, Lane, PROTOCOL_VERSION};

/// A connection that was made, or a sentence why not.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Io>, String>> + Send + 'a>>;

/// Makes the connections that the handshake begins on.
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Connects to the process at `url`, `http://host:port`. Its future may be dropped.
    fn connect<'a>(&'a self, url: &'a str) -> Connecting<'a>;
}

/// By HTTP and its upgrade.
#[derive(Debug)]
struct Http(Client);

impl Http {
    async fn upgraded(&self, url: &str) -> Result<Box<dyn Io>, String> {
        let failed = |error| format!("cannot connect to {url}: {}", innermost(&error));
        let response = self
            .0
            .get(format!("{}{PATH_RPC}", url.trim_end_matches('/')))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, UPGRADE_PROTOCOL)
            .send()
            .await
            .map_err(failed)?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(format!(
                "{url} answered {status} instead of switching to {UPGRADE_PROTOCOL}; \
                 check that a sage process listens there"
            ));
        }
        Ok(Box::new(response.upgrade().await.map_err(failed)?))
    }
}

impl Connect for Http {
    fn connect<'a>(&'a self, url: &'a str) -> Connecting<'a> {
        Box::pin(self.upgraded(url))
    }
}

/// Opens connections for one process.
#[derive(Clone, Debug)]
pub struct Dialer {
    from: Option<NodeId>,
    connect: Arc<dyn Connect>,
}

impl Dialer {
    /// A dialer that says it is `from`; `None` for a coordinator.
    ///
    /// # Panics
    /// If no HTTP client can be made, which has no cause outside this process.
    pub fn new(from: Option<NodeId>) -> Self {
        let http = Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .redirect(redirect::Policy::none())
            .referer(false)
            .build()
            .expect("an HTTP client without TLS can be made");
        Self::over(Arc::new(Http(http)), from)
    }

    /// As [`Dialer::new`], over other connections.
    pub fn over(connect: Arc<dyn Connect>, from: Option<NodeId>) -> Self {
        Self { from, connect }
    }

    /// The same, saying that it is `from`.
    #[must_use]
    pub fn of(&self, from: Option<NodeId>) -> Self {
        Self { from, connect: Arc::clone(&self.connect) }
    }

    /// Opens one stream of `lane` ([`Lane::Append`] or [`Lane::Snapshot`]).
    ///
    /// # Panics
    /// If `lane` is [`Lane::Calls`], which a [`Caller`](super::Caller) opens.
    pub async fn open(
        &self,
        target: &Target,
        lane: Lane,
        deadline: Deadline,
    ) -> Result<(FrameSender, FrameReceiver), CallError> {
        assert!(lane != Lane::Calls, "a lane of calls is no stream");
        let (reader, writer) = self.connect(target, lane, deadline).await?;
        let (sender, receiver, writing) = stream::start(reader, writer, None);
        tokio::spawn(writing);
        Ok((sender, receiver))
    }

    /// Opens a connection and introduces this process.
    pub(super) async fn connect(
        &self,
        target: &Target,
        lane: Lane,
        deadline: Deadline,
    ) -> Result<(FrameReader, FrameWriter), CallError> {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            lane,
            from: self.from,
            to: target.node,
            group: target.group,
        };
        let until = deadline.at_most(CONNECT_TIMEOUT).instant().into();
        timeout_at(until, self.attempt(&target.url, &hello))
            .await
            .unwrap_or_else(|_| Err(format!("{} did not answer in time", target.url)))
            .map_err(CallError::NotSent)
    }

    async fn attempt(
        &self,
        url: &str,
        hello: &Hello,
    ) -> Result<(FrameReader, FrameWriter), String> {
        let io = self.connect.connect(url).await?;
        let (mut reader, mut writer) = connection::split(io);
        handshake::introduce(&mut reader, &mut writer, hello)
            .await
            .map_err(|reason| format!("no handshake with {url}: {reason}"))??;
        Ok((reader, writer))
    }
}

/// The cause at the bottom, which is the one that says something: `Connection refused`.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Whether a request with these headers asks for this protocol: `Connection: upgrade` and
/// `Upgrade: sage-rpc/1`, each perhaps among others.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let lists = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(wanted))
    };
    lists(CONNECTION, "upgrade") && lists(UPGRADE, UPGRADE_PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_known_by_both_headers() {
        let asks = |fields: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, value.parse().unwrap());
            }
            is_upgrade(&headers)
        };
        let ours = ("upgrade", "sage-rpc/1");
        assert!(asks(&[("connection", "Upgrade"), ours]));
        assert!(asks(&[("connection", "keep-alive, upgrade"), ("upgrade", "h2c , sage-rpc/1")]));
        assert!(asks(&[("connection", "close"), ("connection", "upgrade"), ours]));
        assert!(!asks(&[ours]));
        assert!(!asks(&[("connection", "upgrade")]));
        assert!(!asks(&[("connection", "upgrade"), ("upgrade", "websocket")]));
        assert!(!asks(&[("connection", "upgrade"), ("upgrade", "sage-rpc/11")]));
    }
}
