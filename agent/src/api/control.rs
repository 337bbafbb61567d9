//! The way of commands to the nodes of a running gateway, whatever their link: a Unix socket in its data folder, for its user only.
//! A request is a line of JSON ([`Request`]), and so is the answer ([`Response`]). Whoever asks looks for a node's answer itself,
//! in its report: so nothing waits in the gateway.
//!
//! | limit | value | when reached |
//! |---|---|---|
//! | connections | [`CONNECTIONS_MAX`] | further ones are told so, and closed |
//! | bytes of a request | [`REQUEST_LEN_MAX`] | the connection is closed |
//! | wait for the session | [`SESSION_MAX`] | the request is answered with an error |

use crate::runtime::Stop;
use crate::session::observe::Observation;
use crate::session::report::{NodeReport, Order};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// Most connections at a time.
pub const CONNECTIONS_MAX: usize = 16;
/// Most bytes of a request.
pub const REQUEST_LEN_MAX: usize = 64 * 1024;
/// Longest wait for the session: it commits meanwhile.
pub const SESSION_MAX: Duration = Duration::from_secs(3);
/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long one that is refused may take to say what it wants.
const REFUSAL_MAX: Duration = Duration::from_secs(1);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What is known of all nodes, or of one.
    Nodes {
        /// Its name or its whole key.
        node: Option<String>,
    },
    /// What metrics need of the session. Not for the socket: its form may change.
    #[serde(skip)]
    Observe {
        /// Most sensors and most nodes that are told one by one.
        series_max: usize,
    },
    /// Order something of a node.
    Order {
        /// Its name or its whole key.
        node: String,
        /// What.
        order: Order,
    },
    /// Take refused input once more, as if it had just come.
    Retake {
        /// Position of its dead letter in the journal.
        position: u64,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The nodes.
    Nodes {
        /// UTC on the gateway, ns.
        now_ns: i64,
        /// In the order of their keys.
        nodes: Vec<NodeReport>,
    },
    /// What metrics need of the session.
    #[serde(skip)]
    Observed(Box<Observation>),
    /// The order is on its way.
    Sent {
        /// The answer will have it.
        id: u32,
    },
    /// The input was taken once more.
    Retaken {
        /// Records that came of it, committed.
        records: usize,
        /// Why it was refused once more, if it was; the new dead letter is among the records.
        refused: Option<String>,
    },
    /// It cannot be done.
    Error {
        /// Why.
        reason: String,
    },
}

/// A request on its way to the session.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Response>,
}

/// A connection's work, to be spawned.
pub type ConnectionTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The socket's path in a data folder.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// A bound socket.
#[derive(Debug)]
pub struct Control {
    socket: UnixListener,
    path: PathBuf,
    session: mpsc::Sender<Ask>,
}

impl Control {
    /// Makes the socket. One that is there is of a gateway that was killed: who holds the journal's lock may take its place.
    ///
    /// # Errors
    /// It cannot be made, as where its path is longer than the system allows (107 bytes on Linux).
    pub fn bind(data_dir: &Path, session: mpsc::Sender<Ask>) -> std::io::Result<Self> {
        let path = path(data_dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket, path, session })
    }

    /// Works until `stop`. `spawn` starts a connection's work.
    pub async fn run(self, stop: Stop, spawn: impl Fn(ConnectionTask) + Send) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let refusals = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        tokio::select! {
            () = stop.wait() => {}
            () = self.accept(&places, &refusals, spawn) => {}
        }
        let _ = std::fs::remove_file(&self.path);
    }

    async fn accept(
        &self,
        places: &Arc<Semaphore>,
        refusals: &Arc<Semaphore>,
        spawn: impl Fn(ConnectionTask),
    ) {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let session = self.session.clone();
                        spawn(Box::pin(async move {
                            serve(stream, &session).await;
                            drop(place);
                        }));
                    }
                    // Beyond those that can be told, closing says enough.
                    Err(_) => {
                        if let Ok(place) = refusals.clone().try_acquire_owned() {
                            spawn(Box::pin(async move {
                                refuse(stream).await;
                                drop(place);
                            }));
                        }
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "control socket cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Tells a client that there is no place. What it asks is read first: closing over it would drop the answer too.
async fn refuse(mut stream: UnixStream) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader).take(REQUEST_LEN_MAX as u64);
    let reason = format!("{CONNECTIONS_MAX} commands wait for nodes already; try again");
    // Best effort: a client that is gone needs no answer.
    let _ = timeout(REFUSAL_MAX, reader.read_line(&mut String::new())).await;
    let _ = writer.write_all(&line(&Response::Error { reason })).await;
}

