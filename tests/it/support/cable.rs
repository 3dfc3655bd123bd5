//! A cable between a client and a server that can go dead without a word: nothing is closed, nothing comes through.

use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A cable that lies.
pub(crate) struct Cable {
    addr: SocketAddr,
    /// Connections of a number up to this are dead.
    dead: watch::Sender<usize>,
    plugged: watch::Sender<usize>,
    _tasks: JoinSet<()>,
}

impl Cable {
    /// A cable to this port of the machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (dead, plugged) = (watch::Sender::new(0), watch::Sender::new(0));
        let (watching, count) = (dead.clone(), plugged.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
                let number = *count.borrow() + 1;
                count.send_replace(number);
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                ways.spawn(way(from_client, to_server, number, watching.subscribe()));
                ways.spawn(way(from_server, to_client, number, watching.subscribe()));
            }
        });
        Self { addr, dead, plugged, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Connections made so far.
    pub(crate) fn plugged(&self) -> usize {
        *self.plugged.borrow()
    }

    /// Returns once so many connections have been made.
    pub(crate) async fn plugged_again(&self, number: usize) {
        self.plugged.subscribe().wait_for(|plugged| *plugged >= number).await.unwrap();
    }

    /// All connections go dead, those to come as well.
    pub(crate) fn darken(&self) {
        self.dead.send_replace(usize::MAX);
    }

    /// Connections work again from now on; those made before stay dead.
    pub(crate) fn mend(&self) {
        self.cut();
    }

    /// All connections that stand go dead; later ones work.
    pub(crate) fn cut(&self) {
        self.dead.send_replace(self.plugged());
    }
}

async fn way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: usize, mut dead: watch::Receiver<usize>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        tokio::select! {
            biased;
            () = gone_dead(&mut dead, number) => break,
            read = from.read(&mut buffer) => {
                let Ok(length @ 1..) = read else { return };
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
    // Both ends stay open, which is the point.
    std::future::pending::<()>().await;
}

async fn gone_dead(dead: &mut watch::Receiver<usize>, number: usize) {
    if dead.wait_for(|dead| *dead >= number).await.is_err() {
        std::future::pending::<()>().await;
    }
}
