//! Checks banks: transfers that each replace what two earlier ones left in two accounts, and reads of
//! all accounts at once.
//!
//! Every balance names the transfer that wrote it, and every transfer names those that it replaces.
//! So what took effect is known, and each account has one chain of transfers, from nothing on. What is
//! checked, bank by bank:
//!
//! 1. the sum of all balances is what was paid in, and none is below zero ([`Sums`], as a run lasts);
//! 2. each balance is what that transfer wrote there, and it was sent before and not refused;
//! 3. a transfer makes one version of an account, and no other makes the same;
//! 4. no two transfers replace the same;
//! 5. what was acknowledged or read before a read began is in that read;
//! 6. there is one order of everything: that of the log, which each answer names its place in. Those
//!    of unknown fate stand just before the first that shows or replaces them, which is after what
//!    was answered before they were sent.
//!
//! Together with the check of versions, which holds these places against real time, an order is found
//! exactly if the history is linearizable and its places are right: this takes no search.

mod order;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::checker::{Anomaly, Checked, Kind};
use crate::history::{Account, Action, Event, Put, Stage, Value};
use crate::workload::bank::{ACCOUNTS, EACH, letter};

/// The check that needs no more than one read.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    anomalies: Vec<Anomaly>,
}

impl Sums {
    /// Takes in the next event of the history, the `at`-th.
    pub(crate) fn observe(&mut self, at: usize, event: &Event) {
        let Value::Bank { accounts } = &event.value else { return };
        let nothing = accounts.iter().all(|account| account.by == 0);
        let total = i128::from(EACH) * ACCOUNTS as i128;
        let expected = if nothing { 0 } else { total };
        let sum: i128 = accounts.iter().map(|account| i128::from(account.balance)).sum();
        let negative = accounts.iter().any(|account| account.balance < 0);
        let detail = match (sum == expected, negative) {
            (true, false) if accounts.len() == ACCOUNTS => return,
            (true, false) => format!("{} accounts", accounts.len()),
            (false, _) => format!("a sum of {sum}, not {expected}"),
            (true, true) => "a balance below zero".into(),
        };
        let balances: Vec<String> = accounts.iter().map(|one| one.balance.to_string()).collect();
        self.anomalies.push(Anomaly {
            kind: Kind::BankBroken,
            key: Arc::clone(&event.key),
            detail: format!("{detail}: {}", balances.join(" ")),
            events: vec![at],
        });
    }

    /// What was found until now.
    pub(crate) fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }
}

/// A transfer.
#[derive(Debug)]
struct Transfer<'a> {
    puts: &'a [Put],
    began: usize,
    /// The latest place in the log that was answered before it began.
    floor: u64,
    /// Where it ended, and how; a history may end before.
    ended: Option<(usize, Stage)>,
    /// Its place in the log, if it was acknowledged.
    index: Option<u64>,
}

/// What was read, also by a transfer that came too late.
#[derive(Debug)]
struct Read<'a> {
    began: usize,
    ended: usize,
    index: u64,
    accounts: &'a [Account],
    is_final: bool,
}

#[derive(Debug, Default)]
struct Bank<'a> {
    transfers: HashMap<u64, Transfer<'a>>,
    reads: Vec<Read<'a>>,
    /// Each (account, transfer, version) that was answered, and where.
    versions: Vec<(usize, u64, u64, usize)>,
    /// The transfers of each account, in their order.
    chains: Vec<Vec<u64>>,
    /// How many transfers of an account came before this one and with it.
    places: HashMap<(usize, u64), usize>,
    /// The latest place in the log that was answered yet.
    newest: u64,
    anomalies: Vec<(Kind, String, Vec<usize>)>,
}

/// Judges every bank.
pub(crate) fn check(history: &[Event]) -> Checked {
    let mut checked = Checked::default();
    for (name, mut bank) in banks(history) {
        bank.check();
        let anomalies = bank.anomalies.into_iter().map(|(kind, detail, events)| {
            let key = Arc::clone(name);
            Anomaly { kind, key, detail, events }
        });
        checked.anomalies.extend(anomalies);
    }
    checked
}

fn banks(history: &[Event]) -> BTreeMap<&Arc<str>, Bank<'_>> {
    let mut banks: BTreeMap<&Arc<str>, Bank<'_>> = BTreeMap::new();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (at, event) in history.iter().enumerate() {
        let bank = banks.entry(&event.key).or_default();
        if event.stage == Stage::Invoke {
            open.insert(event.process, at);
            bank.begins(at, event);
        } else if let Some(began) = open.remove(&event.process) {
            bank.ends((began, &history[began]), (at, event));
        }
    }
    banks
}

impl<'a> Bank<'a> {
    fn begins(&mut self, began: usize, event: &'a Event) {
        if let Value::Transfer { id, puts } = &event.value {
            let floor = self.newest;
            let transfer = Transfer { puts, began, floor, ended: None, index: None };
            self.transfers.insert(*id, transfer);
        }
    }

