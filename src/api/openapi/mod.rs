//! `GET /openapi.json` and `GET /docs`: what this process serves, for programs and for people.
//!
//! Both are made once, when the router is, from the list of routes that the router itself kept: what is not
//! served is not in them, and what is served and not described in [`operations`] ends the process at its start.
//!
//! ```text
//! operations   each method of each path: the place to add one
//! parameters   what each query parameter and header looks like, with its bounds
//! document     both and the types of the bodies, as OpenAPI 3.1
//! page         the document as HTML
//! ```
//!
//! The page is rendered here, some 200 lines, instead of by a crate that brings Swagger UI along: that is ten
//! megabytes of somebody else's script in the binary, which must be allowed to run. This page has no script,
//! and its policy allows nothing but its own style sheet.

mod document;
mod operations;
mod page;
mod parameters;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;

use crate::api::error::{About, plain, refuse};
use crate::api::status::no_parameters;
use crate::types::http::{CONTENT_HTML, CONTENT_JSON};

pub(super) use operations::{Method, Served};

/// Both renderings.
pub(super) struct Documents {
    json: Bytes,
    page: Bytes,
    policy: HeaderValue,
}

impl Documents {
    /// Those of a router that serves these.
    ///
    /// # Panics
    /// If one of them is not described.
    pub(super) fn of(served: &[Served]) -> Arc<Self> {
        let document = document::document(served);
        let policy = page::policy().try_into().expect("a policy is plain text");
        Arc::new(Self {
            json: document.to_string().into(),
            page: page::render(&document).into(),
            policy,
        })
    }
}

/// `GET /openapi.json`.
pub(super) async fn json(State(documents): State<Arc<Documents>>, uri: Uri) -> Response {
    match no_parameters(&uri) {
        Ok(()) => plain(StatusCode::OK, CONTENT_JSON, documents.json.clone()),
        Err(error) => refuse(error, About::Read),
    }
}

/// `GET /docs`.
pub(super) async fn page(State(documents): State<Arc<Documents>>, uri: Uri) -> Response {
    if let Err(error) = no_parameters(&uri) {
        return refuse(error, About::Read);
    }
    let mut response = plain(StatusCode::OK, CONTENT_HTML, documents.page.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, documents.policy.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::operations::OPERATIONS;
    use super::*;
    use crate::types::code::Code;
    use crate::types::http::{PATH_CLUSTER, PATH_KV, PATH_STATUS};
    use crate::types::limits::{KEY_BYTES_MAX, TXN_OPS_MAX};

    fn whole() -> Json {
        let served: Vec<Served> = OPERATIONS
            .iter()
            .filter(|operation| operation.path != PATH_CLUSTER)
            .map(|operation| (operation.method, operation.path))
            .collect();
        document::document(&served)
    }

    #[test]
    fn every_code_of_the_code_is_in_the_document_and_no_other() {
        let document = whole();
        let mut told = BTreeSet::new();
        let responses = &document["components"]["responses"];
        let mut answers: Vec<&Json> =
            responses.as_object().into_iter().flat_map(|all| all.values()).collect();
        let operations = document["paths"].as_object().into_iter().flat_map(|all| all.values());
        let operations =
            operations.flat_map(|path| path.as_object().into_iter().flat_map(|all| all.values()));
        answers.extend(
            operations.flat_map(|one| {
                one["responses"].as_object().into_iter().flat_map(|all| all.values())
            }),
        );
        for answer in answers {
            let codes = &answer["content"]["application/json"]["schema"]["allOf"][1];
            let codes = codes["properties"]["code"]["enum"].as_array().into_iter().flatten();
            told.extend(codes.map(|code| code.as_str().expect("text").to_owned()));
        }
        let known: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
        assert_eq!(told, known, "some operation must name each code: api/openapi/operations.rs");
        let listed = document["components"]["schemas"]["Code"]["enum"].as_array().expect("codes");
        assert_eq!(listed.len(), known.len());
    }

    #[test]
    fn the_table_for_people_has_every_code_too() {
        let table = include_str!("../../../docs/api.md");
        for code in Code::ALL.iter().map(|code| code.as_str()) {
            assert!(table.contains(&format!("`{code}`")), "{code} is not in docs/api.md");
        }
    }

    #[test]
    fn bounds_that_a_derive_must_repeat_are_the_real_ones() {
        let document = whole();
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["BatchBody"]["properties"]["ops"]["maxItems"], TXN_OPS_MAX);
        for list in ["if", "then", "else"] {
            assert_eq!(schemas["TxnBody"]["properties"][list]["maxItems"], TXN_OPS_MAX, "{list}");
        }
        for body in ["OpBody", "CompareBody"] {
            assert_eq!(schemas[body]["properties"]["key"]["maxLength"], KEY_BYTES_MAX, "{body}");
        }
    }

    #[test]
    fn a_process_describes_what_it_serves_and_nothing_else() {
        let document = document::document(&[(Method::Put, PATH_KV), (Method::Get, PATH_CLUSTER)]);
        assert_eq!(document["openapi"], "3.1.0");
        let paths: Vec<_> = document["paths"].as_object().expect("paths").keys().collect();
        assert_eq!(paths, [PATH_CLUSTER, PATH_KV]);
        assert!(document["paths"][PATH_KV].get("get").is_none());
        assert!(
            document["paths"][PATH_KV]["put"]["responses"].get("421").is_none(),
            "a coordinator"
        );
        let document = document::document(&[(Method::Put, PATH_KV), (Method::Get, PATH_STATUS)]);
        assert!(document["paths"][PATH_KV]["put"]["responses"].get("421").is_some(), "a replica");
    }

    #[test]
    #[should_panic(expected = "Post /kv is not described")]
    fn what_is_served_and_not_described_does_not_start() {
        document::document(&[(Method::Post, PATH_KV)]);
    }
}
