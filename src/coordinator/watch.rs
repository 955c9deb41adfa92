//! The watchers of a coordinator: it follows the leader of each group that somebody watches.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::coordinator::peers::Peers;
use crate::coordinator::routing::{Heard, Need};
use crate::coordinator::shared::{Active, Errand, Shared};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::hash::Token;
use crate::types::key::Key;
use crate::types::limits::READ_ATTEMPT_MIN;
use crate::types::peer::{Reply, Request};
use crate::types::topology::Epoch;
use crate::types::watch::{Ask, Filter, Told, Watch};
use crate::watch::{Group, Hub, Source, Telling, Watching};

/// All that watch keys at this coordinator.
#[derive(Debug)]
pub(in crate::coordinator) struct Watchers {
    hub: Mutex<Option<(Epoch, Arc<Hub>)>>,
    stopping: CancellationToken,
}

impl Watchers {
    /// Nobody; all end with `stopping`.
    pub(in crate::coordinator) fn new(stopping: CancellationToken) -> Self {
        Self { hub: Mutex::default(), stopping }
    }

    /// Begins to watch.
    pub(in crate::coordinator) async fn watch<P: Peers>(
        &self,
        shared: &Arc<Shared<P>>,
        watch: Watch,
        deadline: Deadline,
    ) -> Result<Watching, Error> {
        let active = shared.active_by(deadline).await?;
        let group = one_group(&watch.filter).map(|key| active.ring.owner(Token::of_key(&key)));
        self.hub(shared, active).watch(watch, group, deadline).await
    }

    /// The hub of the ring that is served.
    fn hub<P: Peers>(&self, shared: &Arc<Shared<P>>, active: Arc<Active>) -> Arc<Hub> {
        let epoch = active.topology.epoch;
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stands, hub)) = &*hub
            && *stands == epoch
        {
            return Arc::clone(hub);
        }
        let groups = active.rosters.iter();
        let groups = groups.map(|roster| Group { id: roster.id(), name: roster.name().into() });
        let (groups, stopping) = (groups.collect(), self.stopping.clone());
        let new = Hub::new(Groups { shared: Arc::clone(shared), active }, epoch, groups, stopping);
        *hub = Some((epoch, Arc::clone(&new)));
        new
    }
}

/// A key of the one group that has all keys which are watched, if one has: a prefix with a whole hash tag
/// is such a key itself.
fn one_group(filter: &Filter) -> Option<Key> {
    match filter {
        Filter::Key(key) => Some(key.clone()),
        Filter::Prefix(_) => filter.span().tag(),
    }
}

/// The groups of one ring.
struct Groups<P> {
    shared: Arc<Shared<P>>,
    active: Arc<Active>,
}

impl<P: Peers> Groups<P> {
    async fn tell(&self, group: usize, ask: Ask, deadline: Deadline) -> Result<Told, Error> {
        let request = |timeout_ms| Request::Watch { ask: ask.clone(), timeout_ms };
        let errand = Errand { need: Need::LeaderRead, request: &request, read: told };
        self.shared.ask(&self.active.rosters[group], &errand, deadline).await
    }

    /// One who leads since a short time may have less than others.
    async fn recall(&self, group: usize, ask: Ask, deadline: Deadline) -> Result<Told, Error> {
        let answer = self.tell(group, ask.clone(), deadline).await;
        if !matches!(answer, Err(Error::Compacted { .. })) {
            return answer;
        }
        let (roster, need) = (&self.active.rosters[group], Need::AnyRead);
        let leader = roster.leader().map(|leader| leader.url);
        let mut others = roster.candidates(need).members;
        others.retain(|contact| Some(&contact.url) != leader.as_ref());
        let ask = Ask { anyone: true, ..ask };
        let request = |timeout_ms| Request::Watch { ask: ask.clone(), timeout_ms };
        let errand = Errand { need, request: &request, read: told };
        for (asked, contact) in others.iter().enumerate() {
            let share = u32::try_from(others.len() - asked).unwrap_or(u32::MAX);
            let within = deadline.left() / share;
            if within < READ_ATTEMPT_MIN {
                return Err(Error::unavailable("no time to ask all members of the group"));
            }
            let heard = self.shared.attempt(roster, &errand, contact, within).await;
            // One that has not come that far itself has nothing to tell, and does not know that.
            if let Heard::Answer(Ok(told)) = heard
                && told.next > ask.from
            {
                return Ok(told);
            }
        }
        answer
    }
}

impl<P: Peers> Source for Groups<P> {
    fn tell(&self, group: usize, ask: Ask, deadline: Deadline) -> Telling<'_> {
        Box::pin(Self::tell(self, group, ask, deadline))
    }

    fn recall(&self, group: usize, ask: Ask, deadline: Deadline) -> Telling<'_> {
        Box::pin(Self::recall(self, group, ask, deadline))
    }

    fn stands(&self) -> bool {
        let now = self.shared.active();
        now.is_ok_and(|now| now.topology.epoch == self.active.topology.epoch)
    }
}

fn told(_need: Need, reply: Reply) -> Heard<Told> {
    let Reply::Watched(answer) = reply else { return Heard::to_another_question() };
    Heard::Answer(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_with_a_whole_tag_is_in_one_group() {
        for (prefix, one) in [
            ("", false),
            ("user:", false),
            ("{u", false),
            ("{}x", false),
            ("{u}", true),
            ("a{u}:", true),
        ] {
            let key = one_group(&Filter::Prefix(prefix.into()));
            assert_eq!(key.is_some(), one, "{prefix:?}");
            if let Some(key) = key {
                let longer = Key::new(format!("{prefix}{{x}}")).expect("a key");
                assert_eq!(Token::of_key(&key), Token::of_key(&longer), "{prefix:?}");
            }
        }
    }
}