    fn ends(&mut self, (began, first): (usize, &'a Event), (at, event): (usize, &'a Event)) {
        self.newest = self.newest.max(event.version.unwrap_or(0));
        if let Value::Transfer { id, .. } = &first.value
            && let Some(transfer) = self.transfers.get_mut(id)
        {
            transfer.ended = Some((at, event.stage));
            transfer.index = event.version.filter(|_| event.stage == Stage::Ok);
            let found = |accounts: &[Account], put: &Put| {
                accounts.get(put.account).is_some_and(|one| one.by == put.after)
            };
            if let Value::Bank { accounts } = &event.value
                && transfer.puts.iter().all(|put| found(accounts, put))
            {
                let detail = format!("{id} came too late, and found all that it replaces");
                self.anomalies.push((Kind::BadAnswer, detail, vec![began, at]));
            }
        }
        match &event.value {
            Value::Transfer { id, puts } => {
                let made = |put: &Put| Some((put.account, *id, put.version?, at));
                self.versions.extend(puts.iter().filter_map(made));
            }
            Value::Bank { accounts } => {
                let read = |(account, one): (usize, &Account)| (account, one.by, one.version, at);
                self.versions.extend(accounts.iter().enumerate().map(read));
                let index = event.version.unwrap_or(0);
                let is_final = event.f == Action::FinalRead;
                self.reads.push(Read { began, ended: at, index, accounts, is_final });
            }
            Value::Foreign { foreign } => {
                let detail = format!("read {foreign:?}");
                self.anomalies.push((Kind::ForeignValue, detail, vec![began, at]));
            }
            Value::None
            | Value::Number(_)
            | Value::Cas { .. }
            | Value::List(_)
            | Value::Both { .. }
            | Value::Told { .. } => {}
        }
    }

    /// Each check relies on those before it, so the first that finds something is the last.
    fn check(&mut self) {
        let checks: [fn(&mut Self); 5] = [
            Self::check_values,
            Self::check_versions,
            Self::check_chains,
            Self::check_freshness,
            Self::check_order,
        ];
        for check in checks {
            if !self.anomalies.is_empty() {
                return;
            }
            check(self);
        }
    }

    /// Each balance comes from a transfer that was sent before, not refused, and wrote it there.
    fn check_values(&mut self) {
        for read in &self.reads {
            for (account, Account { balance, by, .. }) in read.accounts.iter().enumerate() {
                let (name, events) = (letter(account), vec![read.began, read.ended]);
                let mut report = |kind, detail| self.anomalies.push((kind, detail, events.clone()));
                let Some(transfer) = self.transfers.get(by) else {
                    if *by > 0 {
                        report(Kind::ForeignValue, format!("{by} at {name}: nobody sent it"));
                    }
                    continue;
                };
                let wrote = transfer.puts.iter().find(|put| put.account == account);
                match wrote {
                    Some(put) if put.balance == *balance => {}
                    Some(Put { balance: sent, .. }) => {
                        let detail = format!("{balance} at {name}, where {by} wrote {sent}");
                        report(Kind::ForeignValue, detail);
                    }
                    None => {
                        let detail = format!("{by} at {name}, where it wrote nothing");
                        report(Kind::ForeignValue, detail);
                    }
                }
                if transfer.began > read.ended {
                    let detail = format!("{by} at {name}, before it was sent");
                    report(Kind::ReadFromFuture, detail);
                }
                if let Some((ended, Stage::Fail)) = transfer.ended {
                    let detail = format!("{by} was refused, and is there at {name}");
                    let events = vec![transfer.began, ended, read.began, read.ended];
                    self.anomalies.push((Kind::FailedWriteSeen, detail, events));
                }
            }
        }
    }

    /// One transfer makes one version of an account, and no other makes it.
    fn check_versions(&mut self) {
        let mut versions: HashMap<(usize, u64), (u64, usize)> = HashMap::new();
        let mut ids: HashMap<(usize, u64), (u64, usize)> = HashMap::new();
        // Each is said once, however often it was answered; what is not there has no version.
        let mut said = HashSet::new();
        for (account, id, version, at) in self.versions.iter().filter(|one| one.1 > 0) {
            let name = letter(*account);
            let (other, first) = *versions.entry((*account, *id)).or_insert((*version, *at));
            if other != *version && said.insert((*account, *id, other, *version)) {
                let detail = format!("{id} made versions {other} and {version} of {name}");
                self.anomalies.push((Kind::AppliedTwice, detail, vec![first, *at]));
            }
            let (other, first) = *ids.entry((*account, *version)).or_insert((*id, *at));
            if other != *id && said.insert((*account, other, *id, *version)) {
                let detail = format!("{other} and {id} made version {version} of {name}");
                self.anomalies.push((Kind::VersionReused, detail, vec![first, *at]));
            }
        }
    }

