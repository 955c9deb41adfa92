//! Names of things: nodes, groups, clusters, terms and positions in a log.
//!
//! A [`NodeId`] belongs to a data directory, not to an address: it is drawn at random once and
//! never used again (openraft issue 2002). A [`GroupId`] is drawn by the replica that forms the
//! group, a [`ClusterId`] by the coordinator that claims the ring, a [`SessionId`] by the coordinator
//! that opens it. All four are 64 random bits,
//! a [`StateHash`] is computed; all are shown as 16 hex digits, in text and in JSON, where a number would lose bits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::types::limits::COUNTER_MAX;

/// A Raft term (Raft thesis §3.3).
pub type Term = u64;
/// A position in one group's log; the first entry has index 0.
pub type Index = u64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:016x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<u64> for $name {
            fn from(bits: u64) -> Self {
                Self(bits)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = text.strip_prefix($prefix).unwrap_or(text);
                if digits.len() != 16 || digits.starts_with('+') {
                    return Err(ParseIdError);
                }
                u64::from_str_radix(digits, 16).map(Self).map_err(|_| ParseIdError)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let pattern = concat!("^", $prefix, "[0-9a-f]{16}$");
                let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
                text.build().into()
            }
        }

        impl ToSchema for $name {}

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_u64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    u64::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id! {
    /// The identity of one data directory.
    NodeId, "n"
}
id! {
    /// The identity of one Raft group, kept in its state machine.
    GroupId, "g"
}
id! {
    /// The identity of one ring of groups, kept in each claimed group.
    ClusterId, "c"
}
id! {
    /// The identity of one session of a coordinator with a group.
    SessionId, "s"
}
id! {
    /// What a replica's state comes to, for comparing it with another replica's at the same index.
    /// Means nothing from one version of the program to another.
    StateHash, ""
}

/// The text is not 16 hex digits with the right letter before them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 16 hex digits")]
pub struct ParseIdError;

/// Which leader of which term wrote an entry, and where: ordered by term, then leader, then index.
///
/// `SageDB` allows more than one candidate to lead in one term when the greater node id takes over
/// (openraft's `leader_id_adv`), so that two survivors of a crash that stand at the same instant
/// don't split the vote: the term alone does not name a leader, `(term, leader)` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct LogId {
    /// The term in which the entry was proposed.
    #[serde(deserialize_with = "counter")]
    pub term: Term,
    /// The leader that proposed it.
    pub leader: NodeId,
    /// Its position in the log.
    #[serde(deserialize_with = "counter")]
    pub index: Index,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.term, self.leader, self.index)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Refuses a term or an index that can't have a successor: no log reaches it.
fn counter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number <= COUNTER_MAX {
        return Ok(number);
    }
    Err(serde::de::Error::custom(format_args!(
        "{number} is no term or index: at most {COUNTER_MAX}"
    )))
}

/// A vote that a replica has given, or a leadership it has accepted (`committed`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vote {
    /// The term voted in.
    #[serde(deserialize_with = "counter")]
    pub term: Term,
    /// The candidate voted for.
    pub node: NodeId,
    /// Whether a quorum is known to have granted it: the candidate is the leader.
    pub committed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::codec::{decode, encode};

    #[test]
    fn a_term_or_index_without_a_successor_is_refused_wherever_it_comes_from() {
        let id = |term, index| LogId { term, leader: NodeId(1), index };
        let vote = |term| Vote { term, node: NodeId(1), committed: false };
        let most = COUNTER_MAX;
        assert_eq!(decode(&encode(&id(most, most)), 100), Ok(id(most, most)));
        assert_eq!(decode(&encode(&vote(most)), 100), Ok(vote(most)));
        for beyond in [most + 1, u64::MAX] {
            assert!(decode::<LogId>(&encode(&id(beyond, 1)), 100).is_err(), "{beyond}");
            assert!(decode::<LogId>(&encode(&id(1, beyond)), 100).is_err(), "{beyond}");
            assert!(decode::<Vote>(&encode(&vote(beyond)), 100).is_err(), "{beyond}");
        }
    }

    #[test]
    fn ids_survive_text_json_and_binary() {
        let id = NodeId(0x1f);
        assert_eq!(id.to_string(), "n000000000000001f");
        assert_eq!("n000000000000001f".parse(), Ok(id));
        assert_eq!("n1f".parse::<NodeId>(), Err(ParseIdError));
        let json = serde_json::to_string(&id).expect("json");
        assert_eq!(json, "\"n000000000000001f\"");
        assert_eq!(serde_json::from_str::<NodeId>(&json).expect("json"), id);
        let bytes = postcard::to_stdvec(&id).expect("postcard");
        assert_eq!(bytes, [0x1f]);
        assert_eq!(postcard::from_bytes::<NodeId>(&bytes).expect("postcard"), id);
    }
}
