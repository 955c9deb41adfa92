//! The HTTP contract as a suite over a base URL: whatever serves `/kv` must pass it.
//!
//! [`every_promise`] runs against a fake store, a real replica or a coordinator. It writes only
//! under keys of its own prefix, expects no keys there, and needs a store that can serve.

mod bounds;
mod conditions;
mod counters;
mod expiry;
mod keys;
mod once;
mod process;
pub(crate) mod raw_http;
mod refusals;
mod transactions;
mod values;
mod watch;

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use raw_http::{Answer, send};

/// Which face is at the URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Face {
    Shard,
    Coordinator,
}

/// What the suite runs against.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// `http://host:port`.
    pub(crate) base: String,
    /// What it is.
    pub(crate) face: Face,
    /// Its `--max-value-size`.
    pub(crate) max_value_bytes: usize,
    /// Starts every key of this run.
    pub(crate) prefix: String,
}

const JSON: (&str, &str) = ("content-type", "application/json");
const BYTES: (&str, &str) = ("content-type", "application/octet-stream");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Checks every promise that applies to `subject`; panics at the first that is broken.
pub(crate) async fn every_promise(subject: &Subject) {
    values::text_comes_back_as_a_json_string(subject).await;
    values::json_is_kept_byte_for_byte(subject).await;
    values::bytes_come_back_as_base64(subject).await;
    values::raw_is_just_the_value_with_its_type(subject).await;
    values::the_version_rises_with_every_write(subject).await;
    values::deleting_what_is_not_there_is_done(subject).await;
    conditions::a_condition_decides_whether_a_write_happens(subject).await;
    conditions::what_is_no_condition_is_refused(subject).await;
    once::a_write_with_an_idempotency_key_takes_effect_once(subject).await;
    once::an_idempotency_key_remembers_that_a_condition_did_not_hold(subject).await;
    once::what_is_no_idempotency_key_is_refused(subject).await;
    once::a_reader_is_not_sent_what_it_has(subject).await;
    refusals::what_is_no_value_is_refused_and_changes_nothing(subject).await;
    values::a_key_is_any_text_up_to_its_bound(subject).await;
    refusals::what_is_no_key_is_refused(subject).await;
    values::each_consistency_is_served(subject).await;
    values::a_read_waits_for_what_the_reader_has_seen(subject).await;
    refusals::an_unknown_parameter_is_refused_by_name(subject).await;
    refusals::what_does_not_belong_to_a_request_is_refused_not_ignored(subject).await;
    keys::keys_are_listed_in_byte_order(subject).await;
    keys::a_page_goes_on_where_the_one_before_ended(subject).await;
    keys::a_page_has_100_keys_unless_it_is_told_how_many(subject).await;
    keys::a_listed_value_looks_as_it_does_alone(subject).await;
    keys::keys_are_counted(subject).await;
    keys::a_scan_says_which_states_it_read(subject).await;
    keys::what_is_no_scan_is_refused(subject).await;
    keys::a_cursor_is_good_for_its_query_only(subject).await;
    keys::what_deletes_many_keys_must_say_which(subject).await;
    keys::all_keys_with_a_prefix_are_deleted(subject).await;
    expiry::a_value_ends_when_its_time_is_over(subject).await;
    expiry::a_touch_gives_a_value_another_while_and_leaves_it_as_it_is(subject).await;
    expiry::what_is_no_time_to_live_is_refused(subject).await;
    counters::a_counter_counts_from_nothing_and_is_an_integer_for_everybody(subject).await;
    counters::what_can_not_be_counted_is_left_alone(subject).await;
    transactions::a_transaction_happens_if_its_conditions_hold(subject).await;
    transactions::a_transaction_is_all_or_nothing(subject).await;
    transactions::each_operation_of_a_batch_stands_for_itself(subject).await;
    transactions::what_is_no_transaction_is_refused(subject).await;
    watch::changes_are_told_as_they_come(subject).await;
    watch::a_watch_goes_on_behind_any_of_its_ids(subject).await;
    watch::a_watch_begins_behind_what_was_read(subject).await;
    watch::a_value_that_is_over_is_told(subject).await;
    watch::what_is_no_watch_is_refused(subject).await;
    bounds::a_value_has_a_bound(subject).await;
    bounds::a_refused_body_does_not_swallow_the_answer(subject).await;
    bounds::a_body_that_stalls_ends_with_the_deadline(subject).await;
    refusals::paths_and_methods_are_known_or_refused_in_json(subject).await;
    process::head_is_get_without_a_body(subject).await;
    process::the_process_speaks_of_itself(subject).await;
    process::the_process_describes_itself(subject).await;
}

impl Subject {
    fn kv(&self, key: &str) -> String {
        format!("/kv?key={}{key}", self.prefix)
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        send(&self.base, method, target, headers, body).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"").await
    }

    /// Puts, expects success, and returns the version.
    async fn put(&self, key: &str, headers: &[(&str, &str)], body: &[u8]) -> u64 {
        let answer = self.send("PUT", &self.kv(key), headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["version"].as_u64().expect("a version")
    }
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{answer:?}");
    assert!(answer.json()["error"].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
}

/// What a group's state makes of a write: such an answer says which state that was.
const DECLINED: [&str; 4] =
    ["version_mismatch", "idempotency_key_reused", "key_not_found", "not_an_integer"];

#[track_caller]
fn assert_write_refused(answer: &Answer, status: u16, code: &str) {
    assert_refused(answer, status, code);
    assert_eq!(answer.json()["outcome"], "not_applied", "{answer:?}");
    if DECLINED.contains(&code) {
        assert_index(answer);
    }
}

#[track_caller]
fn names(body: &Json) -> BTreeSet<&str> {
    body.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_index(answer: &Answer) {
    let index = answer.header("x-sage-index").expect("every kv answer has an index");
    let (group, index) = index.rsplit_once(':').expect("<group>:<index>");
    assert!(!group.is_empty() && index.parse::<u64>().is_ok(), "{answer:?}");
}
