use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use reqwest::header::{HeaderName, HeaderValue};

use super::*;
use crate::provider::{Blob, CallErrorKind, Params, Role, Schema, Thinking};
use crate::quota::{NamedLimit, Scarce};

fn request(model: &str) -> Request {
    let blob = |mime, base64: &'static str| Blob { mime, base64: Bytes::from_static(base64.as_bytes()) };
    let parts: Arc<[Part]> = Arc::new([
        Part::Image { blob: blob("image/jpeg", "AAAA"), width: 1, height: 1 },
        Part::Audio { blob: blob("audio/wav", "BBB="), duration_ms: 1 },
        Part::Text("say \"hi\"\n".to_owned()),
    ]);
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["steps", "answer"],
        "properties": {"answer": {"type": "string"}, "steps": {"type": "array", "items": {"type": "string"}}},
    });
    Request {
        role: Role::Generator,
        model: model.to_owned(),
        system: Some("be \"brief\"".to_owned()),
        parts,
        params: Params {
            temperature: Some(0.5),
            top_p: Some(0.9),
            max_output_tokens: 100,
            thinking: Thinking::Off,
            seed: 7,
        },
        schema: Some(Schema { name: "steps", schema }),
    }
}

fn sent(request: &Request) -> Value {
    serde_json::from_slice(&body(request).to_vec()).unwrap()
}

#[test]
fn a_body_has_media_first_as_parts_and_a_strict_schema() {
    let request = request("gpt-4o");
    let schema = &request.schema.as_ref().unwrap().schema;
    assert_eq!(
        sent(&request),
        json!({
            "model": "gpt-4o",
            "messages": [
                {"role": "system", "content": "be \"brief\""},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA", "detail": "auto"}},
                    {"type": "input_audio", "input_audio": {"data": "BBB=", "format": "wav"}},
                    {"type": "text", "text": "say \"hi\"\n"},
                ]},
            ],
            "max_tokens": 100, "temperature": 0.5, "top_p": 0.9, "seed": 7,
            "response_format": {"type": "json_schema", "json_schema": {"name": "steps", "strict": true, "schema": schema}},
        })
    );
    assert_eq!(max_billed_output(&request), 100);
    let Part::Image { blob, .. } = &request.parts[0] else { panic!("an image comes first") };
    assert_eq!(body(&request).chunks()[1].as_ptr(), blob.base64.as_ptr());
}

#[test]
fn clips_go_as_video_urls_and_sound_by_its_format() {
    let blob = |mime| Blob { mime, base64: Bytes::from_static(b"AAAA") };
    let video = |from| Part::Video { from, mime: "video/webm", duration_ms: 1, sound: true };
    let audio = |mime| Part::Audio { blob: blob(mime), duration_ms: 1 };
    let parts: Arc<[Part]> = Arc::new([
        video(VideoFrom::Inline(Bytes::from_static(b"CCCC"))),
        video(VideoFrom::Uri(Arc::from("https://host.test/a\"b.webm"))),
        audio("audio/wav"),
        audio("audio/mpeg"),
        audio("audio/mp3"),
    ]);
    let request = Request { parts, ..request("qwen") };
    let sound = |format| json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": format}});
    assert_eq!(
        sent(&request)["messages"][1]["content"],
        json!([
            {"type": "video_url", "video_url": {"url": "data:video/webm;base64,CCCC"}},
            {"type": "video_url", "video_url": {"url": "https://host.test/a\"b.webm"}},
            sound("wav"), sound("mp3"), sound("mp3"),
        ])
    );
}

#[test]
fn a_schema_shows_its_properties_in_the_order_of_required() {
    let text = String::from_utf8(body(&request("gpt-4o")).to_vec()).unwrap();
    let schema = &text[text.find("\"properties\"").unwrap()..];
    assert!(schema.find("\"steps\"").unwrap() < schema.find("\"answer\"").unwrap(), "{schema}");
}

#[test]
fn a_reasoning_model_gets_its_own_maximum_and_no_sampling() {
    let sent = sent(&request("gpt-5"));
    assert_eq!((&sent["max_completion_tokens"], &sent["reasoning_effort"]), (&json!(1124), &json!("minimal")));
    assert!(["max_tokens", "temperature", "top_p"].iter().all(|key| sent.get(key).is_none()), "{sent}");
    assert_eq!(max_billed_output(&request("gpt-5")), 1124);
}

#[test]
fn one_text_is_a_plain_string_and_what_is_not_set_is_not_sent() {
    let params = Params { temperature: None, top_p: None, max_output_tokens: 5, thinking: Thinking::Default, seed: 0 };
    let parts: Arc<[Part]> = Arc::new([Part::Text("x".to_owned())]);
    let request = Request { system: None, schema: None, params, parts, ..request("qwen") };
    assert_eq!(
        sent(&request),
        json!({"model": "qwen", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "seed": 0})
    );
}

