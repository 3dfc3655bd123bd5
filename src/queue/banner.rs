//! What a broker says of itself before anybody logs in: the client library throws it away, so a socket of our own asks.
//!
//! Only the few types of the greeting's table are read; at another one reading ends, with what was found before it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::address::{Address, HELLO};

/// From dialling until the whole greeting is there.
const GREETING: Duration = Duration::from_secs(8);
/// A greeting is some hundred bytes.
const LONGEST: u32 = 1 << 20;

/// A broker's product and version, for example `("RabbitMQ", "3.13.7")`; none over TLS, where nobody greets before the handshake.
///
/// # Errors
/// One sentence without the password: nobody is there, or somebody who does not speak the protocol.
pub async fn banner(address: &Address) -> Result<Option<(String, String)>, String> {
    if address.is_tls() {
        return Ok(None);
    }
    let asked = async {
        let mut stream = address.dial().await?;
        stream.write_all(HELLO).await?;
        // Type, channel, size; then the payload.
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; usize::try_from(size.min(LONGEST)).unwrap_or_default()];
        stream.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>(payload)
    };
    match timeout(GREETING, asked).await {
        Ok(Ok(payload)) => read(&payload).map(Some).ok_or_else(|| format!("{address} does not greet as a broker does")),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no greeting within {} s", GREETING.as_secs())),
    }
}

/// Product and version of a payload of connection.start.
fn read(payload: &[u8]) -> Option<(String, String)> {
    // Class 10, method 10, version 0-9.
    let mut rest = payload.strip_prefix(&[0, 10, 0, 10, 0, 9])?;
    let mut table = long(&mut rest)?;
    let (mut product, mut version) = (None, None);
    while let Some((name, value)) = entry(&mut table) {
        match name {
            b"product" => product = value,
            b"version" => version = value,
            _ => {}
        }
    }
    Some((product?, version?))
}

/// The next entry of a table: its name, and its value where that is text.
fn entry<'a>(table: &mut &'a [u8]) -> Option<(&'a [u8], Option<String>)> {
    let length = usize::from(take(table, 1)?[0]);
    let name = take(table, length)?;
    let value = match take(table, 1)?[0] {
        b'S' => Some(String::from_utf8_lossy(long(table)?).into_owned()),
        b'F' | b'A' | b'x' => long(table).map(|_| None)?,
        b't' | b'b' | b'B' => take(table, 1).map(|_| None)?,
        b'I' | b'i' | b'f' => take(table, 4).map(|_| None)?,
        _ => return None,
    };
    Some((name, value))
}

fn long<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
    take(bytes, usize::try_from(length).ok()?)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Vec<u8> {
        let text = |name: &str, value: &str| {
            let length = u32::try_from(value.len()).unwrap().to_be_bytes();
            [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), b"S", &length, value.as_bytes()].concat()
        };
        let capabilities = [&b"\x0ccapabilities"[..], b"F\0\0\0\x06", b"\x03abct\x01"].concat();
        let table = [capabilities, text("product", "RabbitMQ"), text("version", "3.13.7")].concat();
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        [&[0, 10, 0, 10, 0, 9], &length[..], &table, b"\0\0\0\x05PLAIN"].concat()
    }

    #[test]
    fn a_greeting_is_read_and_whatever_is_cut_or_other_is_none() {
        let whole = greeting();
        assert_eq!(read(&whole), Some(("RabbitMQ".to_owned(), "3.13.7".to_owned())));
        let end = whole.len() - 9;
        assert!((0..end).all(|length| read(&whole[..length]).is_none()));
        assert_eq!(read(b"HTTP/1.1 400 Bad Request"), None);
    }
}
