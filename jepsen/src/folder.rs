//! The folder of a run: everything that was seen, in forms for people and for other tools.
//!
//! `history.jsonl` (this harness reads it back), `history.edn` (Jepsen's form), `results.json`,
//! `report.html`, and in `servers/` what each process printed, and its data.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::history::Event;
use crate::nemesis::Fault;
use crate::results::{Results, Setup};
use crate::{edn, page, stored};

/// Writes down what happened, before anybody has judged it.
pub(crate) fn keep_history(
    folder: &Path,
    setup: &Setup,
    events: &[Event],
    faults: &[Fault],
) -> Result<()> {
    stored::save(&folder.join("history.jsonl"), setup, events, faults)?;
    let file = std::fs::File::create(folder.join("history.edn"))?;
    let mut file = std::io::BufWriter::new(file);
    edn::write(&mut file, events, faults).and_then(|()| file.flush()).context("history.edn")
}

/// Writes down everything.
pub(crate) fn keep(
    folder: &Path,
    results: &Results,
    events: &[Event],
    faults: &[Fault],
) -> Result<()> {
    keep_history(folder, &results.setup, events, faults)?;
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).with_context(|| format!("{name} can't be written"))
    };
    write("results.json", serde_json::to_string_pretty(results)?)?;
    write("report.html", page::render(results, events, faults))
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
