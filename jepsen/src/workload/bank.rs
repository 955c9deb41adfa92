//! Banks: a client looks at all accounts of a bank at once, and moves money from one to another in a
//! transaction, if both are still as it saw them. After Jepsen's bank test.
//!
//! The accounts of a bank are in one group, for the part of their keys that is hashed is the bank's
//! name. Each holds its balance and the transfer that wrote it, so that a value tells where it comes
//! from; a transfer says which two it replaces. One that comes too late reads the bank instead, in
//! the same transaction. Banks are opened like that, too, by whoever finds one empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::client::txn::{Done, Holds, Op, OpDone, Txn};
use crate::history::{Account, Action, Put, Stage, Value};
use crate::workload::actor::Actor;

/// Accounts of a bank.
pub(crate) const ACCOUNTS: usize = 5;
/// What each is opened with.
pub(crate) const EACH: i64 = 100;

/// Banks for each group of the cluster: with two groups, one in two thousand clusters has a group
/// without a bank.
const BANKS: usize = 6;
/// Banks that get half of the operations.
const HOT: usize = 3;

/// The names of all banks.
#[derive(Debug)]
pub(crate) struct Banks {
    names: Vec<Arc<str>>,
    /// The last transfer of anybody, in whatever bank.
    last: AtomicU64,
}

impl Banks {
    /// Those of a cluster of so many groups.
    pub(crate) fn new(groups: u16) -> Self {
        let banks = BANKS * usize::from(groups);
        let names = (0..banks).map(|bank| format!("{{bank-{bank}}}").into()).collect();
        Self { names, last: AtomicU64::new(0) }
    }
}

/// Whether a key of the history stands for a bank.
pub(crate) fn is_bank(key: &str) -> bool {
    key.starts_with("{bank-")
}

/// What people call an account.
pub(crate) fn letter(account: usize) -> char {
    u8::try_from(account).ok().and_then(|at| b'a'.checked_add(at)).map_or('?', char::from)
}

/// What reads a bank as of one moment.
pub(crate) fn look_at(bank: &str) -> Txn {
    Txn { then: gets(bank), ..Txn::default() }
}

/// The bank that a transaction has read, or the versions that a transfer has made.
pub(crate) fn accounts_of(done: &Done) -> Value {
    let mut accounts = Vec::new();
    for result in &done.results {
        let (json, version) = match result {
            OpDone::Read(None) => {
                accounts.push(Account::default());
                continue;
            }
            OpDone::Read(Some((json, version))) => (json, *version),
            OpDone::Written(version) => {
                return Value::Foreign { foreign: format!("a write of version {version}") };
            }
        };
        match serde_json::from_str(json) {
            Ok(Holding { balance, by }) if by > 0 => {
                accounts.push(Account { balance, by, version });
            }
            Ok(Holding { .. }) | Err(_) => return Value::Foreign { foreign: json.clone() },
        }
    }
    Value::Bank { accounts }
}

/// What is in an account's key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holding {
    balance: i64,
    by: u64,
}

fn key(bank: &str, account: usize) -> String {
    format!("{bank}:{}", letter(account))
}

fn gets(bank: &str) -> Vec<Op> {
    (0..ACCOUNTS).map(|account| Op::Get(key(bank, account))).collect()
}

fn holding(balance: i64, by: u64) -> Json {
    json!(Holding { balance, by })
}

/// Writes `puts` as one transfer if each account is as it was `seen`; otherwise reads the bank.
fn transfer(bank: &str, id: u64, puts: &[Put], seen: &[Account], by_version: bool) -> Txn {
    let compare = |put: &Put| {
        let Account { balance, by, version } = seen[put.account];
        // Nothing has no value that could be compared.
        let holds = if by_version || by == 0 {
            Holds::Version(version)
        } else {
            Holds::Value(holding(balance, by))
        };
        (key(bank, put.account), holds)
    };
    let write = |put: &Put| Op::Put(key(bank, put.account), holding(put.balance, id));
    Txn {
        compare: puts.iter().map(compare).collect(),
        then: puts.iter().map(write).collect(),
        otherwise: gets(bank),
    }
}

/// What an answer to a transfer shows: which versions it has made, or the bank as it is.
fn shown(id: u64, puts: &[Put], done: &Done) -> Value {
    if !done.succeeded {
        return accounts_of(done);
    }
    let puts = puts.iter().zip(&done.results).map(|(put, result)| match result {
        OpDone::Written(version) => Put { version: Some(*version), ..*put },
        OpDone::Read(_) => *put,
    });
    Value::Transfer { id, puts: puts.collect() }
}

/// One client at work.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) actor: Actor,
    banks: Arc<Banks>,
    /// The bank that this client has seen last, by its number: what was seen longer ago has changed
    /// since, so that a transfer would come too late.
    known: Option<(usize, Vec<Account>)>,
}

impl Worker {
    /// A client that has seen nothing yet.
    pub(crate) fn new(actor: Actor, banks: Arc<Banks>) -> Self {
        Self { actor, banks, known: None }
    }

