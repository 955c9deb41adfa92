//! The document as a page that needs nothing but itself: no network, no script.
//!
//! All text of the document goes through `maud`, which escapes it. The policy names the hash of the one style
//! sheet and allows nothing else, so even what slipped through could neither run nor load anything.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value as Json;

use crate::types::hash::sha256_base64;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
details{border:1px solid #8886;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}\
summary{cursor:pointer}\
code,.m{font-family:ui-monospace,monospace;overflow-wrap:anywhere}\
.m{display:inline-block;min-width:4.5em;font-weight:bold}\
table{border-collapse:collapse;width:100%;margin:.5rem 0}\
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-top:1px solid #8884}\
h4{margin:.8rem 0 0}.q{opacity:.75}";

/// What `Content-Security-Policy` says of it.
pub(super) fn policy() -> String {
    let style = sha256_base64(STYLE.as_bytes());
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

/// The page.
pub(super) fn render(document: &Json) -> String {
    let info = &document["info"];
    let schemas = document["components"]["schemas"].as_object();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (text(info, "title")) " API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (text(info, "title")) " " span.q { (text(info, "version")) } }
                p { (text(info, "description")) }
                p { "For programs: " a href="openapi.json" { "openapi.json" } }
                @for tag in tags(document) {
                    h2 { (tag) }
                    @for (path, method, operation) in operations(document) {
                        @if operation["tags"][0] == *tag { (one(path, method, operation)) }
                    }
                }
                h2 { "schemas" }
                @for (name, schema) in schemas.into_iter().flatten() {
                    details id={ "schema-" (name) } {
                        summary { code { (name) } }
                        (explained(schema))
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Each method of each path.
fn operations(document: &Json) -> impl Iterator<Item = (&str, &str, &Json)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// The tags, in the order in which they come first.
fn tags(document: &Json) -> Vec<&str> {
    let mut tags = Vec::new();
    for (_, _, operation) in operations(document) {
        let tag = operation["tags"][0].as_str().unwrap_or_default();
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

fn one(path: &str, method: &str, operation: &Json) -> Markup {
    let parameters = operation["parameters"].as_array();
    html! {
        details id=(text(operation, "operationId")) {
            summary {
                span.m { (method.to_uppercase()) } " " code { (path) } " "
                span.q { (text(operation, "summary")) }
            }
            p { (text(operation, "description")) }
            @if let Some(parameters) = parameters {
                h4 { "Parameters" }
                table { @for parameter in parameters { (parameter_row(parameter)) } }
            }
            @if let Some(body) = operation.get("requestBody") {
                h4 { "Body" }
                p { (text(body, "description")) }
                (contents(body))
            }
            h4 { "Answers" }
            table {
                @for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
                    tr {
                        th { (status) }
                        td {
                            (text(answer, "description"))
                            (contents(answer))
                            @for (name, header) in answer["headers"].as_object().into_iter().flatten() {
                                div { code { (name) } ": " (text(header, "description")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn parameter_row(parameter: &Json) -> Markup {
    html! {
        tr {
            th { code { (text(parameter, "name")) } }
            td {
                (text(parameter, "in"))
                @if parameter["required"] == true { ", required" }
            }
            td { (text(parameter, "description")) div.q { (shape(&parameter["schema"])) } }
        }
    }
}

/// The content types of a body, and what is in them.
fn contents(body: &Json) -> Markup {
    html! {
        @for (kind, content) in body["content"].as_object().into_iter().flatten() {
            div { code { (kind) } " " span.q { (shape(&content["schema"])) } }
        }
    }
}

/// A schema in one line.
fn shape(schema: &Json) -> Markup {
    let parts = ["allOf", "anyOf", "oneOf"].map(|of| (of, schema[of].as_array()));
    let bounds = [
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "pattern",
        "default",
        "enum",
    ];
    html! {
        @if let Some(target) = schema["$ref"].as_str() {
            @let name = target.rsplit('/').next().unwrap_or_default();
            a href={ "#schema-" (name) } { (name) }
        }
        @match &schema["type"] {
            Json::String(kind) => { (kind) }
            Json::Array(kinds) => {
                (kinds.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" or "))
            }
            _ => {}
        }
        @for (of, parts) in parts {
            @for (at, part) in parts.into_iter().flatten().enumerate() {
                @if at > 0 { (if of == "allOf" { " and " } else { " or " }) }
                (shape(part))
            }
        }
        @if let Some(items) = schema.get("items") { " of " (shape(items)) }
        @if let Some(code) = schema.pointer("/properties/code/enum") { " with code " code { (code) } }
        @for bound in bounds {
            @if let Some(value) = schema.get(bound) { " " (bound) " " code { (value) } }
        }
    }
}

/// A schema with its fields.
fn explained(schema: &Json) -> Markup {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        @for line in text(schema, "description").lines() { div { (line) } }
        @if let Some(fields) = schema["properties"].as_object() {
            table {
                @for (name, field) in fields {
                    tr {
                        th { code { (name) } }
                        td { @if required.iter().any(|one| one == name) { "always" } }
                        td { (text(field, "description")) div.q { (shape(field)) } }
                    }
                }
            }
        } @else { p.q { (shape(schema)) } }
    }
}

fn text<'a>(json: &'a Json, field: &str) -> &'a str {
    json[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_of_the_document_is_markup() {
        let evil = "<script>alert(1)</script>\"'&";
        let operation = json!({"tags": [evil], "summary": evil, "description": evil, "operationId": evil,
            "parameters": [{"name": evil, "in": evil, "description": evil, "schema": {"pattern": evil}}],
            "responses": {evil: {"description": evil, "content": {evil: {"schema": {"$ref": evil}}}}}});
        let document = json!({"info": {"title": evil, "description": evil}, "paths": {evil: {evil: operation}},
            "components": {"schemas": {evil: {"description": evil, "properties": {evil: {"default": evil}}}}}});
        let page = render(&document);
        assert!(page.contains("&lt;script&gt;"));
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("<style>").count(), 1, "and that is ours");
    }

    #[test]
    fn the_policy_allows_the_style_and_nothing_else() {
        let policy = policy();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    }
}
