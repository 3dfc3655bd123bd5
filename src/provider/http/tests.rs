use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::provider::{Finish, Params, Part, Role, Thinking, VideoWay};

const KEY: &str = "sk-very-secret-key-0123456789";
const REPLY: &str = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;

fn settings() -> HttpSettings {
    HttpSettings {
        connect: Duration::from_secs(20),
        first_byte: Duration::from_secs(20),
        idle: Duration::from_secs(20),
        total: Duration::from_secs(30),
        max_reply_bytes: 4096,
        extra_ca_file: None,
    }
}

fn client(settings: &HttpSettings) -> Client {
    Client::build(settings, reqwest::ClientBuilder::no_proxy).unwrap()
}

fn endpoint(base_url: String) -> Endpoint {
    Endpoint {
        name: "gate".to_owned(),
        protocol: Protocol::Openai,
        identity: base_url.clone(),
        base_url,
        api_version: "v1beta".to_owned(),
        video: VideoWay::None,
        inline_bytes: 0,
    }
}

fn request(text: &str) -> Request {
    let params = Params { temperature: None, top_p: None, max_output_tokens: 10, thinking: Thinking::Default, seed: 1 };
    let parts: Arc<[Part]> = Arc::new([Part::Text(text.to_owned())]);
    Request { role: Role::Evaluator, model: "gpt-4o".to_owned(), system: None, parts, params, schema: None }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Reads one whole request: its head, and the body its head announces.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}

/// A server that hands each connection, with its first request read, to the handler. It ends with the set.
async fn server<F, R>(handler: F) -> (SocketAddr, JoinSet<()>)
where
    F: Fn(TcpStream, String) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read_request(&mut stream).await;
            connections.spawn(handler(stream, request));
        }
    });
    (address, tasks)
}

/// Answers with these bytes and closes.
async fn answering(bytes: String) -> (SocketAddr, JoinSet<()>) {
    let bytes = Arc::new(bytes);
    server(move |mut stream, _| {
        let bytes = Arc::clone(&bytes);
        async move {
            let _sent = stream.write_all(bytes.as_bytes()).await;
            let _closed = stream.shutdown().await;
            // Reading to the end keeps a reset from overtaking what was sent.
            let _rest = stream.read(&mut [0; 16]).await;
        }
    })
    .await
}

/// Answers with these bytes and then says nothing for ever.
async fn stalling(bytes: &'static str) -> (SocketAddr, JoinSet<()>) {
    server(move |mut stream, _| async move {
        stream.write_all(bytes.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await
}

async fn call(settings: &HttpSettings, address: SocketAddr) -> Result<Reply, CallError> {
    let credential = Credential::new("GATE_KEY", KEY);
    client(settings).call(&endpoint(format!("http://{address}/v1")), &credential, &request("hello")).await
}

#[tokio::test]
async fn a_reply_arrives_with_its_latency_and_the_request_says_how_long_it_is() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let (address, _tasks) = server(move |mut stream, request| {
        let seen = seen.clone();
        async move {
            seen.send(request).unwrap();
            stream.write_all(ok(REPLY).as_bytes()).await.unwrap();
            let again = read_request(&mut stream).await;
            seen.send(again).unwrap();
            stream.write_all(ok(REPLY).as_bytes()).await.unwrap();
        }
    })
    .await;
    let (client, credential) = (client(&settings()), Credential::new("GATE_KEY", KEY));
    let endpoint = endpoint(format!("http://{address}/v1/"));
    for text in ["one", "two"] {
        let reply = client.call(&endpoint, &credential, &request(text)).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.finish), ("hi", Finish::Stop));
        let head = requests.recv().await.unwrap();
        let (head, body) = head.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("authorization: bearer {KEY}")), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())) && !head.contains("chunked"), "{head}");
        assert!(head.contains("user-agent: aurelia/") && body.contains(text), "{head}");
    }
}

#[tokio::test]
async fn a_chunked_reply_is_put_together() {
    let (head, tail) = REPLY.split_at(20);
    let body = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{head}\r\n{:x}\r\n{tail}\r\n0\r\n\r\n",
        head.len(),
        tail.len()
    );
    let (address, _tasks) = answering(body).await;
    assert_eq!(call(&settings(), address).await.unwrap().text, "hi");
}

