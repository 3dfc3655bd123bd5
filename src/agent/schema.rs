//! The JSON schemas that providers are sent with a request.
//!
//! Strict subsets (every property required, none beside them), since that is what both protocols enforce. They make
//! replies better and are never relied on: many servers ignore them, and [`super::parse`] takes what really comes.

use serde_json::json;

use crate::provider::Schema;

/// What a generator is to reply.
pub fn reasoning() -> Schema {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    Schema {
        name: "reasoning",
        schema: json!({
            "type": "object",
            "properties": {
                "reasoning_steps": texts,
                "reasoning_answers": texts,
                "final_answer": {"type": "string"},
            },
            "required": ["reasoning_steps", "reasoning_answers", "final_answer"],
            "additionalProperties": false,
        }),
    }
}

/// What an evaluator is to reply; with a critique when the recipe asks for one.
pub fn verdict(critique: bool) -> Schema {
    let (properties, required) = if critique {
        (json!({"score": {"type": "integer"}, "critique": {"type": "string"}}), json!(["score", "critique"]))
    } else {
        (json!({"score": {"type": "integer"}}), json!(["score"]))
    };
    Schema {
        name: "verdict",
        schema: json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        }),
    }
}
