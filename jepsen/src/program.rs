//! Finds the `sage` that is put to the test.
//!
//! Under `cargo run` cargo has built the harness but not the server: it is built first, with the
//! same profile, so that a run never tests an old one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Which server is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Build {
    /// As users run it.
    Plain,
    /// With bugs that can be switched on.
    Planted,
    /// Not a server: whole groups in one thread, with bugs that can be switched on.
    Simulated,
}

impl Build {
    fn program(self) -> &'static str {
        match self {
            Self::Plain => "sage",
            Self::Planted => "sage-planted",
            Self::Simulated => "sage-simulated",
        }
    }

    fn features(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            // The same for both, so that the library is built once.
            Self::Planted | Self::Simulated => Some("planted-bugs,simulation"),
        }
    }
}

/// The program named by the user, or the one beside the harness, built anew if cargo is at hand.
pub(crate) fn find(named: Option<&Path>, wanted: Build) -> Result<PathBuf> {
    if let Some(named) = named {
        return named.canonicalize().with_context(|| format!("--sage {}", named.display()));
    }
    let harness = std::env::current_exe().context("where is the harness?")?;
    let directory = harness.parent().context("the harness is in no directory")?;
    if let (Some(cargo), Some(member)) =
        (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
    {
        build((Path::new(&cargo), Path::new(&member)), directory, wanted)?;
    }
    let program = directory.join(wanted.program());
    if !program.is_file() {
        bail!(
            "there is no {}; build it (cargo build --release) or name one with --sage",
            program.display()
        );
    }
    Ok(program)
}

fn build((cargo, member): (&Path, &Path), directory: &Path, wanted: Build) -> Result<()> {
    let manifest = member.join("../Cargo.toml");
    let target = directory.parent().context("the harness is not in a target directory")?;
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "sagedb", "--bin", wanted.program()]);
    if let Some(features) = wanted.features() {
        command.args(["--features", features]);
    }
    command.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target);
    if directory.file_name().is_some_and(|name| name != "debug") {
        command.arg("--profile").args(directory.file_name());
    }
    let status = command.status().context("cargo can't be run")?;
    if !status.success() {
        bail!("cargo could not build sage");
    }
    Ok(())
}
