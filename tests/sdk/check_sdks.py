"""The official SDKs against the simulator: every reply, refusal and stream must be one they accept.

Usage: check_sdks.py BASE_URL. Prints one line per check; exits non-zero at the first that fails.
"""

import asyncio
import base64
import functools
import io
import json
import struct
import sys
import time
import urllib.request
import wave
import zlib

import openai
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

BASE = sys.argv[1]
KEY = "a-key"
GEMINI = "gemini-2.5-flash"


def png(width=640, height=480):
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\x40\x80\xc0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wav(seconds=2):
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(b"\0\0" * 16000 * seconds)
    return out.getvalue()


def mp4(seconds=12, filler=1000):
    """What a container needs to state its length and its sound; the rest is noise."""

    def box(name, body):
        return struct.pack(">I", len(body) + 8) + name + body

    mvhd = b"\0" * 12 + struct.pack(">II", 1000, seconds * 1000) + b"\0" * 80
    track = box(b"trak", box(b"mdia", box(b"hdlr", b"\0" * 8 + b"soun" + b"\0" * 4)))
    return box(b"ftyp", b"isom\0\0\0\0") + box(b"mdat", bytes(range(256)) * (filler // 256)) + box(b"moov", box(b"mvhd", mvhd) + track)


# google-genai closes its connections when a client is collected, so clients are kept.
@functools.cache
def gemini(key=KEY, version=None):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=BASE, api_version=version))


@functools.cache
def chat(key=KEY):
    return openai.OpenAI(api_key=key, base_url=BASE + "/v1", max_retries=0)


def control(patch):
    request = urllib.request.Request(BASE + "/control", data=json.dumps(patch).encode(), method="POST")
    urllib.request.urlopen(request).read()


def refused(kind, call, **wanted):
    try:
        call()
    except kind as error:
        for name, value in wanted.items():
            assert getattr(error, name) == value, (name, getattr(error, name), value, error)
        return error
    raise AssertionError(f"{kind.__name__} expected")


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


def question(text, directive=""):
    return f"<question>{json.dumps(text + directive)}</question> Reply with one JSON object."


# --- Gemini -------------------------------------------------------------------------------------------------------


def gemini_text():
    reply = gemini().models.generate_content(model=GEMINI, contents="Hello there")
    assert "Hello there" in reply.text, reply.text
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP
    usage = reply.usage_metadata
    total = usage.prompt_token_count + usage.candidates_token_count + (usage.thoughts_token_count or 0)
    assert usage.total_token_count == total, usage
    assert usage.thoughts_token_count > 0
    assert reply.model_version == GEMINI and reply.response_id


def gemini_v1_and_v1beta():
    for version in (None, "v1", "v1beta"):
        assert gemini(version=version).models.generate_content(model=GEMINI, contents="Hi").text


def gemini_media():
    parts = [
        types.Part.from_bytes(data=png(), mime_type="image/png"),
        types.Part.from_bytes(data=wav(), mime_type="audio/wav"),
        question("What is heard?"),
    ]
    config = types.GenerateContentConfig(
        temperature=0.4,
        top_p=0.9,
        seed=7,
        max_output_tokens=2048,
        response_mime_type="application/json",
        thinking_config=types.ThinkingConfig(thinking_budget=0),
        media_resolution=types.MediaResolution.MEDIA_RESOLUTION_MEDIUM,
        safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
        system_instruction="Be exact.",
    )
    reply = gemini().models.generate_content(model=GEMINI, contents=parts, config=config)
    made = json.loads(reply.text)
    assert len(made["reasoning_steps"]) == len(made["reasoning_answers"]) >= 3
    counts = {detail.modality.value: detail.token_count for detail in reply.usage_metadata.prompt_tokens_details}
    assert counts["IMAGE"] == 258 and counts["AUDIO"] == 64, counts
    assert not reply.usage_metadata.thoughts_token_count


def gemini_schema():
    for extra in ({"response_schema": Person}, {"response_json_schema": Person.model_json_schema()}):
        config = types.GenerateContentConfig(response_mime_type="application/json", **extra)
        reply = gemini().models.generate_content(model=GEMINI, contents="Make one up", config=config)
        Person.model_validate_json(reply.text)
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Person)
    assert isinstance(gemini().models.generate_content(model=GEMINI, contents="One", config=config).parsed, Person)


def gemini_stream():
    chunks = list(gemini().models.generate_content_stream(model=GEMINI, contents="Tell it in pieces"))
    assert len(chunks) == 3
    assert "Tell it in pieces" in "".join(chunk.text for chunk in chunks)
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert chunks[-1].usage_metadata.total_token_count > 0


def gemini_count_and_models():
    assert gemini().models.count_tokens(model=GEMINI, contents="x" * 400).total_tokens == 100
    names = [model.name for model in gemini().models.list()]
    assert "models/gemini-3.8-flash" in names, names
    assert gemini().models.get(model=GEMINI).name == "models/" + GEMINI


