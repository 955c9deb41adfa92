//! What the engine knows of a server: connections on which operations run, one after the other.
//!
//! The HTTP API is one implementation ([`HttpConnect`](crate::bench::HttpConnect)); another store, or
//! `SageDB` over another protocol, is another, and is loaded by the same loop with the same keys, values and
//! clock. A connection stays in the thread that opened it, so it need not be `Send`.

use bytes::Bytes;

/// One operation on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Reads the value that the key has.
    Read {
        /// The key.
        key: String,
    },
    /// Gives the key a value, whatever it has.
    Update {
        /// The key.
        key: String,
        /// The value: printable ASCII without quotes and backslashes.
        value: Bytes,
    },
}

/// What an operation that was carried out has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The value was read or written.
    Done,
    /// The key that was to be read has no value.
    NotFound,
}

/// Why an operation has no outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The server answered that it did not do it. The connection is as good as before.
    #[error("{text}")]
    Refused {
        /// The status of the answer, as the protocol counts them.
        status: u16,
        /// What the server said, for people.
        text: String,
    },
    /// The connection is broken, or could not be opened: why.
    #[error("{0}")]
    Broken(String),
    /// There was no answer in time, so that the connection is of no more use.
    #[error("no answer in time")]
    Timeout,
}

/// An open connection.
pub trait Connection: 'static {
    /// Carries out one operation and waits for its whole answer. After [`Failure::Broken`], or if the future
    /// is dropped before it is done, the connection is not used again.
    fn run(&mut self, operation: &Operation) -> impl Future<Output = Result<Outcome, Failure>>;

    /// Gives keys their first values, in as few requests as the protocol allows; one by one unless an
    /// implementation knows better. May be sent again after a failure.
    fn load(&mut self, items: &[(String, Bytes)]) -> impl Future<Output = Result<(), Failure>> {
        async move {
            for (key, value) in items {
                let (key, value) = (key.clone(), value.clone());
                self.run(&Operation::Update { key, value }).await?;
            }
            Ok(())
        }
    }
}

/// Opens connections.
pub trait Connect: Send + Sync + 'static {
    /// What it opens.
    type Connection: Connection;

    /// Opens the connection of client number `client`, counted from 0: where there are several servers, the
    /// number decides which.
    fn connect(&self, client: usize) -> impl Future<Output = Result<Self::Connection, Failure>>;
}
