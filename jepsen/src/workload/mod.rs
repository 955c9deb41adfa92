//! What clients do while the cluster is attacked, and what they look at when it is healed.

pub(crate) mod ledger;