fn read(answer: &Value) -> Reply {
    parse(200, &HeaderMap::new(), answer.to_string().as_bytes()).unwrap()
}

#[test]
fn every_end_has_its_outcome() {
    let blocked = |reason: &str| Finish::Blocked(reason.to_owned());
    let other = |reason: &str| Finish::Other(reason.to_owned());
    for (choice, finish, text) in [
        (json!({"finish_reason": "stop", "message": {"content": "a"}}), Finish::Stop, "a"),
        (json!({"finish_reason": null, "message": {"content": "a"}}), Finish::Stop, "a"),
        (json!({"message": {"content": "a"}}), Finish::Stop, "a"),
        (json!({"finish_reason": "stop", "message": {"content": null}}), Finish::Empty, ""),
        (json!({"finish_reason": "stop", "message": {"content": " "}}), Finish::Empty, " "),
        (json!({"finish_reason": "length", "message": {"content": "a"}}), Finish::Truncated, "a"),
        (json!({"finish_reason": "length", "message": {"content": ""}}), Finish::Truncated, ""),
        (json!({"finish_reason": "content_filter", "message": {"content": null}}), blocked("content_filter"), ""),
        (json!({"finish_reason": "content_filter: SAFETY", "message": {}}), blocked("content_filter: SAFETY"), ""),
        (json!({"finish_reason": "stop", "message": {"content": null, "refusal": "I cannot"}}), blocked("refusal"), ""),
        (json!({"finish_reason": "stop", "message": {"content": "a", "refusal": null}}), Finish::Stop, "a"),
        (
            json!({"finish_reason": "tool_calls", "message": {"content": null, "tool_calls": []}}),
            other("tool_calls"),
            "",
        ),
        (json!({"finish_reason": "abort", "message": {"content": "a"}}), other("abort"), "a"),
        (
            json!({"finish_reason": "stop", "message": {"content": [{"type": "text", "text": "a"}, {"type": "x"}, "b"]}}),
            Finish::Stop,
            "ab",
        ),
        (json!({"finish_reason": "stop", "message": {"content": "\n<think>hm</think>\n\na"}}), Finish::Stop, "a"),
        (
            json!({"finish_reason": "stop", "message": {"content": "a <think>b</think>"}}),
            Finish::Stop,
            "a <think>b</think>",
        ),
        (json!({"finish_reason": "length", "message": {"content": "<think>hm"}}), Finish::Truncated, "<think>hm"),
        (json!({"finish_reason": "stop", "message": {"reasoning_content": "hm", "content": "a"}}), Finish::Stop, "a"),
    ] {
        let reply = read(&json!({"id": "i", "model": "m", "choices": [choice]}));
        assert_eq!((&reply.finish, reply.text.as_str()), (&finish, text), "{choice}");
        assert_eq!((reply.model_version.as_deref(), reply.response_id.as_deref()), (Some("m"), Some("i")));
    }
    assert_eq!(read(&json!({"choices": []})).finish, Finish::Empty);
    assert_eq!(read(&json!({"usage": {"prompt_tokens": 4}})).finish, Finish::Empty);
}

