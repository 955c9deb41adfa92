//! Decides whether the history of one register is linearizable: whether its operations can be put
//! in an order that explains every answer and in which none comes before one that had ended before
//! it began (Herlihy and Wing, "Linearizability", 1990).
//!
//! The search is that of Wing and Gong with Lowe's memo ("Testing for linearizability", 2017): take
//! the operations that may come next, one after the other, go back when one has ended that was not
//! taken, and never look twice at the same set of taken operations with the same value. Three rules
//! make it fast where values tell their writes: a read is taken as soon as it fits; a write that
//! nobody observed, just before another; and a value is not replaced while it is missed.
//!
//! An operation of unknown fate has no end: it may be taken at any time after its beginning, or
//! never. What makes these cheap is proved at [`Search::new`].

mod shrink;

use std::collections::{BTreeSet, HashMap, HashSet};

/// What a register does. Values are numbers above 0; 0 is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// It was written, or removed by writing 0.
    Write(u64),
    /// It held `from`, and `to` took its place.
    Cas {
        /// What it held.
        from: u64,
        /// What it holds since.
        to: u64,
    },
    /// This was read.
    Read(u64),
}

/// An operation that succeeded, or whose fate is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Operation {
    /// When it began. No two beginnings or ends are at the same time.
    pub(crate) call: usize,
    /// When it ended; `None` if nobody knows whether it took effect, or will.
    pub(crate) ret: Option<usize>,
    /// What it did.
    pub(crate) input: Input,
}

/// What was found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. These operations alone, by their position, have none either, and each of
    /// them is needed for that.
    Violation(Vec<usize>),
    /// The search took more steps than it was given.
    Unknown,
}

/// Checks one register. The operations are in the order of their beginnings; the search gives up
/// after `steps_max` steps.
pub(crate) fn check(operations: &[Operation], steps_max: u64) -> Verdict {
    match search(operations, steps_max) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Violation(shrink::shrink(operations, steps_max)),
        None => Verdict::Unknown,
    }
}

fn search(operations: &[Operation], steps_max: u64) -> Option<bool> {
    Search::new(operations).run(steps_max)
}

/// The end of the list, and its beginning.
const HEAD: usize = 0;

/// A beginning or an end, in a list in the order of time; those of taken operations are left out.
#[derive(Clone, Copy, Debug)]
struct Node {
    operation: usize,
    is_call: bool,
    /// The node of the operation's end; of an open one, and of an end, this is itself.
    ret: usize,
    next: usize,
    before: usize,
}

struct Search<'a> {
    operations: &'a [Operation],
    nodes: Vec<Node>,
    /// Operations that must be taken and are not yet.
    missing: usize,
    value: u64,
    taken: Vec<u64>,
    /// Taken operations of unknown fate.
    open: BTreeSet<usize>,
    /// What is known of each value.
    values: HashMap<u64, Known>,
    stack: Vec<Step>,
    greatest: usize,
    memo: HashSet<Memo>,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// How many operations write it.
    writers: usize,
    /// How many observe it.
    observers: usize,
    /// How many that must be taken, observe it, and are not taken yet.
    missing: usize,
}

/// One operation that changes the value was taken, with everything that costs nothing then.
struct Step {
    /// Their nodes, in the order in which they were taken.
    nodes: Vec<usize>,
    /// The one that was chosen.
    choice: usize,
    value_before: u64,
    greatest_before: usize,
}

/// A set of taken operations and a value.
///
/// All that have ended before the first that is missing are taken, so it is enough to remember the
/// bits from there to the greatest, and the open ones.
#[derive(PartialEq, Eq, Hash)]
struct Memo {
    first: usize,
    bits: Box<[u64]>,
    open: Box<[usize]>,
    value: u64,
}

