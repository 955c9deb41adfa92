//! What an answer means for a request that has to find its group's leader. Pure.
//!
//! The rule behind every line: a write is sent again only when it is certain that it was not and
//! will not be applied. What may have been applied ends the request as `outcome_unknown`.

use std::time::Duration;

use crate::rpc::CallError;
use crate::types::error::Error;
use crate::types::kv::KvReply;
use crate::types::topology::Member;

/// The first pause after every member was asked in vain.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What to do after an answer.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::coordinator) enum Next {
    /// The request has its answer.
    Done(Result<KvReply, Error>),
    /// Ask the leader that was named.
    AskLeader(Member),
    /// Ask another member; if there is none, this is why the request fails.
    AskAnother(Error),
    /// The group does not own the key: look at the topology again, then ask whom it names.
    Refresh(Error),
}

/// Decides from one answer.
pub(in crate::coordinator) fn next(
    is_write: bool,
    answer: Result<Result<KvReply, Error>, CallError>,
) -> Next {
    match answer {
        Ok(Ok(reply)) => Next::Done(Ok(reply)),
        Ok(Err(Error::NotLeader { leader: Some(leader) })) => Next::AskLeader(leader),
        Ok(Err(Error::NotLeader { leader: None })) => {
            Next::AskAnother(Error::unavailable("the group has no leader"))
        }
        Ok(Err(error @ Error::Unavailable { .. })) => Next::AskAnother(error),
        Ok(Err(error @ Error::WrongShard { .. })) => Next::Refresh(error),
        Ok(Err(
            // Who is overloaded must not be asked again by us: the client hears of it at once.
            error @ (Error::Overloaded { .. }
            | Error::MissingKey
            | Error::InvalidJson(_)
            | Error::InvalidUtf8(_)
            | Error::InvalidParameter { .. }
            | Error::BadRequest(_)
            | Error::UnknownPath
            | Error::MethodNotAllowed
            | Error::KeyTooLarge { .. }
            | Error::ValueTooLarge { .. }),
        )) => Next::Done(Err(error)),
        Err(CallError::NotSent(reason)) => Next::AskAnother(Error::unavailable(reason)),
        Err(CallError::Overloaded(url)) => {
            Next::Done(Err(Error::Overloaded { queue: format!("the queue to {url}") }))
        }
        Ok(Err(Error::OutcomeUnknown { reason })) | Err(CallError::Lost(reason)) => {
            lost(is_write, reason)
        }
    }
}

/// An answer that never came: a read may ask again, a write must not.
fn lost(is_write: bool, reason: String) -> Next {
    if is_write {
        Next::Done(Err(Error::OutcomeUnknown { reason }))
    } else {
        Next::AskAnother(Error::Unavailable { reason })
    }
}

/// How long to pause before the `round`-th time of asking every member, from 1.
pub(in crate::coordinator) fn pause(round: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << round.saturating_sub(1).min(8)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::NodeId;

    #[test]
    fn a_write_that_may_have_been_applied_is_never_sent_again() {
        let unknown = |reason: &str| Next::Done(Err(Error::outcome_unknown(reason)));
        assert_eq!(next(true, Err(CallError::Lost("cut".into()))), unknown("cut"));
        assert_eq!(next(true, Ok(Err(Error::outcome_unknown("late")))), unknown("late"));
        let again = |reason: &str| Next::AskAnother(Error::unavailable(reason));
        assert_eq!(next(false, Err(CallError::Lost("cut".into()))), again("cut"));
        assert_eq!(next(false, Ok(Err(Error::outcome_unknown("late")))), again("late"));
    }

    #[test]
    fn what_was_certainly_not_applied_is_sent_elsewhere() {
        let leader = Member { node: NodeId(1), url: "http://a".into() };
        let named = Error::NotLeader { leader: Some(leader.clone()) };
        assert_eq!(next(true, Ok(Err(named))), Next::AskLeader(leader));
        for error in [
            Ok(Err(Error::NotLeader { leader: None })),
            Ok(Err(Error::unavailable("x"))),
            Err(CallError::NotSent("x".into())),
        ] {
            assert!(matches!(next(true, error.clone()), Next::AskAnother(_)), "{error:?}");
        }
        let full = Error::Overloaded { queue: "x".into() };
        assert_eq!(next(true, Ok(Err(full.clone()))), Next::Done(Err(full)));
        let wrong = Error::WrongShard { epoch: 3 };
        assert_eq!(next(true, Ok(Err(wrong.clone()))), Next::Refresh(wrong));
    }

    #[test]
    fn the_pause_grows_to_its_bound() {
        assert_eq!(pause(1), PAUSE_MIN);
        assert_eq!(pause(2), PAUSE_MIN * 2);
        assert_eq!(pause(99), PAUSE_MAX);
    }
}