def gemini_blocked():
    for fault, reason in (("safety", "SAFETY"), ("recitation", "RECITATION"), ("truncated", "MAX_TOKENS"), ("empty_length", "MAX_TOKENS")):
        reply = gemini().models.generate_content(model=GEMINI, contents=question("Q", f" [[sim: fault={fault}]]"))
        assert reply.candidates[0].finish_reason.value == reason, reply
        assert bool(reply.text) == (fault == "truncated"), reply
    reply = gemini().models.generate_content(model=GEMINI, contents=question("Q", " [[sim: fault=blocked]]"))
    assert reply.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT and not reply.candidates
    for fault in ("no_candidates", "empty", "unknown_finish"):
        reply = gemini().models.generate_content(model=GEMINI, contents=question("Q", f" [[sim: fault={fault}]]"))
        assert not reply.text and reply.usage_metadata.prompt_token_count > 0


def gemini_files():
    control({"files": {"processing_ms": 100}})
    clip = mp4(filler=20 << 20)
    file = gemini().files.upload(file=io.BytesIO(clip), config={"mime_type": "video/mp4", "display_name": "a clip"})
    assert file.name.startswith("files/") and file.uri.startswith(BASE) and file.size_bytes == len(clip), file
    assert file.state == types.FileState.PROCESSING and file.display_name == "a clip" and file.source == types.FileSource.UPLOADED
    refused(
        errors.ClientError,
        lambda: gemini().models.generate_content(model=GEMINI, contents=[file, "What is seen?"]),
        code=400,
        status="FAILED_PRECONDITION",
    )
    while file.state == types.FileState.PROCESSING:
        time.sleep(0.01)
        file = gemini().files.get(name=file.name)
    assert file.state == types.FileState.ACTIVE and (file.expiration_time - file.create_time).total_seconds() == 48 * 3600
    reply = gemini().models.generate_content(model=GEMINI, contents=[file, question("What is seen?")])
    counts = {detail.modality.value: detail.token_count for detail in reply.usage_metadata.prompt_tokens_details}
    assert counts["VIDEO"] == 12 * 258 and counts["AUDIO"] == 12 * 32, counts
    part = types.Part.from_bytes(data=clip, mime_type="video/mp4")
    inline = gemini().models.generate_content(model=GEMINI, contents=[part, question("What is seen?")])
    assert inline.text == reply.text
    assert [known.name for known in gemini().files.list(config={"page_size": 1})] == [file.name]
    gemini().files.delete(name=file.name)
    error = refused(errors.ClientError, lambda: gemini().files.get(name=file.name), code=403, status="PERMISSION_DENIED")
    assert "You do not have permission to access the File" in error.message, error
    control({"files": None})


def gemini_files_async():
    # A client of its own: it stays with the loop it was first used in.
    async def work():
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=BASE)).aio
        made = await client.files.upload(file=io.BytesIO(mp4(3, 9 << 20)), config={"mime_type": "video/mp4", "name": "by-hand"})
        assert made.name == "files/by-hand" and made.state == types.FileState.ACTIVE, made
        reply = await client.models.generate_content(model=GEMINI, contents=[made, "Hello"])
        assert reply.text
        await client.files.delete(name=made.name)

    asyncio.run(work())


def gemini_files_refused():
    def upload(key=KEY, size=1000):
        config = {"mime_type": "video/mp4"}
        return lambda: gemini(key).files.upload(file=io.BytesIO(mp4(filler=size)), config=config)

    refused(errors.ClientError, upload(key="revoked"), code=400)
    control({"files": {"storage_bytes": 5000}})
    error = refused(errors.ClientError, upload(size=9000), code=429, status="RESOURCE_EXHAUSTED")
    assert "file_storage_bytes" in error.message, error
    control({"files": None})
    other = gemini("another-key").files.upload(file=io.BytesIO(mp4()), config={"mime_type": "video/mp4"})
    refused(
        errors.ClientError,
        lambda: gemini().models.generate_content(model=GEMINI, contents=[other, "Hi"]),
        code=403,
        status="PERMISSION_DENIED",
    )
    gemini("another-key").files.delete(name=other.name)


def gemini_errors():
    def ask(text="Hi", model=GEMINI, key=KEY, **config):
        return lambda: gemini(key).models.generate_content(
            model=model, contents=text, config=types.GenerateContentConfig(**config) if config else None
        )

    refused(errors.ClientError, ask(model="gemini-1.5-pro-latest"), code=404, status="NOT_FOUND")
    refused(errors.ClientError, ask(key="revoked"), code=400, status="INVALID_ARGUMENT")
    refused(errors.ClientError, ask(key="poor"), code=400, status="FAILED_PRECONDITION")
    refused(errors.ClientError, ask(temperature=3.0), code=400)
    for fault, code, kind in (
        ("429", 429, errors.ClientError),
        ("429_bare", 429, errors.ClientError),
        ("429_daily", 429, errors.ClientError),
        ("500", 500, errors.ServerError),
        ("502", 502, errors.ServerError),
        ("503", 503, errors.ServerError),
        ("504", 504, errors.ServerError),
    ):
        refused(kind, ask(question("Q", f" [[sim: fault={fault}]]")), code=code)