    /// Transfers that certainly took effect: acknowledged, seen, or replaced by one of these.
    fn applied(&self) -> Vec<u64> {
        let acknowledged = self.transfers.iter().filter(|(_, one)| one.index.is_some());
        let seen = self.reads.iter().flat_map(|read| read.accounts).map(|account| account.by);
        let mut next: Vec<u64> = acknowledged.map(|(id, _)| *id).chain(seen).collect();
        let mut applied = HashSet::new();
        while let Some(id) = next.pop() {
            if let Some(transfer) = self.transfers.get(&id).filter(|_| applied.insert(id)) {
                next.extend(transfer.puts.iter().map(|put| put.after));
            }
        }
        applied.remove(&0);
        let mut applied: Vec<u64> = applied.into_iter().collect();
        applied.sort_unstable_by_key(|id| self.transfers.get(id).map(|one| one.began));
        applied
    }

    /// Each account has one order of transfers: what one replaces, no other does, and it is there.
    fn check_chains(&mut self) {
        let applied = self.applied();
        let mut next: HashMap<(usize, u64), u64> = HashMap::new();
        for id in &applied {
            let Some(transfer) = self.transfers.get(id) else { continue };
            for Put { account, after, .. } in transfer.puts {
                let Some(other) = next.insert((*account, *after), *id) else { continue };
                let name = letter(*account);
                let detail = format!("{other} and {id} both took the place of {after} at {name}");
                let began = |id| self.transfers.get(id).map(|one| one.began);
                let events = [began(&other), began(id)].into_iter().flatten().collect();
                self.anomalies.push((Kind::BankBroken, detail, events));
            }
        }
        self.chains = (0..ACCOUNTS)
            .map(|account| {
                let after = |id: &u64| next.get(&(account, *id)).copied();
                // No transfer comes twice: each replaces one thing.
                std::iter::successors(after(&0), after).take(applied.len()).collect()
            })
            .collect();
        for (account, chain) in self.chains.iter().enumerate() {
            self.places.extend(chain.iter().zip(1..).map(|(id, place)| ((account, *id), place)));
        }
        if !self.anomalies.is_empty() {
            return;
        }
        for id in &applied {
            let Some(transfer) = self.transfers.get(id) else { continue };
            let lost =
                transfer.puts.iter().find(|put| !self.places.contains_key(&(put.account, *id)));
            if let Some(Put { account, after, .. }) = lost {
                let detail = format!("{id} took the place of {after} at {}", letter(*account));
                let detail = format!("{detail}, which nothing leads to");
                self.anomalies.push((Kind::BankBroken, detail, vec![transfer.began]));
            }
        }
    }

    /// Where a read stands on each account's chain; 0 for nothing.
    fn cut(&self, read: &Read<'_>) -> Vec<usize> {
        let place =
            |(account, one): (usize, &Account)| self.places.get(&(account, one.by)).copied();
        read.accounts.iter().enumerate().map(|one| place(one).unwrap_or(0)).collect()
    }

    /// What was acknowledged or read before a read began is in it.
    fn check_freshness(&mut self) {
        // What every read must show that begins later: (when, account, place, whether by an
        // acknowledgement).
        let mut floors: Vec<(usize, usize, usize, bool)> = Vec::new();
        for (id, transfer) in &self.transfers {
            if let Some((ended, Stage::Ok)) = transfer.ended {
                let place = |put: &Put| self.places.get(&(put.account, *id)).copied().unwrap_or(0);
                floors
                    .extend(transfer.puts.iter().map(|put| (ended, put.account, place(put), true)));
            }
        }
        for read in &self.reads {
            let cut = self.cut(read).into_iter().enumerate();
            floors.extend(cut.map(|(account, place)| (read.ended, account, place, false)));
        }
        floors.sort_unstable();
        self.reads.sort_by_key(|read| read.began);
        let mut floors = floors.into_iter().peekable();
        let (mut acknowledged, mut read_before) = ([(0, 0); ACCOUNTS], [(0, 0); ACCOUNTS]);
        let mut anomalies = Vec::new();
        for read in &self.reads {
            while let Some((when, account, place, by_ack)) =
                floors.next_if(|floor| floor.0 < read.began)
            {
                let floors = if by_ack { &mut acknowledged } else { &mut read_before };
                if let Some(floor) = floors.get_mut(account) {
                    *floor = (*floor).max((place, when));
                }
            }
            for (account, place) in self.cut(read).into_iter().enumerate().take(ACCOUNTS) {
                let (by_ack, by_read) = (acknowledged[account], read_before[account]);
                let (kind, (floor, when), how) = if place < by_ack.0 {
                    let kind = if read.is_final { Kind::LostWrite } else { Kind::StaleRead };
                    (kind, by_ack, "acknowledged")
                } else if place < by_read.0 {
                    (Kind::ReadWentBack, by_read, "read")
                } else {
                    continue;
                };
                let newer = self.chains[account][floor - 1];
                let (name, by) = (letter(account), read.accounts[account].by);
                let detail = format!("{by} at {name}, after {newer} was {how} there");
                anomalies.push((kind, detail, vec![when, read.began, read.ended]));
            }
        }
        self.anomalies.extend(anomalies);
    }
}

#[cfg(test)]
mod tests;
