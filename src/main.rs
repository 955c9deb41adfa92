//! The binary `sage`.

fn main() {}