    /// One operation; whether it succeeded.
    pub(crate) async fn step(&mut self) -> bool {
        let hot = self.actor.rng.random_bool(0.5);
        let banks = if hot { HOT } else { self.banks.names.len() };
        let any = self.actor.rng.random_range(0..banks);
        let moves = self.actor.rng.random_bool(0.7);
        match self.known.take() {
            Some((bank, seen)) if seen.iter().all(|account| account.by == 0) => {
                let put = |account| Put { account, after: 0, balance: EACH, version: None };
                self.transfer(bank, (0..ACCOUNTS).map(put).collect(), seen).await
            }
            Some((bank, seen)) if moves => {
                let puts = self.choose(&seen);
                self.transfer(bank, puts, seen).await
            }
            Some(_) | None => self.look(any).await,
        }
    }

    /// Some of the money of one account, often all of it, goes to another.
    fn choose(&mut self, seen: &[Account]) -> Vec<Put> {
        let rng = &mut self.actor.rng;
        let rich: Vec<usize> = (0..ACCOUNTS).filter(|at| seen[*at].balance > 0).collect();
        // Where nobody has anything the bank is broken, and nothing is moved.
        let from = if rich.is_empty() { 0 } else { rich[rng.random_range(0..rich.len())] };
        let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let has = seen[from].balance.max(0);
        let amount = if rng.random_bool(0.2) { has } else { rng.random_range(0..=has) };
        let put = |account: usize, by: i64| {
            let Account { balance, by: after, .. } = seen[account];
            Put { account, after, balance: balance + by, version: None }
        };
        vec![put(from, -amount), put(to, amount)]
    }

    async fn transfer(&mut self, bank: usize, puts: Vec<Put>, mut seen: Vec<Account>) -> bool {
        let name = Arc::clone(&self.banks.names[bank]);
        let id = self.banks.last.fetch_add(1, Ordering::Relaxed) + 1;
        let by_version = self.actor.rng.random_bool(0.5);
        let txn = transfer(&name, id, &puts, &seen, by_version);
        let value = Value::Transfer { id, puts: puts.clone() };
        let server = self.actor.any_server();
        let shown = |done: &Done| shown(id, &puts, done);
        let ended = self.actor.txn(&server, (Action::Transfer, &name), (value, &txn), shown).await;
        match ended {
            (Stage::Ok, Value::Transfer { puts, .. }) => {
                for Put { account, balance, version, .. } in puts {
                    let version = version.unwrap_or_default();
                    seen[account] = Account { balance, by: id, version };
                }
                self.known = Some((bank, seen));
                true
            }
            (_, shown) => {
                self.learn(bank, shown);
                false
            }
        }
    }

    async fn look(&mut self, bank: usize) -> bool {
        let name = Arc::clone(&self.banks.names[bank]);
        let server = self.actor.any_server();
        let what = (Value::None, &look_at(&name));
        let ended = self.actor.txn(&server, (Action::Read, &name), what, accounts_of).await;
        self.learn(bank, ended.1);
        ended.0 == Stage::Ok
    }

    fn learn(&mut self, bank: usize, shown: Value) {
        if let Value::Bank { accounts } = shown {
            self.known = Some((bank, accounts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(succeeded: bool, results: Vec<OpDone>) -> Done {
        Done { succeeded, results, index: 17, group: "g1".into() }
    }

    #[test]
    fn a_bank_is_what_transfers_have_written_or_foreign() {
        let read = |json: &str| OpDone::Read(Some((json.into(), 3)));
        let written = holding(-7, 12).to_string();
        let bank = accounts_of(&done(true, vec![read(&written), OpDone::Read(None)]));
        let accounts = vec![Account { balance: -7, by: 12, version: 3 }, Account::default()];
        assert_eq!(bank, Value::Bank { accounts });
        for foreign in
            ["7", r#"{"balance":1}"#, r#"{"balance":1,"by":0}"#, r#"{"balance":"1","by":2}"#]
        {
            let expected = Value::Foreign { foreign: foreign.into() };
            assert_eq!(accounts_of(&done(true, vec![read(&written), read(foreign)])), expected);
        }
    }

    #[test]
    fn a_transfer_names_what_it_replaces_by_version_or_value() {
        let seen = [Account { balance: 9, by: 4, version: 2 }, Account::default()];
        let puts = [
            Put { account: 0, after: 4, balance: 3, version: None },
            Put { account: 1, after: 0, balance: 6, version: None },
        ];
        let by_value = transfer("{bank-1}", 5, &puts, &seen, false);
        assert_eq!(
            format!("{:?}", by_value.compare),
            format!(
                "{:?}",
                [("{bank-1}:a", Holds::Value(holding(9, 4))), ("{bank-1}:b", Holds::Version(0))]
            )
        );
        let by_version = transfer("{bank-1}", 5, &puts, &seen, true);
        assert!(matches!(by_version.compare[0].1, Holds::Version(2)));
        assert_eq!((by_version.then.len(), by_version.otherwise.len()), (2, ACCOUNTS));
        let written = vec![OpDone::Written(3), OpDone::Written(1)];
        let Value::Transfer { id: 5, puts } = shown(5, &puts, &done(true, written)) else {
            panic!("it says what it has made");
        };
        assert_eq!((puts[0].version, puts[1].version), (Some(3), Some(1)));
    }
}
