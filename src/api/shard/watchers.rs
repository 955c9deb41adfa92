//! The watchers of one replica: it tells what it has applied, and the leader confirms that there is
//! no more.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::api::shard::Way;
use crate::raft::Watchable;
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::watch::{Ask, Filter, Told, Watch};
use crate::watch::{Group, Hub, Source, Telling, Watching};

/// All that watch keys at this replica.
pub(super) struct Watchers {
    hub: Mutex<Option<(Watchable, Arc<Hub>)>>,
    stopping: CancellationToken,
}

impl Watchers {
    /// Nobody; all end with `stopping`.
    pub(super) fn new(stopping: CancellationToken) -> Self {
        Self { hub: Mutex::default(), stopping }
    }

    /// Begins to watch.
    pub(super) async fn watch(
        &self,
        way: &Arc<Way>,
        watch: Watch,
        deadline: Deadline,
    ) -> Result<Watching, Error> {
        let key = match &watch.filter {
            Filter::Key(key) => Some(key),
            Filter::Prefix(_) => None,
        };
        let watchable = way.replica.watchable(key)?;
        self.hub(way, watchable).watch(watch, None, deadline).await
    }

    /// The hub of the group as it stands now.
    fn hub(&self, way: &Arc<Way>, watchable: Watchable) -> Arc<Hub> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stands, hub)) = &*hub
            && *stands == watchable
        {
            return Arc::clone(hub);
        }
        let group = Group { id: watchable.group, name: Arc::clone(&watchable.name) };
        let source = Local { way: Arc::clone(way), watchable: watchable.clone() };
        let new = Hub::new(source, watchable.epoch, vec![group], self.stopping.clone());
        *hub = Some((watchable, Arc::clone(&new)));
        new
    }
}

/// This replica.
struct Local {
    way: Arc<Way>,
    watchable: Watchable,
}

impl Local {
    async fn tell(&self, ask: Ask, deadline: Deadline) -> Result<Told, Error> {
        let told = self.way.replica.watch_here(&ask, deadline).await?;
        if !told.events.is_empty() {
            return Ok(told);
        }
        let leader =
            match self.way.replica.watch(&Ask { wait_ms: 0, ..ask.clone() }, deadline).await {
                Err(Error::NotLeader { leader: Some(leader) }) => leader,
                Err(Error::NotLeader { leader: None }) => {
                    return Err(Error::unavailable("the group has no leader"));
                }
                answer => return answer,
            };
        let index = self.way.read_index(&leader, deadline).await?;
        self.way.replica.watch_at(&ask, &told, index, deadline).await
    }
}

impl Source for Local {
    fn tell(&self, _group: usize, ask: Ask, deadline: Deadline) -> Telling<'_> {
        Box::pin(Self::tell(self, ask, deadline))
    }

    fn recall(&self, _group: usize, ask: Ask, deadline: Deadline) -> Telling<'_> {
        Box::pin(Self::tell(self, ask, deadline))
    }

    fn stands(&self) -> bool {
        self.way.replica.watchable(None).is_ok_and(|now| now == self.watchable)
    }
}
