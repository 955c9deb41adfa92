//! Checks that each key is served by one group only, event by event: by the one that owns it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checker::{Anomaly, Kind};
use crate::history::Event;

/// Which group served each key first, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    owners: HashMap<Arc<str>, (Arc<str>, usize)>,
    anomalies: Vec<Anomaly>,
}

impl Checker {
    /// Takes in the next event of the history, the `at`-th.
    pub(crate) fn observe(&mut self, at: usize, event: &Event) {
        let Some(group) = &event.group else { return };
        match self.owners.get(&event.key) {
            None => {
                self.owners.insert(Arc::clone(&event.key), (Arc::clone(group), at));
            }
            Some((owner, _)) if owner == group => {}
            Some((owner, first)) => {
                let detail = format!("{} of {group} served it, before that {owner}", event.node);
                let (key, events) = (Arc::clone(&event.key), vec![*first, at]);
                self.anomalies.push(Anomaly { kind: Kind::TwoOwners, key, detail, events });
            }
        }
    }

    /// What was found until now.
    pub(crate) fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Stage, Value};
    use crate::page::synthetic;

    #[test]
    fn a_key_has_one_owner() {
        let mut checker = Checker::default();
        let served = [("a", "g1"), ("b", "g2"), ("a", "g1"), ("b", ""), ("b", "g1"), ("a", "g1")];
        for (at, (key, group)) in served.into_iter().enumerate() {
            let event = synthetic::event(0, 1, Stage::Ok, Action::Read, Value::Number(0));
            let group = (!group.is_empty()).then(|| group.into());
            checker.observe(at, &Event { key: key.into(), group, ..event });
        }
        let [anomaly] = checker.anomalies() else { panic!("{:?}", checker.anomalies()) };
        assert_eq!(
            (anomaly.kind, &*anomaly.key, &anomaly.events),
            (Kind::TwoOwners, "b", &vec![1, 4])
        );
    }
}
