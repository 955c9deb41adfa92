//! A kept HTTP/1.1 connection, driven by whoever waits for an answer on it, as that of `sagedb::bench` is.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use sagedb::bench::Failure;
use tokio::net::TcpStream;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Moves bytes between the socket and the requests; done when the connection is closed.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An open connection to one server.
pub(crate) struct Http1 {
    sender: SendRequest<Full<Bytes>>,
    driver: Option<Driver>,
    host: HeaderValue,
    place: String,
}

impl Http1 {
    /// To `place`, which is `host:port`.
    pub(crate) async fn open(place: &str) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Broken(format!("{place}: {error}"));
        let stream = TcpStream::connect(place).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let opened = handshake(TokioIo::new(stream)).await;
        let (sender, driver) = opened.map_err(|error| failed(&error))?;
        let driver: Driver = Box::pin(async move { drop(driver.await) });
        let host = HeaderValue::from_str(place).map_err(|error| failed(&error))?;
        Ok(Self { sender, driver: Some(driver), host, place: place.to_owned() })
    }

    /// Asks for a path.
    pub(crate) async fn get(&mut self, path: &'static str) -> Result<(StatusCode, Bytes), Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends JSON to a path.
    pub(crate) async fn post(
        &mut self,
        path: &'static str,
        json: String,
    ) -> Result<(StatusCode, Bytes), Failure> {
        self.ask(Method::POST, path, json.into()).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let Self { sender, driver, host, place } = self;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(path);
        request.headers_mut().insert(HOST, host.clone());
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        let failed = |error: &dyn std::fmt::Display| Failure::Broken(format!("{place}: {error}"));
        driven(driver, async {
            sender.ready().await.map_err(|error| failed(&error))?;
            let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| failed(&error))?.to_bytes()))
        })
        .await
    }
}

/// Waits for `work`, and drives the connection meanwhile.
async fn driven<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        // The answer first: it may have come with the last look at the socket.
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}
