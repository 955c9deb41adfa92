//! The folder of a run: everything that was seen, in forms for people and for other tools.
//!
//! `history.jsonl` (this harness reads it back), `history.edn` (Jepsen's form), `results.json`,
//! `report.html`, and in `servers/` what each process printed, and its data.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::results::Results;
use crate::stored::Stored;
use crate::{edn, page, stored};

/// Writes down what happened, before anybody has judged it.
pub(crate) fn keep_history(folder: &Path, stored: &Stored) -> Result<()> {
    stored::save(&folder.join("history.jsonl"), stored)?;
    let file = std::fs::File::create(folder.join("history.edn"))?;
    let mut file = std::io::BufWriter::new(file);
    edn::write(&mut file, &stored.events, &stored.faults)
        .and_then(|()| file.flush())
        .context("history.edn")
}

/// Writes down what that has shown.
pub(crate) fn keep_results(folder: &Path, results: &Results, stored: &Stored) -> Result<()> {
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).with_context(|| format!("{name} can't be written"))
    };
    write("results.json", serde_json::to_string_pretty(results)?)?;
    write("report.html", page::render(results, &stored.events, &stored.faults))
}

/// Deletes the servers' data directories, and keeps what the servers printed.
pub(crate) fn forget_data(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder.join("servers")).context("the servers' folder")? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
