//! Scans and counts: every group is asked for its part at once, and the parts are put together.
//!
//! A page is made in one round, so that what it has of a group is one state of that group. Each group
//! is asked for its share of the page and a little more, in keys and in bytes: that bounds the memory
//! of a scan whatever there is to scan. A group that has more to tell ends the page at its last key, for
//! nobody knows what it has behind; so a page may be short, but nothing is skipped.
//!
//! Keys with a common hash tag are of one group, and only that is asked.
//!
//! The groups must be those of one ring: a part of another epoch is thrown away with the whole round.

use futures::future::try_join_all;

use crate::coordinator::peers::Peers;
use crate::coordinator::routing::{Heard, Need};
use crate::coordinator::shared::{Active, Errand, Shared};
use crate::types::deadline::Deadline;
use crate::types::error::Error;
use crate::types::limits::{ROUTE_PAUSE_MAX, SCAN_PART_BYTES_MIN, SCAN_SLACK_KEYS};
use crate::types::peer::{Reply, Request};
use crate::types::scan::{Found, Listed, Part, Scan, Scanned, Want};

/// What all groups have in a span of keys.
pub(in crate::coordinator) async fn scan<P: Peers>(
    shared: &Shared<P>,
    scan: Scan,
    deadline: Deadline,
) -> Result<Scanned, Error> {
    let mut active = shared.active_by(deadline).await?;
    loop {
        let want = share(scan.want, active.groups_of(&scan.span).len());
        let asked = Scan { want, ..scan.clone() };
        let parts = parts(shared, &active, &asked, deadline).await?;
        let other = parts.iter().find(|part| part.epoch != active.topology.epoch);
        let Some(other) = other else { return merge(parts, scan.want) };
        if deadline.has_passed() {
            return Err(Error::unavailable("the ring changed while the groups were asked"));
        }
        let pause = ROUTE_PAUSE_MAX.min(deadline.left());
        active = shared.newer(&active, other.epoch, pause).await;
    }
}

async fn parts<P: Peers>(
    shared: &Shared<P>,
    active: &Active,
    scan: &Scan,
    deadline: Deadline,
) -> Result<Vec<Part>, Error> {
    let request = |timeout_ms| Request::Scan { scan: scan.clone(), timeout_ms };
    let need = Need::of_read(scan.consistency);
    let errand = Errand { need, request: &request, read: part };
    let groups = active.groups_of(&scan.span).iter();
    try_join_all(groups.map(|roster| shared.ask(roster, &errand, deadline))).await
}

/// What each of so many groups is asked for.
fn share(want: Want, groups: usize) -> Want {
    let Want::Page { limit, bytes, reverse, keys_only } = want else { return want };
    let groups = u32::try_from(groups.max(1)).unwrap_or(u32::MAX);
    let slack = u32::try_from(SCAN_SLACK_KEYS).unwrap_or(u32::MAX);
    let least = u32::try_from(SCAN_PART_BYTES_MIN).unwrap_or(u32::MAX);
    let even = limit.div_ceil(groups);
    let limit = even.saturating_add(even / 4).saturating_add(slack).min(limit);
    Want::Page { limit, bytes: (bytes / groups).max(least), reverse, keys_only }
}

fn part(_need: Need, reply: Reply) -> Heard<Part> {
    let Reply::Scanned(answer) = reply else { return Heard::to_another_question() };
    match answer {
        Ok(Part { found: Found::Page { items, more: true }, .. }) if items.is_empty() => {
            Heard::Nonsense("the answer has neither a key nor an end".into())
        }
        answer => Heard::Answer(answer),
    }
}

fn merge(parts: Vec<Part>, want: Want) -> Result<Scanned, Error> {
    let oldest = |oldest: u64, part: &Part| Some(oldest.max(part.lag_ms?));
    let lag_ms = parts.iter().try_fold(0, oldest);
    let (mut at, mut pages, mut count) = (Vec::new(), Vec::new(), 0);
    for part in parts {
        at.push(part.at);
        match (want, part.found) {
            (Want::Count, Found::Count(keys)) => count += keys,
            (Want::Page { .. }, Found::Page { items, more }) => pages.push((items, more)),
            (Want::Count, Found::Page { .. }) | (Want::Page { .. }, Found::Count(_)) => {
                return Err(Error::unavailable("a group answered another question"));
            }
        }
    }
    let found = match want {
        Want::Count => Found::Count(count),
        Want::Page { limit, bytes, reverse, .. } => {
            one_page(pages, (limit as usize, bytes as usize), reverse)
        }
    };
    Ok(Scanned { at, lag_ms, found })
}

