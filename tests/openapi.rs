//! The `OpenAPI` document is true: generated requests are answered as it says, all of them in time.
//!
//! The requests are made from the document itself, which two processes serve: a replica and a coordinator
//! before it and another. They are right, at bounds and wrong in every way that we could think of. An answer
//! must be one that the document has for that operation: its status, its content type, its headers, its body
//! field by field. `500` is in no document. All requests follow from one seed, which a failure prints;
//! `SAGE_OPENAPI_SEED` and `SAGE_OPENAPI_REQUESTS` choose others.

mod generator;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::{Client, Method};
use serde_json::Value as Json;

use crate::common::group::Group;
use crate::common::http::Answer;
use crate::common::node::Node;
use crate::common::world::World;
use generator::{Generator, Wanted};
use schema::Schemas;

/// How many requests, unless `SAGE_OPENAPI_REQUESTS` says otherwise.
const REQUESTS: u64 = 6000;
/// How many are under way at a time, each in a line of its own.
const LINES: u64 = 12;
/// The largest value, in bytes: small, so that one that is too large costs little.
const VALUE_BYTES: &str = "2000";
/// How much later than its deadline an answer may come, on a machine that is busy with other tests.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a request may take that does not say.
const DEADLINE: Duration = Duration::from_secs(5);

/// One server, and what it says of itself.
pub(crate) struct Subject {
    base: String,
    document: Json,
}

/// How often each operation was answered with each status.
type Seen = BTreeMap<(String, u16), u64>;

/// A replica and a coordinator, and what else must run.
struct Servers {
    subjects: Vec<Arc<Subject>>,
    _groups: [Group; 2],
    _coordinator: Node,
}