impl<'a> Search<'a> {
    /// Leaves out what can't matter: a write or compare-and-set of unknown fate whose value nobody
    /// observed, by reading it or by a compare-and-set from it. In any order that has it, the next
    /// operation that is taken after it does not observe its value, so it replaces it; without it
    /// that order explains the same answers. And an order without it is one in which it has not
    /// happened.
    fn new(operations: &'a [Operation]) -> Self {
        let mut values: HashMap<u64, Known> = HashMap::new();
        for one in operations {
            if let Some(value) = writes(*one) {
                values.entry(value).or_default().writers += 1;
            }
            if let Some(value) = observes(*one) {
                let known = values.entry(value).or_default();
                known.observers += 1;
                known.missing += usize::from(one.ret.is_some());
            }
        }
        let matters = |one: &Operation| {
            let observed = |value: u64| values[&value].observers > 0;
            one.ret.is_some() || writes(*one).is_some_and(observed)
        };
        let mut events: Vec<(usize, usize, bool)> = Vec::new();
        for (at, one) in operations.iter().enumerate().filter(|(_, one)| matters(one)) {
            events.push((one.call, at, true));
            events.extend(one.ret.map(|ret| (ret, at, false)));
        }
        events.sort_unstable();
        Self {
            operations,
            nodes: list(operations.len(), events),
            missing: operations.iter().filter(|one| one.ret.is_some()).count(),
            value: 0,
            taken: vec![0; operations.len() / 64 + 1],
            open: BTreeSet::new(),
            values,
            stack: Vec::new(),
            greatest: 0,
            memo: HashSet::new(),
        }
    }

    /// Whether there is an order; `None` if that takes too many steps.
    fn run(mut self, steps_max: u64) -> Option<bool> {
        self.take_reads();
        let mut at = self.nodes[HEAD].next;
        // Two removals of unknown fate are the same, and the earlier one may come sooner: as long
        // as it is there, the later one is not tried.
        let mut removal_seen = false;
        for _ in 0..steps_max {
            if self.missing == 0 {
                return Some(true);
            }
            let node = self.nodes[at];
            if at == HEAD || !node.is_call {
                // Something has ended, or everything has begun, and nothing before fits.
                let Some(choice) = self.go_back() else { return Some(false) };
                at = self.nodes[choice].next;
                removal_seen = self.removal_before(at);
                continue;
            }
            let one = self.operations[node.operation];
            let open_removal = one.ret.is_none() && one.input == Input::Write(0);
            let pointless = open_removal && (removal_seen || self.value == 0);
            removal_seen |= open_removal;
            if !pointless && self.may_replace(one) && self.choose(at) {
                at = self.nodes[HEAD].next;
                removal_seen = false;
            } else {
                at = node.next;
            }
        }
        None
    }

    /// Whether this can be what happens next and changes the value. A value that only one
    /// operation writes must not be replaced while somebody is to observe it yet.
    fn may_replace(&self, one: Operation) -> bool {
        let mut missing = self.values.get(&self.value).map_or(0, |known| known.missing);
        match one.input {
            Input::Read(_) => return false,
            Input::Cas { from, .. } if from != self.value => return false,
            Input::Cas { .. } => missing -= usize::from(one.ret.is_some()),
            Input::Write(_) => {}
        }
        let writers = self.values.get(&self.value).map_or(0, |known| known.writers);
        missing == 0 || self.value == 0 || writers > 1
    }

    /// Whether an open removal is in the list before this node.
    fn removal_before(&self, at: usize) -> bool {
        let mut before = self.nodes[HEAD].next;
        while before != at && before != HEAD {
            let one = self.operations[self.nodes[before].operation];
            if one.ret.is_none() && one.input == Input::Write(0) {
                return true;
            }
            before = self.nodes[before].next;
        }
        false
    }

    /// Takes an operation that changes the value, and with it what costs nothing: writes that may
    /// happen just before it and that nobody observes, and reads of the new value. False, with
    /// everything as it was, if the memo knows that nothing comes of it.
    fn choose(&mut self, choice: usize) -> bool {
        let (value_before, greatest_before) = (self.value, self.greatest);
        let one = self.operations[self.nodes[choice].operation];
        let mut nodes = Vec::new();
        if matches!(one.input, Input::Write(_)) {
            nodes = self.unobserved_writes(choice);
            for at in &nodes {
                self.take(*at);
            }
        }
        self.take(choice);
        nodes.push(choice);
        self.value = writes(one).expect("what is chosen changes the value");
        nodes.extend(self.take_reads());
        self.stack.push(Step { nodes, choice, value_before, greatest_before });
        let memo = self.memo();
        if self.memo.insert(memo) {
            return true;
        }
        self.go_back();
        false
    }

    /// What may happen next: the calls before the first end.
    fn may_be_next(&self) -> impl Iterator<Item = usize> {
        let first = self.nodes[HEAD].next;
        let next = |at: &usize| Some(self.nodes[*at].next);
        let all = std::iter::successors(Some(first), next);
        all.take_while(|at| *at != HEAD && self.nodes[*at].is_call)
    }

    fn unobserved_writes(&self, choice: usize) -> Vec<usize> {
        let free = |at: &usize| {
            let one = self.operations[self.nodes[*at].operation];
            let Input::Write(value) = one.input else { return false };
            one.ret.is_some() && self.values[&value].observers == 0 && *at != choice
        };
        self.may_be_next().filter(free).collect()
    }

