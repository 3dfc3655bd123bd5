//! The fields of a chat completion request, as openai 3.54.0 sends them.

use crate::simulator::shape::Shape::{self, Any, Bool, Int, List, Map, Name, Number, Object, Text, TextOr};

/// Kinds of part at api.openai.com.
pub(crate) const OWN_KINDS: &[&str] = &["text", "image_url", "input_audio", "file", "refusal"];
/// The same with those that compatible servers add (vLLM's multimodal inputs).
pub(crate) const KINDS: &[&str] = &["text", "image_url", "input_audio", "file", "refusal", "video_url", "audio_url"];

static PART: Shape = Object(&[
    ("type", &Name(KINDS)),
    ("text", &Text),
    ("refusal", &Text),
    ("image_url", &Object(&[("url", &Text), ("detail", &Name(&["auto", "low", "high", "original"]))])),
    ("input_audio", &Object(&[("data", &Text), ("format", &Name(&["wav", "mp3"]))])),
    ("video_url", &Object(&[("url", &Text)])),
    ("audio_url", &Object(&[("url", &Text)])),
    ("file", &Object(&[("file_id", &Text), ("file_data", &Text), ("filename", &Text)])),
    ("prompt_cache_breakpoint", &Any),
]);

static MESSAGE: Shape = Object(&[
    ("role", &Name(&["system", "developer", "user", "assistant", "tool", "function"])),
    ("content", &TextOr(&List(&PART))),
    ("name", &Text),
    ("refusal", &Text),
    ("audio", &Any),
    ("tool_calls", &Any),
    ("tool_call_id", &Text),
    ("function_call", &Any),
]);

static RESPONSE_FORMAT: Shape = Object(&[
    ("type", &Name(&["text", "json_object", "json_schema"])),
    ("json_schema", &Object(&[("name", &Text), ("description", &Text), ("strict", &Bool), ("schema", &Map(&Any))])),
]);

/// A chat completion request.
pub(crate) static CHAT: Shape = Object(&[
    ("model", &Text),
    ("messages", &List(&MESSAGE)),
    ("audio", &Any),
    ("frequency_penalty", &Number),
    ("function_call", &Any),
    ("functions", &Any),
    ("logit_bias", &Map(&Number)),
    ("logprobs", &Bool),
    ("max_completion_tokens", &Int),
    ("max_tokens", &Int),
    ("metadata", &Map(&Text)),
    ("modalities", &List(&Text)),
    ("moderation", &Any),
    ("n", &Int),
    ("parallel_tool_calls", &Bool),
    ("prediction", &Any),
    ("presence_penalty", &Number),
    ("prompt_cache_key", &Text),
    ("prompt_cache_options", &Any),
    ("prompt_cache_retention", &Text),
    ("reasoning_effort", &Name(&["none", "minimal", "low", "medium", "high", "xhigh", "max"])),
    ("response_format", &RESPONSE_FORMAT),
    ("safety_identifier", &Text),
    ("seed", &Int),
    ("service_tier", &Name(&["auto", "default", "flex", "scale", "priority", "fast"])),
    ("stop", &TextOr(&List(&Text))),
    ("store", &Bool),
    ("stream", &Bool),
    ("stream_options", &Object(&[("include_usage", &Bool), ("include_obfuscation", &Bool)])),
    ("temperature", &Number),
    ("tool_choice", &Any),
    ("tools", &List(&Any)),
    ("top_logprobs", &Int),
    ("top_p", &Number),
    ("user", &Text),
    ("verbosity", &Name(&["low", "medium", "high"])),
    ("web_search_options", &Any),
]);
