//! A client that sees the wire as it is: it follows nothing, retries nothing, and tells a whole answer from a torn one.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body is as long as its head says.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The text of a Gemini answer.
    pub(crate) fn gemini_text(&self) -> String {
        self.json()["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or_default().to_owned()
    }

    /// The text of an OpenAI answer.
    pub(crate) fn openai_text(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// Writes a request and leaves the connection open.
pub(crate) async fn open(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// Sends a request and reads to the end; `None`: the connection ended before an answer began.
pub(crate) async fn send(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = open(addr, method, path, headers, body).await;
    let mut bytes = Vec::new();
    // A reset ends the answer like a close does; what came before it counts.
    let _ = stream.read_to_end(&mut bytes).await;
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1)?.parse().unwrap();
    let mut answer = Answer { status, head, body: bytes[split + 4..].to_vec(), whole: true };
    answer.whole = answer.header("content-length").is_none_or(|told| told == answer.body.len().to_string());
    Some(answer)
}

/// A `generateContent` call.
pub(crate) async fn gemini(addr: SocketAddr, model: &str, key: &str, body: &Value) -> Option<Answer> {
    let path = format!("/v1beta/models/{model}:generateContent");
    send(addr, "POST", &path, &format!("x-goog-api-key: {key}\r\n"), body.to_string().as_bytes()).await
}

/// A chat completion.
pub(crate) async fn openai(addr: SocketAddr, key: &str, body: &Value) -> Option<Answer> {
    let headers = format!("authorization: Bearer {key}\r\n");
    send(addr, "POST", "/v1/chat/completions", &headers, body.to_string().as_bytes()).await
}
