//! `sage bench`: what it prints and writes, over a real cluster.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::command::{Ended, run};
use crate::common::group::Group;
use crate::common::node::{Node, url_of};
use crate::common::process::{Launch, Process};
use crate::common::until::{SOON, until};
use crate::common::world::{World, sage};

const SHORT: [&str; 10] = [
    "bench",
    "--duration",
    "300ms",
    "--warmup",
    "50ms",
    "--clients",
    "4",
    "--keys",
    "200",
    "--threads",
];

async fn cluster(world: &mut World) -> (Vec<Group>, Node) {
    let mut groups = Vec::new();
    for name in ["red", "green"] {
        groups.push(world.started(name, 1, &["--id", name]).await);
    }
    let coordinator = world.routed(&groups.iter().collect::<Vec<_>>()).await;
    (groups, coordinator)
}

async fn bench(world: &World, url: &str, args: &[&str]) -> Ended {
    run(world.directory(), &[&SHORT[..], &["2", "--url", url], args].concat()).await
}

#[track_caller]
fn done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("error"), "{ended:?}");
}

#[tokio::test]
async fn every_workload_has_its_rows_and_the_figures_of_the_file_add_up() {
    let mut world = World::new().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let all = "put,get,ycsb-a,ycsb-b,ycsb-c";
    let args = ["--workload", all, "--distribution", "zipfian", "--json", "result.json"];
    let ended = bench(&world, &coordinator.url, &args).await;
    done(&ended);
    let rows: Vec<Vec<&str>> =
        ended.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let named: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    let expected = [
        ("workload", "operation"),
        ("put", "update"),
        ("get", "read"),
        ("ycsb-a", "read"),
        ("ycsb-a", "update"),
        ("ycsb-a", "all"),
        ("ycsb-b", "read"),
        ("ycsb-b", "update"),
        ("ycsb-b", "all"),
        ("ycsb-c", "read"),
    ];
    assert_eq!(named, expected, "{}", ended.stdout);

    let file = std::fs::read(world.directory().join("result.json")).expect("it was written");
    let report: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(
        (&report["settings"]["clients"], &report["settings"]["keys"]),
        (&json!(4), &json!(200))
    );
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 5, "{report}");
    let mut in_file = Vec::new();
    for run in runs {
        let operations = run["operations"].as_array().expect("operations");
        let sum =
            |field: &str| operations.iter().filter_map(|row| row[field].as_u64()).sum::<u64>();
        for field in ["ops", "errors", "not_found"] {
            assert_eq!(run["total"][field], json!(sum(field)), "{field}: {run}");
        }
        assert!(sum("ops") > 0 && sum("errors") == 0 && sum("not_found") == 0, "{run}");
        let seconds = run["elapsed_s"].as_f64().expect("a number");
        assert!((seconds - 0.3).abs() < 0.001, "{run}");
        let of = |field: &str| run["total"][field].as_f64().expect("a number");
        let in_time = of("ops") - of("late_ops");
        assert!((of("ops_per_s") * seconds - in_time).abs() < 1.0, "{run}");
        let rising = ["p50_us", "p95_us", "p99_us", "p999_us", "max_us"].map(of);
        assert!(rising[0] > 0.0 && rising.is_sorted(), "{run}");
        in_file.extend(operations.iter().map(|row| (run, row)));
        if operations.len() > 1 {
            in_file.push((run, &run["total"]));
        }
    }
    // The table shows what the file has.
    for (row, (run, figures)) in rows[1..].iter().zip(in_file) {
        let shown: f64 = row[7].parse().expect("milliseconds");
        let exact = figures["p99_us"].as_f64().expect("a number") / 1000.0;
        assert!((shown - exact).abs() < 0.001 && row[0] == run["workload"], "{row:?} {run}");
    }
}

#[tokio::test]
async fn clients_are_spread_over_all_urls_and_keys_go_when_that_is_asked_for() {
    let mut world = World::new().await;
    let group = world.started("red", 3, &["--id", "red"]).await;
    let urls = group.urls().join(",");
    let count = async |prefix: &str| {
        let answer = world.http.path(group.url(), "/count", &[("prefix", prefix)]).await;
        answer.expect("an answer").expect(200).json()["count"].clone()
    };
    let report = bench(&world, &urls, &["--workload", "get", "-o", "json"]).await;
    done(&report);
    let report: Value = serde_json::from_str(&report.stdout).expect("nothing but JSON");
    assert_eq!(report["urls"].as_array().map(Vec::len), Some(3), "{report}");
    assert_eq!(count("bench/").await, json!(200), "all keys were loaded");
    done(&bench(&world, &urls, &["--workload", "put", "--cleanup", "--prefix", "other/"]).await);
    assert_eq!((count("other/").await, count("bench/").await), (json!(0), json!(200)));
}