    /// Takes every read of the value that may happen now. It changes nothing, so sooner is never
    /// worse than later.
    fn take_reads(&mut self) -> Vec<usize> {
        let mut taken = Vec::new();
        loop {
            let fits = |at: &usize| {
                self.operations[self.nodes[*at].operation].input == Input::Read(self.value)
            };
            let reads: Vec<usize> = self.may_be_next().filter(fits).collect();
            if reads.is_empty() {
                return taken;
            }
            for at in &reads {
                self.take(*at);
            }
            taken.extend(reads);
        }
    }

    fn take(&mut self, at: usize) {
        let operation = self.nodes[at].operation;
        let one = self.operations[operation];
        self.leave_out(at);
        self.taken[operation / 64] |= 1 << (operation % 64);
        self.greatest = self.greatest.max(operation);
        if one.ret.is_none() {
            self.open.insert(operation);
            return;
        }
        self.missing -= 1;
        if let Some(known) = observes(one).and_then(|value| self.values.get_mut(&value)) {
            known.missing -= 1;
        }
    }

    fn put_back(&mut self, at: usize) {
        let operation = self.nodes[at].operation;
        let one = self.operations[operation];
        self.taken[operation / 64] &= !(1 << (operation % 64));
        self.bring_back(at);
        if one.ret.is_none() {
            self.open.remove(&operation);
            return;
        }
        self.missing += 1;
        if let Some(known) = observes(one).and_then(|value| self.values.get_mut(&value)) {
            known.missing += 1;
        }
    }

    /// Undoes the last step; what was chosen in it.
    fn go_back(&mut self) -> Option<usize> {
        let step = self.stack.pop()?;
        for at in step.nodes.iter().rev() {
            self.put_back(*at);
        }
        self.value = step.value_before;
        self.greatest = step.greatest_before;
        Some(step.choice)
    }

    fn memo(&self) -> Memo {
        let mut at = self.nodes[HEAD].next;
        while at != HEAD && self.operations[self.nodes[at].operation].ret.is_none() {
            at = self.nodes[at].next;
        }
        // With nothing missing the search is over.
        let first = if at == HEAD { self.operations.len() } else { self.nodes[at].operation };
        let (from, to) = (first / 64, self.greatest / 64);
        let bits = if from <= to { &self.taken[from..=to] } else { &[] };
        let open = self.open.iter().copied().collect();
        Memo { first, bits: bits.into(), open, value: self.value }
    }

    /// Takes the nodes of an operation out of the list.
    fn leave_out(&mut self, call: usize) {
        for at in self.both(call) {
            let Node { before, next, .. } = self.nodes[at];
            self.nodes[before].next = next;
            self.nodes[next].before = before;
        }
    }

    /// Puts them back where they were; what was left out last comes back first.
    fn bring_back(&mut self, call: usize) {
        for at in self.both(call).rev() {
            let Node { before, next, .. } = self.nodes[at];
            self.nodes[before].next = at;
            self.nodes[next].before = at;
        }
    }

    fn both(&self, call: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let ret = self.nodes[call].ret;
        [call, ret].into_iter().take(if ret == call { 1 } else { 2 })
    }
}

/// The list of all beginnings and ends.
fn list(operations: usize, events: Vec<(usize, usize, bool)>) -> Vec<Node> {
    let head = Node { operation: 0, is_call: false, ret: HEAD, next: HEAD, before: HEAD };
    let mut nodes = vec![head];
    let mut calls = vec![HEAD; operations];
    for (_, operation, is_call) in events {
        let at = nodes.len();
        nodes.push(Node { operation, is_call, ret: at, next: HEAD, before: at - 1 });
        nodes[at - 1].next = at;
        if is_call {
            calls[operation] = at;
        } else {
            nodes[calls[operation]].ret = at;
        }
    }
    nodes[HEAD].before = nodes.len() - 1;
    nodes
}

/// The value that an operation which happened shows to have been there.
fn observes(one: Operation) -> Option<u64> {
    match one.input {
        Input::Write(_) => None,
        Input::Cas { from, .. } => Some(from),
        Input::Read(read) => Some(read),
    }
}

fn writes(one: Operation) -> Option<u64> {
    match one.input {
        Input::Write(value) | Input::Cas { to: value, .. } => Some(value),
        Input::Read(_) => None,
    }
}

#[cfg(test)]
mod tests;
