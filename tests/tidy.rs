//! Rules about the code itself, checked by reading it: floors, headers, sizes.
//!
//! A room of `src/` imports only from rooms below it, some crates stay in one room, the harness
//! and the examples see only what a client sees, fuzz targets only what is made for them, and benchmarks only the
//! rooms that they measure. Each rule is checked against a text that breaks it, too.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom: a room sees only the ones listed after it.
const FLOORS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("planted", &["types"]),
    ("rpc", &["types"]),
    ("store", &["types", "planted"]),
    ("client", &["types"]),
    ("watch", &["types"]),
    ("bench", &["types", "client"]),
    ("fuzz", &["types", "rpc", "store"]),
    ("raft", &["types", "planted", "rpc", "store"]),
    ("api", &["types", "rpc", "watch", "raft"]),
    ("coordinator", &["types", "planted", "rpc", "watch", "api"]),
    ("sim", &["types", "planted", "rpc", "store", "raft", "api", "coordinator"]),
    ("server", &["types", "rpc", "store", "raft", "api", "coordinator"]),
    ("cli", &["types", "planted", "store", "client", "bench", "server"]),
];

/// Crates that stay where they are: (crate, the only rooms that name it).
const HOMES: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("axum", &["api", "server"]),
    ("sled", &["store"]),
    ("imbl", &["store"]),
    ("lz4_flex", &["store"]),
    ("zstd", &["store"]),
    ("sha2", &["types"]),
    ("twox_hash", &["store"]),
    ("reqwest", &["client", "rpc"]),
    ("clap", &["cli"]),
    ("utoipa", &["types", "api"]),
    ("maud", &["api"]),
    (
        "tokio",
        &[
            "rpc",
            "store",
            "watch",
            "raft",
            "api",
            "coordinator",
            "server",
            "cli",
            "client",
            "bench",
            "sim",
        ],
    ),
];

/// What a crate beside the library may see of it: (its directory, these rooms).
const OUTSIDE: &[(&str, &[&str])] = &[
    ("jepsen", &["client", "types"]),
    ("examples", &["client", "types"]),
    ("fuzz", &["fuzz"]),
    ("benches/compare", &["bench", "types"]),
    ("benches/micro", &["types", "rpc", "store", "watch", "api", "coordinator"]),
];

const FILE_LINES_MAX: usize = 500;

#[test]
fn every_file_keeps_the_rules() {
    let mut files = Vec::new();
    let directories = [
        "src",
        "tests",
        "examples",
        "jepsen",
        "fuzz/src",
        "fuzz/fuzz_targets",
        "benches/compare/src",
        "benches/micro",
        "crates",
    ];
    for directory in directories {
        files.extend(sources(Path::new(directory)));
    }
    assert!(files.len() > 10, "the sources are where this test looks: {files:?}");
    let faults: Vec<String> = files
        .iter()
        .flat_map(|path| faults(path, &fs::read_to_string(path).expect("source is readable")))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let long = format!("//! Long.\n{}", "\n".repeat(FILE_LINES_MAX));
    let cases = [
        ("src/types/key.rs", "use std::fmt;", "no module header"),
        ("src/types/key.rs", long.as_str(), "longer than"),
        ("src/raft/mod.rs", "//! H.\nuse crate::{types, rpc};", "hides a floor"),
        ("src/raft/a/b.rs", "//! H.\nuse super::super::c;", "hides a floor"),
        ("src/attic/mod.rs", "//! H.", "has no floor"),
        ("src/types/key.rs", "//! H.\nuse crate::rpc::frame;", "imports `rpc`"),
        ("src/coordinator/ring.rs", "//! H.\nuse crate::raft::Replica;", "imports `raft`"),
        ("src/client.rs", "//! H.\nlet x = crate::api::Kv;", "imports `api`"),
        ("src/store/wal/mod.rs", "//! H.\nuse openraft::Vote;", "names `openraft`"),
        ("src/types/clock.rs", "//! H.\nuse tokio::time;", "names `tokio`"),
        ("jepsen/src/run.rs", "//! H.\nuse sagedb::raft::Replica;", "sees `raft`"),
        ("examples/lock.rs", "//! H.\nuse sagedb::raft::Replica;", "sees `raft`"),
        ("benches/compare/src/run.rs", "//! H.\nuse sagedb::client::Client;", "sees `client`"),
        ("benches/micro/apply.rs", "//! H.\nuse sagedb::raft::Replica;", "sees `raft`"),
        ("fuzz/fuzz_targets/wal.rs", "//! H.\nsagedb::store::wal();", "sees `store`"),
        ("src/store/wal/fuzz.rs", "//! H.\nuse crate::fuzz::DECODERS;", "imports `fuzz`"),
        ("tests/dev.rs", "fn main() {}", "no module header"),
    ];
    for (path, text, fault) in cases {
        let found = faults(Path::new(path), text);
        assert!(found.iter().any(|line| line.contains(fault)), "{path}: {fault}: {found:?}");
    }
    let fine = "//! H.\n// use crate::rpc::x;\nuse crate::types::key::Key;\nlet x = unsled::y;";
    assert_eq!(faults(Path::new("src/rpc/frame.rs"), fine), Vec::<String>::new());
}