#[tokio::test]
async fn a_url_where_nobody_listens_is_noticed_beside_others() {
    let mut world = World::new().await;
    let nobody = url_of(world.port());
    let (_groups, coordinator) = cluster(&mut world).await;
    let both = format!("{},{nobody}", coordinator.url);
    bench(&world, &both, &["--workload", "put"]).await.refused(&[&nobody]);
}

#[tokio::test]
async fn what_is_missing_or_refused_is_counted_apart() {
    let mut world = World::new().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let args = ["--workload", "ycsb-c", "--no-load", "-o", "json"];
    let ended = bench(&world, &coordinator.url, &args).await;
    done(&ended);
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let total = &report["runs"][0]["total"];
    assert!(total["ops"].as_u64() > Some(0) && total["ops"] == total["not_found"], "{total}");

    let small = world.started("small", 1, &["--max-value-size", "10"]).await;
    let ended = bench(&world, small.url(), &["--workload", "put"]).await;
    ended.refused(&["nothing succeeded", "413"]);
    assert!(ended.stdout.contains("put: updates failed: status 413"), "{ended:?}");
    // As a reader of the table would see it, loading is no workload: it just says why it can't be done.
    bench(&world, small.url(), &["--workload", "get"]).await.refused(&["can't be loaded"]);
}

#[tokio::test]
async fn a_rate_is_kept() {
    let mut world = World::alone().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let args = ["--workload", "ycsb-b", "--rate", "200", "--duration", "1s", "-o", "json"];
    let words =
        [&["bench", "--keys", "100", "--clients", "8", "--url", &coordinator.url], &args[..]];
    let ended = run(world.directory(), &words.concat()).await;
    done(&ended);
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let (run, ops) = (&report["runs"][0], report["runs"][0]["total"]["ops"].as_u64());
    assert!(ops >= Some(150) && ops <= Some(200), "{report}");
    assert_eq!(run["target_ops_per_s"], json!(200));
}

#[tokio::test]
async fn bad_flags_are_one_clear_line() {
    let world = World::new().await;
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--workload", "ycsb-z"], &["ycsb-z", "ycsb-a"]),
        (&["--workload", "put,,get"], &["workload"]),
        (&["--clients", "0"], &["--clients", "1"]),
        (&["--rate", "99999999999"], &["--rate", "10000000"]),
        (&["--rate", "0"], &["--rate"]),
        (&["--duration", "0s"], &["--duration"]),
        (&["--distribution", "normal"], &["normal", "zipfian"]),
        (&["--url", "http://a:1,http://a:1"], &["--url", "twice"]),
        (&["--cleanup", "--prefix", ""], &["--cleanup", "every key"]),
    ];
    for (flags, words) in cases {
        let ended = run(world.directory(), &[&["bench"], flags].concat()).await;
        ended.refused(words);
        assert_eq!(ended.stdout, "", "{ended:?}");
    }
    let odd = run(world.directory(), &["bench", "--json", "missing/result.json"]).await;
    odd.refused(&["missing/result.json"]);
}

#[tokio::test]
async fn ctrl_c_shows_what_was_measured_until_then() {
    let mut world = World::new().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let words =
        ["bench", "--workload", "put,get", "--no-load", "--warmup", "0s", "--duration", "1h"];
    let args = [&words[..], &["--clients", "2", "--url", &coordinator.url]].concat();
    let args = args.iter().map(ToString::to_string).collect();
    let (name, directory) = ("bench".into(), world.directory().into());
    let launch = Launch { name, program: sage(), args, directory, env: Vec::new() };
    let mut process = Process::start(&launch).expect("sage can be started");
    until("it writes", SOON, async || {
        let answer = world.http.path(&coordinator.url, "/count", &[]).await.expect("an answer");
        let count = answer.expect(200).json()["count"].as_u64();
        if count > Some(100) { Ok(()) } else { Err(format!("{count:?} keys")) }
    })
    .await;
    process.signal(Signal::INT);
    let ended = until("it ends", SOON, async || process.ended().ok_or("it runs".into())).await;
    let printed = std::fs::read_to_string(launch.log()).expect("its output");
    assert_eq!(ended.code(), Some(0), "{printed}");
    let rows: Vec<_> = printed.lines().filter(|line| line.starts_with("put ")).collect();
    let [row] = rows[..] else { panic!("{printed}") };
    let rate: u64 =
        row.split_whitespace().nth(2).and_then(|cell| cell.parse().ok()).expect("ops/s");
    assert!(rate > 0 && !printed.contains("\nget "), "{printed}");
}
