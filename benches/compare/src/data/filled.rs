//! Connections of any kind whose writes have the values of [`Values`] instead of the load engine's own, which are all cut
//! from one short text: a snapshot of these would be packed to next to nothing.

use bytes::Bytes;
use sagedb::bench::{Connect, Connection, Failure, Operation, Outcome};

use crate::connect::{AnyConnect, AnyConnection};
use crate::data::values::Values;

/// Opens such connections.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) inner: AnyConnect,
    pub(super) values: Values,
    /// Whether keys are loaded one by one, as clients write them, or many in one request.
    pub(super) singly: bool,
}

/// Such a connection.
pub(super) struct FilledConnection {
    inner: AnyConnection,
    values: Values,
    singly: bool,
}

impl Connect for Filled {
    type Connection = FilledConnection;

    async fn connect(&self, client: usize) -> Result<FilledConnection, Failure> {
        let inner = self.inner.connect(client).await?;
        Ok(FilledConnection { inner, values: self.values, singly: self.singly })
    }
}

impl Connection for FilledConnection {
    async fn run(&mut self, operation: &Operation) -> Result<Outcome, Failure> {
        match operation {
            Operation::Read { .. } => self.inner.run(operation).await,
            Operation::Update { key, value: _ } => {
                let (key, value) = (key.clone(), self.values.of(key));
                self.inner.run(&Operation::Update { key, value }).await
            }
        }
    }

    async fn load(&mut self, items: &[(String, Bytes)]) -> Result<(), Failure> {
        if self.singly {
            for (key, value) in items {
                let (key, value) = (key.clone(), value.clone());
                self.run(&Operation::Update { key, value }).await?;
            }
            return Ok(());
        }
        let fill = |(key, _): &(String, Bytes)| (key.clone(), self.values.of(key));
        let items: Vec<_> = items.iter().map(fill).collect();
        self.inner.load(&items).await
    }
}