#[tokio::test]
async fn each_deadline_names_itself_and_its_seconds() {
    let short = Duration::from_millis(40);
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{";
    for (settings, bytes, words) in [
        (HttpSettings { first_byte: short, ..settings() }, "", "no reply began within 0.04 s (first byte deadline)"),
        (HttpSettings { total: short, ..settings() }, "", "no reply within 0.04 s (total deadline)"),
        (HttpSettings { idle: short, ..settings() }, head, "the reply stalls within 0.04 s (idle deadline)"),
        (HttpSettings { total: short * 5, ..settings() }, head, "the reply is not whole within 0.2 s (total deadline)"),
    ] {
        let (address, _tasks) = stalling(bytes).await;
        let error = call(&settings, address).await.unwrap_err();
        assert_eq!(error.message, format!("gate: {words}"));
        assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::Unknown));
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_meets_the_connect_deadline_and_costs_nothing() {
    let (address, _tasks) = stalling("").await;
    let settings = HttpSettings { connect: Duration::from_millis(40), ..settings() };
    let endpoint = endpoint(format!("https://{address}/v1"));
    let error = client(&settings).call(&endpoint, &Credential::new("K", KEY), &request("x")).await.unwrap_err();
    assert!(error.message.starts_with("gate: no connection within 0.04 s (connect deadline)"), "{}", error.message);
    assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::No));
}

#[tokio::test]
async fn a_refused_connection_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = call(&settings(), address).await.unwrap_err();
    assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::No));
    assert!(error.message.starts_with("gate: no connection: "), "{}", error.message);
}

#[tokio::test]
async fn a_connection_lost_after_sending_may_have_cost_money() {
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\"", "not http at all\r\n\r\n"] {
        let (address, _tasks) = answering(bytes.to_owned()).await;
        let error = call(&settings(), address).await.unwrap_err();
        assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::Unknown), "{bytes}");
    }
}

#[tokio::test]
async fn a_body_that_did_not_leave_whole_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = HttpSettings { first_byte: Duration::from_millis(60), ..settings() };
    let huge = "x".repeat(64 * 1024 * 1024);
    let client = client(&settings);
    let endpoint = endpoint(format!("http://{address}/v1"));
    let (credential, request) = (Credential::new("K", KEY), request(&huge));
    // The peer accepts and never reads, so the connection fills up and the rest stays here.
    let (call, _stream) = tokio::join!(client.call(&endpoint, &credential, &request), listener.accept());
    let error = call.unwrap_err();
    assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::No), "{}", error.message);
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_an_error_whether_announced_or_not() {
    let body = "x".repeat(5000);
    for bytes in [ok(&body), format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}")] {
        let (address, _tasks) = answering(bytes).await;
        let error = call(&settings(), address).await.unwrap_err();
        assert_eq!(error.message, "gate: the reply is longer than 4096 bytes (max_reply_bytes)");
        assert_eq!(error.billed, Billed::Unknown);
    }
}

#[tokio::test]
async fn an_error_status_is_known_even_if_its_body_is_cut_or_endless() {
    let cut = "HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 900\r\n\r\nover".to_owned();
    let endless = format!("HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 9000\r\n\r\n{}", "y".repeat(9000));
    for bytes in [cut, endless] {
        let (address, _tasks) = answering(bytes).await;
        let error = call(&settings(), address).await.unwrap_err();
        assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::No));
        assert_eq!(error.retry_after, Some(Duration::from_millis(7100)));
    }
}

#[tokio::test]
async fn any_status_is_an_answer_and_a_closed_port_is_none() {
    let (address, _tasks) = answering("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let client = client(&settings());
    let up = endpoint(format!("http://{address}"));
    let down = Endpoint { name: "down".to_owned(), ..endpoint("http://127.0.0.1:9".to_owned()) };
    for endpoint in [&up, &down] {
        client.call(endpoint, &Credential::new("K", KEY), &request("x")).await.unwrap_err();
    }
    assert!(client.has_answered(&up) && client.clone().has_answered(&up));
    assert!(!client.has_answered(&down));
}

#[tokio::test]
async fn a_redirect_is_reported_without_its_query_and_not_followed() {
    let bytes =
        "HTTP/1.1 307 X\r\nlocation: http://elsewhere.test/v1?token=abc\r\ncontent-length: 0\r\n\r\n".to_owned();
    let (address, _tasks) = answering(bytes).await;
    let error = call(&settings(), address).await.unwrap_err();
    assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::No));
    assert!(error.message.contains("redirect to http://elsewhere.test/v1 is not followed"), "{}", error.message);
    assert!(!error.message.contains("abc"), "{}", error.message);
}

