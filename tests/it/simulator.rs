//! The simulator over the wire: what it refuses, what it answers, how it fails, and what it counts.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod client;
mod files;
mod sdk;

use std::process::Stdio;
use std::time::{Duration, Instant};

use aurelia::simulator::{Faults, Flavour, Keys, Limit, Settings, Simulator, Stats};
use base64::Engine as _;
use client::{Answer, gemini, openai, send};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

const FLASH: &str = "gemini-2.5-flash";

async fn started(settings: Settings) -> Simulator {
    Simulator::start(settings, ([127, 0, 0, 1], 0).into()).await.unwrap()
}

fn prompt(text: &str) -> Value {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] })
}

fn chat(text: &str) -> Value {
    json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": text }] })
}

fn png(width: u32, height: u32) -> String {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// One of the program's own templates, filled in.
fn template(name: &str, values: &Value) -> String {
    let path = format!("{}/config/prompts/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(path).unwrap();
    minijinja::Environment::new().render_str(&source, minijinja::value::Serde(values)).unwrap()
}

/// Waits until the counts say so; the test's own deadline is ten seconds.
async fn until(simulator: &Simulator, met: impl Fn(&Stats) -> bool) -> Stats {
    let begun = Instant::now();
    loop {
        let stats = simulator.stats();
        if met(&stats) {
            return stats;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "never came true: {stats:?}");
        tokio::task::yield_now().await;
    }
}

/// Four takes of the loop with the program's templates; each role knows scene and take from text alone.
async fn takes(question: &str) -> Vec<(i64, Value)> {
    let mut all = Vec::new();
    let (mut previous, mut score) = (None, 0);
    for _ in 0..4 {
        // A new simulator each time: nothing may rest on its memory.
        let simulator = started(Settings::default()).await;
        let addr = simulator.addr();
        let text = match &previous {
            None => template("generator", &json!({ "question": question, "choices": ["left", "right"] })),
            Some(steps) => template(
                "feedback",
                &json!({ "question": question, "choices": ["left", "right"], "previous_steps": steps,
                         "previous_score": score, "threshold": 6 }),
            ),
        };
        let media = json!({ "inlineData": { "mimeType": "image/png", "data": png(640, 480) } });
        let body = json!({ "contents": [{ "role": "user", "parts": [media, { "text": text }] }] });
        let reply: Value = serde_json::from_str(&gemini(addr, FLASH, "k", &body).await.unwrap().gemini_text()).unwrap();
        let text = template(
            "summarizer",
            &json!({ "question": question, "steps": reply["reasoning_steps"], "step_answers": reply["reasoning_answers"],
                     "final_answer": reply["final_answer"] }),
        );
        let caption = openai(addr, "k", &chat(&text)).await.unwrap().openai_text();
        let text = template("evaluator", &json!({ "caption": caption, "ask_critique": true }));
        let judged: Value =
            serde_json::from_str(&gemini(addr, FLASH, "k", &prompt(&text)).await.unwrap().gemini_text()).unwrap();
        assert!(!judged["critique"].as_str().unwrap().is_empty());
        let roles = simulator.stats().answered_by_role;
        assert_eq!(
            roles.into_iter().collect::<Vec<_>>(),
            [("evaluator".into(), 1), ("generator".into(), 1), ("summarizer".into(), 1)]
        );
        score = judged["score"].as_i64().unwrap();
        previous = Some(reply["reasoning_steps"].clone());
        all.push((score, reply));
    }
    all
}

#[tokio::test]
async fn the_loop_runs_on_the_real_templates_with_rising_scores_and_no_memory() {
    for question in ["Which way does the cyclist's \"bag\" swing?", "Why {does} <the> bell & drum [stop]?"] {
        let takes = takes(question).await;
        for pair in takes.windows(2) {
            assert!((0..=2).contains(&(pair[1].0 - pair[0].0)), "{takes:?}");
        }
        for (score, reply) in &takes {
            assert!((2..=10).contains(score));
            let answer = reply["final_answer"].as_str().unwrap();
            assert!(["left", "right"].contains(&answer));
            assert!(!reply["reasoning_steps"].to_string().contains(answer), "{reply}");
        }
    }
    let ordered: Vec<i64> = takes("Why? [[sim: scores=3/5/9]]").await.iter().map(|(score, _)| *score).collect();
    assert_eq!(ordered, [3, 5, 9, 9]);
}

#[tokio::test]
async fn a_reply_depends_on_neither_seed_nor_parameters() {
    let simulator = started(Settings { seed: 1, ..Settings::default() }).await;
    let other = started(Settings { seed: 2, ..Settings::default() }).await;
    let body = |seed: u32, temperature: f64| {
        let mut body = prompt(&template("generator", &json!({ "question": "Why?" })));
        body["generationConfig"] = json!({ "seed": seed, "temperature": temperature, "maxOutputTokens": 2048 });
        body
    };
    let first = gemini(simulator.addr(), FLASH, "k", &body(1, 0.0)).await.unwrap();
    let again = gemini(other.addr(), FLASH, "k", &body(1, 0.0)).await.unwrap();
    let re_asked = gemini(simulator.addr(), FLASH, "k", &body(2, 0.9)).await.unwrap();
    assert_eq!(first.body, again.body, "the same request gets the same bytes");
    assert_eq!(first.gemini_text(), re_asked.gemini_text());
}

#[tokio::test]
async fn gemini_refuses_what_the_real_one_refuses() {
    let simulator = started(Settings::default()).await;
    let blob = |mime: &str, data: &str| json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": mime, "data": data } }] }] });
    let config = |config: Value| json!({ "contents": [{ "parts": [{ "text": "x" }] }], "generationConfig": config });
    let both = json!({ "contents": [{ "parts": [{ "text": "x", "inlineData": { "mimeType": "image/png", "data": png(1, 1) } }] }] });
    let cases = [
        (FLASH, json!({ "contents": [], "nope": 1 }), "Unknown name \"nope\": Cannot find field."),
        (
            FLASH,
            json!({ "contents": [{ "parts": [{ "txt": "x" }] }] }),
            "Unknown name \"txt\" at 'contents[0].parts[0]': Cannot find field.",
        ),
        (
            FLASH,
            config(json!({ "max_tokens": 5 })),
            "Unknown name \"max_tokens\" at 'generation_config': Cannot find field.",
        ),
        (FLASH, json!({}), "contents is not specified"),
        (
            FLASH,
            json!({ "contents": [{ "parts": [{}] }] }),
            "required oneof field 'data' must have one initialized field",
        ),
        (FLASH, both, "oneof field 'data' is already set"),
        (
            FLASH,
            json!({ "contents": [{ "role": "system", "parts": [{ "text": "x" }] }] }),
            "Please use a valid role: user, model.",
        ),
        (FLASH, blob("image/png", "%%%"), "Base64 decoding failed"),
        (FLASH, blob("image/bmp", "AAAA"), "Unsupported MIME type: image/bmp"),
        (FLASH, blob("image/png", "AAAA"), "Unable to process input image"),
        (
            FLASH,
            config(json!({ "temperature": "hot" })),
            "Invalid value at 'generation_config.temperature' (TYPE_FLOAT)",
        ),
        (FLASH, config(json!({ "temperature": 2.5 })), "temperature must be in the range [0.0, 2.0]"),
        (FLASH, config(json!({ "responseSchema": { "type": "OBJECT" } })), "response_mime_type"),
        (FLASH, config(json!({ "thinkingConfig": { "thinkingLevel": "LOW" } })), "Thinking level is not supported"),
        ("gemini-2.5-pro", config(json!({ "thinkingConfig": { "thinkingBudget": 0 } })), "only works in thinking mode"),
        (
            "gemini-3.8-flash",
            config(json!({ "thinkingConfig": { "thinkingBudget": 5, "thinkingLevel": "LOW" } })),
            "only one of thinking budget and thinking level",
        ),
        (FLASH, prompt("[[sim: scroe=4]]"), "simulator directive"),
    ];
    for (model, body, text) in cases {
        let answer = gemini(simulator.addr(), model, "k", &body).await.unwrap();
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let error = &answer.json()["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(400), &json!("INVALID_ARGUMENT")), "{body}");
        assert!(error["message"].as_str().unwrap().contains(text), "{body}: {error}");
    }
    let spoken = json!({ "contents": { "parts": { "text": "x" } }, "generation_config": { "max_output_tokens": "64", "top_k": 40 } });
    assert_eq!(
        gemini(simulator.addr(), FLASH, "k", &spoken).await.unwrap().status,
        200,
        "snake_case and single values are taken"
    );
    let unknown = gemini(simulator.addr(), "gemini-1.5-pro-latest", "k", &prompt("x")).await.unwrap();
    assert_eq!((unknown.status, unknown.json()["error"]["status"].clone()), (404, json!("NOT_FOUND")));
    let file = json!({ "contents": [{ "parts": [{ "fileData": { "fileUri": "https://x/v1beta/files/abc" } }] }] });
    assert_eq!(gemini(simulator.addr(), FLASH, "k", &file).await.unwrap().status, 403);
    let broken = send(
        simulator.addr(),
        "POST",
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "x-goog-api-key: k\r\n",
        b"{\"contents\":",
    )
    .await;
    assert!(broken.unwrap().text().contains("Invalid JSON payload received."));
    assert_eq!(simulator.stats().spend_nano_usd, spoken_cost(&simulator.stats()), "a refusal costs nothing");
}

/// The one answered call of a test: gemini-2.5-flash's prices.
fn spoken_cost(stats: &Stats) -> u64 {
    stats.prompt_tokens * 300 + stats.output_tokens * 2_500
}

#[tokio::test]
async fn openai_refuses_what_the_real_one_refuses() {
    let simulator = started(Settings::default()).await;
    let with = |name: &str, value: Value| {
        let mut body = chat("x");
        body[name] = value;
        body
    };
    let on = |model: &str, name: &str, value: Value| {
        let mut body = with(name, value);
        body["model"] = model.into();
        body
    };
    let part = |part: Value| json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": [part] }] });
    let cases = [
        (with("nope", json!(1)), 400, json!("unknown_parameter"), "Unknown parameter: 'nope'."),
        (
            json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "x", "txt": 1 }] }),
            400,
            json!("unknown_parameter"),
            "Unknown parameter: 'messages[0].txt'.",
        ),
        (json!({ "model": "gpt-4o" }), 400, json!("missing_required_parameter"), "'messages'"),
        (json!({ "messages": [] }), 400, Value::Null, "you must provide a model parameter"),
        (on("gpt-9", "seed", json!(1)), 404, json!("model_not_found"), "The model `gpt-9` does not exist"),
        (with("temperature", json!("hot")), 400, json!("invalid_type"), "expected a decimal, but got a string instead"),
        (with("service_tier", json!("warp")), 400, json!("invalid_value"), "Supported values are: 'auto'"),
        (
            on("gpt-6-luna", "max_tokens", json!(5)),
            400,
            json!("unsupported_parameter"),
            "Use 'max_completion_tokens' instead.",
        ),
        (
            on("o4-mini", "temperature", json!(0)),
            400,
            json!("unsupported_value"),
            "Only the default (1) value is supported.",
        ),
        (
            part(json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,%%%" } })),
            400,
            json!("invalid_base64"),
            "Invalid base64 image_url.",
        ),
        (
            part(json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } })),
            400,
            Value::Null,
            "input_audio is only supported",
        ),
    ];
    for (body, status, code, text) in cases {
        let answer = openai(simulator.addr(), "k", &body).await.unwrap();
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (status, &code), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(text), "{body}: {error}");
        assert!(answer.header("x-request-id").is_some());
    }
    for name in ["max_tokens", "max_completion_tokens"] {
        assert_eq!(
            openai(simulator.addr(), "k", &with(name, json!(50))).await.unwrap().status,
            200,
            "gpt-4o takes {name}"
        );
    }
}

