use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::provider::{Billed, Blob, CallErrorKind, Params, Protocol, Role, Schema, Thinking, VideoWay};
use crate::quota::{NamedLimit, Scarce};

fn blob(mime: &'static str, base64: &'static str) -> Blob {
    Blob { mime, base64: Bytes::from_static(base64.as_bytes()) }
}

fn request() -> Request {
    let parts: Arc<[Part]> = Arc::new([
        Part::Image { blob: blob("image/jpeg", "AAAA"), width: 1, height: 1 },
        Part::Audio { blob: blob("audio/wav", "BBB="), duration_ms: 1 },
        Part::Text("say \"hi\"\n\u{0}".to_owned()),
    ]);
    Request {
        role: Role::Generator,
        model: "gemini-2.5-flash".to_owned(),
        system: Some("be \"brief\"".to_owned()),
        parts,
        params: Params {
            temperature: Some(0.7),
            top_p: Some(0.95),
            max_output_tokens: 1000,
            thinking: Thinking::Budget(500),
            seed: u32::MAX,
        },
        schema: Some(Schema {
            name: "score",
            schema: json!({"type": "object", "properties": {"s": {"type": "integer"}}, "required": ["s"]}),
        }),
    }
}

fn sent(request: &Request) -> Value {
    serde_json::from_slice(&body(request).to_vec()).unwrap()
}

#[test]
fn a_body_has_media_first_and_the_thinking_on_top_of_the_content() {
    let request = request();
    assert_eq!(
        sent(&request),
        json!({
            "systemInstruction": {"parts": [{"text": "be \"brief\""}]},
            "contents": [{"role": "user", "parts": [
                {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}},
                {"inlineData": {"mimeType": "audio/wav", "data": "BBB="}},
                {"text": "say \"hi\"\n\u{0}"},
            ]}],
            "generationConfig": {
                "temperature": 0.7, "topP": 0.95, "maxOutputTokens": 1500, "seed": 0x7fff_ffff,
                "thinkingConfig": {"thinkingBudget": 500},
                "responseMimeType": "application/json",
                "responseSchema": {"type": "OBJECT", "properties": {"s": {"type": "INTEGER"}}, "required": ["s"], "propertyOrdering": ["s"]},
            },
        })
    );
    assert_eq!(max_billed_output(&request), 1500);
    let Part::Image { blob, .. } = &request.parts[0] else { panic!("an image comes first") };
    assert_eq!(body(&request).chunks()[1].as_ptr(), blob.base64.as_ptr());
}

