//! The commands of the client: what they print, and how they end, for people and for scripts.

use serde_json::{Value, json};

use crate::common::command::{Ended, run, run_with};
use crate::common::group::Group;
use crate::common::node::{Node, url_of};
use crate::common::world::World;

async fn cluster(world: &mut World) -> (Vec<Group>, Node) {
    let mut groups = Vec::new();
    for name in ["red", "green"] {
        groups.push(world.started(name, 1, &["--id", name]).await);
    }
    let coordinator = world.routed(&groups.iter().collect::<Vec<_>>()).await;
    (groups, coordinator)
}

#[track_caller]
fn json_of(ended: &Ended, code: i32) -> Value {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let parsed = serde_json::from_str(&ended.stdout);
    parsed.unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[tokio::test]
async fn put_get_and_del_do_what_they_say() {
    let mut world = World::new().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let url = coordinator.url.as_str();
    let sage =
        async |args: &[&str]| run(world.directory(), &[args, &["--url", url]].concat()).await;

    let put = sage(&["put", "greeting", "hello world"]).await;
    assert_eq!(put.code, Some(0), "{put:?}");
    let got = sage(&["get", "greeting"]).await;
    assert_eq!((got.code, got.stdout.as_str()), (Some(0), "hello world\n"), "{got:?}");

    let body = json_of(&sage(&["get", "greeting", "-o", "json"]).await, 0);
    assert_eq!((&body["found"], &body["value"]), (&json!(true), &json!("hello world")));
    let direct = world.http.get(url, "greeting").await.expect(200).json();
    assert_eq!(body["ts"], direct["ts"]);

    let put = json_of(&sage(&["put", "greeting", "again", "-o", "json"]).await, 0);
    assert_eq!(put["ok"], json!(true), "{put}");
    let index = put["index"].as_str().expect("where it stands");
    let read = sage(&["get", "greeting", "--consistency", "stale", "--min-index", index]).await;
    assert_eq!((read.code, read.stdout.as_str()), (Some(0), "again\n"), "{read:?}");
    let deleted = json_of(&sage(&["del", "greeting", "-o", "json"]).await, 0);
    assert_eq!(deleted["existed"], json!(true), "{deleted}");

    let missing = sage(&["get", "greeting"]).await;
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), ""), "{missing:?}");
    let missing = json_of(&sage(&["get", "greeting", "-o", "json"]).await, 1);
    assert_eq!(missing["found"], json!(false));
}

