//! Finds the `sage` that is measured, and says which it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::machine::first_line;

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The program named by the user, or this tree's, built anew, so that a run never measures an old one; and its version.
pub(crate) fn find(named: Option<&Path>) -> Result<(PathBuf, String)> {
    let (program, commit) = match named {
        Some(named) => {
            let found = named.canonicalize().with_context(|| format!("--sage {}", named.display()));
            (found?, "of the build that --sage named".to_owned())
        }
        None => (build()?, commit()),
    };
    let version = first_line(&program, &["--version"]);
    let version = version.with_context(|| format!("{} does not run", program.display()))?;
    Ok((program, format!("{version}, {commit}")))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let arguments = [&["-C", ROOT][..], arguments].concat();
        first_line(Path::new("git"), &arguments)
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "of no known commit".into();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let changed = if changed.is_none_or(|line| !line.is_empty()) { " with changes" } else { "" };
    format!("commit {commit}{changed}")
}

/// A line of what cargo says.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = format!("{ROOT}/Cargo.toml");
    let output = Command::new(cargo)
        .args(["build", "--profile", "dist", "--locked", "--bin", "sage"])
        .args(["--manifest-path", &manifest])
        .arg("--message-format=json-render-diagnostics")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo can't be started; build sage and name it with --sage")?;
    if !output.status.success() {
        bail!("sage can't be built");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    executable(&text).context("cargo has built sage, and does not say where it is")
}

/// The last executable that cargo names.
fn executable(messages: &str) -> Option<PathBuf> {
    let named = |line| serde_json::from_str::<Artifact>(line).ok()?.executable;
    messages.lines().filter_map(named).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_cargo_says() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/a/sage\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/a/sage")));
        assert_eq!(executable(""), None);
    }
}
