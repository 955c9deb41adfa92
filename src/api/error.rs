//! Errors as HTTP: the status, a JSON body, and on writes what became of them.
//!
//! Promises: no error without a body, `Retry-After` on every 503, and `outcome` on every answer
//! to a request that could have changed something. A read never answers `outcome_unknown`: it has
//! no outcome, it was only not answered.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde::Serialize;

use crate::types::code::Code;
use crate::types::error::{Decline, Error};
use crate::types::http::{CONTENT_JSON, ErrorBody, HEADER_INDEX, UPGRADE_PROTOCOL};

/// What a request would have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// Nothing but look.
    Read,
    /// Change something.
    Write,
}

impl About {
    /// What a request with this method would do.
    pub(super) fn of(method: &Method) -> Self {
        if method.is_safe() { Self::Read } else { Self::Write }
    }
}

/// The answer to a request that failed.
pub(super) fn refuse(error: Error, about: About) -> Response {
    let error = match (error, about) {
        (Error::OutcomeUnknown { reason }, About::Read) => Error::Unavailable { reason },
        (error, About::Read | About::Write) => error,
    };
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = json(status, &json_body(&error, about));
    if let Some(at) = error.position()
        && let Ok(value) = HeaderValue::from_str(&at.to_string())
    {
        response.headers_mut().insert(HeaderName::from_static(HEADER_INDEX), value);
    }
    response
}

/// What an error says.
pub(super) fn json_body(error: &Error, about: About) -> ErrorBody {
    if let Error::Declined { why, .. } = error {
        return declined(*why, about);
    }
    ErrorBody {
        error: error.to_string(),
        code: error.code().to_owned(),
        outcome: (about == About::Write).then(|| error.outcome()),
        epoch: if let Error::WrongShard { epoch } = error { Some(*epoch) } else { None },
        version: None,
        oldest: if let Error::Compacted { oldest } = error { Some(oldest.clone()) } else { None },
    }
}

/// What a group's answer says that declines a request, or an operation of one.
pub(super) fn declined(why: Decline, about: About) -> ErrorBody {
    ErrorBody {
        error: why.to_string(),
        code: why.code().as_str().to_owned(),
        outcome: (about == About::Write).then(|| why.outcome()),
        epoch: None,
        version: if let Decline::VersionMismatch { version } = why { version } else { None },
        oldest: None,
    }
}

/// A JSON answer; a 503 also says when to try again.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("our own bodies have a JSON form");
    let mut response = plain(status, CONTENT_JSON, body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// An answer of any type. No answer of ours may be kept by a cache: it would be a stale read.
pub(super) fn plain(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The reader has it already (RFC 9110 §15.4.5): an answer without a body.
pub(super) fn not_modified() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// No such path.
pub(super) async fn unknown_path(method: Method) -> Response {
    refuse(Error::UnknownPath, About::of(&method))
}

/// The path has no such method; the router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method) -> Response {
    refuse(Error::MethodNotAllowed, About::of(&method))
}

/// The path speaks another protocol only (RFC 9110 §15.5.22).
pub(super) fn upgrade_required() -> Response {
    let body = ErrorBody {
        error: format!(
            "this path speaks {UPGRADE_PROTOCOL} only; send Connection: upgrade and \
             Upgrade: {UPGRADE_PROTOCOL}"
        ),
        code: Code::UpgradeRequired.as_str().into(),
        outcome: None,
        epoch: None,
        version: None,
        oldest: None,
    };
    let mut response = json(StatusCode::UPGRADE_REQUIRED, &body);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(UPGRADE_PROTOCOL));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
