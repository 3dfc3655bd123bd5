//! JSON Schema in the subset `responseSchema` takes: the OpenAPI 3.0 schema object of the Gemini API, with its types in
//! capitals. What the subset lacks (`additionalProperties`, `$ref`, `const` of a number) is left out and not refused:
//! a reply is checked again when it is parsed. Order matters, since a model that writes its answer before its reasons
//! reasons worse: `required` keeps the order its author gave it (a JSON object does not), and becomes `propertyOrdering`.

use serde_json::{Map, Value};

/// Keywords that mean the same in both.
const SHARED: [&str; 11] = [
    "description",
    "title",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "required",
];

/// A JSON Schema as the Gemini API's `Schema`.
pub(super) fn openapi(schema: &Value) -> Value {
    let mut out = Map::new();
    let (name, nullable) = type_of(&schema["type"]);
    if let Some(name) = &name {
        out.insert("type".to_owned(), Value::from(name.as_str()));
    }
    if nullable {
        out.insert("nullable".to_owned(), Value::from(true));
    }
    for key in SHARED {
        if let Some(value) = schema.get(key) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    let choices = schema["enum"].as_array().cloned().or_else(|| schema.get("const").map(|only| vec![only.clone()]));
    if let Some(choices) = choices.filter(|choices| choices.iter().all(Value::is_string)) {
        out.insert("enum".to_owned(), Value::Array(choices));
    }
    if let Some(properties) = schema["properties"].as_object() {
        let translated = properties.iter().map(|(key, value)| (key.clone(), openapi(value))).collect();
        out.insert("properties".to_owned(), Value::Object(translated));
        if let Some(order) = schema.get("required") {
            out.insert("propertyOrdering".to_owned(), order.clone());
        }
    }
    if let Some(items) = schema.get("items") {
        out.insert("items".to_owned(), openapi(items));
    }
    if let Some(any) = schema["anyOf"].as_array() {
        out.insert("anyOf".to_owned(), any.iter().map(openapi).collect());
    }
    Value::Object(out)
}

/// The type's name in capitals, and whether `null` is allowed beside it.
fn type_of(value: &Value) -> (Option<String>, bool) {
    let names: Vec<&str> = match value {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let name = names.iter().find(|name| **name != "null").map(|name| name.to_ascii_uppercase());
    (name, names.contains(&"null"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_schema_becomes_the_openapi_subset_in_its_authors_order() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["steps", "answer", "kind"],
            "properties": {
                "answer": {"type": ["string", "null"], "description": "d"},
                "steps": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 10, "enum": [1, 2]}},
                "kind": {"type": "string", "enum": ["a", "b"]},
                "other": {"anyOf": [{"type": "string", "const": "x"}, {"type": "number"}]},
            },
        });
        assert_eq!(
            openapi(&schema),
            json!({
                "type": "OBJECT", "required": ["steps", "answer", "kind"], "propertyOrdering": ["steps", "answer", "kind"],
                "properties": {
                    "answer": {"type": "STRING", "nullable": true, "description": "d"},
                    "steps": {"type": "ARRAY", "items": {"type": "INTEGER", "minimum": 1, "maximum": 10}},
                    "kind": {"type": "STRING", "enum": ["a", "b"]},
                    "other": {"anyOf": [{"type": "STRING", "enum": ["x"]}, {"type": "NUMBER"}]},
                },
            })
        );
    }
}
