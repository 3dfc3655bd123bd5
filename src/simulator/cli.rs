//! The command line of `aurelia-simulator`: every setting as a flag.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Value, json};

use super::directive::Style;
use super::{Flavour, Latency, Limit, Settings};

const EXAMPLES: &str = "\
Examples:
  aurelia-simulator --listen 127.0.0.1:8080
  aurelia-simulator --limit requests=100,window=10s --latency lognormal:800,6000
  aurelia-simulator --limit 'model=gemini-*,requests=1000,tokens=1000000' --limit requests=10000,window=1d
  aurelia-simulator --fault-rate 0.1 --fault transport --fault safety --max-consecutive 2
  aurelia-simulator --processing-ms 3000 --file-fault-rate 0.2 --file-fault chunk_cut --file-fault final_lost

Clients: Gemini base URL http://HOST:PORT, OpenAI base URL http://HOST:PORT/v1, any key.
While it runs: GET /stats, POST /stats/reset, POST /control with a JSON patch of the settings.
In a question: [[sim: scores=3/5/9]], [[sim: exhaust]], [[sim: leak]], [[sim: answer=TEXT]], [[sim: style=fenced]],
  [[sim: latency_ms=500]], [[sim: fault=SAFETY role=evaluator take=2 times=3]].";

/// Speaks the Gemini and OpenAI protocols with quotas, latencies, faults and deterministic answers.
#[derive(Debug, Parser)]
#[command(name = "aurelia-simulator", version, after_help = EXAMPLES)]
pub struct Args {
    /// Address to listen on; port 0 takes any free one, which is printed
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Settings as a JSON file; flags come on top
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Seed of fault and latency draws
    #[arg(long)]
    pub seed: Option<u64>,
    /// How the OpenAI side behaves: openai or vllm
    #[arg(long, value_parser = flavour, value_name = "FLAVOUR")]
    pub openai_flavour: Option<Flavour>,
    /// Milliseconds to answer: MS, uniform:MIN,MAX or lognormal:P50,P99
    #[arg(long, value_parser = latency, value_name = "DIST")]
    pub latency: Option<Latency>,
    /// Quota per key and model, any of model=GLOB,requests=N,tokens=N,window=60s (may be given again; ms, s, m, h, d)
    #[arg(long = "limit", value_parser = limit, value_name = "LIMIT")]
    pub limits: Vec<Limit>,
    /// Share of calls that meet a fault, 0 to 1
    #[arg(long, value_name = "RATE")]
    pub fault_rate: Option<f64>,
    /// Fault or group to draw from: transport, reply, all or a name (may be given again)
    #[arg(long = "fault", value_name = "NAME")]
    pub faults: Vec<String>,
    /// Most drawn faults in a row on one request; 0: no bound
    #[arg(long, value_name = "N")]
    pub max_consecutive: Option<u64>,
    /// How long a stalled answer takes
    #[arg(long, value_name = "MS")]
    pub stall_ms: Option<u64>,
    /// How long a slow body takes
    #[arg(long, value_name = "MS")]
    pub slow_ms: Option<u64>,
    /// The delay a 429 fault asks for
    #[arg(long, value_name = "MS")]
    pub retry_delay_ms: Option<u64>,
    /// Key that is refused as revoked (may be given again)
    #[arg(long = "revoked-key", value_name = "KEY")]
    pub revoked: Vec<String>,
    /// Key whose project has no billing (may be given again)
    #[arg(long = "no-billing-key", value_name = "KEY")]
    pub no_billing: Vec<String>,
    /// Further model: PROTOCOL:NAME:IN,AUDIO,OUT in nano-dollars per token, e.g. openai:my-model:150,150,600; with
    /// ,video behind it takes video_url and audio_url parts
    #[arg(long = "model", value_parser = model, value_name = "MODEL")]
    pub models: Vec<super::Model>,
    /// How JSON replies are dressed: plain, fenced, prose, python, list-in-string or varied
    #[arg(long, value_parser = style, value_name = "STYLE")]
    pub style: Option<Style>,
    /// How long an uploaded video is in PROCESSING
    #[arg(long, value_name = "MS")]
    pub processing_ms: Option<u64>,
    /// Most bytes of all files of a project
    #[arg(long, value_name = "BYTES")]
    pub storage_bytes: Option<u64>,
    /// Share of occasions of uploads and files that meet a fault, 0 to 1
    #[arg(long, value_name = "RATE")]
    pub file_fault_rate: Option<f64>,
    /// Fault of uploads and files to draw from: transport, life, all or a name (may be given again)
    #[arg(long = "file-fault", value_name = "NAME")]
    pub file_faults: Vec<String>,
    /// Take media bytes for what their type says, unchecked
    #[arg(long)]
    pub trust_media: bool,
}

