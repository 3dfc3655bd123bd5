//! What the loop is measured against: the same bodies to the same simulator with nothing around them.
//!
//! It keeps nothing, limits nothing and cannot be resumed. The bodies are made from the journal of a finished run before
//! the clock starts, and share their media, so that it pays for sending, receiving and reading JSON and for nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aurelia::agent::show::{self, Medium};
use aurelia::job::Item;
use aurelia::journal::Canonical;
use aurelia::journal::key::Sample;
use aurelia::media::{Kind, Library, Limits};
use aurelia::provider::body::Body;
use aurelia::provider::gemini;
use aurelia::provider::{Endpoint, Params, Part, Protocol, Request, Role, Schema};
use aurelia::recipe::{Recipe, RecipeFile};
use aurelia::state::State;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Fallible;
use crate::process::cpu_of_this_process;

/// Sends what the run in `out` sent, `concurrency` at once, and gives calls, seconds and CPU seconds as JSON.
pub(crate) async fn run(out: &Path, item: &str, recipe: &Path, url: &str, concurrency: usize) -> Fallible<Value> {
    let recipe = RecipeFile::read(recipe)?.with(None, None)?.resolve(|provider| provider == "gemini");
    let bodies = Arc::new(bodies(out, item, &recipe, url).await?);
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let next = Arc::new(AtomicUsize::new(0));
    let (began, cpu) = (Instant::now(), cpu_of_this_process());
    let mut senders = JoinSet::new();
    for _ in 0..concurrency {
        let (client, bodies, next) = (client.clone(), Arc::clone(&bodies), Arc::clone(&next));
        senders.spawn(async move {
            while let Some((url, body)) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                send(&client, url, body.clone()).await?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    let cpu = cpu_of_this_process() - cpu;
    Ok(json!({"calls": bodies.len(), "seconds": began.elapsed().as_secs_f64(), "cpu": cpu}))
}

async fn send(client: &reqwest::Client, url: &reqwest::Url, body: Body) -> Result<(), String> {
    let request = client
        .post(url.clone())
        .header("content-type", "application/json")
        .header("x-goog-api-key", "bench")
        .body(reqwest::Body::wrap(body));
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let bytes = answer.bytes().await.map_err(|error| error.to_string())?;
    let reply: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let text = reply["candidates"][0]["content"]["parts"][0]["text"].as_str();
    text.map(|_| ()).ok_or_else(|| format!("the simulator answers {status}: {reply}"))
}

/// Where and what the run sent, from its journal, in the order of the answers.
async fn bodies(out: &Path, item: &str, recipe: &Recipe, url: &str) -> Fallible<Vec<(reqwest::Url, Body)>> {
    let item: Item = serde_json::from_str(item)?;
    let library = Library::new(out.join(".aurelia/media"), recipe.media.clone(), recipe.wants(), Limits::default());
    let mut media = Vec::new();
    for source in item.media {
        let prepared = library.prepare(source.location(), Kind::Video).await?;
        media.push(Medium { source, prepared });
    }
    let endpoint = Endpoint {
        name: "gemini".to_owned(),
        protocol: Protocol::Gemini,
        base_url: url.to_owned(),
        api_version: "v1beta".to_owned(),
        identity: String::new(),
        video: aurelia::provider::VideoWay::Upload,
        inline_bytes: 0,
    };
    let state = State::open_to_read(&out.join(".aurelia/state.sqlite"))?;
    let texts: Vec<String> = state
        .call(|c| c.prepare("SELECT request FROM replies ORDER BY rowid")?.query_map([], |r| r.get(0))?.collect())
        .await?;
    texts
        .iter()
        .map(|text| {
            let request = request(&serde_json::from_str(text)?, recipe, &media)?;
            let url = format!("{url}{}", gemini::path(&endpoint, &request.model));
            Ok((reqwest::Url::parse(&url)?, gemini::body(&request)))
        })
        .collect()
}

/// The request that a canonical one was sent as.
fn request(canonical: &Value, recipe: &Recipe, media: &[Medium]) -> Fallible<Request> {
    let whole = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or("not a small number");
    let role: Role = serde_json::from_value(canonical["role"].clone())?;
    let model = canonical["model"].as_str().ok_or("no model")?.to_owned();
    let sample = Sample { item: whole(&canonical["sample"]["item"])?, try_index: whole(&canonical["sample"]["try"])? };
    let mut draw = Canonical::new("", "", role, "", sample);
    draw.seed = whole(&canonical["seed"])?;
    draw.ordinal = whole(&canonical["ordinal"])?;
    let prompt = canonical["prompt"].as_array().and_then(|texts| texts.last()).and_then(Value::as_str);
    let mut parts = show::parts(recipe.seat(role).media, media).parts;
    parts.push(Part::Text(prompt.ok_or("no prompt")?.to_owned()));
    let schema = Some(canonical["schema"].clone()).filter(|schema| !schema.is_null());
    Ok(Request {
        role,
        model,
        system: canonical["system"].as_str().map(str::to_owned),
        parts: parts.into(),
        params: Params {
            temperature: canonical["temperature"].as_f64(),
            top_p: canonical["top_p"].as_f64(),
            max_output_tokens: whole(&canonical["max_output_tokens"])?,
            thinking: serde_json::from_value(canonical["thinking"].clone())?,
            seed: draw.seed_sent(),
        },
        // Gemini is sent no name.
        schema: schema.map(|schema| Schema { name: "reply", schema }),
    })
}