#[tokio::test]
async fn openai_checks_the_reply_format_before_it_answers() {
    let simulator = started(Settings::default()).await;
    let with = |format: Value| json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "x" }], "response_format": format });
    let schema = |name: &str, schema: Value| {
        with(json!({ "type": "json_schema", "json_schema": { "name": name, "strict": true, "schema": schema } }))
    };
    let a = json!({ "a": { "type": "string" } });
    let good = json!({ "type": "object", "properties": a, "required": ["a"], "additionalProperties": false });
    let cases = [
        (with(json!({ "type": "json_object" })), "must contain the word 'json'"),
        (with(json!({ "type": "xml" })), "Supported values are: 'text', 'json_object', and 'json_schema'."),
        (schema("a b", good.clone()), "does not match pattern"),
        (
            schema("s", json!({ "type": "object", "properties": a, "required": ["a"] })),
            "'additionalProperties' is required",
        ),
        (
            schema("s", json!({ "type": "object", "properties": a, "required": [], "additionalProperties": false })),
            "Missing 'a'",
        ),
    ];
    for (body, text) in cases {
        let answer = openai(simulator.addr(), "k", &body).await.unwrap();
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && message.contains(text), "{body}: {message}");
    }
    let reply = openai(simulator.addr(), "k", &schema("s", good)).await.unwrap().openai_text();
    assert!(serde_json::from_str::<Value>(&reply).unwrap()["a"].is_string());
}