/// Two groups of one and a coordinator, small values only.
async fn servers(world: &mut World) -> Servers {
    let flags = ["--max-value-size", VALUE_BYTES];
    let red = world.started("red", 1, &[&flags[..], &["--id", "red"]].concat()).await;
    let green = world.started("green", 1, &[&flags[..], &["--id", "green"]].concat()).await;
    let mut coordinator = world.coordinator(&[red.url().to_owned(), green.url().to_owned()]);
    coordinator.launch.args.extend(flags.map(String::from));
    coordinator.start().expect("the coordinator can be started");
    world.until_ready(&coordinator.url).await;
    let mut subjects = Vec::new();
    for base in [red.url().to_owned(), coordinator.url.clone()] {
        let answer = world.http.path(&base, "/openapi.json", &[]).await.expect("an answer");
        let document = answer.expect(200).json();
        subjects.push(Arc::new(Subject { base, document }));
    }
    Servers { subjects, _groups: [red, green], _coordinator: coordinator }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_to_a_generated_request_is_in_the_document() {
    let mut world = World::new().await;
    let servers = servers(&mut world).await;
    let subjects = &servers.subjects;
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number("SAGE_OPENAPI_SEED", 1);
    let requests = number("SAGE_OPENAPI_REQUESTS", REQUESTS);
    let begun = Instant::now();
    let lines: Vec<_> = (0..LINES)
        .map(|line| {
            let subject = Arc::clone(&subjects[usize::try_from(line).expect("small") % 2]);
            let client = world.http.client.clone();
            tokio::spawn(
                async move { walk(&subject, &client, (seed, line), requests / LINES).await },
            )
        })
        .collect();
    let mut counts = Seen::new();
    for line in lines {
        let walked = line.await.expect("no panic").unwrap_or_else(|fault| {
            panic!(
                "{fault}\nSAGE_OPENAPI_SEED={seed} SAGE_OPENAPI_REQUESTS={requests} does it again"
            )
        });
        for (key, times) in walked {
            *counts.entry(key).or_default() += times;
        }
    }
    println!("{} requests in {:?}: {counts:?}", counts.values().sum::<u64>(), begun.elapsed());
    assert_worth_it(subjects, &counts, requests);
}

/// Sends one line of requests, one after the other.
async fn walk(
    subject: &Subject,
    client: &Client,
    (seed, line): (u64, u64),
    requests: u64,
) -> Result<Seen, String> {
    let mut generator = Generator::new(&subject.document, StdRng::seed_from_u64(seed << 8 | line));
    let mut counts = Seen::new();
    for number in 0..requests {
        let wanted = generator.request();
        let fault = |text: String| format!("request {number} of line {line}: {wanted:?}: {text}");
        let begun = Instant::now();
        let answer = send(client, &subject.base, &wanted).await.map_err(&fault)?;
        let took = begun.elapsed();
        if took > wanted.timeout.unwrap_or(DEADLINE) + MARGIN {
            return Err(fault(format!("answered after {took:?}")));
        }
        check(&subject.document, &wanted, &answer)
            .map_err(|text| fault(format!("{text}: {} {}", answer.status, answer.text())))?;
        *counts.entry((wanted.operation.clone(), answer.status)).or_default() += 1;
    }
    Ok(counts)
}

async fn send(client: &Client, base: &str, wanted: &Wanted) -> Result<Answer, String> {
    let method = Method::from_bytes(wanted.method.as_bytes()).expect("a method");
    let mut request = client.request(method, format!("{base}{}", wanted.target));
    for (name, value) in &wanted.headers {
        request = request.header(name, &value[..]);
    }
    if let Some(body) = &wanted.body {
        request = request.body(body.clone());
    }
    let mut answer = request.send().await.map_err(|error| format!("no answer: {error:?}"))?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let broken = |error| format!("no whole answer: {error:?}");
    let endless = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let body = if endless && wanted.method == "GET" {
        answer.chunk().await.map_err(broken)?.ok_or("a watch that tells nothing")?
    } else {
        answer.bytes().await.map_err(broken)?
    };
    Ok(Answer { status, headers, body: body.to_vec() })
}

/// Whether the document has this answer.
fn check(document: &Json, wanted: &Wanted, answer: &Answer) -> Result<(), String> {
    let status = answer.status.to_string();
    let all = operations(document);
    let is_it =
        |one: &&Operation<'_>| one.described["operationId"].as_str() == wanted.id.as_deref();
    let declared = match all.iter().find(is_it) {
        Some(operation) => &operation.described["responses"][&status],
        None => match answer.status {
            404 => &document["components"]["responses"]["NotFound"],
            405 => &document["components"]["responses"]["MethodNotAllowed"],
            _ => &Json::Null,
        },
    };
    if !declared.is_object() {
        return Err(format!("{status} is not declared"));
    }
    if wanted.wrong && answer.status != 400 {
        return Err("a request that must be refused was not".into());
    }
    for name in answer.headers.keys().map(reqwest::header::HeaderName::as_str) {
        let ours = name.starts_with("x-sage")
            || ["etag", "retry-after", "upgrade", "allow", "content-security-policy"]
                .contains(&name);
        let mut names = declared["headers"].as_object().into_iter().flat_map(|all| all.keys());
        if ours && !names.any(|declared| declared.eq_ignore_ascii_case(name)) {
            return Err(format!("header {name} is not declared"));
        }
        if ours && answer.header(name).is_empty() {
            return Err(format!("header {name} is empty"));
        }
    }
    let Some(contents) = declared["content"].as_object() else {
        let empty = answer.body.is_empty();
        return if empty { Ok(()) } else { Err("a body that is not declared".into()) };
    };
    let kind = answer.header("content-type");
    let Some(content) = contents.get(kind) else {
        return Err(format!("content type {kind} is not declared"));
    };
    if wanted.method == "HEAD" {
        return if answer.body.is_empty() { Ok(()) } else { Err("HEAD with a body".into()) };
    }
    if kind != "application/json" {
        return Ok(());
    }
    let body = readable(&answer.text());
    let body: Json = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let schemas = Schemas::of(document);
    // The document allows any JSON here because of `raw=true`; without it there is only one form.
    if wanted.operation == "getValue" && answer.status == 200 && !wanted.target.contains("raw=") {
        return schemas.check(&content["schema"]["anyOf"][0], &body);
    }
    schemas.check(&content["schema"], &body)
}

/// The text without what is within the grammar of JSON, so that it is stored and comes back byte for byte, but
/// can't be held by this parser: half a pair of surrogates (RFC 8259 §8.2), a number beyond all doubles.
fn readable(text: &str) -> String {
    let mut readable = String::new();
    let (mut chars, mut digits) = (text.chars(), 0);
    while let Some(char) = chars.next() {
        digits = if char.is_ascii_digit() { digits + 1 } else { 0 };
        if char == '\\' {
            if let Some(rest) = chars.as_str().strip_prefix("ud800") {
                readable.push('?');
                chars = rest.chars();
            } else {
                // What is escaped is no escape itself.
                readable.push(char);
                readable.extend(chars.next());
            }
        } else if digits < 100 {
            readable.push(char);
        }
    }
    readable
}

/// A run that was refused everywhere would find nothing: each operation must have worked, too.
fn assert_worth_it(subjects: &[Arc<Subject>], seen: &Seen, requests: u64) {
    if requests < REQUESTS {
        return;
    }
    let worked: BTreeSet<&str> = seen
        .keys()
        .filter(|(_, status)| (200..300).contains(status))
        .map(|(operation, _)| operation.as_str())
        .collect();
    for operation in subjects.iter().flat_map(|subject| operations(&subject.document)) {
        let id = operation.described["operationId"].as_str().expect("an id");
        assert!(worked.contains(id) || id == "rpc", "{id} never worked: {seen:#?}");
    }
    let statuses: BTreeSet<u16> = seen.keys().map(|(_, status)| *status).collect();
    for status in [400, 404, 405, 409, 412, 413, 421, 422] {
        assert!(statuses.contains(&status), "no answer {status}: {seen:#?}");
    }
}

/// One method of one path.
pub(crate) struct Operation<'a> {
    pub(crate) path: &'a str,
    pub(crate) method: &'a str,
    pub(crate) described: &'a Json,
}

/// All that a document has.
pub(crate) fn operations(document: &Json) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods");
        methods.iter().map(move |(method, described)| Operation { path, method, described })
    });
    all.collect()
}

#[tokio::test]
async fn the_parameters_that_are_accepted_are_those_of_the_document() {
    let mut world = World::new().await;
    let servers = servers(&mut world).await;
    for subject in &servers.subjects {
        for operation in operations(&subject.document) {
            let id = operation.described["operationId"].as_str().expect("an id");
            if id == "rpc" {
                continue;
            }
            let parameters = operation.described["parameters"].as_array();
            let of_query = parameters.into_iter().flatten().filter(|one| one["in"] == "query");
            let told: Vec<_> = of_query.map(|one| one["name"].as_str().expect("a name")).collect();
            let method = Method::from_bytes(operation.method.to_uppercase().as_bytes());
            let at = (subject.base.as_str(), operation.path);
            let odd = [("surely-unknown", "1")];
            let answer = world.http.send(method.expect("a method"), at, &odd, None).await;
            let refused = answer.expect("an answer").expect(400).json();
            let sentence = refused["error"].as_str().expect("a sentence");
            let (_, accepted) = sentence.split_once("accepted here: ").expect(sentence);
            assert_eq!(accepted, told.join(", "), "{id}");
        }
    }
}