#[test]
fn sound_and_clips_go_inside_the_request_or_by_their_address() {
    let video = |from, sound| Part::Video { from, mime: "video/mp4", duration_ms: 1, sound };
    let address = "https://host.test/v1beta/files/a\"b";
    let parts: Arc<[Part]> = Arc::new([
        Part::Audio { blob: blob("audio/flac", "AAAA"), duration_ms: 1 },
        Part::Audio { blob: blob("audio/mpeg", "BBBB"), duration_ms: 1 },
        video(VideoFrom::Inline(Bytes::from_static(b"CCCC")), true),
        video(VideoFrom::Uri(Arc::from(address)), false),
    ]);
    let request = Request { parts, ..request() };
    assert_eq!(
        sent(&request)["contents"][0]["parts"],
        json!([
            {"inlineData": {"mimeType": "audio/flac", "data": "AAAA"}},
            {"inlineData": {"mimeType": "audio/mpeg", "data": "BBBB"}},
            {"inlineData": {"mimeType": "video/mp4", "data": "CCCC"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": address}},
        ])
    );
    let Part::Video { from: VideoFrom::Inline(base64), .. } = &request.parts[2] else { panic!("a clip comes third") };
    assert!(body(&request).chunks().iter().any(|chunk| chunk.as_ptr() == base64.as_ptr()), "no clip is copied");
}

#[test]
fn what_is_not_set_is_not_sent() {
    let params =
        Params { temperature: None, top_p: Some(f64::NAN), max_output_tokens: 5, thinking: Thinking::Default, seed: 0 };
    let request = Request {
        model: "gemini-2.0-flash".to_owned(),
        system: Some(" ".to_owned()),
        schema: None,
        params,
        parts: Arc::new([Part::Text("x".to_owned())]),
        ..request()
    };
    assert_eq!(
        sent(&request),
        json!({"contents": [{"role": "user", "parts": [{"text": "x"}]}], "generationConfig": {"maxOutputTokens": 5, "seed": 0}})
    );
}

#[test]
fn a_model_name_cannot_leave_its_path_segment() {
    let endpoint = Endpoint {
        name: "g".to_owned(),
        protocol: Protocol::Gemini,
        base_url: "https://x".to_owned(),
        api_version: "v1beta".to_owned(),
        identity: "x".to_owned(),
        video: VideoWay::Upload,
        inline_bytes: 1,
    };
    for (model, path_of_it) in [
        ("gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:generateContent"),
        ("models/gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:generateContent"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine:generateContent"),
        ("../a?b#c d", "/v1beta/models/..%2Fa%3Fb%23c%20d:generateContent"),
        ("é", "/v1beta/models/%C3%A9:generateContent"),
    ] {
        assert_eq!(path(&endpoint, model), path_of_it);
    }
}

fn read(answer: &Value) -> Reply {
    parse(200, &HeaderMap::new(), answer.to_string().as_bytes()).unwrap()
}

#[test]
fn every_finish_reason_has_its_outcome() {
    let blocked = [
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
    ];
    let other = [
        "LANGUAGE",
        "OTHER",
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "IMAGE_OTHER",
        "NO_IMAGE",
        "ESCALATION",
        "PUP_LIMITED_DISABLED",
        "CONTINUATION",
        "FINISH_REASON_UNSPECIFIED",
        "SOMETHING_NEW",
    ];
    let mut table: Vec<(&str, Finish)> = vec![("STOP", Finish::Empty), ("MAX_TOKENS", Finish::Truncated)];
    table.extend(blocked.map(|reason| (reason, Finish::Blocked(reason.to_owned()))));
    table.extend(other.map(|reason| (reason, Finish::Other(reason.to_owned()))));
    for (reason, finish) in table {
        let reply = read(
            &json!({"candidates": [{"finishReason": reason, "index": 0}], "usageMetadata": {"promptTokenCount": 9}}),
        );
        assert_eq!(reply.finish, finish);
        assert_eq!((reply.text.as_str(), reply.usage.input_tokens), ("", 9));
        let reply = read(&json!({"candidates": [{"finishReason": reason, "content": {"parts": [{"text": "t"}]}}]}));
        assert_eq!(reply.finish, if reason == "STOP" { Finish::Stop } else { finish });
        assert_eq!(reply.text, "t");
    }
}

#[test]
fn every_block_reason_of_a_prompt_is_blocked() {
    for reason in [
        "SAFETY",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "IMAGE_SAFETY",
        "MODEL_ARMOR",
        "JAILBREAK",
        "SOMETHING_NEW",
    ] {
        for candidates in [json!(null), json!([])] {
            let reply = read(&json!({"candidates": candidates, "promptFeedback": {"blockReason": reason}}));
            assert_eq!(reply.finish, Finish::Blocked(reason.to_owned()));
        }
    }
}

#[test]
fn replies_without_an_answer_are_empty_and_still_paid_for() {
    for answer in [
        json!({"usageMetadata": {"promptTokenCount": 1}}),
        json!({"candidates": []}),
        json!({"candidates": [{}]}),
        json!({"candidates": [{"content": {"parts": null}, "finishReason": "STOP"}]}),
        json!({"candidates": [{"content": {"parts": [{"text": " \n"}]}, "finishReason": "STOP"}]}),
        json!({"candidates": "odd", "responseId": "r"}),
        json!({"candidates": [{"content": {"parts": [{"text": "hm", "thought": true}]}, "finishReason": "STOP"}]}),
        json!({"candidates": [], "promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}}),
    ] {
        assert_eq!(read(&answer).finish, Finish::Empty, "{answer}");
    }
}

#[test]
fn text_is_joined_without_thoughts_and_usage_counts_them() {
    let reply = read(&json!({
        "candidates": [{"content": {"parts": [{"text": "thinking", "thought": true}, {"text": "a"}, {"inlineData": {}}, {"text": "b"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 300, "candidatesTokenCount": 20, "thoughtsTokenCount": 5, "toolUsePromptTokenCount": 1,
            "cachedContentTokenCount": 100, "totalTokenCount": 326,
            "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 258}, {"modality": "AUDIO", "tokenCount": 32}]},
        "modelVersion": "gemini-2.5-flash", "responseId": "abc", "unknown": {},
    }));
    assert_eq!(reply.text, "ab");
    let usage =
        Usage { input_tokens: 301, cached_tokens: 100, audio_tokens: 32, output_tokens: 25, thinking_tokens: 5 };
    assert_eq!(reply.usage, usage);
    assert_eq!((reply.model_version.as_deref(), reply.response_id.as_deref()), (Some("gemini-2.5-flash"), Some("abc")));
}

#[test]
fn tokens_that_only_the_total_knows_are_output() {
    let reply = read(&json!({"candidates": [], "usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 50}}));
    assert_eq!(reply.usage.output_tokens, 40);
}

#[test]
fn a_success_that_is_no_reply_may_have_been_paid_for() {
    for bytes in
        ["", "{}", "null", "[]", "[1,2]", "<html><title>Sign in</title>", "{\"candidates\":", "{\"error\":\"x\"}"]
    {
        let error = parse(200, &HeaderMap::new(), bytes.as_bytes()).unwrap_err();
        assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::Unknown), "{bytes}");
    }
    let inside = br#"[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]"#;
    let error = parse(200, &HeaderMap::new(), inside).unwrap_err();
    assert_eq!((error.kind, error.billed), (CallErrorKind::Throttled, Billed::Unknown));
}

#[test]
fn a_reply_with_broken_utf8_is_kept() {
    let bytes =
        b"\xef\xbb\xbf{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\xffb\"}]},\"finishReason\":\"STOP\"}]}";
    assert_eq!(parse(200, &HeaderMap::new(), bytes).unwrap().text, "a\u{fffd}b");
}

fn failed(status: u16, message: &str, name: &str, details: &Value) -> CallError {
    let body = json!({"error": {"code": status, "message": message, "status": name, "details": details}});
    let error = parse(status, &HeaderMap::new(), body.to_string().as_bytes()).unwrap_err();
    let wrapped = parse(status, &HeaderMap::new(), json!([body]).to_string().as_bytes()).unwrap_err();
    assert_eq!(error, wrapped);
    assert_eq!(error.billed, Billed::No);
    error
}

#[test]
fn each_error_has_its_consequence() {
    use CallErrorKind::{FileGone, FileNotReady, KeyRefused, ModelUnknown, Refused, Unavailable};
    let invalid = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]);
    for (status, name, message, details, kind) in [
        (400, "INVALID_ARGUMENT", "Unable to process input image", json!([]), Refused),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", invalid, KeyRefused),
        (400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", json!(null), KeyRefused),
        (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", json!([]), KeyRefused),
        (400, "FAILED_PRECONDITION", "Please enable billing on project 1", json!([]), KeyRefused),
        (
            400,
            "FAILED_PRECONDITION",
            "The File X is not in an ACTIVE state and usage is not allowed.",
            json!([]),
            FileNotReady,
        ),
        (400, "FAILED_PRECONDITION", "something else", json!([]), Refused),
        (401, "UNAUTHENTICATED", "bad token", json!([]), KeyRefused),
        (403, "PERMISSION_DENIED", "Your API key was reported as leaked.", json!([]), KeyRefused),
        (
            403,
            "PERMISSION_DENIED",
            "You do not have permission to access the File X or it may not exist.",
            json!([]),
            FileGone,
        ),
        (404, "NOT_FOUND", "File files/abc is not found.", json!([]), FileGone),
        (404, "NOT_FOUND", "models/x is not found for API version v1beta", json!([]), ModelUnknown),
        (409, "ABORTED", "conflict", json!([]), Unavailable),
        (413, "", "too large", json!([]), Refused),
        (499, "CANCELLED", "The operation was cancelled.", json!([]), Unavailable),
        (500, "INTERNAL", "An internal error has occurred", json!([]), Unavailable),
        (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", json!([]), Unavailable),
        (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.", json!([]), Unavailable),
    ] {
        let error = failed(status, message, name, &details);
        assert_eq!(error.kind, kind, "{status} {message}");
        // The names of uploaded files are not repeated.
        let quoted = error.message.contains(message) != matches!(kind, FileGone | FileNotReady);
        assert!(quoted && error.message.contains(name), "{}", error.message);
        assert_eq!(error.retry_after, None);
    }
}

#[test]
fn a_page_of_the_front_end_is_an_outage_with_its_title() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "3".parse().unwrap());
    let error = parse(502, &headers, b"<!DOCTYPE html><html><title>Error 502 (Server Error)!!1</title>").unwrap_err();
    assert_eq!((error.kind, error.retry_after), (CallErrorKind::Unavailable, Some(Duration::from_secs(3))));
    assert_eq!(error.message, "status 502: Error 502 (Server Error)!!1");
}

fn quota(ids: &[&str], delay: Option<&str>) -> Value {
    let violations: Vec<Value> = ids
        .iter()
        .map(|id| json!({"quotaMetric": "generativelanguage.googleapis.com/x", "quotaId": id, "quotaValue": "10", "quotaDimensions": {"model": "m"}}))
        .collect();
    let mut details = vec![json!({"@type": "type.googleapis.com/google.rpc.Help", "links": []})];
    if !ids.is_empty() {
        details.push(json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}));
    }
    details
        .extend(delay.map(|delay| json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})));
    Value::Array(details)
}

#[test]
fn a_429_is_read_to_its_end() {
    use CallErrorKind::{DayExhausted, KeyRefused, Throttled};
    const MINUTE: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";
    const TOKENS: &str = "GenerateContentPaidTierInputTokensPerModelPerMinute";
    const DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
    let exceeded = "You exceeded your current quota, please check your plan and billing details.";
    let told = |delay: &str| format!("{exceeded}\nPlease retry in {delay}.");
    for (message, details, kind, millis) in [
        // The structured delay is cut to whole seconds; the message knows better, and a tenth is added.
        (told("1.68122827s"), quota(&[MINUTE], Some("1s")), Throttled, Some(1800)),
        (told("34.07s"), quota(&[TOKENS], Some("34.07s")), Throttled, Some(34_200)),
        (exceeded.to_owned(), quota(&[MINUTE], Some("34s")), Throttled, Some(35_100)),
        (exceeded.to_owned(), quota(&[MINUTE], Some("34.07s")), Throttled, Some(34_200)),
        (told("5s"), quota(&[MINUTE], Some("40s")), Throttled, Some(40_100)),
        (exceeded.to_owned(), quota(&[MINUTE, TOKENS], None), Throttled, None),
        // A day's quota wins over a minute's; a short delay beside it is the minute's.
        (told("1h52m56.4s"), quota(&[MINUTE, DAY], Some("6776s")), DayExhausted, Some(6_776_500)),
        (told("27.5s"), quota(&[DAY], Some("27s")), DayExhausted, None),
        (exceeded.to_owned(), quota(&[DAY], Some("21926s")), DayExhausted, Some(21_927_100)),
        // Bare ones.
        ("Resource has been exhausted (e.g. check quota).".to_owned(), json!(null), Throttled, None),
        ("Resource exhausted. Please try again later. error-code-429".to_owned(), quota(&[], None), Throttled, None),
        // Absurd delays: ignored beside anything better, else clamped to a day.
        (told("12s"), quota(&[MINUTE], Some("9223372036854775807s")), Throttled, Some(12_100)),
        (exceeded.to_owned(), quota(&[MINUTE], Some("9223372036854775807s")), Throttled, None),
        ("x".to_owned(), quota(&[], Some("9223372036854775807s")), DayExhausted, Some(86_400_000)),
        ("x".to_owned(), quota(&[], Some("-5s")), Throttled, None),
        ("Quota exceeded for file_storage_bytes".to_owned(), json!([]), Throttled, Some(60_000)),
        ("Your prepayment credits are depleted.".to_owned(), json!([]), KeyRefused, None),
    ] {
        let error = failed(429, &message, "RESOURCE_EXHAUSTED", &details);
        assert_eq!((error.kind, error.retry_after), (kind, millis.map(Duration::from_millis)), "{message} {details}");
    }
}

#[test]
fn the_limit_that_a_429_names_is_read_with_its_value() {
    let limit = |details: &Value| failed(429, "You exceeded your current quota.", "RESOURCE_EXHAUSTED", details).limit;
    let named = |of, per_minute| NamedLimit { of, per_minute };
    for (ids, limit_named) in [
        (&["GenerateRequestsPerMinutePerProjectPerModel"][..], named(Scarce::Requests, Some(10))),
        (&["GenerateContentPaidTierInputTokensPerModelPerMinute"], named(Scarce::Tokens, Some(10))),
        (&["Odd", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"], named(Scarce::Requests, Some(10))),
        // A day's limit is no minute's.
        (&["GenerateRequestsPerDayPerProjectPerModel"], NamedLimit::default()),
        (&[], NamedLimit::default()),
    ] {
        assert_eq!(limit(&quota(ids, Some("5s"))), limit_named, "{ids:?}");
    }
    let mut odd = quota(&["GenerateRequestsPerMinutePerProjectPerModel"], None);
    odd[1]["violations"][0]["quotaValue"] = json!("-1");
    assert_eq!(limit(&odd), named(Scarce::Requests, None), "a value that is none");
}

proptest! {
    #[test]
    fn the_parser_takes_any_bytes(status in 100_u16..1000, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(status, &HeaderMap::new(), &bytes);
    }

    #[test]
    fn the_parser_takes_any_json_in_the_places_it_reads(status in prop_oneof![Just(200_u16), Just(400), Just(429), Just(503)], odd in odd_json(), place in 0_usize..14) {
        let answer = match place {
            0 => json!({"candidates": odd}),
            1 => json!({"candidates": [odd]}),
            2 => json!({"candidates": [{"content": odd, "finishReason": odd}]}),
            3 => json!({"candidates": [{"content": {"parts": odd}}]}),
            4 => json!({"candidates": [{"content": {"parts": [odd]}}]}),
            5 => json!({"promptFeedback": odd}),
            6 => json!({"promptFeedback": {"blockReason": odd}}),
            7 => json!({"usageMetadata": odd}),
            8 => json!({"usageMetadata": {"promptTokenCount": odd, "totalTokenCount": odd, "promptTokensDetails": [odd], "thoughtsTokenCount": odd}}),
            9 => json!({"error": odd}),
            10 => json!({"error": {"code": odd, "message": odd, "status": odd, "details": odd}}),
            11 => json!({"error": {"details": [odd, {"violations": odd, "retryDelay": odd, "reason": odd}]}}),
            12 => json!({"error": {"details": [{"violations": [odd, {"quotaId": odd}]}]}}),
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
        "(Please retry in )?[0-9]{1,25}(s|ms|h|m)".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("(text|thought|code|message|reason|parts|[a-z]{1,5})", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