#[tokio::test]
async fn a_vllm_server_is_lenient_and_tells_less() {
    let simulator = started(Settings { openai_flavour: Flavour::Vllm, ..Settings::default() }).await;
    let mut body = chat("Hello");
    body["model"] = "org/any-7b".into();
    body["mm_processor_kwargs"] = json!({});
    let answer = openai(simulator.addr(), "", &body).await.unwrap();
    assert_eq!((answer.status, answer.json()["usage"]["prompt_tokens_details"].clone()), (200, Value::Null));
    assert!(answer.header("x-ratelimit-limit-requests").is_none() && answer.header("x-request-id").is_none());
    body["messages"] = json!([]);
    let refused = openai(simulator.addr(), "", &body).await.unwrap().json();
    assert_eq!((&refused["error"]["code"], &refused["error"]["type"]), (&json!(400), &json!("BadRequestError")));
}

#[tokio::test]
async fn keys_are_checked_before_anything_else() {
    let keys = Keys { revoked: ["old".into()].into(), no_billing: ["poor".into()].into() };
    let simulator = started(Settings { keys, ..Settings::default() }).await;
    let addr = simulator.addr();
    let bad = json!({ "nope": 1 });
    for (key, status, reason) in
        [("", 403, "PERMISSION_DENIED"), ("old", 400, "API_KEY_INVALID"), ("poor", 400, "FAILED_PRECONDITION")]
    {
        let answer = gemini(addr, FLASH, key, &bad).await.unwrap();
        assert_eq!(answer.status, status, "{key:?}");
        assert!(answer.text().contains(reason), "{key:?}: {answer:?}");
    }
    for (key, status, code) in
        [("", 401, Value::Null), ("old", 401, json!("invalid_api_key")), ("poor", 429, json!("insufficient_quota"))]
    {
        let answer = openai(addr, key, &bad).await.unwrap();
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &code), "{key:?}");
    }
    let by_query =
        send(addr, "POST", "/v1/models/gemini-2.5-flash:generateContent?key=k", "", prompt("x").to_string().as_bytes())
            .await;
    assert_eq!(by_query.unwrap().status, 200);
    let stats = simulator.stats();
    assert_eq!((stats.received, stats.answered, stats.by_key.len()), (7, 1, 1));
    assert!(!serde_json::to_string(&stats).unwrap().contains("poor"));
}

