//! The recipes do what their pages say: every command is run in order against a new cluster, as
//! `sage dev` starts it, and prints what stands below it; every piece of Rust is part of an example,
//! and the examples run.
//!
//! A page has blocks of `sh`, each run by the same bash, with all that it prints in a block of `text`
//! after it, in which `<n>` stands for any number. A block without one prints nothing.

use std::fs;
use std::path::{Path, PathBuf};

use sagedb::client::Client;

use crate::common::command::end_of;
use crate::common::node::Node;
use crate::common::process::Launch;
use crate::common::world::{World, sage};

#[expect(dead_code, reason = "its main is for `cargo run --example`")]
#[path = "../examples/cache.rs"]
mod cache;
#[expect(dead_code, reason = "its main is for `cargo run --example`")]
#[path = "../examples/counter.rs"]
mod counter;
#[expect(dead_code, reason = "its main is for `cargo run --example`")]
#[path = "../examples/lock.rs"]
pub(crate) mod lock;
#[expect(dead_code, reason = "its main is for `cargo run --example`")]
#[path = "../examples/queue.rs"]
pub(crate) mod queue;
#[expect(dead_code, reason = "its main is for `cargo run --example`")]
#[path = "../examples/session.rs"]
mod session;

/// One test each, below.
const PAGES: [&str; 5] = ["cache", "counter", "lock", "queue", "session"];
/// Where the pages say that the cluster is.
const PAGE_URL: &str = "http://127.0.0.1:4000";
/// Between what the blocks print.
const MARK: &str = "--- next block ---";

/// A fenced block.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Block {
    /// The line of its fence.
    line: usize,
    language: String,
    text: String,
}

/// Commands, and what the page says that they print.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    line: usize,
    commands: String,
    printed: String,
}

#[tokio::test]
async fn the_lock_does_what_its_page_says() {
    let (client, _cluster) = follow("lock").await;
    lock::run(&client).await.expect("the example runs");
}

#[tokio::test]
async fn the_counter_does_what_its_page_says() {
    let (client, _cluster) = follow("counter").await;
    counter::run(&client).await.expect("the example runs");
}

#[tokio::test]
async fn the_queue_does_what_its_page_says() {
    let (client, _cluster) = follow("queue").await;
    queue::run(&client).await.expect("the example runs");
}

#[tokio::test]
async fn the_cache_does_what_its_page_says() {
    let (client, _cluster) = follow("cache").await;
    cache::run(&client).await.expect("the example runs");
}

#[tokio::test]
async fn the_session_store_does_what_its_page_says() {
    let (client, _cluster) = follow("session").await;
    session::run(&client).await.expect("the example runs");
}

#[test]
fn every_page_is_followed_and_quotes_its_example() {
    let directory = root().join("docs/recipes");
    let entries = fs::read_dir(directory).expect("the recipes are there");
    let names = entries.map(|entry| entry.expect("readable").file_name().into_string());
    let mut names: Vec<String> = names.map(|name| name.expect("a name of text")).collect();
    names.sort();
    let mut expected: Vec<String> = PAGES.iter().map(|page| format!("{page}.md")).collect();
    expected.insert(0, "README.md".into());
    assert_eq!(names, expected, "each page has its test here");

    let lines = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    for page in PAGES {
        let example = format!("examples/{page}.rs");
        let code = lines(&fs::read_to_string(root().join(&example)).expect("it is there"));
        let quoted = blocks(&text_of(page)).into_iter().filter(|block| block.language == "rust");
        for Block { line, text, .. } in quoted {
            assert!(code.contains(&lines(&text)), "{page}.md:{line}: not in {example}");
        }
    }
}

#[test]
fn what_drifts_is_found() {
    assert_eq!(drift("a <n>\nb", "a 17\nb"), None);
    for (page, printed) in [
        ("ok (version 1)", "ok (version 2)"),
        ("ok (version <n>)", "ok (version )"),
        ("{\"ts\":<n>}", "{\"ts\":17,\"more\":1}"),
        ("one", "one\ntwo"),
        ("one\ntwo", "one"),
        ("", "error: no"),
    ] {
        assert!(drift(page, printed).is_some(), "{page} is not {printed}");
    }
    let page = "# T\n```sh\necho a\n```\n```text\na\n```\n```sh\ntrue\n```\n```rust\nx\n```\n";
    let step = |line, commands: &str, printed: &str| {
        let (commands, printed) = (commands.into(), printed.into());
        Step { line, commands, printed }
    };
    assert_eq!(steps(page), [step(2, "echo a\n", "a\n"), step(8, "true\n", "")]);
}