#[tokio::test]
async fn a_condition_that_does_not_hold_ends_with_exit_1() {
    let mut world = World::new().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let url = coordinator.url.as_str();
    let sage =
        async |args: &[&str]| run(world.directory(), &[args, &["--url", url]].concat()).await;

    let first = json_of(&sage(&["put", "lock", "me", "--if-absent", "-o", "json"]).await, 0);
    let version = first["version"].to_string();
    let taken = sage(&["put", "lock", "you", "--if-absent"]).await;
    assert_eq!((taken.code, taken.stdout.as_str()), (Some(1), ""), "{taken:?}");
    assert!(taken.stderr.contains("nothing was changed"), "{taken:?}");
    let old = ["put", "lock", "you", "--if-version", "99", "-o", "json"];
    let refused = json_of(&sage(&old).await, 1);
    assert_eq!(refused["code"], json!("version_mismatch"));
    assert_eq!(refused["version"], first["version"]);
    let second = ["put", "lock", "still me", "--if-version", &version, "-o", "json"];
    let version_now = json_of(&sage(&second).await, 0)["version"].to_string();
    assert_eq!(sage(&["del", "lock", "--if-version", &version]).await.code, Some(1));
    assert_eq!(sage(&["get", "lock"]).await.stdout, "still me\n");
    assert_eq!(sage(&["del", "lock", "--if-version", &version_now]).await.code, Some(0));
    let both = sage(&["put", "lock", "x", "--if-absent", "--if-version", "1"]).await;
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[tokio::test]
async fn route_and_status_show_the_cluster() {
    let mut world = World::new().await;
    let (groups, coordinator) = cluster(&mut world).await;
    let url = coordinator.url.as_str();
    let sage =
        async |args: &[&str]| run(world.directory(), &[args, &["--url", url]].concat()).await;

    let route = json_of(&sage(&["route", "greeting", "-o", "json"]).await, 0);
    let direct = world.http.path(url, "/route", &[("key", "greeting")]).await;
    assert_eq!(route, direct.expect("an answer").json());
    let text = sage(&["route", "greeting"]).await;
    assert!(text.stdout.contains(route["shard"].as_str().expect("a name")), "{text:?}");

    let table = sage(&["status"]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    for (group, name) in groups.iter().zip(["red", "green"]) {
        let line = table.stdout.lines().find(|line| line.contains(group.url()));
        assert!(line.is_some(), "no line for {}: {}", group.url(), table.stdout);
        assert!(table.stdout.contains(name), "{}", table.stdout);
    }
    let status = json_of(&sage(&["status", "-o", "json"]).await, 0);
    assert_eq!(status["groups"].as_array().map(Vec::len), Some(2), "{status}");
}

#[tokio::test]
async fn the_url_comes_from_the_environment_too() {
    let mut world = World::new().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let env = [("SAGE_URL", coordinator.url.as_str())];
    let put = run_with(world.directory(), &["put", "k", "v"], &env).await;
    assert_eq!(put.code, Some(0), "{put:?}");
    let got = run_with(world.directory(), &["get", "k"], &env).await;
    assert_eq!(got.stdout, "v\n", "{got:?}");
}

#[tokio::test]
async fn what_cannot_be_done_is_one_clear_line_and_exit_2() {
    let mut world = World::new().await;
    let nobody = url_of(world.port());
    let long = "k".repeat(4097);
    let (_groups, coordinator) = cluster(&mut world).await;
    let cases: [(&[&str], &str); 5] = [
        (&["get", "k", "--url", &nobody], &nobody),
        (&["get", "k", "--url", "nonsense"], "nonsense"),
        (&["get", &long, "--url", &coordinator.url], "key too large"),
        (&["put", "k"], "VALUE"),
        (&["get", "k", "--output", "yaml"], "yaml"),
    ];
    for (args, word) in cases {
        let ended = run(world.directory(), args).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with("error"), "{ended:?}");
        assert!(ended.stderr.contains(word), "{word} is not in: {ended:?}");
        assert_eq!(ended.stdout, "", "{ended:?}");
    }
}

#[tokio::test]
async fn a_watch_prints_what_has_changed_since() {
    let mut world = World::new().await;
    let (_groups, coordinator) = cluster(&mut world).await;
    let url = coordinator.url.as_str();
    let sage =
        async |args: &[&str]| run(world.directory(), &[args, &["--url", url]].concat()).await;

    let first = json_of(&sage(&["put", "{u}:a", "1", "-o", "json"]).await, 0);
    let index = first["index"].as_str().expect("where it stands");
    for args in [&["put", "{u}:a", "2"][..], &["put", "{u}:b", "3"], &["del", "{u}:a"]] {
        assert_eq!(sage(args).await.code, Some(0));
    }
    let all = ["watch", "--prefix", "{u}:", "--since", index, "--limit", "3"];
    let told = sage(&all).await;
    let lines = "put\t{u}:a\t2\nput\t{u}:b\t3\ndelete\t{u}:a\n";
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), lines), "{told:?}");

    let one = json_of(
        &sage(&["watch", "{u}:a", "--since", index, "--limit", "1", "-o", "json"]).await,
        0,
    );
    assert_eq!((&one["event"], &one["item"]["value"]), (&json!("put"), &json!("2")));
    let id = one["id"].as_str().expect("where to go on");
    let rest =
        json_of(&sage(&["watch", "{u}:a", "--since", id, "--limit", "1", "-o", "json"]).await, 0);
    assert_eq!((&rest["event"], rest["item"].get("value")), (&json!("delete"), None));

    let nothing = sage(&["watch"]).await;
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
    let odd = sage(&["watch", "a", "--since", "nonsense"]).await;
    assert_eq!(odd.code, Some(2), "{odd:?}");
    assert!(odd.stderr.contains("since") || odd.stderr.contains("last-event-id"), "{odd:?}");
}