/// What is wrong with one file.
fn faults(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push("has no module header".to_string());
    }
    if text.lines().count() > FILE_LINES_MAX {
        faults.push(format!("is longer than {FILE_LINES_MAX} lines: two stories?"));
    }
    if path.starts_with("src") {
        faults.extend(floor_faults(path, text));
    }
    for (directory, seen) in OUTSIDE.iter().filter(|(directory, _)| path.starts_with(directory)) {
        let named = FLOORS.iter().map(|(name, _)| *name).filter(|name| !seen.contains(name));
        for name in named.filter(|name| names(text, &format!("sagedb::{name}"))) {
            faults.push(format!("sees `{name}`; {directory} may see {seen:?} alone"));
        }
    }
    faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect()
}

fn floor_faults(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if code(text).any(|line| line.contains("crate::{") || line.contains("super::super")) {
        faults.push("hides a floor: write `use crate::<floor>::…`, a line for each".to_string());
    }
    let Some(room) = room_of(path) else { return faults };
    let Some((_, below)) = FLOORS.iter().find(|(name, _)| *name == room) else {
        faults.push(format!("room `{room}` has no floor: add it to FLOORS"));
        return faults;
    };
    for (name, _) in FLOORS {
        let imported = names(text, &format!("crate::{name}"));
        if imported && *name != room && !below.contains(name) {
            faults.push(format!("imports `{name}`, which isn't below `{room}`"));
        }
    }
    for (krate, homes) in HOMES {
        if names(text, krate) && !homes.contains(&room.as_str()) {
            faults.push(format!("names `{krate}`, which lives in {homes:?}"));
        }
    }
    faults
}

/// Whether a line of code uses `path`, followed by `::`, and not as the end of a longer name.
fn names(text: &str, path: &str) -> bool {
    let used = format!("{path}::");
    code(text).any(|line| {
        line.match_indices(&used).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|before| before.is_alphanumeric() || "_:".contains(before))
        })
    })
}

/// The lines that are not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

/// `src/store/wal/record.rs` -> `store`; `src/lib.rs` and `src/main.rs` belong to no floor.
fn room_of(path: &Path) -> Option<String> {
    let first = path.components().nth(1)?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_string())
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory exists");
    let paths = entries.map(|entry| entry.expect("the entry is readable").path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .collect()
}

/// What takes the place of base2histogram is still what is built, and forgets nothing that somebody could read.
#[test]
fn the_histograms_of_openraft_are_ours_and_nobody_can_read_them() {
    let read = |path| fs::read_to_string(path).expect("readable");
    let lock = read("Cargo.lock");
    let locked: Vec<&str> =
        lock.split("\n\n").filter(|it| it.contains("name = \"base2histogram\"")).collect();
    assert!(matches!(locked[..], [one] if !one.contains("source =")), "{locked:?}");
    for manifest in ["Cargo.toml", "jepsen/Cargo.toml"] {
        assert!(!read(manifest).contains("runtime-stats"), "{manifest}");
    }
}

/// The table in `docs/testing.md` that says which test breaks when a sentence of the contract is not true: each of its
/// rows names tests, and each of these is one, or a part of the suite over HTTP that is run.
#[test]
fn every_test_that_the_documentation_names_is_there() {
    let text = fs::read_to_string("docs/testing.md").expect("the document is readable");
    let section = text.split("\n## ").find(|section| section.starts_with("The contract, sentence"));
    let rows = section.expect("it has the table").lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.filter(|row| !row.starts_with("| sentence |")).collect();
    let files = ["src", "tests"].map(|directory| sources(Path::new(directory))).concat();
    let code: String =
        files.iter().map(|path| fs::read_to_string(path).expect("readable")).collect();
    let tests = tests(&code);
    let faults: Vec<String> = rows.iter().filter_map(|row| row_fault(row, &tests)).collect();
    assert!(rows.len() > 100, "only {} sentences: is the table cut off?", rows.len());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_row_without_a_test_is_found() {
    let code = "#[test]\nfn a_test() {}\nfn no_test() {}\nfn of_the_suite() {}\n\
                #[tokio::test(start_paused = true)]\nasync fn another_test() {}\n\
                part::of_the_suite(subject).await;";
    let tests = tests(code);
    for fine in ["| so | `a_test` |", "| `so` | words, `another_test`, `of_the_suite` |"] {
        assert_eq!(row_fault(fine, &tests), None);
    }
    for bad in ["| so | |", "| `a_test` | words |", "| so | `a_test`, `no_test` |", "| so |"] {
        assert!(row_fault(bad, &tests).is_some(), "{bad}");
    }
}

/// What is wrong with one row of the table, if anything is.
fn row_fault(row: &str, tests: &HashSet<&str>) -> Option<String> {
    let last = row.trim_end_matches('|').trim_end().rsplit_once(" | ").map(|(_, last)| last);
    let named = last.unwrap_or_default().split('`').skip(1).step_by(2);
    let named: Vec<&str> = named.filter(|name| is_identifier(name)).collect();
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
    match (named.is_empty(), missing.is_empty()) {
        (true, _) => Some(format!("no test in: {row}")),
        (false, false) => Some(format!("{missing:?} are no tests, in: {row}")),
        (false, true) => None,
    }
}

/// The names of all functions that are tests, or are called with the subject of the suite over HTTP.
fn tests(code: &str) -> HashSet<&str> {
    let mut tests = HashSet::new();
    let mut is_test = false;
    for line in code.lines().map(str::trim) {
        is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        if let Some((_, rest)) = line.split_once("fn ") {
            let name = rest.split('(').next().filter(|_| is_test);
            tests.extend(name);
            is_test = false;
        }
        if let Some((call, _)) = line.split_once("(subject).await") {
            tests.extend(call.rsplit([':', ' ']).next());
        }
    }
    tests
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