impl Args {
    /// The settings: the file's, with the flags over them. Errors: a file that cannot be read, settings that do not hold.
    pub fn into_settings(self) -> Result<Settings, String> {
        let base = match &self.settings {
            None => Settings::default(),
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
                let value: Value =
                    serde_json::from_str(&text).map_err(|error| format!("{shown} is no JSON: {error}"))?;
                Settings::default().patched(&value).map_err(|error| format!("{shown}: {error}"))?
            }
        };
        let mut patch = json!({});
        let mut set = |path: &[&str], value: Option<Value>| {
            if let Some(value) = value {
                let place = path.iter().fold(&mut patch, |place, name| &mut place[*name]);
                *place = value;
            }
        };
        set(&["seed"], self.seed.map(Value::from));
        set(&["openai_flavour"], self.openai_flavour.map(|flavour| json!(flavour)));
        set(&["latency"], self.latency.map(|latency| json!(latency)));
        set(&["limits"], listed(&self.limits));
        set(&["faults", "rate"], self.fault_rate.map(Value::from));
        set(&["faults", "kinds"], listed(&self.faults));
        set(&["faults", "max_consecutive"], self.max_consecutive.map(Value::from));
        set(&["faults", "stall_ms"], self.stall_ms.map(Value::from));
        set(&["faults", "slow_ms"], self.slow_ms.map(Value::from));
        set(&["faults", "retry_delay_ms"], self.retry_delay_ms.map(Value::from));
        set(&["keys", "revoked"], listed(&self.revoked));
        set(&["keys", "no_billing"], listed(&self.no_billing));
        set(&["models"], listed(&self.models));
        set(&["style"], self.style.map(|style| json!(style)));
        set(&["files", "processing_ms"], self.processing_ms.map(Value::from));
        set(&["files", "storage_bytes"], self.storage_bytes.map(Value::from));
        set(&["files", "faults", "rate"], self.file_fault_rate.map(Value::from));
        set(&["files", "faults", "kinds"], listed(&self.file_faults));
        set(&["trust_media"], self.trust_media.then_some(Value::Bool(true)));
        base.patched(&patch)
    }
}

/// A flag that was not given leaves the file's list as it is.
fn listed<T: serde::Serialize>(list: &[T]) -> Option<Value> {
    (!list.is_empty()).then(|| json!(list))
}

fn flavour(text: &str) -> Result<Flavour, String> {
    serde_json::from_value(text.into()).map_err(|_| format!("{text:?} is neither openai nor vllm"))
}

fn style(text: &str) -> Result<Style, String> {
    Style::parse(text)
        .ok_or_else(|| format!("{text:?} is none of plain, fenced, prose, python, list-in-string, varied"))
}

