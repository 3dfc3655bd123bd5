//! A cable between a client and a server that can go dead without a word (nothing is closed, nothing comes through), or be
//! severed, which both ends notice.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

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
    /// Connections of a number up to this are closed.
    severed: watch::Sender<usize>,
    plugged: watch::Sender<usize>,
    trap: Arc<Mutex<Option<&'static [u8]>>>,
    _tasks: JoinSet<()>,
}

impl Cable {
    /// A cable to this port of the machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let [dead, severed, plugged] = [0; 3].map(watch::Sender::new);
        let (watching, closing, count) = (dead.clone(), severed.clone(), plugged.clone());
        let trap = Arc::new(Mutex::new(None));
        let trapped = Trap { words: Arc::clone(&trap), dead: dead.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
                let number = *count.borrow() + 1;
                count.send_replace(number);
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let heard = [(from_client, to_server, Some(trapped.clone())), (from_server, to_client, None)];
                for (from, to, trap) in heard {
                    let (way, mut severed) = (way(from, to, number, watching.subscribe(), trap), closing.subscribe());
                    ways.spawn(async move {
                        tokio::select! {
                            () = way => {}
                            () = gone_dead(&mut severed, number) => {}
                        }
                    });
                }
            }
        });
        Self { addr, dead, severed, plugged, trap, _tasks: tasks }
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

    /// All connections that stand are closed; later ones work.
    pub(crate) fn sever(&self) {
        self.severed.send_replace(self.plugged());
    }

    /// All connections go dead, those to come as well.
    pub(crate) fn darken(&self) {
        self.dead.send_replace(usize::MAX);
    }

    /// The same as soon as a client says this, which does not come through.
    pub(crate) fn darken_at(&self, words: &'static str) {
        *self.trap.lock().unwrap() = Some(words.as_bytes());
    }

    pub(crate) fn is_dark(&self) -> bool {
        *self.dead.borrow() == usize::MAX
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

/// What darkens the cable when a client says it.
#[derive(Clone)]
struct Trap {
    words: Arc<Mutex<Option<&'static [u8]>>>,
    dead: watch::Sender<usize>,
}

impl Trap {
    fn springs(&self, said: &[u8]) -> bool {
        let mut words = self.words.lock().unwrap();
        let springs = words.is_some_and(|words| said.windows(words.len()).any(|window| window == words));
        if springs {
            *words = None;
            self.dead.send_replace(usize::MAX);
        }
        springs
    }
}

async fn way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: usize,
    mut dead: watch::Receiver<usize>,
    trap: Option<Trap>,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        tokio::select! {
            biased;
            () = gone_dead(&mut dead, number) => break,
            read = from.read(&mut buffer) => {
                let Ok(length @ 1..) = read else { return };
                if trap.as_ref().is_some_and(|trap| trap.springs(&buffer[..length])) {
                    break;
                }
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
