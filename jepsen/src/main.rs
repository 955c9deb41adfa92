//! The fault-injection harness of `SageDB`.

fn main() {}
