//! From the list of operations to the document.
//!
//! A path comes in only if its router serves it. The schemas are those of the types that are read and
//! written; only the answers of transactions and batches, which are put together by hand, are described by hand.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathsBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{
    AllOfBuilder, AnyOfBuilder, ArrayBuilder, Components, ComponentsBuilder, ObjectBuilder, Ref,
    Schema, SchemaType, Type,
};
use utoipa::openapi::{Content, Info, License, OpenApiBuilder, Paths, RefOr, Required};
use utoipa::{PartialSchema, ToSchema};

use crate::api::openapi::operations::{Answer, Body, Method, OPERATIONS, Operation, Sent, Served};
use crate::api::openapi::parameters;
use crate::types::code::Code;
use crate::types::http::ClusterBody;
use crate::types::http::{
    CONTENT_BYTES, CONTENT_JSON, CONTENT_TEXT, CountBody, DeletedBody, ErrorBody, GetBody,
    HEADER_INDEX, HealthBody, PATH_CLUSTER, PageBody, ReadyBody, RouteBody, ShardStatus, WriteBody,
};
use crate::types::limits::VERSION_MAX;
use crate::types::txn_body::{BatchBody, TxnBody};

/// What stands above it all.
const ABOUT: &str = "A sharded, Raft-replicated key-value store. Every path with `GET` has `HEAD` too. A parameter \
    or header that an operation does not have is refused with `400`, never ignored; an unknown path is answered \
    `404 not_found`, an unknown method `405 method_not_allowed`. An answer to a write other than `2xx` or `504` means \
    that it has not been and never will be applied.";

/// The document of a process that serves these.
///
/// # Panics
/// If one of them is not described.
pub(super) fn document(served: &[Served]) -> Json {
    // Only a replica knows which keys are not its own: a coordinator looks for the right group.
    let replica = !served.contains(&(Method::Get, PATH_CLUSTER));
    let mut paths = Paths::new();
    for &(method, path) in served {
        let is_it = |operation: &&Operation| (operation.method, operation.path) == (method, path);
        let Some(described) = OPERATIONS.iter().find(is_it) else {
            panic!("{method:?} {path} is not described in api/openapi/operations.rs");
        };
        paths.add_path_operation(path, vec![http(method)], operation(described, replica));
    }
    let mut info = Info::new("SageDB", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.into());
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".into());
    info.license = Some(license);
    let paths = PathsBuilder::from(paths).build();
    let built = OpenApiBuilder::new().info(info).paths(paths).components(Some(components()));
    let mut document = serde_json::to_value(built.build()).expect("a document has a JSON form");
    inline_numbers(&mut document);
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.remove("u64");
    }
    document
}

fn http(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Put => HttpMethod::Put,
        Method::Delete => HttpMethod::Delete,
        Method::Post => HttpMethod::Post,
    }
}

fn operation(described: &Operation, replica: bool) -> OperationBuilder {
    let at = (described.method, described.path);
    let mut built = OperationBuilder::new()
        .operation_id(Some(described.id))
        .tag(described.tag)
        .summary(Some(described.summary))
        .request_body(sent(described.sent));
    if !described.more.is_empty() {
        built = built.description(Some(described.more));
    }
    for name in described.query {
        built = built.parameter(parameters::query(name, at));
    }
    for name in described.headers {
        built = built.parameter(parameters::header(name, described.method));
    }
    for answer in described.answers {
        built = built.response(answer.status.to_string(), answered(answer));
    }
    let codes = described.codes.iter().flat_map(|codes| codes.iter().copied());
    let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
    for code in codes.filter(|code| replica || *code != Code::WrongShard) {
        by_status.entry(code.status()).or_default().push(code);
    }
    for (status, codes) in by_status {
        let other = described.answers.iter().any(|answer| answer.status == status);
        assert!(!other, "{status} of {} has two bodies", described.path);
        built = built.response(status.to_string(), refused(status, &codes));
    }
    built
}

fn sent(sent: Sent) -> Option<RequestBody> {
    let body = RequestBodyBuilder::new();
    let body = match sent {
        Sent::Nothing => return None,
        Sent::Json(name) => body
            .content(CONTENT_JSON, content(Ref::from_schema_name(name)))
            .required(Some(Required::True)),
        Sent::Value => body
            .description(Some("The value; its content type says what it is."))
            .content(CONTENT_JSON, content(any()))
            .content(CONTENT_BYTES, content(ObjectBuilder::new().schema_type(SchemaType::AnyValue)))
            .content("*/*", content(ObjectBuilder::new().schema_type(Type::String))),
    };
    Some(body.build())
}

