//! The `sage` that can be broken on purpose: the same program, built with the feature
//! `planted-bugs`, under a name of its own so that nobody takes it for the real one.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagedb::cli::run()
}
