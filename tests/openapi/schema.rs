//! Holds JSON against the schemas of a document, strictly: a field that no schema has is a fault, and so is
//! a keyword that is not known here. `pattern` and `format` are left to others.

use std::collections::BTreeSet;

use serde_json::Value as Json;

/// The schemas that others refer to.
pub(crate) struct Schemas<'a> {
    named: &'a Json,
}

/// The fields of an object that some schema has.
type Fields = BTreeSet<String>;

impl<'a> Schemas<'a> {
    /// Those of a document.
    pub(crate) fn of(document: &'a Json) -> Self {
        Self { named: &document["components"]["schemas"] }
    }

    /// The schema itself, if this refers to one.
    pub(crate) fn resolve<'s>(&self, schema: &'s Json) -> &'s Json
    where
        'a: 's,
    {
        let Some(target) = schema["$ref"].as_str() else { return schema };
        let name = target.strip_prefix("#/components/schemas/").expect(target);
        let found = &self.named[name];
        assert!(found.is_object(), "{target} leads nowhere");
        found
    }

    /// Whether `json` is what `schema` says, and nothing else.
    pub(crate) fn check(&self, schema: &Json, json: &Json) -> Result<(), String> {
        let known = self.fields(schema, json)?;
        let given = json.as_object().into_iter().flat_map(|object| object.keys());
        // An object without a word about its fields is any object.
        let any = known.contains("*");
        match given.into_iter().find(|name| !any && !known.contains(*name)) {
            Some(name) => Err(format!("field {name} is in no schema")),
            None => Ok(()),
        }
    }

    /// Holds `json` against the schema, and says which of its fields the schema speaks of.
    fn fields(&self, schema: &Json, json: &Json) -> Result<Fields, String> {
        let schema = self.resolve(schema);
        let mut known = Fields::new();
        let keywords = schema.as_object().ok_or_else(|| format!("{schema} is no schema"))?;
        if !keywords
            .keys()
            .any(|key| ["properties", "allOf", "anyOf", "oneOf"].contains(&key.as_str()))
        {
            known.insert("*".into());
        }
        for (keyword, bound) in keywords {
            match keyword.as_str() {
                // The last one is what `check` does anyway: it allows no other fields.
                "description" | "default" | "format" | "pattern" | "additionalProperties" => {}
                "allOf" => {
                    for part in parts(bound) {
                        known.extend(self.fields(part, json)?);
                    }
                }
                "anyOf" | "oneOf" => known.extend(self.one_of(parts(bound), json)?),
                "properties" => {
                    for (name, schema) in bound.as_object().expect("properties") {
                        known.insert(name.clone());
                        if let Some(field) = json.get(name) {
                            self.check(schema, field)
                                .map_err(|fault| format!("{name}: {fault}"))?;
                        }
                    }
                }
                "items" => {
                    for item in json.as_array().into_iter().flatten() {
                        self.check(bound, item)?;
                    }
                }
                keyword => holds(keyword, bound, json)?,
            }
        }
        Ok(known)
    }

    /// The fields of those parts that fit, at least one.
    fn one_of(&self, parts: &[Json], json: &Json) -> Result<Fields, String> {
        let mut faults = Vec::new();
        let mut known = None;
        for part in parts {
            match self.fields(part, json) {
                Ok(fields) => known.get_or_insert_with(Fields::new).extend(fields),
                Err(fault) => faults.push(fault),
            }
        }
        known.ok_or_else(|| format!("none of {faults:?}"))
    }
}

fn parts(bound: &Json) -> &[Json] {
    bound.as_array().expect("a list of schemas")
}

/// One keyword that speaks of nothing but this value.
fn holds(keyword: &str, bound: &Json, json: &Json) -> Result<(), String> {
    let length = |json: &Json| match json {
        Json::String(text) => Some(text.chars().count() as u64),
        Json::Array(items) => Some(items.len() as u64),
        _ => None,
    };
    let most = bound.as_u64();
    let fine = match keyword {
        "type" => match bound {
            Json::Array(types) => types.iter().any(|name| is_a(name, json)),
            name => is_a(name, json),
        },
        "enum" => bound.as_array().expect("values").contains(json),
        "required" => {
            let mut names = bound.as_array().expect("names").iter().filter_map(Json::as_str);
            names.all(|name| json.get(name).is_some())
        }
        "minimum" => json.as_f64().is_none_or(|number| Some(number) >= bound.as_f64()),
        "maximum" => json.as_f64().is_none_or(|number| Some(number) <= bound.as_f64()),
        "minLength" | "minItems" => length(json).is_none_or(|length| Some(length) >= most),
        "maxLength" | "maxItems" => length(json).is_none_or(|length| Some(length) <= most),
        other => return Err(format!("keyword {other} is not known to this test")),
    };
    if fine { Ok(()) } else { Err(format!("{json} is not of {keyword} {bound}")) }
}

fn is_a(name: &Json, json: &Json) -> bool {
    match name.as_str().expect("a type") {
        "null" => json.is_null(),
        "boolean" => json.is_boolean(),
        "integer" => json.is_u64() || json.is_i64(),
        "number" => json.is_number(),
        "string" => json.is_string(),
        "array" => json.is_array(),
        "object" => json.is_object(),
        other => panic!("type {other} is not known to this test"),
    }
}

#[test]
fn what_is_not_in_the_schema_is_found() {
    let document = serde_json::json!({"components": {"schemas": {
        "Thing": {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 0},
            "b": {"oneOf": [{"type": "null"}, {"type": "string", "enum": ["x"]}]}}},
    }}});
    let schemas = Schemas::of(&document);
    let thing = serde_json::json!({"$ref": "#/components/schemas/Thing"});
    let both = serde_json::json!({"allOf": [thing, {"type": "object", "properties": {"c": {}}}]});
    let check = |schema: &Json, text: &str| {
        schemas.check(schema, &serde_json::from_str(text).expect(text)).is_ok()
    };
    for fine in [r#"{"a":1}"#, r#"{"a":0,"b":null}"#, r#"{"a":0,"b":"x"}"#] {
        assert!(check(&thing, fine), "{fine}");
    }
    let bad =
        ["{}", r#"{"a":-1}"#, r#"{"a":1.5}"#, r#"{"a":1,"b":"y"}"#, r#"{"a":1,"c":1}"#, "[]", "1"];
    for bad in bad {
        assert!(!check(&thing, bad), "{bad}");
    }
    assert!(check(&both, r#"{"a":1,"c":{"d":1}}"#) && !check(&both, r#"{"a":1,"d":1}"#));
}
