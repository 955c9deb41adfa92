//! Hand-made histories of each anomaly, and of what only looks like one; and histories of a bank that
//! is right, of which none may be found wrong, until one answer in them is bent.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::checker;
use crate::options::Workload;

type Accounts = [Account; ACCOUNTS];

/// A bank, and what its clients see of it.
#[derive(Clone, Default)]
struct Story {
    accounts: Accounts,
    index: u64,
    history: Vec<Event>,
}

/// A story that begins with an open bank: transfer 1.
fn story() -> Story {
    let mut story = Story::default();
    let puts: Vec<Put> = (0..ACCOUNTS).map(|account| put(account, 0, EACH)).collect();
    story.begin(1, Action::Transfer, Value::Transfer { id: 1, puts: puts.clone() });
    story.apply(1, &puts);
    story.acknowledge(1);
    story
}

fn put(account: usize, after: u64, balance: i64) -> Put {
    Put { account, after, balance, version: None }
}

impl Story {
    fn event(&mut self, process: u32, stage: Stage, f: Action, value: Value) {
        let event = crate::page::synthetic::event(0, process, stage, f, value);
        let version = (stage == Stage::Ok).then_some(self.index);
        self.history.push(Event { version, ..event });
    }

    fn begin(&mut self, process: u32, f: Action, value: Value) {
        self.event(process, Stage::Invoke, f, value);
    }

    /// A client sends a transfer of 10 between two accounts, as they are now.
    fn send(&mut self, process: u32, id: u64, from: usize, to: usize) -> Vec<Put> {
        let [debit, credit] = [(from, -10), (to, 10)].map(|(account, by)| {
            let Account { balance, by: after, .. } = self.accounts[account];
            put(account, after, balance + by)
        });
        let puts = vec![debit, credit];
        self.begin(process, Action::Transfer, Value::Transfer { id, puts: puts.clone() });
        puts
    }

    /// The bank carries it out, or a part of it.
    fn apply(&mut self, id: u64, puts: &[Put]) {
        self.index += 1;
        for Put { account, balance, .. } in puts {
            let version = self.accounts[*account].version + 1;
            self.accounts[*account] = Account { balance: *balance, by: id, version };
        }
    }

    /// What the process had sent is acknowledged, at the end of the log and with the versions of now.
    fn acknowledge(&mut self, process: u32) {
        let begun = self.history.iter().rev().find(|event| event.process == process);
        let Some(Value::Transfer { id, puts }) = begun.map(|event| event.value.clone()) else {
            panic!("{process} has sent nothing")
        };
        let made = |put: Put| Put { version: Some(self.accounts[put.account].version), ..put };
        let puts = puts.into_iter().map(made).collect();
        self.event(process, Stage::Ok, Action::Transfer, Value::Transfer { id, puts });
    }

    fn end(&mut self, process: u32, stage: Stage) {
        self.event(process, stage, Action::Transfer, Value::None);
    }

    /// A transfer as it should be.
    fn transfer(&mut self, id: u64, from: usize, to: usize) {
        let puts = self.send(1, id, from, to);
        self.apply(id, &puts);
        self.acknowledge(1);
    }

    fn read_as(&mut self, f: Action, accounts: Accounts) {
        self.begin(2, f, Value::None);
        self.event(2, Stage::Ok, f, Value::Bank { accounts: accounts.into() });
    }

    fn read(&mut self) {
        self.read_as(Action::Read, self.accounts);
    }

    fn kinds(&self) -> Vec<Kind> {
        let checked = checker::check(Workload::Bank, &self.history);
        checked.anomalies.iter().map(|anomaly| anomaly.kind).collect()
    }

    /// What is found when the bank is read now.
    fn seen(mut self) -> Vec<Kind> {
        self.read();
        self.kinds()
    }
}

#[test]
fn a_bank_that_is_right_is_fine() {
    let mut story = Story::default();
    story.read();
    assert_eq!(story.kinds(), []);
    let mut story = self::story();
    story.read();
    story.transfer(2, 0, 1);
    story.read();
    story.transfer(3, 1, 2);
    // Refused, and without effect.
    story.send(1, 4, 2, 3);
    story.end(1, Stage::Fail);
    story.transfer(5, 2, 3);
    story.read_as(Action::FinalRead, story.accounts);
    assert_eq!(story.kinds(), []);
}