/// Puts the pages of all groups together, as far as all of them have told: to the last key of the first
/// that has more.
fn one_page(
    pages: Vec<(Vec<Listed>, bool)>,
    (limit, bytes): (usize, usize),
    reverse: bool,
) -> Found {
    let order = |one: &Listed, other: &Listed| {
        let order = one.key.cmp(&other.key);
        if reverse { order.reverse() } else { order }
    };
    let any_more = pages.iter().any(|(_, more)| *more);
    let ends = pages.iter().filter(|(_, more)| *more).filter_map(|(items, _)| items.last());
    let end = ends.min_by(|one, other| order(one, other)).cloned();
    let mut items: Vec<Listed> = pages.into_iter().flat_map(|(items, _)| items).collect();
    // The runs are sorted already: this merges them.
    items.sort_by(order);
    if let Some(end) = end {
        items.truncate(items.partition_point(|item| order(item, &end).is_le()));
    }
    match Found::page(items.into_iter(), limit, bytes) {
        Found::Page { items, more } => Found::Page { items, more: more || any_more },
        count @ Found::Count(_) => count,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::types::key::Key;
    use crate::types::scan::Span;

    /// What a group that has these keys answers.
    fn page(keys: &BTreeSet<Key>, span: &Span, want: Want) -> (Vec<Listed>, bool) {
        let Want::Page { limit, bytes, reverse, .. } = want else { panic!("not a page: {want:?}") };
        let inside = |key: &&Key| {
            *span.from <= *key.as_bytes() && span.to.as_ref().is_none_or(|to| key.as_bytes() < to)
        };
        let listed =
            |key: &Key| Listed { key: key.clone(), value: None, ts: 0, version: 1, expires: None };
        let mut items: Vec<Listed> = keys.iter().filter(inside).map(listed).collect();
        if reverse {
            items.reverse();
        }
        match Found::page(items.into_iter(), limit as usize, bytes as usize) {
            Found::Page { items, more } => (items, more),
            Found::Count(_) => panic!("not a page"),
        }
    }

    proptest! {
        /// However keys are spread and pages are cut: all pages together are one sorted scan.
        #[test]
        fn pages_of_all_groups_are_one_scan(
            keys in btree_set("[a-c\u{e9}]{1,6}", 0..200),
            owners in vec(0..5_usize, 200),
            groups in 1..5_usize,
            limit in 1..80_u32,
            bytes in 0..3000_u32,
            reverse: bool,
        ) {
            let mut spread = vec![BTreeSet::new(); groups];
            for (key, owner) in keys.iter().zip(owners) {
                // Some groups have many more than others.
                spread[(owner * owner) % groups].insert(Key::new(key.clone()).expect("a key"));
            }
            let mut expected: Vec<String> = keys.into_iter().collect();
            if reverse {
                expected.reverse();
            }
            let (mut seen, mut span) = (Vec::new(), Span::default());
            // As a replica does, and with no slack, so that shares run out.
            let even = limit.div_ceil(u32::try_from(groups).expect("few"));
            let want = Want::Page { limit: even, bytes, reverse, keys_only: true };
            loop {
                let pages = spread.iter().map(|keys| page(keys, &span, want)).collect();
                let bounds = (limit as usize, bytes as usize);
                let Found::Page { items, more } = one_page(pages, bounds, reverse) else {
                    panic!("not a page")
                };
                prop_assert!(items.len() <= limit as usize);
                let held: usize = items.iter().map(Listed::bytes).sum();
                prop_assert!(items.len() == 1 || held <= bounds.1, "{held} bytes");
                seen.extend(items.iter().map(|item| item.key.to_string()));
                let Some(last) = items.last().filter(|_| more) else {
                    prop_assert!(!more, "a page without a key that is not the last");
                    break;
                };
                span = span.behind(&last.key, reverse);
            }
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_small_page_is_full_wherever_its_keys_are_and_a_large_one_is_shared() {
        let share = |limit, groups| {
            let want = Want::Page { limit, bytes: 1 << 20, reverse: false, keys_only: true };
            match share(want, groups) {
                Want::Page { limit, bytes, .. } => (limit, bytes),
                Want::Count => panic!("not a page"),
            }
        };
        assert_eq!(share(1, 3), (1, 349_525));
        assert_eq!(share(100, 3), (100, 349_525));
        assert_eq!(share(10_000, 1), (10_000, 1 << 20));
        assert_eq!(share(10_000, 4), (3189, 1 << 18));
        assert_eq!(share(10_000, 1024), (76, 16 * 1024));
    }
}
