//! What can go wrong for a client, and what it says about a write.
//!
//! Conservative: a write counts as not applied only if the server said so in our own words, or if
//! there was no connection to send it over.

use std::error::Error as _;
use std::time::Duration;

use crate::types::code::Code;
use crate::types::error::WriteOutcome;
use crate::types::http::ErrorBody;
use crate::types::item::Version;

/// Why a call has no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientError {
    /// The client can't be made like this; nothing was sent.
    #[error("{reason}")]
    Config {
        /// Why not.
        reason: String,
    },
    /// No connection could be made, so that nothing was sent; or, for a read only, the connection
    /// broke before the answer.
    #[error("can't reach {url}: {reason}")]
    Connect {
        /// The server.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server refused.
    #[error("{error}")]
    Api {
        /// The HTTP status.
        status: u16,
        /// What programs match on.
        code: String,
        /// A sentence.
        error: String,
        /// What became of the request if it was a write.
        outcome: WriteOutcome,
        /// With `version_mismatch`: the key's version, if it has a value.
        version: Option<Version>,
    },
    /// The write was sent, and nobody knows what became of it: the server said so, or the
    /// connection broke before its answer.
    #[error("the outcome of the write is unknown: {reason}")]
    OutcomeUnknown {
        /// What was lost.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer from {url} within {}", show(*.after))]
    Timeout {
        /// The server.
        url: String,
        /// The time that the call had in all.
        after: Duration,
        /// Unknown for a write, which may have been sent.
        outcome: WriteOutcome,
    },
    /// The answer is none that `SageDB` gives: another program answered, a proxy for instance.
    #[error("{url} answered what no SageDB server answers: {reason}; check the URL")]
    Protocol {
        /// The server.
        url: String,
        /// What is wrong with the answer.
        reason: String,
        /// Unknown for a write: who knows who took it.
        outcome: WriteOutcome,
    },
}

/// Whether an error with this code is what a group made of a write.
pub(super) fn is_settled(code: &str) -> bool {
    Code::parse(code).is_some_and(Code::is_of_a_state)
}

impl ClientError {
    /// What became of the request, if it was a write. `NotApplied` is certain: it has not been
    /// and never will be applied, so that it may be sent again.
    pub fn outcome(&self) -> WriteOutcome {
        match self {
            Self::Config { .. } | Self::Connect { .. } => WriteOutcome::NotApplied,
            Self::OutcomeUnknown { .. } => WriteOutcome::Unknown,
            Self::Api { outcome, .. }
            | Self::Timeout { outcome, .. }
            | Self::Protocol { outcome, .. } => *outcome,
        }
    }

    /// Whether this is what the group made of a write with an idempotency key: then it holds for every
    /// attempt to send it.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self, Self::Api { code, .. } if is_settled(code))
    }

    /// Whether another server might do better, and nothing is at risk in asking it.
    pub(super) fn may_go_elsewhere(&self) -> bool {
        let better = match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Protocol { .. } => true,
            // 507: the group's leader has no room, whoever asks it.
            Self::Api { status, .. } => matches!(status, 429 | 500..=506 | 508..=599),
            Self::Config { .. } | Self::OutcomeUnknown { .. } => false,
        };
        better && self.outcome() == WriteOutcome::NotApplied
    }

    /// A request that was or may have been sent and has no answer.
    pub(super) fn lost(error: reqwest::Error, url: &str, write: bool, after: Duration) -> Self {
        let url = url.to_owned();
        if error.is_connect() || error.is_builder() {
            Self::Connect { url, reason: reason(error) }
        } else if error.is_timeout() {
            Self::Timeout { url, after, outcome: after_sending(write) }
        } else if write {
            Self::OutcomeUnknown { reason: format!("{url}: {}", reason(error)) }
        } else {
            Self::Connect { url, reason: reason(error) }
        }
    }

    /// An answer that no server of ours gives.
    pub(super) fn protocol(url: &str, write: bool, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Protocol { url: url.to_owned(), reason, outcome: after_sending(write) }
    }

    /// A refusal in our own words.
    pub(super) fn api(status: u16, body: ErrorBody, write: bool) -> Self {
        let outcome = body.outcome.unwrap_or(match status {
            400..=499 => WriteOutcome::NotApplied,
            _ => after_sending(write),
        });
        if write && outcome == WriteOutcome::Unknown {
            let said = body.error.strip_prefix("the outcome of the write is unknown: ");
            return Self::OutcomeUnknown { reason: said.unwrap_or(&body.error).to_owned() };
        }
        let ErrorBody { code, error, version, .. } = body;
        Self::Api { status, code, error, outcome, version }
    }
}

/// What is known of a request that was sent and not answered.
fn after_sending(write: bool) -> WriteOutcome {
    if write { WriteOutcome::Unknown } else { WriteOutcome::NotApplied }
}

/// The innermost cause, which says what happened; the outer ones say that something did.
pub(super) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

fn show(after: Duration) -> String {
    match after.as_millis() {
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(outcome: Option<WriteOutcome>) -> ErrorBody {
        ErrorBody {
            error: "why".into(),
            code: "code".into(),
            outcome,
            epoch: None,
            version: None,
            oldest: None,
        }
    }

    #[test]
    fn only_what_is_certain_counts_as_not_applied() {
        let outcome = |status, said| ClientError::api(status, refusal(said), true).outcome();
        assert_eq!(outcome(503, Some(WriteOutcome::NotApplied)), WriteOutcome::NotApplied);
        assert_eq!(outcome(504, Some(WriteOutcome::Unknown)), WriteOutcome::Unknown);
        assert_eq!(outcome(400, None), WriteOutcome::NotApplied);
        assert_eq!(outcome(503, None), WriteOutcome::Unknown, "not our words");
        assert_eq!(outcome(200, None), WriteOutcome::Unknown, "not our words");
        let odd = ClientError::protocol("http://a:1", true, "HTML");
        assert_eq!(odd.outcome(), WriteOutcome::Unknown);
    }

    #[test]
    fn a_write_goes_elsewhere_only_if_it_was_not_taken() {
        let elsewhere =
            |status, said| ClientError::api(status, refusal(said), true).may_go_elsewhere();
        assert!(elsewhere(503, Some(WriteOutcome::NotApplied)));
        assert!(!elsewhere(503, None));
        assert!(!elsewhere(504, Some(WriteOutcome::Unknown)));
        assert!(!elsewhere(400, Some(WriteOutcome::NotApplied)), "it is wrong everywhere");
        assert!(!elsewhere(507, Some(WriteOutcome::NotApplied)), "there is no room anywhere");
        let timeout = |write| ClientError::Timeout {
            url: "http://a:1".into(),
            after: Duration::from_secs(1),
            outcome: after_sending(write),
        };
        assert!(timeout(false).may_go_elsewhere() && !timeout(true).may_go_elsewhere());
    }
}
