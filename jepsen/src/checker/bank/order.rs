//! Carries out a bank's history again, in the order of the log, and compares.
//!
//! Acknowledged transfers and reads name their places; transfers of unknown fate come when something
//! shows or replaces them. What comes out is an order that explains every answer, or the first that
//! it does not explain.

use std::collections::HashSet;

use crate::checker::Kind;
use crate::checker::bank::{Bank, Read};
use crate::workload::bank::{ACCOUNTS, letter};

/// A bank while its history is carried out again.
#[derive(Debug)]
struct Replay<'b, 'a> {
    bank: &'b Bank<'a>,
    /// How many transfers of each account have been carried out.
    places: [usize; ACCOUNTS],
    done: HashSet<u64>,
}

/// Something that names its place in the log.
#[derive(Clone, Copy, Debug)]
enum Placed<'b, 'a> {
    Transfer(u64),
    Read(&'b Read<'a>),
}

/// What an order does not explain, and where it was seen.
type Wrong = (String, Vec<usize>);

impl Bank<'_> {
    /// There is one order of everything.
    pub(super) fn check_order(&mut self) {
        let wrong = self.first_wrong();
        self.anomalies
            .extend(wrong.map(|(detail, events)| (Kind::NotLinearizable, detail, events)));
    }

    fn first_wrong(&self) -> Option<Wrong> {
        let acknowledged = self.transfers.iter().filter_map(|(id, one)| Some((one.index?, *id)));
        let mut placed: Vec<(u64, bool, usize, Placed<'_, '_>)> = acknowledged
            .map(|(index, id)| (index, false, self.transfers[&id].began, Placed::Transfer(id)))
            .collect();
        // A read shows what stands at its place.
        placed.extend(
            self.reads.iter().map(|read| (read.index, true, read.began, Placed::Read(read))),
        );
        placed.sort_by_key(|(index, reads, began, _)| (*index, *reads, *began));
        let mut replay = Replay { bank: self, places: [0; ACCOUNTS], done: HashSet::new() };
        for (index, .., what) in placed {
            let ended = match what {
                Placed::Transfer(id) => replay.acknowledged(index, id),
                Placed::Read(read) => replay.read(read),
            };
            if let Err((detail, events)) = ended {
                return Some((format!("at {index} in the log: {detail}"), events));
            }
        }
        None
    }
}

impl Replay<'_, '_> {
    /// A transfer that stands at `index`.
    fn acknowledged(&mut self, index: u64, id: u64) -> Result<(), Wrong> {
        if self.done.contains(&id) {
            let events = self.bank.transfers.get(&id).map(|one| one.began).into_iter().collect();
            return Err((format!("{id}, which was seen before that"), events));
        }
        self.bring(index, id)
    }

    /// A read shows exactly what has been carried out, but for what is of unknown fate.
    fn read(&mut self, read: &Read<'_>) -> Result<(), Wrong> {
        let events = vec![read.began, read.ended];
        let cut = self.bank.cut(read);
        for (account, place) in cut.iter().enumerate().take(ACCOUNTS) {
            while self.places[account] < *place {
                let id = self.bank.chains[account][self.places[account]];
                self.bring(read.index, id).map_err(|(detail, mut more)| {
                    more.extend(&events);
                    (detail, more)
                })?;
            }
        }
        let ahead =
            (0..ACCOUNTS).find(|at| cut.get(*at).is_some_and(|cut| self.places[*at] > *cut));
        let Some(account) = ahead else { return Ok(()) };
        let missed = self.bank.chains[account][cut[account]];
        let (by, name) = (read.accounts[account].by, letter(account));
        Err((format!("a read shows {by} at {name}, where {missed} is"), events))
    }

    /// Carries out a transfer, and first those that it stands on, which are of unknown fate.
    fn bring(&mut self, index: u64, id: u64) -> Result<(), Wrong> {
        let mut stack = vec![id];
        let mut waiting = HashSet::from([id]);
        while let Some(top) = stack.last().copied() {
            let transfer = &self.bank.transfers[&top];
            let wrong = |detail: String| Err((detail, vec![transfer.began]));
            let place = |account| self.bank.places[&(account, top)];
            let early =
                transfer.puts.iter().find(|put| self.places[put.account] + 1 < place(put.account));
            if let Some(put) = early {
                let before = self.bank.chains[put.account][self.places[put.account]];
                if !waiting.insert(before) {
                    return wrong(format!("{top} and {before} stand on each other"));
                }
                stack.push(before);
                continue;
            }
            if let Some(put) =
                transfer.puts.iter().find(|put| self.places[put.account] >= place(put.account))
            {
                let detail = format!("{top} at {}, whose place is taken", letter(put.account));
                return wrong(detail);
            }
            if transfer.index.is_none() && transfer.floor >= index {
                let floor = transfer.floor;
                return wrong(format!("{top}, which was sent after {floor} was answered"));
            }
            for put in transfer.puts {
                self.places[put.account] += 1;
            }
            self.done.insert(top);
            stack.pop();
        }
        Ok(())
    }
}
