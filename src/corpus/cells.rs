//! An item from the cells of a table, whose columns are named as the fields of a line.
//!
//! An unknown column is refused as an unknown field is, before the first row: a misspelt `anwser` would cost the whole
//! corpus its answer check without a word. What a table has beyond an item belongs in its column `metadata`.
//!
//! An empty cell is a field left out. Where a table has only text, `media` and `choices` are JSON, `answer` may be a JSON
//! list of texts, `metadata` may be a JSON object or list, and `sample` is a number; all else is text as it stands.

use serde_json::{Map, Value};

use crate::job::{FIELDS, Item};

/// Whether these columns can be items.
pub(super) fn check(columns: &[String]) -> Result<(), String> {
    let unknown: Vec<_> = columns.iter().filter(|name| !FIELDS.contains(&name.as_str())).take(5).collect();
    if !unknown.is_empty() {
        return Err(format!(
            "unknown column {unknown:?} (known: {}); rename it, leave it out, or put it into the column metadata as JSON",
            FIELDS.join(", ")
        ));
    }
    if let Some((_, twice)) = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name)) {
        return Err(format!("column {twice:?} is there twice: rename one"));
    }
    if columns.iter().any(|name| name == "query") { Ok(()) } else { Err("column \"query\" is missing".to_owned()) }
}

/// The item of a row.
pub(super) fn item(cells: impl IntoIterator<Item = (String, Value)>) -> Result<Item, String> {
    let mut fields = Map::new();
    for (name, value) in cells {
        if let Some(value) = field(&name, value)? {
            fields.insert(name, value);
        }
    }
    Item::from_fields(fields)
}

fn field(name: &str, value: Value) -> Result<Option<Value>, String> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text,
        // Ids are often numbers in a table.
        Value::Number(number) if name == "id" => return Ok(Some(number.to_string().into())),
        other => return Ok(Some(other)),
    };
    let list = || serde_json::from_str::<Vec<String>>(&text).ok().map(Value::from);
    Ok(Some(match name {
        "media" | "choices" => {
            serde_json::from_str(&text).map_err(|error| format!("{name} is not JSON, which it has to be: {error}"))?
        }
        "answer" => list().unwrap_or_else(|| text.clone().into()),
        "metadata" if text.starts_with(['{', '[']) => {
            serde_json::from_str(&text).unwrap_or_else(|_| text.clone().into())
        }
        "sample" => text.trim().parse::<u64>().map_or_else(|_| text.clone().into(), Value::from),
        _ => text.into(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(cells: &[(&str, &str)]) -> Result<Item, String> {
        item(cells.iter().map(|(name, text)| ((*name).to_owned(), json!(text))))
    }

    #[test]
    fn a_row_is_the_item_that_a_line_with_the_same_fields_is() {
        let cells = [
            ("id", "7"),
            ("video", "a.mp4"),
            ("audio", ""),
            ("query", "[not] JSON?"),
            ("answer", r#"["x","y"]"#),
            ("choices", r#"["x","z"]"#),
            ("sample", "3"),
            ("metadata", r#"{"a":1}"#),
        ];
        let line = r#"{"id":"7","video":"a.mp4","query":"[not] JSON?","answer":["x","y"],"choices":["x","z"],"sample":3,"metadata":{"a":1}}"#;
        assert_eq!(row(&cells).unwrap(), Item::from_line(line).unwrap());
        let plain = row(&[("video", "a.mp4"), ("query", "q"), ("answer", "[1]"), ("metadata", "{oops")]).unwrap();
        assert_eq!((plain.answers, plain.metadata), (vec!["[1]".to_owned()], json!("{oops")));
    }

    #[test]
    fn what_cannot_be_an_item_is_refused_with_the_way_out() {
        for (name, text, found) in [
            ("media", "a.mp4", "media is not JSON"),
            ("media", r#"[{"name":"v","kind":"video","uri":"a","resolved":"/etc/passwd"}]"#, "resolved"),
            ("sample", "many", "sample is a string"),
        ] {
            let video = if name == "media" { "" } else { "a.mp4" };
            let error = row(&[("query", "q"), ("video", video), (name, text)]).unwrap_err();
            assert!(error.contains(found), "{error}");
        }
        let check = |columns: &[&str]| check(&columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert!(check(&["query", "anwser"]).unwrap_err().contains("anwser"));
        assert!(check(&["query", "id", "id"]).unwrap_err().contains("twice"));
        assert!(check(&["video"]).unwrap_err().contains("missing"));
        assert_eq!(check(&["video", "query"]), Ok(()));
    }
}