def gemini_limit():
    control({"limits": [{"model": GEMINI, "requests": 1, "window_ms": 600000}]})
    gemini().models.generate_content(model=GEMINI, contents="one")
    error = refused(
        errors.ClientError,
        lambda: gemini().models.generate_content(model=GEMINI, contents="two"),
        code=429,
        status="RESOURCE_EXHAUSTED",
    )
    kinds = [detail["@type"].rsplit(".", 1)[-1] for detail in error.details["error"]["details"]]
    assert kinds == ["Help", "QuotaFailure", "RetryInfo"], kinds
    control({"limits": []})


# --- OpenAI -------------------------------------------------------------------------------------------------------


def openai_text():
    reply = chat().chat.completions.create(
        model="gpt-4o", messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello there"}], seed=7
    )
    assert "Hello there" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop" and reply.system_fingerprint and reply._request_id
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    raw = chat().chat.completions.with_raw_response.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    assert int(raw.headers["x-ratelimit-remaining-requests"]) > 0
    assert raw.headers["x-ratelimit-reset-tokens"].endswith("s")


def openai_media():
    image = "data:image/png;base64," + base64.b64encode(png()).decode()
    sound = base64.b64encode(wav()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
        {"type": "text", "text": question("What is seen?")},
    ]
    reply = chat().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": content}], max_tokens=900)
    assert json.loads(reply.choices[0].message.content)["final_answer"]
    assert reply.usage.prompt_tokens_details.image_tokens == 85
    content.append({"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}})
    reply = chat().chat.completions.create(model="gpt-audio", messages=[{"role": "user", "content": content}])
    assert reply.usage.prompt_tokens_details.audio_tokens == 20
    refused(
        openai.BadRequestError,
        lambda: chat().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": content}]),
    )


def openai_schema():
    reply = chat().chat.completions.parse(
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": "Make one up"}],
        response_format=Person,
        max_completion_tokens=800,
    )
    assert isinstance(reply.choices[0].message.parsed, Person)
    assert reply.usage.completion_tokens_details.reasoning_tokens > 0


def openai_stream():
    stream = chat().chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "In pieces"}], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "In pieces" in text
    assert chunks[-1].usage.total_tokens > 0 and chunks[-2].choices[0].finish_reason == "stop"


def openai_models():
    assert "gpt-4o-mini" in [model.id for model in chat().models.list()]
    assert chat().models.retrieve("gpt-4o").id == "gpt-4o"


def openai_blocked():
    def ask(fault):
        messages = [{"role": "user", "content": question("Q", f" [[sim: fault={fault}]]")}]
        return chat().chat.completions.create(model="gpt-4o", messages=messages)

    assert ask("content_filter").choices[0].finish_reason == "content_filter"
    refusal = ask("refusal").choices[0].message
    assert refusal.content is None and refusal.refusal
    assert ask("length").choices[0].finish_reason == "length"
    assert ask("empty").choices[0].message.content == ""
    assert ask("no_candidates").choices == []
    assert ask("unknown_finish").choices[0].finish_reason


def openai_errors():
    def ask(text="Hi", model="gpt-4o", key=KEY, **extra):
        return lambda: chat(key).chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **extra)

    refused(openai.NotFoundError, ask(model="gpt-9"), code="model_not_found")
    refused(openai.AuthenticationError, ask(key="revoked"), code="invalid_api_key")
    refused(openai.RateLimitError, ask(key="poor"), code="insufficient_quota")
    refused(openai.BadRequestError, ask(extra_body={"nope": 1}), code="unknown_parameter", param="nope")
    refused(openai.BadRequestError, ask(model="gpt-6-luna", max_tokens=5), code="unsupported_parameter")
    refused(openai.BadRequestError, ask(model="o4-mini", temperature=0), code="unsupported_value")
    for fault, kind in (
        ("429", openai.RateLimitError),
        ("429_bare", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("502", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("504", openai.InternalServerError),
        ("cut_before", openai.APIConnectionError),
        ("cut_after", openai.APIConnectionError),
    ):
        refused(kind, ask(question("Q", f" [[sim: fault={fault}]]")))


def openai_limit():
    control({"limits": [{"model": "gpt-4o", "requests": 1, "window_ms": 600000}]})
    ask = lambda: chat().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])  # noqa: E731
    ask()
    error = refused(openai.RateLimitError, ask, code="rate_limit_exceeded", type="requests")
    assert int(error.response.headers["retry-after-ms"]) > 500000
    control({"limits": []})


def main():
    control({"keys": {"revoked": ["revoked"], "no_billing": ["poor"]}})
    checks = [value for name, value in globals().items() if name.startswith(("gemini_", "openai_")) and callable(value)]
    for check in checks:
        check()
        print("ok", check.__name__)
    print(f"google-genai {genai.__version__}, openai {openai.__version__}: {len(checks)} checks passed")


main()