#[tokio::test]
async fn a_key_that_is_echoed_is_not_repeated() {
    let plain = format!(r#"{{"error":{{"message":"bad key {KEY} here","code":"invalid_api_key"}}}}"#);
    let escaped = plain.replace("sk-", r"\u0073k-");
    let at_the_cut = format!(r#"{{"error":{{"message":"{} {KEY}"}}}}"#, "w".repeat(285));
    for (status, body) in [(401, &plain), (401, &escaped), (400, &at_the_cut), (200, &plain), (200, &at_the_cut)] {
        let bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (address, _tasks) = answering(bytes).await;
        let error = call(&settings(), address).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("sk-v") && shown.contains("[key]"), "{shown}");
    }
}

#[tokio::test]
async fn secrets_are_not_shown_by_debug() {
    let credential = Credential::new("GATE_KEY", KEY);
    let client = client(&settings());
    let body = Watched::new(Body::new(Vec::new()), Progress::new());
    let post = client.post(&endpoint("http://127.0.0.1:1/v1".to_owned()), &credential, "/x", body).unwrap();
    assert!(!format!("{client:?} {credential:?} {post:?}").contains(KEY));
}

#[tokio::test]
async fn what_cannot_be_sent_says_whose_fault_it_is() {
    let client = client(&settings());
    for (base, key, kind) in [
        ("not a url", KEY, CallErrorKind::ModelUnknown),
        ("ftp://host/v1", KEY, CallErrorKind::ModelUnknown),
        ("http://127.0.0.1:1", "a\nb", CallErrorKind::KeyRefused),
    ] {
        let error = client
            .call(&endpoint(base.to_owned()), &Credential::new("GATE_KEY", key), &request("x"))
            .await
            .unwrap_err();
        assert_eq!((error.kind, error.billed), (kind, Billed::No), "{base}");
        assert!(!error.message.contains("a\nb"), "{}", error.message);
    }
}

#[tokio::test]
async fn gemini_sends_its_key_in_a_header_and_its_model_in_the_path() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let (address, _tasks) = server(move |mut stream, request| {
        seen.send(request).unwrap();
        async move {
            let body = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#;
            stream.write_all(ok(body).as_bytes()).await.unwrap();
        }
    })
    .await;
    let endpoint = Endpoint { protocol: Protocol::Gemini, ..endpoint(format!("http://{address}")) };
    let reply = client(&settings()).call(&endpoint, &Credential::new("K", KEY), &request("x")).await.unwrap();
    assert_eq!(reply.text, "hi");
    let head = requests.recv().await.unwrap();
    assert!(head.starts_with("POST /v1beta/models/gpt-4o:generateContent HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("x-goog-api-key: {KEY}\r\n")) && !head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let (address, _tasks) = server(move |mut stream, request| {
        seen.send(request).unwrap();
        async move { stream.write_all(ok(REPLY).as_bytes()).await.unwrap() }
    })
    .await;
    let endpoint = endpoint(format!("http://{address}/v1"));
    client(&settings()).call(&endpoint, &Credential::new("K", ""), &request("x")).await.unwrap();
    assert!(!requests.recv().await.unwrap().to_ascii_lowercase().contains("authorization"));
}

#[test]
fn a_ca_file_that_is_none_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
    std::fs::write(&empty, "no certificate").unwrap();
    for (file, words) in [(missing, "cannot be read"), (empty, "holds no certificate")] {
        let error = Client::new(&HttpSettings { extra_ca_file: Some(file.clone()), ..settings() }).unwrap_err();
        assert!(error.contains(words) && error.contains(&file.display().to_string()), "{error}");
    }
}