#[test]
fn one_of_unknown_fate_takes_effect_whenever_it_likes_or_never() {
    let mut story = story();
    let puts = story.send(3, 2, 0, 1);
    story.end(3, Stage::Info);
    story.read();
    assert_eq!(story.clone().seen(), [], "never");
    story.transfer(3, 2, 3);
    story.apply(2, &puts);
    assert_eq!(story.clone().seen(), [], "late");
    // Shown only by the one that replaces it, and by nobody.
    story.transfer(4, 1, 2);
    assert_eq!(story.kinds(), []);
    // Somebody else was quicker.
    let mut story = self::story();
    story.send(3, 2, 0, 1);
    story.end(3, Stage::Info);
    story.transfer(3, 0, 1);
    assert_eq!(story.seen(), []);
}

#[test]
fn what_overlaps_may_be_seen_or_not() {
    let mut story = story();
    let before = story.accounts;
    story.begin(2, Action::Read, Value::None);
    let index = story.index;
    story.transfer(2, 0, 1);
    let mut early = story.clone();
    early.index = index;
    early.event(2, Stage::Ok, Action::Read, Value::Bank { accounts: before.into() });
    assert_eq!(early.kinds(), []);
    let accounts = story.accounts.into();
    story.event(2, Stage::Ok, Action::Read, Value::Bank { accounts });
    assert_eq!(story.kinds(), []);
}

#[test]
fn a_transfer_that_is_lost_is_found() {
    let mut story = story();
    story.send(1, 2, 0, 1);
    story.index += 1;
    story.acknowledge(1);
    let mut lost = story.clone();
    lost.read_as(Action::FinalRead, lost.accounts);
    // Its versions were those of transfer 1.
    assert_eq!(lost.kinds(), [Kind::VersionReused; 2]);
    let Value::Transfer { puts, .. } = &mut story.history.last_mut().unwrap().value else {
        panic!("a transfer")
    };
    for put in puts {
        put.version = Some(2);
    }
    let mut lost = story.clone();
    lost.read_as(Action::FinalRead, lost.accounts);
    assert_eq!(lost.kinds(), [Kind::LostWrite; 2]);
    // Another takes its place.
    story.transfer(3, 0, 1);
    assert!(story.kinds().contains(&Kind::VersionReused));
}

#[test]
fn a_half_transfer_is_found() {
    let mut story = story();
    let puts = story.send(3, 2, 0, 1);
    story.end(3, Stage::Info);
    story.apply(2, &puts[..1]);
    assert_eq!(story.seen(), [Kind::NotLinearizable, Kind::BankBroken]);
    // The same though the sum is right: two halves.
    let mut story = self::story();
    let first = story.send(3, 2, 0, 1);
    story.end(3, Stage::Info);
    let second = story.send(4, 3, 2, 3);
    story.end(4, Stage::Info);
    story.apply(2, &first[..1]);
    story.apply(3, &second[1..]);
    assert_eq!(story.seen(), [Kind::NotLinearizable]);
}

#[test]
fn a_doubled_transfer_is_found() {
    let mut story = story();
    let puts = story.send(1, 2, 0, 1);
    story.apply(2, &puts);
    story.acknowledge(1);
    story.read();
    story.apply(2, &puts);
    assert!(story.seen().contains(&Kind::AppliedTwice));
    // Or one that had answered that it was too late.
    let mut story = self::story();
    let puts = story.send(1, 2, 0, 1);
    story.apply(2, &puts);
    story.end(1, Stage::Fail);
    assert_eq!(story.seen(), [Kind::FailedWriteSeen; 2]);
}

#[test]
fn one_that_comes_too_late_shows_why() {
    let mut story = story();
    story.send(3, 2, 0, 1);
    let same = story.accounts;
    story.transfer(3, 1, 2);
    let late = |story: &Story, accounts: Accounts| {
        let mut story = story.clone();
        let value = Value::Bank { accounts: accounts.into() };
        story.event(3, Stage::Fail, Action::Transfer, value);
        story.history.last_mut().expect("an event").version = Some(story.index);
        story.kinds()
    };
    assert_eq!(late(&story, story.accounts), []);
    assert_eq!(late(&story, same), [Kind::BadAnswer]);
}