fn latency(text: &str) -> Result<Latency, String> {
    let bad = || format!("{text:?} is none of MS, uniform:MIN,MAX, lognormal:P50,P99");
    let (kind, numbers) = text.split_once(':').unwrap_or(("fixed", text));
    let numbers: Result<Vec<u64>, _> = numbers.split(',').map(str::parse).collect();
    match (kind, numbers.map_err(|_| bad())?.as_slice()) {
        ("fixed", &[ms]) => Ok(Latency::Fixed { ms }),
        ("uniform", &[min_ms, max_ms]) => Ok(Latency::Uniform { min_ms, max_ms }),
        ("lognormal", &[p50_ms, p99_ms]) => Ok(Latency::Lognormal { p50_ms, p99_ms }),
        _ => Err(bad()),
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    let mut limit = Limit { model: "*".to_owned(), requests: None, tokens: None, window_ms: 60_000, bare: false };
    for pair in text.split(',') {
        let bad = || format!("{pair:?} is none of model=GLOB, requests=N, tokens=N, window=60s");
        let (name, value) = pair.split_once('=').ok_or_else(bad)?;
        match name {
            "model" => value.clone_into(&mut limit.model),
            "requests" => limit.requests = Some(value.parse().map_err(|_| bad())?),
            "tokens" => limit.tokens = Some(value.parse().map_err(|_| bad())?),
            "window" => limit.window_ms = window(value).ok_or_else(bad)?,
            _ => return Err(bad()),
        }
    }
    if limit.requests.is_none() && limit.tokens.is_none() {
        Err("a limit needs requests=N or tokens=N".to_owned())
    } else {
        Ok(limit)
    }
}

fn window(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn model(text: &str) -> Result<super::Model, String> {
    let bad = || format!("{text:?} is not PROTOCOL:NAME:IN,AUDIO,OUT[,video]");
    let mut parts = text.splitn(2, ':');
    let (protocol, rest) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
    let (name, prices) = rest.rsplit_once(':').ok_or_else(bad)?;
    let protocol = serde_json::from_value(protocol.into()).map_err(|_| bad())?;
    let bare = prices.strip_suffix(",video");
    let (video, prices) = (bare.is_some(), bare.unwrap_or(prices));
    let prices: Result<Vec<u64>, _> = prices.split(',').map(str::parse).collect();
    let &[input, audio, output] = prices.map_err(|_| bad())?.as_slice() else { return Err(bad()) };
    Ok(super::Model {
        name: name.to_owned(),
        protocol,
        input,
        audio,
        output,
        long_from: 0,
        long_input: 0,
        long_output: 0,
        video,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &[&str]) -> Result<Settings, String> {
        let all = ["aurelia-simulator"].iter().chain(flags);
        Args::try_parse_from(all).map_err(|error| error.to_string())?.into_settings()
    }

    #[test]
    fn flags_become_settings() {
        let made = settings(&[
            "--limit",
            "model=gemini-*,requests=100,window=10s",
            "--limit",
            "requests=5,window=1d",
            "--latency",
            "lognormal:800,6000",
            "--fault-rate",
            "0.1",
            "--fault",
            "transport",
            "--fault",
            "safety",
            "--revoked-key",
            "k",
            "--model",
            "openai:org/my:7b:1,2,3,video",
            "--file-fault",
            "chunk_cut",
            "--storage-bytes",
            "1000",
            "--style",
            "varied",
            "--openai-flavour",
            "vllm",
        ])
        .unwrap();
        assert_eq!(made.limits[0].window_ms, 10_000);
        assert_eq!((made.limits[1].requests, made.limits[1].window_ms), (Some(5), 86_400_000));
        assert_eq!(made.latency, Latency::Lognormal { p50_ms: 800, p99_ms: 6_000 });
        assert_eq!(made.faults.kinds, ["transport", "safety"]);
        assert!(made.keys.revoked.contains("k"));
        assert_eq!((made.models[0].name.as_str(), made.models[0].output), ("org/my:7b", 3));
        assert!(made.models[0].video);
        assert_eq!((made.files.storage_bytes, made.files.faults.kinds), (1_000, vec!["chunk_cut".to_owned()]));
        assert_eq!((made.style, made.openai_flavour), (Style::Varied, Flavour::Vllm));
    }

    #[test]
    fn wrong_flags_are_refused() {
        for flags in [
            ["--limit", "window=10s"],
            ["--limit", "requests=x"],
            ["--latency", "normal:1,2"],
            ["--fault", "nope"],
            ["--fault-rate", "3"],
            ["--model", "gemini-9"],
            ["--style", "fancy"],
            ["--file-fault", "503"],
        ] {
            assert!(settings(&flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn no_flags_are_the_defaults() {
        assert_eq!(settings(&[]).unwrap(), Settings::default());
    }
}
