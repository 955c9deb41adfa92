//! The changes of a store in memory, for its watchers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagedb::types::deadline::Deadline;
use sagedb::types::error::Error;
use sagedb::types::watch::{Ask, Place, Told};
use sagedb::watch::{Source, Telling};
use tokio::time::sleep;

use crate::fake_state::State;

/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_millis(5);

/// All changes of a store.
pub(crate) struct Changes(pub(crate) Arc<Mutex<State>>);

impl Changes {
    fn tell(&self, ask: &Ask) -> Result<Told, Error> {
        let mut state = self.0.lock().expect("no panic under the lock");
        state.expire();
        let head = Place { index: state.index + 1, part: 0 };
        let of_span = |place: &Place| *place >= ask.from && ask.from != Place::END;
        let events = state
            .events
            .iter()
            .filter(|(place, event)| of_span(place) && ask.span.holds(&event.key));
        if ask.from > head && ask.from != Place::END {
            return Err(Error::Compacted { oldest: "fake:0".into() });
        }
        Ok(Told { events: events.cloned().collect(), next: head })
    }
}

impl Source for Changes {
    fn tell(&self, _group: usize, ask: Ask, _deadline: Deadline) -> Telling<'_> {
        Box::pin(async move {
            let nothing = Self::tell(self, &ask).is_ok_and(|told| told.events.is_empty());
            if nothing && ask.wait_ms > 0 {
                sleep(LOOK).await;
            }
            Self::tell(self, &ask)
        })
    }

    fn recall(&self, group: usize, ask: Ask, deadline: Deadline) -> Telling<'_> {
        Source::tell(self, group, Ask { wait_ms: 0, ..ask }, deadline)
    }

    fn stands(&self) -> bool {
        true
    }
}