/// Does what a page says against a new cluster; a client of that, and what keeps it running.
async fn follow(page: &str) -> (Client, (Node, World)) {
    let mut world = World::new().await;
    let port = world.port();
    let mut node = Node::coordinator(&sage(), world.directory(), ("dev", port), &[]);
    let args = ["dev", "--port", &port.to_string(), "--data", "dev-data"].map(String::from);
    node.launch = Launch { args: args.to_vec(), ..node.launch };
    node.start().expect("sage can be started");
    world.until_ready(&node.url).await;

    let steps = steps(&text_of(page));
    assert!(!steps.is_empty(), "{page}.md has commands");
    let ended = end_of(shell(world.directory(), &node.url, &steps)).await;
    let printed = ended.stdout.replace(&node.url, PAGE_URL);
    let mark = format!("{MARK}\n");
    let mut printed = printed.split(&mark).skip(1);
    for step in &steps {
        let place = format!("docs/recipes/{page}.md:{}", step.line);
        let Some(printed) = printed.next() else { panic!("{place}: not reached: {ended:?}") };
        if let Some(drift) = drift(&step.printed, printed) {
            panic!("{place}: {}\n{drift}", step.commands);
        }
    }
    assert_eq!(ended.code, Some(0), "the last command of {page}.md failed: {ended:?}");
    (Client::new([&node.url]).expect("a URL"), (node, world))
}

/// All commands in one bash, which ends at the first that fails.
fn shell(directory: &Path, url: &str, steps: &[Step]) -> Launch {
    // As docs/recipes/README.md tells its readers.
    fs::write(directory.join(".curlrc"), "silent\nwrite-out = \"\\n\"\n").expect("written");
    let commands = steps.iter().map(|step| step.commands.replace(PAGE_URL, url));
    let commands: Vec<_> = commands.map(|commands| format!("echo '{MARK}'\n{commands}")).collect();
    let script = format!("exec 2>&1\nset -euo pipefail\n{}", commands.concat());
    let sage = sage();
    let binaries = sage.parent().expect("it is in a directory").display();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap_or_default());
    let home = directory.display().to_string();
    let env = [("PATH", path), ("SAGE_URL", url.to_owned()), ("CURL_HOME", home)];
    Launch {
        name: "page".into(),
        program: "bash".into(),
        args: ["--norc", "-c", &script].map(String::from).to_vec(),
        directory: directory.into(),
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
    }
}

/// The first line that is another than the page says.
fn drift(page: &str, printed: &str) -> Option<String> {
    let (mut said, mut came) = (page.lines(), printed.lines());
    loop {
        match (said.next(), came.next()) {
            (None, None) => return None,
            (Some(said), Some(came)) if fits(said, came) => {}
            (said, came) => {
                let [said, came] = [said, came].map(|line| line.unwrap_or("(nothing more)"));
                return Some(format!("the page says: {said}\nbut it prints: {came}"));
            }
        }
    }
}

/// Whether a line is the page's, where `<n>` is any number.
fn fits(page: &str, line: &str) -> bool {
    let mut parts = page.split("<n>");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    for part in parts {
        let behind = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        match behind.strip_prefix(part) {
            Some(next) if behind.len() < rest.len() => rest = next,
            Some(_) | None => return false,
        }
    }
    rest.is_empty()
}

/// The commands of a page, with what they print.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut waits = false;
    for Block { line, language, text } in blocks(page) {
        match language.as_str() {
            "sh" => steps.push(Step { line, commands: text, printed: String::new() }),
            "text" if waits => steps.last_mut().expect("it waits").printed = text,
            "rust" => {}
            other => panic!("line {line}: a block of {other} says nothing that is checked"),
        }
        waits = steps.last().is_some_and(|step| step.line == line);
    }
    steps
}

/// All fenced blocks of a page.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, text) in page.lines().enumerate() {
        match (text.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let (line, language) = (at + 1, language.to_owned());
                open = Some(Block { line, language, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.extend([text, "\n"]),
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "every block ends");
    blocks
}

fn text_of(page: &str) -> String {
    let path = root().join(format!("docs/recipes/{page}.md"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
