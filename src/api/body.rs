//! The body of a request: read within bounds of bytes and time, or refused and let run out.
//!
//! A body longer than the bound is refused as soon as that is known, by its declared length
//! before a byte is read. All bodies together are held to a budget. A server that answers early
//! and closes while the client still sends makes the client's kernel throw the answer away, so a
//! body that nobody reads to its end is read on for a while and dropped ([`let_run_out`]), in the
//! background and within bounds of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::EXPECT;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::limits::{BODY_LINGER, BODY_LINGER_BYTES_MAX};

/// What is reserved for a body ahead of its bytes, at most: a client's word is cheap.
const RESERVE_BYTES_MAX: usize = 256 * 1024;

/// A whole body, and its share of the budget for as long as the request lasts.
#[derive(Debug)]
pub(super) struct Held {
    /// The bytes; their own allocation, so that a stored value pins no read buffer.
    pub(super) data: Bytes,
    /// Given back when dropped.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `max` bytes before `deadline`.
pub(super) async fn read(
    body: Body,
    max: usize,
    budget: &Arc<Semaphore>,
    deadline: Deadline,
) -> Result<Held, Error> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > max {
        return Err(Error::ValueTooLarge { max: max as u64 });
    }
    let whole = collect(body, declared.min(RESERVE_BYTES_MAX), max, budget);
    timeout_at(deadline.instant().into(), whole).await.unwrap_or_else(|_| {
        Err(Error::BadRequest("the body did not arrive in time; send it faster".into()))
    })
}

async fn collect(
    mut body: Body,
    reserve: usize,
    max: usize,
    budget: &Arc<Semaphore>,
) -> Result<Held, Error> {
    let mut data = Vec::with_capacity(reserve);
    let mut permit: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame =
            frame.map_err(|error| Error::BadRequest(format!("the body broke off: {error}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if chunk.len() > max - data.len() {
            return Err(Error::ValueTooLarge { max: max as u64 });
        }
        let share = take(budget, chunk.len())?;
        match &mut permit {
            Some(permit) => permit.merge(share),
            None => permit = Some(share),
        }
        data.extend_from_slice(&chunk);
    }
    data.shrink_to_fit();
    Ok(Held { data: data.into(), permit })
}

fn take(budget: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
    let full = || Error::Overloaded { queue: "the memory for request bodies".into() };
    let bytes = u32::try_from(bytes).map_err(|_| full())?;
    Arc::clone(budget).try_acquire_many_owned(bytes).map_err(|_| full())
}

/// Makes a request's body run out in the background if the handler leaves it unread: whoever serves one of our routers does this ahead of it.
///
/// Not if the client waits for `100 Continue`: it sends nothing before it has an answer.
pub fn let_run_out<B>(request: Request<B>) -> Request
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if request.body().is_end_stream() {
        return request.map(|_| Body::empty());
    }
    if request.headers().contains_key(EXPECT) {
        return request.map(Body::new);
    }
    request.map(|body| Body::new(RunsOut(Some(body))))
}

/// A body that is read on when it is dropped before its end.
struct RunsOut<B: HttpBody<Data = Bytes> + Send + Unpin + 'static>(Option<B>);

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> HttpBody for RunsOut<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> Drop for RunsOut<B> {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|body| !body.is_end_stream());
        if let (Some(rest), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(timeout(BODY_LINGER, drain(rest)));
        }
    }
}

async fn drain(mut body: impl HttpBody<Data = Bytes> + Unpin) {
    let mut left = BODY_LINGER_BYTES_MAX;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let dropped = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(dropped) else { return };
        left = less;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Error as BodyError;
    use futures::stream;

    use super::*;

    fn chunked(chunks: &[&'static [u8]]) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|&chunk| Ok::<_, BodyError>(chunk)).collect();
        Body::from_stream(stream::iter(chunks))
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_the_bound_and_not_longer() {
        let budget = Arc::new(Semaphore::new(100));
        let held = read(chunked(&[b"abc", b"", b"de"]), 5, &budget, soon()).await.expect("fits");
        assert_eq!(held.data, "abcde");
        assert_eq!(budget.available_permits(), 95);
        drop(held);
        let too_large = Error::ValueTooLarge { max: 4 };
        let refused = read(chunked(&[b"abc", b"de"]), 4, &budget, soon()).await;
        assert_eq!(refused.expect_err("too long"), too_large);
        let declared = read(Body::from("abcde"), 4, &budget, soon()).await;
        assert_eq!(declared.expect_err("too long"), too_large);
        assert_eq!(budget.available_permits(), 100, "a refused body gives its share back");
    }

    #[tokio::test]
    async fn bodies_together_are_held_to_the_budget() {
        let budget = Arc::new(Semaphore::new(6));
        let first = read(chunked(&[b"abcd"]), 5, &budget, soon()).await.expect("fits");
        let second = read(chunked(&[b"ab", b"c"]), 5, &budget, soon()).await;
        assert!(matches!(second.expect_err("full"), Error::Overloaded { .. }));
        drop(first);
        assert!(read(chunked(&[b"ab", b"c"]), 5, &budget, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_stalls_ends_with_the_deadline() {
        let budget = Arc::new(Semaphore::new(100));
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, BodyError>>());
        let deadline = Deadline::after(Duration::from_millis(20));
        let refused = read(stalled, 5, &budget, deadline).await.expect_err("stalled");
        assert_eq!(refused.code(), "bad_request");
    }
}