async fn serve(mut stream: UnixStream, session: &mpsc::Sender<Ask>) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut text = String::new();
        let mut bounded = (&mut reader).take(REQUEST_LEN_MAX as u64);
        match timeout(SILENCE_MAX, bounded.read_line(&mut text)).await {
            Ok(Ok(1..)) if text.ends_with('\n') => {}
            _ => return,
        }
        let response = match serde_json::from_str(&text) {
            Ok(request) => ask(session, request).await,
            Err(error) => Response::Error { reason: format!("request is not understood: {error}") },
        };
        if writer.write_all(&line(&response)).await.is_err() {
            return;
        }
    }
}

async fn ask(session: &mpsc::Sender<Ask>, request: Request) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        session.send(Ask { request, reply }).await.ok()?;
        answer.await.ok()
    };
    let reason = match timeout(SESSION_MAX, asked).await {
        Ok(Some(response)) => return response,
        Ok(None) => "the gateway is stopping".into(),
        Err(_) => format!("the gateway's session has not answered within {SESSION_MAX:?}: its log says why"),
    };
    Response::Error { reason }
}

fn line(response: &Response) -> Vec<u8> {
    // No type here refuses to be written, and no map has keys that are no text.
    let mut line = serde_json::to_vec(response).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn client(path: &Path) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(path).await.unwrap())
    }

    async fn line_of(client: &mut BufReader<UnixStream>) -> String {
        let mut text = String::new();
        timeout(PATIENCE, client.read_line(&mut text)).await.expect("no answer").unwrap();
        text
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_are_answered_in_words_and_only_so_many_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        // Left by a gateway that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (asks, mut session) = mpsc::channel(1);
        let control = Control::bind(dir.path(), asks).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let stop = Stop::new();
        let tasks = tokio::runtime::Handle::current();
        let run = tokio::runtime::Handle::current()
            .spawn(control.run(stop.clone(), move |task| drop(tasks.spawn(task))));

        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut client = client(&path).await;
            client.write_all(b"{\"jump\": 3}\n").await.unwrap();
            let says = line_of(&mut client).await;
            assert!(says.contains("request is not understood: unknown variant `jump`"), "{says}");
            clients.push(client);
        }
        let mut refused = client(&path).await;
        refused.write_all(b"{\"nodes\":{}}\n").await.unwrap();
        let says = line_of(&mut refused).await;
        assert!(says.contains("16 commands wait for nodes already"), "{says}");

        let mut first = clients.swap_remove(0);
        first.write_all(b"{\"nodes\":{\"node\":\"a\"}}\n").await.unwrap();
        let ask = timeout(PATIENCE, session.recv()).await.expect("not asked").unwrap();
        assert_eq!(ask.request, Request::Nodes { node: Some("a".into()) });
        ask.reply.send(Response::Sent { id: 5 }).unwrap();
        assert_eq!(line_of(&mut first).await, "{\"sent\":{\"id\":5}}\n");
        // A request without an end takes no more memory than one may have.
        let mut long = clients.swap_remove(0);
        let sent = long.write_all(&vec![b' '; 2 * REQUEST_LEN_MAX]).await;
        let mut rest = String::new();
        let closed = timeout(PATIENCE, long.read_line(&mut rest)).await.expect("it is not closed");
        assert!(sent.is_err() || closed.is_err() || closed.is_ok_and(|len| len == 0));

        stop.set();
        timeout(PATIENCE, run).await.expect("does not end").unwrap();
        assert!(!path.exists());
    }
}