/// What a fault must look like in one protocol.
type Look = fn(&Answer) -> bool;

#[tokio::test]
async fn every_gemini_fault_has_its_wire_shape() {
    let simulator = started(Settings::default()).await;
    let cases: [(&str, u16, Look); 21] = [
        ("429", 429, |a| {
            a.text().contains("\"retryDelay\": \"1.681s\"") && a.text().contains("Please retry in 1.681s.")
        }),
        ("429_truncated", 429, |a| {
            a.text().contains("\"retryDelay\": \"1s\"") && a.text().contains("Please retry in 1.681s.")
        }),
        ("429_bare", 429, |a| {
            a.json()["error"].get("details").is_none() && a.text().contains("Resource has been exhausted")
        }),
        ("429_daily", 429, |a| {
            a.text().contains("GenerateRequestsPerDayPerProjectPerModel") && a.text().contains("1h52m56.4s")
        }),
        ("400", 400, |a| a.json()["error"]["status"] == "INVALID_ARGUMENT"),
        ("500", 500, |a| a.json()["error"]["status"] == "INTERNAL"),
        ("502", 502, |a| {
            a.text().starts_with("<!DOCTYPE html>") && a.header("content-type").unwrap().starts_with("text/html")
        }),
        ("503", 503, |a| a.json()["error"]["message"] == "The model is overloaded. Please try again later."),
        ("504", 504, |a| a.json()["error"]["status"] == "DEADLINE_EXCEEDED"),
        ("cut_body", 200, |a| !a.whole && !a.body.is_empty()),
        ("wrong_length", 200, |a| !a.whole && serde_json::from_slice::<Value>(&a.body).is_ok()),
        ("garbage", 200, |a| a.whole && serde_json::from_slice::<Value>(&a.body).is_err()),
        ("safety", 200, |a| {
            a.json()["candidates"][0]["finishReason"] == "SAFETY" && a.json()["candidates"][0].get("content").is_none()
        }),
        ("recitation", 200, |a| a.json()["candidates"][0]["finishReason"] == "RECITATION"),
        ("blocked", 200, |a| {
            a.json()["promptFeedback"]["blockReason"] == "PROHIBITED_CONTENT" && a.json().get("candidates").is_none()
        }),
        ("no_candidates", 200, |a| a.json().get("candidates").is_none() && a.json().get("promptFeedback").is_none()),
        ("empty", 200, |a| a.json()["candidates"][0]["finishReason"] == "STOP" && a.gemini_text().is_empty()),
        ("empty_length", 200, |a| {
            a.json()["candidates"][0]["finishReason"] == "MAX_TOKENS" && a.gemini_text().is_empty()
        }),
        ("truncated", 200, |a| {
            a.json()["candidates"][0]["finishReason"] == "MAX_TOKENS"
                && serde_json::from_str::<Value>(&a.gemini_text()).is_err()
        }),
        ("prose", 200, |a| !a.gemini_text().contains('{') && a.json()["candidates"][0]["finishReason"] == "STOP"),
        ("unknown_finish", 200, |a| a.json()["candidates"][0]["finishReason"] == "COSMIC_RAY"),
    ];
    for (name, status, looks) in cases {
        let body = prompt(&format!("<question>\"Q [[sim: fault={name}]]\"</question>"));
        let answer = gemini(simulator.addr(), FLASH, "k", &body).await.unwrap();
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(looks(&answer), "{name}: {answer:?}");
        assert_eq!(simulator.stats().faults[name], 1);
    }
    for name in ["cut_before", "cut_after"] {
        let body = prompt(&format!("<question>\"Q [[sim: fault={name}]]\"</question>"));
        assert_eq!(gemini(simulator.addr(), FLASH, "k", &body).await, None, "{name}");
    }
    let stats = until(&simulator, |stats| stats.in_flight == 0).await;
    assert_eq!(stats.billed_unseen, 3, "cut_body, wrong_length and cut_after were computed and not seen whole");
    assert_eq!(stats.answered, 9, "reply faults are answers");
}