#[test]
fn usage_is_read_with_and_without_its_details() {
    let details = json!({"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 10}, "completion_tokens_details": {"reasoning_tokens": 20}});
    let full = Usage { input_tokens: 100, cached_tokens: 64, audio_tokens: 10, output_tokens: 30, thinking_tokens: 20 };
    let bare = Usage { input_tokens: 100, output_tokens: 30, ..Usage::default() };
    let hidden = Usage { input_tokens: 100, output_tokens: 50, ..Usage::default() };
    for (usage, read_as) in [
        (details, full),
        (json!({"prompt_tokens": 100, "completion_tokens": 30, "prompt_tokens_details": null}), bare),
        (json!({"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 150}), hidden),
        (json!(null), Usage::default()),
        (json!([]), Usage::default()),
    ] {
        assert_eq!(read(&json!({"choices": [], "usage": usage})).usage, read_as, "{usage}");
    }
}

#[test]
fn a_success_that_is_no_reply_may_have_been_paid_for() {
    for bytes in ["", "{}", "null", "[]", "<html><title>Login</title>", "{\"choices\":[", "{\"choices\":null}"] {
        let error = parse(200, &HeaderMap::new(), bytes.as_bytes()).unwrap_err();
        assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::Unknown), "{bytes}");
    }
    for (bytes, kind) in [
        (r#"{"error":{"message":"slow","code":429}}"#, CallErrorKind::Throttled),
        (r#"{"error":{"message":"bad","code":"400"}}"#, CallErrorKind::Refused),
        (r#"{"error":{"message":"odd","code":"odd"}}"#, CallErrorKind::Unavailable),
        (r#"{"object":"error","message":"bad","code":400}"#, CallErrorKind::Refused),
    ] {
        let error = parse(200, &HeaderMap::new(), bytes.as_bytes()).unwrap_err();
        assert_eq!((error.kind, error.billed), (kind, Billed::Unknown), "{bytes}");
    }
}

fn failed(status: u16, pairs: &[(&str, &str)], body: &str) -> CallError {
    let headers = pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    let error = parse(status, &headers, body.as_bytes()).unwrap_err();
    assert_eq!(error.billed, Billed::No);
    error
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn each_error_has_its_consequence_and_quotes_the_server() {
    use CallErrorKind::{DayExhausted, KeyRefused, ModelUnknown, Refused, Throttled, Unavailable};
    for (status, body, kind, quote) in [
        (
            400,
            r#"{"error":{"message":"Unsupported parameter","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#,
            Refused,
            "400 unsupported_parameter: Unsupported parameter",
        ),
        (
            400,
            r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            Refused,
            "too long",
        ),
        (
            400,
            r#"{"error":{"message":"limit","type":"invalid_request_error","code":"billing_hard_limit_reached"}}"#,
            KeyRefused,
            "limit",
        ),
        (
            401,
            r#"{"error":{"message":"Incorrect API key provided: sk-ab***yz.","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            KeyRefused,
            "sk-ab***yz",
        ),
        (
            403,
            r#"{"error":{"message":"Country not supported","code":"unsupported_country_region_territory"}}"#,
            KeyRefused,
            "Country",
        ),
        (403, r#"{"error":{"message":"Project has no access","code":"model_not_found"}}"#, ModelUnknown, "no access"),
        (
            404,
            r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#,
            ModelUnknown,
            "does not exist",
        ),
        (
            404,
            r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":null,"code":404}}"#,
            ModelUnknown,
            "404 NotFoundError: The model",
        ),
        (404, r#"{"detail":"Not Found"}"#, ModelUnknown, "Not Found"),
        (409, r#"{"error":{"message":"conflict"}}"#, Unavailable, "conflict"),
        (413, "<html><title>413 Request Entity Too Large</title></html>", Refused, "413 Request Entity Too Large"),
        (
            422,
            r#"{"detail":[{"loc":["body"],"msg":"field required","type":"value_error"}]}"#,
            Refused,
            "field required",
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 10","type":"BadRequestError","param":null,"code":400}"#,
            Refused,
            "maximum context",
        ),
        (
            429,
            r#"{"error":{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Refused,
            "Request too large",
        ),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
            KeyRefused,
            "exceeded",
        ),
        (
            429,
            r#"{"error":{"message":"Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.","type":"requests","code":"rate_limit_exceeded"}}"#,
            DayExhausted,
            "per day",
        ),
        (429, r#"{"error":"slow"}"#, Throttled, "slow"),
        (429, "", Throttled, "(an empty body)"),
        (
            500,
            r#"{"error":{"message":"The server had an error","type":"server_error","code":null}}"#,
            Unavailable,
            "500 server_error: The server",
        ),
        (502, "<html><head><title>502 Bad Gateway</title></head></html>", Unavailable, "502 Bad Gateway"),
        (
            503,
            r#"{"error":{"message":"The engine is currently overloaded","type":"overloaded"}}"#,
            Unavailable,
            "overloaded",
        ),
        (503, r#"{"error":{"message":"Slow Down","type":"slow_down"}}"#, Throttled, "Slow Down"),
        (504, "upstream request timeout", Unavailable, "upstream request timeout"),
    ] {
        let error = failed(status, &[], body);
        assert_eq!(error.kind, kind, "{body}");
        assert!(error.message.contains(quote), "{} lacks {quote}", error.message);
        let wrapped = failed(status, &[], &format!("[{body}]"));
        assert!(!body.starts_with('{') || wrapped == error, "{wrapped}");
    }
}

#[test]
fn the_limit_that_a_429_names_is_read_from_its_words_or_its_headers() {
    let named = |of, per_minute| NamedLimit { of, per_minute };
    let said = |message: &str, kind: &str| {
        json!({"error": {"message": message, "type": kind, "code": "rate_limit_exceeded"}}).to_string()
    };
    let minute = |reset: &'static str| {
        vec![
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", reset),
            ("x-ratelimit-remaining-tokens", "9000"),
        ]
    };
    let tokens =
        "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30,000, Used 14567";
    for (pairs, body, limit) in [
        (vec![], said(tokens, "tokens"), named(Scarce::Tokens, Some(30_000))),
        (
            vec![],
            said("Rate limit reached on requests per min (RPM): Limit 500, Used 500", ""),
            named(Scarce::Requests, Some(500)),
        ),
        (minute("12ms"), said("slower", ""), named(Scarce::Requests, None)),
        (minute("12ms"), said(tokens, ""), named(Scarce::Tokens, Some(30_000))),
        (minute("1m0s"), String::new(), named(Scarce::Requests, Some(500))),
        // One that is full again in an hour is a day's.
        (minute("1h0m0s"), said("slower", ""), NamedLimit::default()),
        (vec![], said("Rate limit reached for requests", "requests"), named(Scarce::Requests, None)),
        (vec![], said("slower", "limit 7"), NamedLimit::default()),
    ] {
        assert_eq!(failed(429, &pairs, &body).limit, limit, "{pairs:?} {body}");
    }
    let day = said("Rate limit reached on requests per day (RPD): Limit 200, Used 200", "requests");
    assert_eq!(failed(429, &[], &day).limit, NamedLimit::default());
}

#[test]
fn the_longest_of_the_hints_is_honoured() {
    let reached = |delay: &str| {
        format!(
            r#"{{"error":{{"message":"Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please try again in {delay}. Visit x","type":"tokens","code":"rate_limit_exceeded"}}}}"#
        )
    };
    for (status, pairs, body, millis) in [
        (429, vec![], reached("18.642s"), Some(18_742)),
        (429, vec![], reached("174ms"), Some(274)),
        (429, vec![("retry-after-ms", "15000"), ("retry-after", "15")], reached("18.642s"), Some(18_742)),
        (429, vec![("retry-after", "20")], reached("174ms"), Some(20_100)),
        (
            429,
            vec![("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT"), ("date", "Wed, 21 Oct 2015 07:28:00 GMT")],
            String::new(),
            Some(30_100),
        ),
        (429, vec![("x-should-retry", "false")], String::new(), None),
        (503, vec![("retry-after", "9")], String::new(), Some(9100)),
        (500, vec![("x-should-retry", "false")], String::new(), Some(60_000)),
        (500, vec![("x-should-retry", "odd")], String::new(), None),
        (400, vec![("retry-after", "9")], String::new(), None),
    ] {
        let error = failed(status, &pairs, &body);
        assert_eq!(error.retry_after, millis.map(Duration::from_millis), "{status} {pairs:?} {body}");
    }
}

#[test]
fn a_server_may_ask_for_a_retry_of_a_bad_request_but_not_of_a_refused_key() {
    let retry = [("x-should-retry", "true")];
    assert_eq!(failed(400, &retry, "").kind, CallErrorKind::Unavailable);
    assert_eq!(failed(401, &retry, "").kind, CallErrorKind::KeyRefused);
    assert_eq!(failed(429, &retry, r#"{"error":{"code":"insufficient_quota"}}"#).kind, CallErrorKind::KeyRefused);
}

proptest! {
    #[test]
    fn the_parser_takes_any_bytes(status in 100_u16..1000, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(status, &HeaderMap::new(), &bytes);
    }

    #[test]
    fn the_parser_takes_any_json_in_the_places_it_reads(status in prop_oneof![Just(200_u16), Just(400), Just(429), Just(503)], odd in odd_json(), place in 0_usize..9) {
        let answer = match place {
            0 => json!({"choices": odd}),
            1 => json!({"choices": [odd]}),
            2 => json!({"choices": [{"message": odd, "finish_reason": odd}]}),
            3 => json!({"choices": [{"message": {"content": odd, "refusal": odd}}], "id": odd, "model": odd}),
            4 => json!({"choices": [], "usage": odd}),
            5 => json!({"choices": [], "usage": {"prompt_tokens": odd, "total_tokens": odd, "completion_tokens_details": odd}}),
            6 => json!({"error": odd, "detail": odd}),
            7 => json!({"error": {"message": odd, "code": odd, "type": odd, "detail": [odd]}}),
            _ => odd,
        };
        let parsed = parse(status, &HeaderMap::new(), answer.to_string().as_bytes());
        prop_assert!(status == 200 || parsed.is_err());
        if let Err(error) = parsed {
            prop_assert!(error.retry_after.unwrap_or_default() <= crate::provider::hints::LONGEST);
            prop_assert!(error.message.chars().count() < 2000);
        }
    }
}

fn odd_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "(try again in )?[0-9]{1,25}(s|ms|h|m)".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("(text|code|message|content|type|[a-z]{1,5})", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
