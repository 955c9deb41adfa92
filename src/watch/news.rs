//! A change as it is shared by all who are told of it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::types::watch::{Event, Resume};

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum News {
    /// A change, and where to resume behind it.
    Event {
        /// The change.
        event: Arc<Shared>,
        /// Behind it.
        resume: Resume,
    },
    /// No change, for some time; where to resume.
    Progress(Resume),
}

/// A change, and the form in which it is sent, once somebody has made it.
#[derive(Debug)]
pub struct Shared {
    event: Event,
    form: OnceLock<Bytes>,
}

impl Shared {
    pub(super) fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, form: OnceLock::new() })
    }

    /// The form in which it is sent: made once, by whoever is first.
    pub fn form(&self, make: impl FnOnce(&Event) -> Bytes) -> Bytes {
        self.form.get_or_init(|| make(&self.event)).clone()
    }
}

impl Deref for Shared {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}