/// Runs one test of this binary again, in a process with these variables.
fn again(test: &str, variables: &[(&str, &str)]) -> std::process::Output {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
        command.env_remove(name);
    }
    command.args(["--exact", "--test-threads=1", &format!("provider::http::tests::{test}")]);
    command.env("AURELIA_TEST_CHILD", "1").envs(variables.iter().copied()).output().unwrap()
}

fn is_child() -> bool {
    std::env::var_os("AURELIA_TEST_CHILD").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_is_used() {
    let credential = Credential::new("K", KEY);
    if is_child() {
        let client = Client::new(&settings()).unwrap();
        let reply = client.call(&endpoint("http://provider.invalid/v1".to_owned()), &credential, &request("x")).await;
        assert_eq!(reply.unwrap().text, "hi");
        return;
    }
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let (address, _tasks) = server(move |mut stream, request| {
        seen.send(request).unwrap();
        async move { stream.write_all(ok(REPLY).as_bytes()).await.unwrap() }
    })
    .await;
    let proxy = format!("http://{address}");
    let child =
        tokio::task::spawn_blocking(move || again("a_proxy_of_the_environment_is_used", &[("HTTP_PROXY", &proxy)]));
    let child = child.await.unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let head = requests.recv().await.unwrap();
    assert!(head.starts_with("POST http://provider.invalid/v1/chat/completions HTTP/1.1\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_without_certificates_speaks_plain_http_and_says_what_https_lacks() {
    if !is_child() {
        let test = "a_system_without_certificates_speaks_plain_http_and_says_what_https_lacks";
        let none = [("SSL_CERT_FILE", "/nonexistent/ca.pem"), ("SSL_CERT_DIR", "/nonexistent")];
        let child = tokio::task::spawn_blocking(move || again(test, &none)).await.unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let client = Client::new(&settings()).unwrap();
    let credential = Credential::new("K", KEY);
    let (address, _tasks) = answering(ok(REPLY)).await;
    let plain = client.call(&endpoint(format!("http://{address}/v1")), &credential, &request("x")).await;
    assert_eq!(plain.unwrap().text, "hi");
    let hasty = HttpSettings { connect: Duration::from_millis(40), ..settings() };
    let endpoint = endpoint(format!("https://{address}/v1"));
    let secure = Client::new(&hasty).unwrap().call(&endpoint, &credential, &request("x")).await.unwrap_err();
    assert!(secure.message.contains("the system has no CA certificates"), "{}", secure.message);
    assert_eq!((secure.kind, secure.billed), (CallErrorKind::Unavailable, Billed::No));
}

/// Serves one connection over TLS with the certificate of `testdata`, which its own CA signed (made with openssl for
/// this test, valid for a hundred years; its CA's key was thrown away).
fn serve_tls(listener: &std::net::TcpListener) -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let pem = include_bytes!("testdata/localhost.pem");
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (stream, _) = listener.accept()?;
    let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    let mut tls = rustls::StreamOwned::new(connection, stream);
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
        let mut buffer = [0; 4096];
        let count = tls.read(&mut buffer)?;
        seen.extend_from_slice(&buffer[..count]);
    }
    tls.write_all(ok(REPLY).as_bytes())
}

#[tokio::test]
async fn an_extra_ca_is_trusted_and_an_unknown_one_is_not() {
    let ca = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provider/http/testdata/ca.pem");
    for (extra_ca_file, trusted) in [(Some(ca), true), (None, false)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = endpoint(format!("https://{}/v1", listener.local_addr().unwrap()));
        let served = tokio::task::spawn_blocking(move || serve_tls(&listener));
        let client = client(&HttpSettings { extra_ca_file, ..settings() });
        let called = client.call(&endpoint, &Credential::new("K", KEY), &request("x")).await;
        assert_eq!(served.await.unwrap().is_ok(), trusted);
        match called {
            Ok(reply) => assert!(trusted && reply.text == "hi"),
            Err(error) => {
                assert!(!trusted && error.message.contains("certificate"), "{}", error.message);
                assert_eq!((error.kind, error.billed), (CallErrorKind::Unavailable, Billed::No));
            }
        }
    }
}