#[tokio::test]
async fn every_openai_fault_has_its_wire_shape() {
    let simulator = started(Settings::default()).await;
    let cases: [(&str, u16, Look); 14] = [
        ("429", 429, |a| {
            a.text().contains("Please try again in 1.681s.")
                && a.header("retry-after-ms") == Some("1681")
                && a.header("retry-after") == Some("2")
        }),
        ("429_truncated", 429, |a| a.header("retry-after") == Some("1") && a.header("retry-after-ms").is_none()),
        ("429_bare", 429, |a| a.header("retry-after").is_none() && a.json()["error"]["code"] == "rate_limit_exceeded"),
        ("429_daily", 429, |a| a.text().contains("requests per day (RPD)")),
        ("429_too_large", 429, |a| a.text().contains("Request too large for gpt-4o")),
        ("insufficient_quota", 429, |a| a.json()["error"]["type"] == "insufficient_quota"),
        ("500", 500, |a| a.json()["error"]["type"] == "server_error"),
        ("502", 502, |a| a.text().starts_with("<!DOCTYPE html>")),
        ("503", 503, |a| a.text().contains("overloaded")),
        ("content_filter", 200, |a| {
            a.json()["choices"][0]["finish_reason"] == "content_filter"
                && a.json()["choices"][0]["message"]["content"].is_null()
        }),
        ("refusal", 200, |a| {
            a.json()["choices"][0]["message"]["refusal"].is_string()
                && a.json()["choices"][0]["message"]["content"].is_null()
        }),
        ("length", 200, |a| a.json()["choices"][0]["finish_reason"] == "length" && !a.openai_text().is_empty()),
        ("empty", 200, |a| a.json()["choices"][0]["message"]["content"] == ""),
        ("no_candidates", 200, |a| a.json()["choices"] == json!([])),
    ];
    for (name, status, looks) in cases {
        let answer = openai(simulator.addr(), "k", &chat(&format!("<question>\"Q [[sim: fault={name}]]\"</question>")))
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(looks(&answer), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn an_evaluator_can_be_made_to_talk_nonsense_a_given_number_of_times() {
    let simulator = started(Settings::default()).await;
    for (name, text) in
        [("score_range", "11"), ("score_fraction", "7.5"), ("score_word", "high"), ("score_two", "second thoughts")]
    {
        let directive = format!("[[sim: fault={name} role=evaluator times=2]]");
        let body = |seed: u32| {
            let mut body = prompt(&format!("<caption>\"A dog. {directive}\"</caption>"));
            body["generationConfig"] = json!({ "seed": seed });
            body
        };
        for seed in 0..2 {
            assert!(
                gemini(simulator.addr(), FLASH, "k", &body(seed)).await.unwrap().gemini_text().contains(text),
                "{name} {seed}"
            );
        }
        let mended: Value =
            serde_json::from_str(&gemini(simulator.addr(), FLASH, "k", &body(2)).await.unwrap().gemini_text()).unwrap();
        assert!((2..=10).contains(&mended["score"].as_i64().unwrap()));
        let other_role = prompt(&format!("<question>\"Why? {directive}\"</question>"));
        assert!(
            gemini(simulator.addr(), FLASH, "k", &other_role).await.unwrap().gemini_text().contains("reasoning_steps")
        );
    }
}

#[tokio::test]
async fn drawn_faults_repeat_with_the_seed_and_end_after_the_most_in_a_row() {
    let faults = Faults {
        rate: 1.0,
        kinds: vec!["500".into(), "429".into(), "safety".into()],
        max_consecutive: 2,
        ..Faults::default()
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let simulator = started(Settings { faults: faults.clone(), ..Settings::default() }).await;
        let mut seen = Vec::new();
        for n in 0..9 {
            let mut body = prompt("Hello");
            body["generationConfig"] = json!({ "seed": n, "maxOutputTokens": 100 + n });
            let answer = gemini(simulator.addr(), FLASH, "k", &body).await.unwrap();
            seen.push((answer.status, answer.text().contains("SAFETY")));
        }
        let good: Vec<usize> =
            seen.iter().enumerate().filter(|(_, seen)| **seen == (200, false)).map(|(at, _)| at).collect();
        assert_eq!(good, [2, 5, 8], "{seen:?}");
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_window_lets_in_what_it_says_and_opens_when_it_says() {
    let limits = vec![Limit { model: "gemini-*".into(), requests: Some(3), tokens: None, window_ms: 400, bare: false }];
    let simulator = started(Settings { limits, ..Settings::default() }).await;
    let addr = simulator.addr();
    for n in 0..3 {
        assert_eq!(gemini(addr, FLASH, "k", &prompt(&format!("{n}"))).await.unwrap().status, 200);
    }
    let refused = gemini(addr, FLASH, "k", &prompt("3")).await.unwrap();
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("\"quotaValue\": \"450\""), "3 in 400 ms are 450 a minute: {}", refused.text());
    assert_eq!(gemini(addr, FLASH, "other", &prompt("3")).await.unwrap().status, 200, "another key has another window");
    let text = refused.text();
    let told = text.split("Please retry in ").nth(1).unwrap().split("ms.").next().unwrap().parse::<f64>().unwrap();
    tokio::time::sleep(Duration::from_secs_f64(told / 1_000.0)).await;
    assert_eq!(gemini(addr, FLASH, "k", &prompt("4")).await.unwrap().status, 200, "it waited as long as it was told");
    let stats = simulator.stats();
    assert_eq!((stats.limit_violations, stats.errors["429 RESOURCE_EXHAUSTED"]), (1, 1));
    assert_eq!(stats.limits.iter().map(|used| used.admitted).sum::<u64>(), 5);
    assert_eq!(stats.limits.iter().map(|used| used.peak_requests).max(), Some(3));
}

#[tokio::test]
async fn openai_tokens_count_with_the_output_asked_for() {
    let limits = vec![Limit { model: "*".into(), requests: None, tokens: Some(1_000), window_ms: 60_000, bare: false }];
    let simulator = started(Settings { limits, ..Settings::default() }).await;
    let mut body = chat("Hello");
    body["max_tokens"] = json!(600);
    let first = openai(simulator.addr(), "k", &body).await.unwrap();
    assert_eq!(
        (first.header("x-ratelimit-limit-tokens"), first.header("x-ratelimit-remaining-tokens")),
        (Some("1000"), Some("398"))
    );
    let second = openai(simulator.addr(), "k", &body).await.unwrap();
    assert!(second.text().contains("on tokens per min (TPM): Limit 1000, Used 602, Requested 602."), "{second:?}");
    body["max_tokens"] = json!(1_000);
    let never = openai(simulator.addr(), "k", &body).await.unwrap();
    assert!(never.status == 429 && never.text().contains("Request too large"), "{never:?}");
}

#[tokio::test]
async fn the_output_maximum_cuts_the_text_and_thinking_shares_it() {
    let simulator = started(Settings::default()).await;
    let ask = |most: u32, budget: i32| {
        let mut body = prompt("<question>\"Why?\"</question>");
        body["generationConfig"] = json!({ "maxOutputTokens": most, "thinkingConfig": { "thinkingBudget": budget } });
        body
    };
    let cut = gemini(simulator.addr(), FLASH, "k", &ask(10, 0)).await.unwrap();
    assert_eq!(cut.json()["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!((cut.gemini_text().len(), &cut.json()["usageMetadata"]["candidatesTokenCount"]), (40, &json!(10)));
    let starved = gemini(simulator.addr(), FLASH, "k", &ask(10, -1)).await.unwrap().json();
    assert_eq!(starved["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert!(starved["candidates"][0]["content"].get("parts").is_none());
    assert_eq!(starved["usageMetadata"]["thoughtsTokenCount"], 10);
}

#[tokio::test]
async fn the_books_count_calls_repeats_media_and_money() {
    let simulator = started(Settings::default()).await;
    let addr = simulator.addr();
    let body = json!({ "contents": [{ "parts": [
        { "inlineData": { "mimeType": "image/png", "data": png(1_920, 1_080) } }, { "text": "x".repeat(400) } ] }],
        "generationConfig": { "thinkingConfig": { "thinkingBudget": 0 } } });
    let usage = gemini(addr, FLASH, "k", &body).await.unwrap().json()["usageMetadata"].clone();
    assert_eq!((&usage["promptTokenCount"], usage.get("thoughtsTokenCount")), (&json!(100 + 6 * 258), None));
    assert_eq!(gemini(addr, FLASH, "k", &body).await.unwrap().status, 200);
    openai(addr, "k", &chat("Hello")).await.unwrap();
    let stats: Stats = serde_json::from_slice(&send(addr, "GET", "/stats", "", b"").await.unwrap().body).unwrap();
    assert_eq!((stats.received, stats.answered, stats.distinct_requests, stats.repeats_of_answered), (3, 3, 2, 1));
    assert_eq!(stats.media_bytes, 2 * 24);
    assert_eq!((stats.by_model[FLASH], stats.by_model["gpt-4o"], stats.answered_by_role["plain"]), (2, 1, 3));
    let output = usage["candidatesTokenCount"].as_u64().unwrap();
    let hello = "You said: Hello".len().div_ceil(4) as u64;
    assert_eq!(stats.spend_nano_usd, 2 * ((100 + 6 * 258) * 300 + output * 2_500) + 2 * 2_500 + hello * 10_000);
    assert_eq!(send(addr, "POST", "/stats/reset", "", b"").await.unwrap().status, 200);
    let empty = simulator.stats();
    assert_eq!((empty.received, empty.spend_nano_usd, empty.repeats_of_answered), (0, 0, 0));
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_a_bill_that_nobody_saw() {
    let simulator =
        started(Settings { faults: Faults { stall_ms: 3_600_000, ..Faults::default() }, ..Settings::default() }).await;
    let body = prompt("<question>\"Q [[sim: fault=stall]]\"</question>").to_string();
    let path = format!("/v1/models/{FLASH}:generateContent");
    let first = client::open(simulator.addr(), "POST", &path, "x-goog-api-key: k\r\n", body.as_bytes()).await;
    let second = client::open(simulator.addr(), "POST", &path, "x-goog-api-key: k\r\n", body.as_bytes()).await;
    let stalled = until(&simulator, |stats| stats.faults.get("stall") == Some(&2)).await;
    assert_eq!((stalled.in_flight, stalled.peak_concurrency), (2, 2));
    drop((first, second));
    let stats = until(&simulator, |stats| stats.in_flight == 0).await;
    assert_eq!((stats.answered, stats.billed_unseen, stats.repeats_of_answered), (0, 2, 0));
    assert!(stats.spend_nano_usd > 0 && stats.billed_unseen_nano_usd == stats.spend_nano_usd);
}

#[tokio::test]
async fn a_slow_body_arrives_whole() {
    let simulator =
        started(Settings { faults: Faults { slow_ms: 160, ..Faults::default() }, ..Settings::default() }).await;
    let begun = Instant::now();
    let answer =
        gemini(simulator.addr(), FLASH, "k", &prompt("<question>\"Q [[sim: fault=slow]]\"</question>")).await.unwrap();
    assert!(answer.whole && begun.elapsed() >= Duration::from_millis(150));
    assert!(answer.gemini_text().contains("final_answer"));
    assert_eq!(simulator.stats().billed_unseen, 0);
}

#[tokio::test]
async fn settings_change_while_it_runs_and_a_wrong_change_changes_nothing() {
    let simulator = started(Settings::default()).await;
    let addr = simulator.addr();
    let wrong = send(addr, "POST", "/control", "", br#"{"faults": {"rate": 1}, "nope": 1}"#).await.unwrap();
    assert!(wrong.status == 400 && wrong.text().contains("nope"), "{wrong:?}");
    assert_eq!(simulator.settings(), Settings::default());
    send(addr, "POST", "/control", "", br#"{"faults": {"rate": 1, "kinds": ["503"], "max_consecutive": 0}}"#)
        .await
        .unwrap();
    assert_eq!(gemini(addr, FLASH, "k", &prompt("x")).await.unwrap().status, 503);
    simulator.set(Settings::default()).unwrap();
    assert_eq!(gemini(addr, FLASH, "k", &prompt("x")).await.unwrap().status, 200);
    assert_eq!(send(addr, "GET", "/healthz", "", b"").await.unwrap().text(), "ok");
}

#[tokio::test]
async fn twenty_megabytes_of_sound_are_taken_and_a_body_over_the_limit_is_refused() {
    let simulator = started(Settings::default()).await;
    let mut sound = vec![0xfb; 16_000_000];
    sound[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
    let data = base64::engine::general_purpose::URL_SAFE.encode(sound);
    let body = json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "audio/mp3", "data": data } }] }] });
    assert_eq!(gemini(simulator.addr(), FLASH, "k", &body).await.unwrap().status, 200);
    assert_eq!(simulator.stats().media_bytes, 16_000_000);
    let path = format!("/v1beta/models/{FLASH}:generateContent");
    let refused =
        send(simulator.addr(), "POST", &path, "x-goog-api-key: k\r\n", &vec![b' '; 104_857_601]).await.unwrap();
    assert!(refused.status == 400 && refused.text().contains("payload size exceeds the limit"), "{refused:?}");
}

#[tokio::test]
async fn a_stopped_simulator_cuts_its_connections_and_frees_its_port() {
    let simulator =
        started(Settings { faults: Faults { stall_ms: 3_600_000, ..Faults::default() }, ..Settings::default() }).await;
    let addr = simulator.addr();
    let body = chat("[[sim: fault=stall]]").to_string();
    let mut held =
        client::open(addr, "POST", "/v1/chat/completions", "authorization: Bearer k\r\n", body.as_bytes()).await;
    until(&simulator, |stats| stats.faults.contains_key("stall")).await;
    simulator.stop().await;
    let mut rest = Vec::new();
    let _ = held.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "no answer");
    let again = Simulator::start(Settings::default(), addr).await.unwrap();
    assert_eq!(again.addr(), addr);
}

#[tokio::test]
async fn the_binary_prints_its_address_takes_its_flags_and_ends_on_sigterm() {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_aurelia-simulator"))
        .args(["--listen", "127.0.0.1:0", "--limit", "requests=1,window=10m"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let addr = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    assert_eq!(gemini(addr, FLASH, "k", &prompt("x")).await.unwrap().status, 200);
    assert_eq!(gemini(addr, FLASH, "k", &prompt("x")).await.unwrap().status, 429);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().await.unwrap().success());
    let refused = tokio::process::Command::new(env!("CARGO_BIN_EXE_aurelia-simulator"))
        .args(["--fault", "nope"])
        .output()
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("unknown fault \"nope\""));
}