#[test]
fn two_that_replace_the_same_are_found() {
    let mut story = story();
    let first = story.send(3, 2, 0, 1);
    let second = story.send(4, 3, 1, 0);
    story.apply(2, &first);
    story.acknowledge(3);
    story.apply(3, &second);
    story.acknowledge(4);
    assert_eq!(story.kinds(), [Kind::BankBroken; 2]);
}

#[test]
fn a_stale_read_is_found_and_one_that_goes_back() {
    let mut story = story();
    let before = story.accounts;
    story.transfer(2, 0, 1);
    let mut stale = story.clone();
    stale.read_as(Action::Read, before);
    assert_eq!(stale.kinds(), [Kind::StaleRead; 2]);
    // Nobody was told of the transfer, but somebody saw it.
    let mut story = self::story();
    let puts = story.send(3, 2, 0, 1);
    story.apply(2, &puts);
    story.read();
    story.read_as(Action::Read, before);
    assert_eq!(story.kinds(), [Kind::ReadWentBack; 2]);
    // One account only: no moment was like that.
    let mut mixed = self::story();
    mixed.transfer(2, 0, 1);
    let mut accounts = mixed.accounts;
    accounts[0] = before[0];
    mixed.read_as(Action::Read, accounts);
    assert_eq!(mixed.kinds(), [Kind::StaleRead, Kind::BankBroken]);
}

#[test]
fn two_reads_that_saw_transfers_in_different_orders_are_found() {
    let mut story = story();
    let before = story.accounts;
    let first = story.send(3, 2, 0, 1);
    let second = story.send(4, 3, 2, 3);
    story.begin(5, Action::Read, Value::None);
    story.begin(6, Action::Read, Value::None);
    story.apply(2, &first);
    let one = story.accounts;
    story.accounts = before;
    story.apply(3, &second);
    let other = story.accounts;
    for (process, accounts) in [(5, one), (6, other)] {
        story.event(process, Stage::Ok, Action::Read, Value::Bank { accounts: accounts.into() });
    }
    assert_eq!(story.kinds(), [Kind::NotLinearizable]);
}

#[test]
fn places_in_the_log_that_are_wrong_are_found() {
    // A read shows what stands later.
    let mut story = story();
    let puts = story.send(3, 2, 0, 1);
    story.apply(2, &puts);
    story.begin(2, Action::Read, Value::None);
    story.index -= 1;
    let accounts = story.accounts.into();
    story.event(2, Stage::Ok, Action::Read, Value::Bank { accounts });
    story.index += 1;
    story.acknowledge(3);
    assert_eq!(story.kinds(), [Kind::NotLinearizable]);
    // One that was sent after an answer stands before it: a read had begun before both.
    let mut story = self::story();
    story.begin(2, Action::Read, Value::None);
    let index = story.index;
    story.transfer(2, 0, 1);
    story.accounts[0] = self::story().accounts[0];
    story.accounts[1] = self::story().accounts[1];
    let puts = story.send(3, 3, 2, 3);
    story.apply(3, &puts);
    story.index = index;
    let early = story.accounts.into();
    story.event(2, Stage::Ok, Action::Read, Value::Bank { accounts: early });
    assert_eq!(story.kinds(), [Kind::NotLinearizable]);
}

#[test]
fn money_from_nowhere_is_found() {
    let bent = |bend: fn(&mut Accounts)| {
        let mut story = story();
        story.transfer(2, 0, 1);
        let mut accounts = story.accounts;
        bend(&mut accounts);
        story.read_as(Action::Read, accounts);
        story.kinds()
    };
    assert_eq!(bent(|_| {}), []);
    let broken = [Kind::ForeignValue, Kind::BankBroken];
    assert_eq!(bent(|accounts| accounts[0].balance += 1), broken);
    assert_eq!(bent(|accounts| accounts[0].by = 99), [Kind::ForeignValue]);
    assert_eq!(bent(|accounts| accounts[2].by = 2), [Kind::ForeignValue]);
    let negative = bent(|accounts| {
        accounts[3].balance -= 101;
        accounts[4].balance += 101;
    });
    assert_eq!(negative, [Kind::ForeignValue, Kind::ForeignValue, Kind::BankBroken]);
    let mut story = story();
    story.begin(2, Action::Read, Value::None);
    story.event(2, Stage::Ok, Action::Read, Value::Foreign { foreign: "7".into() });
    assert_eq!(story.kinds(), [Kind::ForeignValue]);
}

