//! The command line as a process: what it prints, where, and how it exits.

use std::process::{Output, Stdio};

use sagedb::api::Options;
use sagedb::types::error::Error;
use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::fake_kv::{Fake, Mode, Server};

/// Runs `sage` with these words and this stdin.
async fn sage(base: &str, words: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sage"))
        .args(words)
        .env("SAGE_URL", base)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("sage starts");
    let mut input = child.stdin.take().expect("piped");
    // It may end before it has read everything.
    drop(input.write_all(stdin).await);
    drop(input);
    child.wait_with_output().await.expect("sage ends")
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// One line on stderr, nothing on stdout, exit code 2.
#[track_caller]
fn failed(output: &Output) -> String {
    assert_eq!(ended(output, 2), "");
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{text}");
    text
}

async fn working() -> Server {
    Server::coordinator(Fake::new(Mode::Works), Options::default()).await
}

#[tokio::test]
async fn a_value_is_put_got_and_deleted() {
    let server = working().await;
    let run = async |words: &[&str]| sage(&server.base, words, b"").await;
    assert_eq!(ended(&run(&["put", "k", "hello"]).await, 0), "ok (version 1)\n");
    assert_eq!(ended(&run(&["get", "k"]).await, 0), "hello\n");
    for level in ["linearizable", "lease", "stale"] {
        assert_eq!(ended(&run(&["get", "k", "--consistency", level]).await, 0), "hello\n");
    }
    assert_eq!(ended(&run(&["get", "k", "--min-index", "fake:1,b:9"]).await, 0), "hello\n");
    failed(&run(&["get", "k", "--min-index", "fake:2"]).await);
    failed(&run(&["get", "k", "--min-index", "fake"]).await);
    let lasting = ended(&run(&["put", "k", "hello", "--ttl", "30m", "-o", "json"]).await, 0);
    let lasting = serde_json::from_str::<Json>(&lasting).expect("JSON");
    let until = format!("ok (until {} ms)\n", lasting["expires"].as_u64().expect("a time") + 1);
    assert_eq!(ended(&run(&["touch", "k", "30m"]).await, 0), until);
    assert_eq!(ended(&run(&["touch", "k", "none"]).await, 0), "ok (for ever)\n");
    let absent = r#"{"if":[{"key":"t","exists":false}],"then":[{"op":"put","key":"t","value":1}]}"#;
    let first = ended(&run(&["txn", absent]).await, 0);
    assert!(first.starts_with(r#"{"succeeded":true,"results":[{"status":200,"#), "{first}");
    let again = ended(&run(&["txn", absent]).await, 1);
    assert!(again.starts_with(r#"{"succeeded":false,"results":[],"#), "{again}");
    failed(&run(&["txn", "{}"]).await);
    let batch = r#"{"ops":[{"op":"get","key":"t"},{"op":"get","key":"missing"}]}"#;
    let both = sage(&server.base, &["batch", "-"], batch.as_bytes()).await;
    let both = ended(&both, 0);
    assert!(
        both.contains(r#""value":1"#) && both.contains(r#"{"status":404,"found":false}"#),
        "{both}"
    );
    assert_eq!(ended(&run(&["incr", "n"]).await, 0), "1\n");
    assert_eq!(ended(&run(&["incr", "n", "-10"]).await, 0), "-9\n");
    failed(&run(&["incr", "k"]).await);
    assert_eq!(ended(&run(&["touch", "missing", "1s"]).await, 1), "");
    let missing = ended(&run(&["touch", "missing", "1s", "-o", "json"]).await, 1);
    assert_eq!(missing, "{\"code\":\"key_not_found\",\"ok\":false}\n");
    failed(&run(&["touch", "k", "0s"]).await);
    failed(&run(&["touch", "k", "soon"]).await);
    ended(&run(&["touch", "k", "1h", "--if-version", "9"]).await, 1);
    assert_eq!(ended(&run(&["del", "k"]).await, 0), "ok (deleted)\n");
    assert_eq!(ended(&run(&["del", "k"]).await, 0), "ok (was not there)\n");
    let missing = run(&["get", "k"]).await;
    assert_eq!((ended(&missing, 1), missing.stderr.len()), (String::new(), 0));
    assert_eq!(ended(&run(&["get", "k", "-o", "json"]).await, 1), "{\"found\":false}\n");
}

#[tokio::test]
async fn scripts_get_the_answer_of_the_api() {
    let server = working().await;
    let run = async |words: &[&str]| sage(&server.base, words, b"").await;
    let stored = r#"{"b":12345678901234567890123,"a":1}"#;
    let put = ended(&run(&["put", "k", stored, "--json", "-o", "json"]).await, 0);
    let put: Json = serde_json::from_str(&put).expect("JSON");
    assert_eq!((&put["ok"], &put["version"]), (&json!(true), &json!(1)));
    let got = ended(&run(&["get", "k", "-o", "json"]).await, 0);
    assert!(got.starts_with(&format!("{{\"found\":true,\"value\":{stored},\"ts\":")), "{got}");
    assert_eq!(ended(&run(&["get", "k"]).await, 0), format!("{stored}\n"));
    let deleted = ended(&run(&["del", "k", "-o", "json"]).await, 0);
    assert_eq!(serde_json::from_str::<Json>(&deleted).expect("JSON")["existed"], true);
    let route = ended(&run(&["route", "k", "-o", "json"]).await, 0);
    assert_eq!(serde_json::from_str::<Json>(&route).expect("JSON")["key"], "k");
    let status = ended(&run(&["status", "-o", "json"]).await, 0);
    assert_eq!(serde_json::from_str::<Json>(&status).expect("JSON")["vnodes"], 100);
}

#[tokio::test]
async fn keys_are_listed_and_counted() {
    let server = working().await;
    let run = async |words: &[&str]| sage(&server.base, words, b"").await;
    assert_eq!(ended(&run(&["scan"]).await, 1), "");
    for words in [&["a:1", "text"][..], &["a:2", "[1, 2]", "--json"], &["b", "x", "--bytes"]] {
        ended(&run(&[&["put"], words].concat()).await, 0);
    }
    assert_eq!(ended(&run(&["scan"]).await, 0), "a:1\ttext\na:2\t[1, 2]\nb\teA==\n");
    assert_eq!(ended(&run(&["scan", "a:", "--keys-only"]).await, 0), "a:1\na:2\n");
    let last = ["scan", "--reverse", "--limit", "2", "--keys-only", "--consistency", "stale"];
    assert_eq!(ended(&run(&last).await, 0), "b\na:2\n");
    let between = ["scan", "--start", "a:2", "--end", "b", "-o", "json"];
    let line = ended(&run(&between).await, 0);
    assert!(line.starts_with(r#"{"key":"a:2","value":[1, 2],"ts":"#), "{line}");
    assert_eq!(serde_json::from_str::<Json>(&line).expect("one line of JSON")["version"], 1);
    assert_eq!(ended(&run(&["scan", "--limit", "0"]).await, 1), "");
    assert_eq!(ended(&run(&["count"]).await, 0), "3\n");
    assert_eq!(ended(&run(&["count", "a:", "-o", "json"]).await, 0), "{\"count\":2}\n");
    assert_eq!(ended(&run(&["count", "nothing"]).await, 0), "0\n");
    let many = "k".repeat(4097);
    assert_eq!(ended(&run(&["del", "--prefix", "a:"]).await, 0), "ok (2 deleted)\n");
    let all = ["del", "--prefix", "", "-o", "json"];
    assert_eq!(ended(&run(&all).await, 0), "{\"ok\":true,\"deleted\":1}\n");
    assert_eq!(ended(&run(&["count"]).await, 0), "0\n");
    let refused = failed(&run(&["scan", &many]).await);
    assert!(refused.contains("key too large"), "{refused}");
}

#[tokio::test]
async fn bytes_go_in_and_come_out_as_they_are() {
    let server = working().await;
    let bytes = b"\x00\xff\n\n";
    for words in [&["put", "k", "-", "--bytes"][..], &["put", "k", "--file", "-", "--bytes"]] {
        ended(&sage(&server.base, words, bytes).await, 0);
        let got = sage(&server.base, &["get", "k"], b"").await;
        assert_eq!(got.stdout, bytes);
    }
    let text = failed(&sage(&server.base, &["put", "k", "-"], bytes).await);
    assert!(text.contains("--bytes"), "{text}");
}

#[tokio::test]
async fn eyes_get_tables() {
    let server = working().await;
    let status = ended(&sage(&server.base, &["status"], b"").await, 0);
    assert!(status.contains("GROUP  REPLICA") && status.contains("leader"), "{status}");
    let route = ended(&sage(&server.base, &["route", "{u}:a"], b"").await, 0);
    assert!(route.starts_with("shard     fake\nurl       http://127.0.0.1:4101\n"), "{route}");
    let shard = Server::shard(Fake::new(Mode::Works), Options::default()).await;
    let status = ended(&sage(&shard.base, &["status"], b"").await, 0);
    assert!(status.contains("MEMBER") && status.contains("leader"), "{status}");
}

#[tokio::test]
async fn a_mistake_is_one_line_and_exit_2() {
    let base = "http://127.0.0.1:1";
    let cases: [(&[&str], &str); 9] = [
        (&["shrad"], "shard"),
        (&["dev", "--shard", "3"], "--shards"),
        (&["shard", "--quorum", "2"], "--quorum 2"),
        (&["shard", "--replicas", "https://a:1"], "https"),
        (&["coordinator", "--shards", "nonsense"], "nonsense"),
        (&["put", "k"], "VALUE"),
        (&["get", "k", "--url", "http://a"], "--url"),
        (&["get", "k", "--timeout", "61s"], "--timeout"),
        (&["get", "k", "--log", "sagedb=loud"], "--log"),
    ];
    for (words, sentence) in cases {
        let text = failed(&sage(base, words, b"").await);
        assert!(text.contains(sentence), "{words:?}: {text}");
    }
    let no_words = sage(base, &[], b"").await;
    assert_eq!(ended(&no_words, 2), "");
    assert!(ended(&sage(base, &["--help"], b"").await, 0).contains("Example"));
    assert!(ended(&sage(base, &["--version"], b"").await, 0).starts_with("sage "));
}

#[tokio::test]
async fn a_server_that_fails_is_exit_2() {
    let refused = failed(&sage("http://127.0.0.1:1", &["get", "k"], b"").await);
    assert!(refused.contains("can't reach http://127.0.0.1:1"), "{refused}");
    let failing = Fake::new(Mode::Fails(Error::unavailable("no leader yet")));
    let server = Server::coordinator(failing, Options::default()).await;
    for words in
        [&["put", "k", "v"][..], &["get", "k"], &["del", "k"], &["scan"], &["count"], &["status"]]
    {
        assert_eq!(failed(&sage(&server.base, words, b"").await), "error: no leader yet\n");
    }
    let hanging = Server::coordinator(Fake::new(Mode::Hangs), Options::default()).await;
    let words = ["put", "k", "v", "--timeout", "500ms"];
    let unknown = failed(&sage(&hanging.base, &words, b"").await);
    assert!(unknown.contains("the outcome of the write is unknown"), "{unknown}");
}

#[tokio::test]
async fn flags_are_read_from_the_environment() {
    let server = working().await;
    let output = Command::new(env!("CARGO_BIN_EXE_sage"))
        .args(["put", "k", "{}"])
        .envs([("SAGE_URL", server.base.as_str()), ("SAGE_OUTPUT", "json"), ("SAGE_JSON", "1")])
        .output();
    let output = output.await.expect("sage runs");
    assert!(ended(&output, 0).starts_with("{\"ok\":true"));
    let got = ended(&sage(&server.base, &["get", "k", "-o", "json"], b"").await, 0);
    assert!(got.contains("\"value\":{}"), "{got}");
}

#[tokio::test]
async fn the_client_uses_the_proxy_of_the_environment() {
    // The server takes absolute targets, as a proxy does; the name of the URL is nobody's.
    let server = working().await;
    let run = async |words: &'static [&'static str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_sage"))
            .args(words)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .envs([("http_proxy", &*server.base), ("HTTP_PROXY", &*server.base)])
            .env("SAGE_URL", "http://sage.invalid:4000")
            .output();
        command.await.expect("sage runs")
    };
    assert_eq!(ended(&run(&["put", "k", "through"]).await, 0), "ok (version 1)\n");
    assert_eq!(ended(&run(&["get", "k"]).await, 0), "through\n");
    assert_eq!(ended(&sage(&server.base, &["get", "k"], b"").await, 0), "through\n");
}
