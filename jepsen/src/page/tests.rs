//! The page as a whole: nothing gets out of its place, out of bounds, or onto the network.

use std::time::Instant;

use super::*;
use crate::history::{Action, Stage, Value};
use crate::results::Verdict;

const HOSTILE: &str =
    "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\"'&\u{2028}";

/// The page without what is ours: library, scripts and style.
fn foreign(page: &str) -> String {
    let mut page = page.replace(LIBRARY, "").replace(STYLE, "");
    for script in SCRIPTS {
        page = page.replace(script, "");
    }
    page
}

/// What the scripts read.
fn data(page: &str) -> serde_json::Value {
    let start = "<script id=\"data\" type=\"application/json\">";
    let (_, rest) = page.split_once(start).expect("the page has data");
    let (data, _) = rest.split_once("</script>").expect("the data end");
    serde_json::from_str(data).expect("the data are JSON")
}

#[test]
fn hostile_texts_stay_texts() {
    let (mut results, mut history, mut faults) = synthetic::run(400);
    results.setup.workload = HOSTILE.into();
    results.setup.nemesis = vec![HOSTILE.into()];
    results.reasons = vec![HOSTILE.into()];
    results.anomalies[0].key = HOSTILE.into();
    results.anomalies[0].detail = HOSTILE.into();
    results.anomalies[0].events = (0..history.len()).collect();
    let figures = results.faults.values().next().expect("faults").clone();
    results.faults.insert(HOSTILE.into(), figures);
    faults[0].what = HOSTILE.into();
    for event in &mut history {
        event.key = HOSTILE.into();
        event.node = HOSTILE.into();
        event.error = Some(HOSTILE.into());
        if event.stage == Stage::Ok && event.f == Action::Read {
            event.value = Value::Foreign { foreign: HOSTILE.into() };
        }
    }
    let page = render(&results, &history, &faults);
    let foreign = foreign(&page);
    assert_eq!(foreign.matches("<script").count(), 2 + SCRIPTS.len());
    assert_eq!(foreign.matches("</script").count(), 2 + SCRIPTS.len());
    for bad in ["<img", "<!--", "alert(1)</script"] {
        assert!(!foreign.contains(bad), "{bad}");
    }
    let texts = &data(&page)["points"]["texts"];
    assert!(texts.as_array().unwrap().iter().any(|text| text == HOSTILE), "{texts}");
}

#[test]
fn the_page_loads_nothing() {
    let (results, history, faults) = synthetic::run(400);
    let page = render(&results, &history, &faults);
    let foreign = foreign(&page);
    assert!(
        foreign.contains("default-src &#39;none&#39;") || foreign.contains("default-src 'none'")
    );
    for word in [" src=", "http://", "https://", "@import", "url("] {
        assert!(!foreign.contains(word), "{word}");
    }
    for ours in SCRIPTS.iter().chain([&STYLE]) {
        // A shape in the library's words.
        let ours = ours.replace("\"path://", "");
        assert!(!ours.contains("://") && !ours.contains("innerHTML") && !ours.contains("</"));
    }
}

#[test]
fn a_long_history_makes_a_page_that_opens() {
    let (results, history, faults) = synthetic::run(150_000);
    assert!(history.len() > 250_000, "{}", history.len());
    let start = Instant::now();
    let page = render(&results, &history, &faults);
    assert!(page.len() < 8_000_000, "{} bytes", page.len());
    // Unoptimised, and beside other tests: a tenth of it is usual.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    let shown = data(&page)["points"]["shown"].as_u64().unwrap();
    assert!(shown < 60_000, "{shown}");
}

#[test]
fn nothing_at_all_is_a_page_too() {
    let (mut results, ..) = synthetic::run(400);
    for verdict in [Verdict::Valid, Verdict::Unknown, Verdict::Void] {
        results.verdict = verdict;
        results.anomalies.clear();
        results.faults.clear();
        let page = render(&results, &[], &[]);
        assert!(page.contains(&format!("{verdict:?}")), "{verdict:?}");
    }
    results.anomalies = vec![synthetic::anomaly("k", vec![0, usize::MAX]); 60];
    let page = foreign(&render(&results, &[], &[]));
    assert_eq!(page.matches("<h2>Anomaly ").count(), TIMELINES);
    assert!(page.contains("and 10 more"));
}

#[test]
#[ignore = "writes pages for people to look at, into the directory that JEPSEN_PAGES names"]
fn pages_to_look_at() {
    let directory = std::env::var("JEPSEN_PAGES").expect("JEPSEN_PAGES names a directory");
    let directory = std::path::Path::new(&directory);
    let (mut results, history, faults) = synthetic::run(40_000);
    // Of a write of unknown fate, and ten seconds later a read.
    let write = history.iter().position(|event| event.stage == Stage::Info).unwrap();
    let (key, time) = (&history[write].key, history[write].time + 10_000_000_000);
    let read = |event: &Event| event.key == *key && event.stage == Stage::Ok && event.time > time;
    let read = history.iter().position(read).unwrap();
    results.anomalies.push(synthetic::anomaly(key, vec![write, read]));
    let page = render(&results, &history, &faults);
    std::fs::write(directory.join("anomaly.html"), page).unwrap();
    let (mut results, history, faults) = synthetic::run(150_000);
    results.verdict = Verdict::Valid;
    results.anomalies.clear();
    let page = render(&results, &history, &faults);
    std::fs::write(directory.join("valid.html"), page).unwrap();
}