/// What a client is at.
#[derive(Clone)]
enum Busy {
    Idle,
    Reading,
    /// With what it sends, and what it was told, if it was carried out.
    Sending(u64, Vec<Put>, Option<(u64, Vec<Put>)>),
}

/// A bank that is right, with five clients, whose answers come late or never.
fn random(seed: u64) -> Story {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut story = story();
    let mut clients = vec![Busy::Idle; 5];
    let mut lost: Vec<(u64, Vec<Put>)> = Vec::new();
    let mut shots: Vec<(u64, Accounts)> = vec![(story.index, story.accounts); 5];
    let fits = |story: &Story, puts: &[Put]| {
        puts.iter().all(|put| story.accounts[put.account].by == put.after)
    };
    for step in 0..120_u64 {
        let client = rng.random_range(0..5_usize);
        let process = u32::try_from(client).expect("there are five") + 3;
        let from = rng.random_range(0..ACCOUNTS);
        let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        if rng.random_bool(0.2)
            && let Some((id, puts)) = lost.pop()
            && fits(&story, &puts)
        {
            story.apply(id, &puts);
        }
        clients[client] = match clients[client].clone() {
            Busy::Idle if rng.random_bool(0.5) => {
                story.begin(process, Action::Read, Value::None);
                shots[client] = (story.index, story.accounts);
                Busy::Reading
            }
            Busy::Idle if story.accounts[from].balance < 10 => Busy::Idle,
            Busy::Idle => {
                let id = 100 + step;
                Busy::Sending(id, story.send(process, id, from, to), None)
            }
            // As of some moment since it began.
            Busy::Reading if rng.random_bool(0.3) => {
                shots[client] = (story.index, story.accounts);
                Busy::Reading
            }
            Busy::Reading => {
                let (index, accounts) = shots[client];
                let now = std::mem::replace(&mut story.index, index);
                let value = Value::Bank { accounts: accounts.into() };
                story.event(process, Stage::Ok, Action::Read, value);
                story.index = now;
                Busy::Idle
            }
            Busy::Sending(id, puts, None) if fits(&story, &puts) && rng.random_bool(0.8) => {
                story.apply(id, &puts);
                let made =
                    |put: &Put| Put { version: Some(story.accounts[put.account].version), ..*put };
                let made = puts.iter().map(made).collect();
                Busy::Sending(id, puts, Some((story.index, made)))
            }
            // Nobody hears of it, and it may yet happen.
            Busy::Sending(id, puts, None) if rng.random_bool(0.5) => {
                lost.push((id, puts));
                Busy::Idle
            }
            Busy::Sending(_, _, None) => {
                story.end(process, Stage::Fail);
                Busy::Idle
            }
            Busy::Sending(id, _, Some((index, puts))) => {
                let now = std::mem::replace(&mut story.index, index);
                let value = Value::Transfer { id, puts };
                story.event(process, Stage::Ok, Action::Transfer, value);
                story.index = now;
                Busy::Idle
            }
        };
    }
    story
}

#[test]
fn no_bank_that_is_right_is_found_wrong() {
    for seed in 0..3_000 {
        let story = random(seed);
        let checked = checker::check(Workload::Bank, &story.history);
        assert!(checked.anomalies.is_empty(), "{seed}: {:#?}", checked.anomalies);
    }
}

#[test]
fn an_account_that_is_read_as_it_was_before_is_found() {
    let mut bent = 0;
    for seed in 0..3_000 {
        let mut story = random(seed);
        let reads: Vec<usize> = (0..story.history.len())
            .filter(|at| matches!(story.history[*at].value, Value::Bank { .. }))
            .collect();
        let bank = |at: usize| match &story.history[at].value {
            Value::Bank { accounts } => accounts.clone(),
            _ => unreachable!("a read"),
        };
        let Some((first, last)) = reads.first().zip(reads.last()) else { continue };
        let (old, mut new) = (bank(*first), bank(*last));
        let Some(account) = (0..ACCOUNTS).find(|at| old[*at] != new[*at]) else { continue };
        new[account] = old[account];
        story.history[*last].value = Value::Bank { accounts: new };
        assert_ne!(story.kinds(), [], "{seed}");
        bent += 1;
    }
    assert!(bent > 1_000, "{bent}");
}
