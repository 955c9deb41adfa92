//! Several operations of one group in one entry of its log: a transaction, which happens as a whole or not
//! at all, or a batch, each operation of which stands for itself.

use serde::{Deserialize, Serialize};

use crate::types::bounded::bounded;
use crate::types::clock::TimestampMs;
use crate::types::command::Write;
use crate::types::error::Error;
use crate::types::item::{Item, Version};
use crate::types::key::Key;
use crate::types::kv::GroupIndex;
use crate::types::limits::TXN_OPS_MAX;
use crate::types::value::Value;

/// What is asked for. All its keys belong to one group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Txn {
    /// Each operation as if it came alone, in this order, with nothing in between.
    Batch {
        /// The operations.
        #[serde(deserialize_with = "bounded::<_, _, TXN_OPS_MAX>")]
        ops: Vec<Op>,
    },
    /// If all of `compare` holds, `then`, else `otherwise`; all of it or nothing.
    Atomic {
        /// What must hold.
        #[serde(deserialize_with = "bounded::<_, _, TXN_OPS_MAX>")]
        compare: Vec<Compare>,
        /// What happens then.
        #[serde(deserialize_with = "bounded::<_, _, TXN_OPS_MAX>")]
        then: Vec<Op>,
        /// What happens if not.
        #[serde(deserialize_with = "bounded::<_, _, TXN_OPS_MAX>")]
        otherwise: Vec<Op>,
    },
}

/// What must hold of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare {
    /// Which.
    pub key: Key,
    /// What.
    pub holds: Holds,
}

/// What must hold of what a key has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Holds {
    /// It has a value of this version; 0 for none.
    Version(Version),
    /// It has a value, or has none.
    Exists(bool),
    /// It has this value; JSON may differ in white space.
    Value(Value),
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Reads a key, after all operations before this one.
    Get {
        /// Which.
        key: Key,
    },
    /// Writes a key.
    Write {
        /// Which.
        key: Key,
        /// How.
        write: Write,
    },
}

/// What became of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OpResult {
    /// What a key has.
    Read(Option<Item>),
    /// A key was written, touched or deleted.
    Written {
        /// Its version as of this write.
        version: Version,
        /// Whether it had a value before.
        existed: bool,
        /// When the value is over, if it is not for ever.
        expires: Option<TimestampMs>,
        /// What a counter has come to.
        value: Option<i64>,
    },
    /// Nothing was done, for this reason.
    Failed(OpError),
}

/// Why nothing was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum OpError {
    /// There is no value that could be touched.
    #[error("the key has no value")]
    NoValue,
    /// There is no integer that could be added to.
    #[error("the value is not a JSON integer of 64 bits, or would not be one any more")]
    NotAnInteger,
    /// All values that were read are together longer than an answer may be.
    #[error("the answer is too long")]
    TooLong,
}

/// What became of a transaction or batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TxnOutcome {
    /// Whether everything that was to hold did; of a batch, true.
    pub succeeded: bool,
    /// Of each operation, in order.
    #[serde(deserialize_with = "bounded::<_, _, TXN_OPS_MAX>")]
    pub results: Vec<OpResult>,
}

/// The answer to a transaction or batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TxnReply {
    /// The entry that did it; of one that only reads, the state that was read.
    pub at: GroupIndex,
    /// The leader's stamp; 0 of one that only reads.
    pub ts: TimestampMs,
    /// What became of it.
    pub outcome: TxnOutcome,
    /// Voters known to have it on disk when the answer was made; 0 of one that only reads.
    pub acks: u32,
    /// Voters that had to; 0 of one that only reads.
    pub quorum: u32,
}

/// What a batch over several groups came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batched {
    /// The entry of each group that took part.
    pub at: Vec<GroupIndex>,
    /// Of each operation, in order; an error where its group could not carry it out.
    pub results: Vec<Result<BatchedOp, Error>>,
}

/// What became of an operation of a batch, in its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchedOp {
    /// What became of it.
    pub result: OpResult,
    /// The leader's stamp.
    pub ts: TimestampMs,
    /// Voters known to have it on disk when the answer was made.
    pub acks: u32,
    /// Voters that had to.
    pub quorum: u32,
}

impl TxnReply {
    /// Its results, each by itself.
    pub fn into_ops(self) -> impl Iterator<Item = BatchedOp> {
        let Self { ts, acks, quorum, outcome, .. } = self;
        let results = outcome.results.into_iter();
        results.map(move |result| BatchedOp { result, ts, acks, quorum })
    }
}

impl Txn {
    /// Every key that it names, as often as it does.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let (compare, lists): (&[Compare], [&[Op]; 2]) = match self {
            Self::Batch { ops } => (&[], [ops, &[]]),
            Self::Atomic { compare, then, otherwise } => (compare, [then, otherwise]),
        };
        let compared = compare.iter().map(|compare| &compare.key);
        compared.chain(lists.into_iter().flatten().map(Op::key))
    }

    /// The operations that write.
    pub fn writes(&self) -> impl Iterator<Item = (&Key, &Write)> {
        let lists: [&[Op]; 2] = match self {
            Self::Batch { ops } => [ops, &[]],
            Self::Atomic { then, otherwise, .. } => [then, otherwise],
        };
        lists.into_iter().flatten().filter_map(|op| match op {
            Op::Write { key, write } => Some((key, write)),
            Op::Get { .. } => None,
        })
    }

    /// Whether there is a value in it, to be written or to be compared with, so that it may be long.
    pub fn carries_values(&self) -> bool {
        let compared = match self {
            Self::Batch { .. } => &[][..],
            Self::Atomic { compare, .. } => compare,
        };
        let with_value = compared.iter().any(|compare| matches!(compare.holds, Holds::Value(_)));
        let puts = |write: &Write| matches!(write, Write::Put { .. } | Write::PutFor { .. });
        with_value || self.writes().any(|(_, write)| puts(write))
    }

    /// Whether it changes nothing, whatever holds.
    pub fn only_reads(&self) -> bool {
        self.writes().next().is_none()
    }
}

impl Op {
    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Get { key } | Self::Write { key, .. } => key,
        }
    }
}

impl Holds {
    /// Whether it does, for what a key has.
    pub fn of(&self, item: Option<&Item>) -> bool {
        match self {
            Self::Version(version) => item.map_or(0, |item| item.version) == *version,
            Self::Exists(exists) => item.is_some() == *exists,
            Self::Value(value) => item.is_some_and(|item| item.value.is_same(value)),
        }
    }
}
