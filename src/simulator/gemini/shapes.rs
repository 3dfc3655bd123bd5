//! The fields of `generateContent` and `countTokens` requests, as google-genai 3.4.0 sends them.

use crate::simulator::shape::Shape::{self, Any, Bool, Int, List, Map, Name, Number, Object, Text};

static SCHEMA: Shape = Object(&[
    (
        "type",
        &Name(&[
            "TYPE_UNSPECIFIED",
            "STRING",
            "NUMBER",
            "INTEGER",
            "BOOLEAN",
            "ARRAY",
            "OBJECT",
            "NULL",
            "string",
            "number",
            "integer",
            "boolean",
            "array",
            "object",
            "null",
        ]),
    ),
    ("format", &Text),
    ("title", &Text),
    ("description", &Text),
    ("nullable", &Bool),
    ("enum", &List(&Text)),
    ("maxItems", &Int),
    ("minItems", &Int),
    ("properties", &Map(&SCHEMA)),
    ("required", &List(&Text)),
    ("minProperties", &Int),
    ("maxProperties", &Int),
    ("minLength", &Int),
    ("maxLength", &Int),
    ("pattern", &Text),
    ("example", &Any),
    ("anyOf", &List(&SCHEMA)),
    ("propertyOrdering", &List(&Text)),
    ("default", &Any),
    ("items", &SCHEMA),
    ("minimum", &Number),
    ("maximum", &Number),
]);

static MEDIA_LEVEL: Shape = Name(&[
    "MEDIA_RESOLUTION_UNSPECIFIED",
    "MEDIA_RESOLUTION_LOW",
    "MEDIA_RESOLUTION_MEDIUM",
    "MEDIA_RESOLUTION_HIGH",
    "MEDIA_RESOLUTION_ULTRA_HIGH",
]);

static PART: Shape = Object(&[
    ("text", &Text),
    ("inlineData", &Object(&[("mimeType", &Text), ("data", &Text), ("displayName", &Text)])),
    ("fileData", &Object(&[("mimeType", &Text), ("fileUri", &Text), ("displayName", &Text)])),
    ("functionCall", &Any),
    ("functionResponse", &Any),
    ("executableCode", &Any),
    ("codeExecutionResult", &Any),
    ("toolCall", &Any),
    ("toolResponse", &Any),
    ("thought", &Bool),
    ("thoughtSignature", &Text),
    ("videoMetadata", &Object(&[("startOffset", &Text), ("endOffset", &Text), ("fps", &Number)])),
    ("mediaResolution", &Object(&[("level", &MEDIA_LEVEL), ("numTokens", &Int)])),
    ("partMetadata", &Any),
]);

static CONTENT: Shape = Object(&[("role", &Text), ("parts", &List(&PART))]);

static GENERATION_CONFIG: Shape = Object(&[
    ("temperature", &Number),
    ("topP", &Number),
    ("topK", &Number),
    ("candidateCount", &Int),
    ("maxOutputTokens", &Int),
    ("seed", &Int),
    ("stopSequences", &List(&Text)),
    ("presencePenalty", &Number),
    ("frequencyPenalty", &Number),
    ("responseLogprobs", &Bool),
    ("logprobs", &Int),
    ("responseMimeType", &Text),
    ("responseSchema", &SCHEMA),
    ("responseJsonSchema", &Any),
    ("responseFormat", &Any),
    ("responseModalities", &List(&Text)),
    ("mediaResolution", &MEDIA_LEVEL),
    ("speechConfig", &Any),
    ("imageConfig", &Any),
    ("enableEnhancedCivicAnswers", &Bool),
    (
        "thinkingConfig",
        &Object(&[
            ("thinkingBudget", &Int),
            ("includeThoughts", &Bool),
            ("thinkingLevel", &Name(&["THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"])),
        ]),
    ),
]);

static SAFETY: Shape = Object(&[
    (
        "category",
        &Name(&[
            "HARM_CATEGORY_HARASSMENT",
            "HARM_CATEGORY_HATE_SPEECH",
            "HARM_CATEGORY_SEXUALLY_EXPLICIT",
            "HARM_CATEGORY_DANGEROUS_CONTENT",
            "HARM_CATEGORY_CIVIC_INTEGRITY",
        ]),
    ),
    (
        "threshold",
        &Name(&[
            "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
            "OFF",
            "BLOCK_NONE",
            "BLOCK_ONLY_HIGH",
            "BLOCK_MEDIUM_AND_ABOVE",
            "BLOCK_LOW_AND_ABOVE",
        ]),
    ),
]);

/// A GenerateContentRequest.
pub(crate) static GENERATE: Shape = Object(&[
    ("model", &Text),
    ("contents", &List(&CONTENT)),
    ("systemInstruction", &CONTENT),
    ("generationConfig", &GENERATION_CONFIG),
    ("safetySettings", &List(&SAFETY)),
    ("cachedContent", &Text),
    ("tools", &List(&Any)),
    ("toolConfig", &Any),
    ("serviceTier", &Text),
    ("labels", &Map(&Text)),
    ("store", &Bool),
]);

/// A CountTokensRequest.
pub(crate) static COUNT: Shape = Object(&[("contents", &List(&CONTENT)), ("generateContentRequest", &GENERATE)]);
