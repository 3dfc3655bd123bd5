//! A proxy for https: it leads wherever a test says, and tells where it was asked to go.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A proxy that runs until the test ends.
pub(crate) struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One that leads to this port of this machine, whatever it is asked for.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = Arc::clone(&proxy.asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let asked = Arc::clone(&asked);
                // A client that goes away ends its connection and nothing else.
                std::thread::spawn(move || stream.and_then(|stream| lead(stream, port, &asked)));
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it was asked to go since the last look, as `HOST:PORT`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn lead(stream: TcpStream, port: u16, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut client = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    client.read_line(&mut line)?;
    let place = line.split(' ').nth(1).ok_or(ErrorKind::InvalidInput)?;
    asked.lock().unwrap().push(place.to_owned());
    while line.trim_end() != "" {
        line.clear();
        client.read_line(&mut line)?;
    }
    (&stream).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (mut back, mut to_client) = (server.try_clone()?, stream);
    let answers = std::thread::spawn(move || {
        let copied = std::io::copy(&mut back, &mut to_client);
        to_client.shutdown(Shutdown::Write).and(copied)
    });
    std::io::copy(&mut client, &mut &server)?;
    server.shutdown(Shutdown::Write)?;
    drop(answers.join());
    Ok(())
}