fn answered(answer: &Answer) -> Response {
    let mut response = ResponseBuilder::new().description(answer.says);
    response = match answer.body {
        Body::Empty => response,
        Body::Json(name) => response.content(CONTENT_JSON, content(Ref::from_schema_name(name))),
        Body::AnyJson => response.content(CONTENT_JSON, content(ObjectBuilder::new())),
        Body::Text(kind) => {
            response.content(kind, content(ObjectBuilder::new().schema_type(Type::String)))
        }
        Body::Found => {
            let bare = ObjectBuilder::new()
                .schema_type(SchemaType::AnyValue)
                .description(Some("with `raw=true`: the value itself"));
            let found = AnyOfBuilder::new().item(Ref::from_schema_name("GetBody")).item(bare);
            response
                .content(CONTENT_JSON, content(found))
                .content(CONTENT_TEXT, content(ObjectBuilder::new().schema_type(Type::String)))
                .content(CONTENT_BYTES, content(any()))
        }
    };
    with_headers(response, answer.headers).build()
}

/// An error: its codes, and what they mean.
fn refused(status: u16, codes: &[Code]) -> Response {
    let lines = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.when()));
    let lines = lines.collect::<Vec<_>>().join("; ");
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes.iter().map(|code| code.as_str())));
    let these = ObjectBuilder::new().property("code", code);
    let body = AllOfBuilder::new().item(Ref::from_schema_name("ErrorBody")).item(these);
    let response = ResponseBuilder::new().description(lines).content(CONTENT_JSON, content(body));
    let headers: &[&str] = match status {
        _ if codes.iter().any(|code| code.is_of_a_state()) => &[HEADER_INDEX],
        503 => &["Retry-After"],
        426 => &["Upgrade"],
        405 => &["Allow"],
        _ => &[],
    };
    with_headers(response, headers).build()
}

fn with_headers(mut response: ResponseBuilder, names: &[&'static str]) -> ResponseBuilder {
    for name in names {
        let (name, header) = parameters::answered(name);
        response = response.header(name, header);
    }
    response
}

fn components() -> Components {
    let mut schemas = Vec::new();
    add::<GetBody>(&mut schemas);
    add::<WriteBody>(&mut schemas);
    add::<PageBody>(&mut schemas);
    add::<CountBody>(&mut schemas);
    add::<DeletedBody>(&mut schemas);
    add::<ErrorBody>(&mut schemas);
    add::<TxnBody>(&mut schemas);
    add::<BatchBody>(&mut schemas);
    add::<RouteBody>(&mut schemas);
    add::<ClusterBody>(&mut schemas);
    add::<ShardStatus>(&mut schemas);
    add::<HealthBody>(&mut schemas);
    add::<ReadyBody>(&mut schemas);
    ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .schema("Result", result())
        .schema("TxnAnswer", several(true))
        .schema("BatchAnswer", several(false))
        .response("NotFound", refused(404, &[Code::NotFound]))
        .response("MethodNotAllowed", refused(405, &[Code::MethodNotAllowed]))
        .build()
}

/// A type, and those that its fields have.
fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// Puts numbers where a field's type has another name for one, such as `Version`: the derive takes such
/// a name for that of a schema.
fn inline_numbers(json: &mut Json) {
    if json["$ref"] == "#/components/schemas/u64" {
        let number = u64::schema();
        let number = serde_json::to_value(number).expect("a schema has a JSON form");
        let fields = json.as_object_mut().expect("it has a field");
        fields.remove("$ref");
        fields.extend(number.as_object().cloned().unwrap_or_default());
    }
    match json {
        Json::Object(fields) => fields.values_mut().for_each(inline_numbers),
        Json::Array(items) => items.iter_mut().for_each(inline_numbers),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// What became of one operation: the body of its single request, with its status.
fn result() -> Schema {
    let integer = ObjectBuilder::new().schema_type(Type::Integer);
    let status = integer.description(Some("the status of its single request"));
    let status = ObjectBuilder::new().property("status", status).required("status");
    let bodies = ["WriteBody", "GetBody", "ErrorBody"].map(Ref::from_schema_name);
    let bodies = bodies.into_iter().fold(AnyOfBuilder::new(), AnyOfBuilder::item);
    Schema::AllOf(AllOfBuilder::new().item(status).item(bodies).build())
}

fn several(txn: bool) -> Schema {
    let results = ArrayBuilder::new().items(Ref::from_schema_name("Result"));
    let answer = ObjectBuilder::new().property("results", results).required("results");
    if !txn {
        return answer.build().into();
    }
    let flag = ObjectBuilder::new().schema_type(Type::Boolean);
    let version =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(VERSION_MAX));
    let answer = answer
        .property("succeeded", flag.description(Some("whether the conditions held")))
        .property("version", version.description(Some("its place in its group's log")))
        .required("succeeded")
        .required("version");
    answer.build().into()
}

fn content(schema: impl Into<RefOr<Schema>>) -> Content {
    Content::new(Some(schema))
}

fn any() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}
