//! A TCP proxy that does to a connection what networks do.

use anyhow::{Context, Result};
use parking_lot::Mutex;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// How often a pump looks whether something has changed.
const POLL: Duration = Duration::from_millis(50);

const PASS: u8 = 0;
const CUT: u8 = 1;
const SILENT: u8 = 2;

/// Stands between a client and a server on 127.0.0.1; ends with its value.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    mode: AtomicU8,
    delay_ms: AtomicU64,
    /// Bytes a second of all connections together from the client to the server; 0 for as many as come.
    rate: AtomicU64,
    /// Connections of an earlier epoch are closed.
    epoch: AtomicU64,
    connections: AtomicU64,
    ended: AtomicBool,
    /// Held while a piece takes its time on the slow link.
    turn: Mutex<()>,
}

impl Proxy {
    /// A proxy before `127.0.0.1:target`.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("bind the proxy")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            target: SocketAddr::from(([127, 0, 0, 1], target)),
            mode: AtomicU8::new(PASS),
            delay_ms: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            turn: Mutex::new(()),
            epoch: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, &shared));
        Ok(Self { port, state })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Closes every connection, and each new one at once.
    pub fn cut(&self) {
        self.change(CUT);
    }

    /// Connections stay open, but nothing passes any more in either direction: a dead radio link.
    pub fn go_silent(&self) {
        self.state.mode.store(SILENT, Ordering::SeqCst);
    }

    /// Everything passes again; connections from before are closed.
    pub fn heal(&self) {
        self.change(PASS);
    }

    /// Closes every connection once, in mid-message if there is one; the next attempt succeeds.
    pub fn interrupt(&self) {
        self.change(PASS);
    }

    /// Holds each piece up for so long.
    pub fn delay(&self, by: Duration) {
        self.state.delay_ms.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets no more than so many bytes a second through to the server, of all connections together; 0 lifts it.
    pub fn throttle(&self, bytes_per_s: u64) {
        self.state.rate.store(bytes_per_s, Ordering::SeqCst);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    fn change(&self, mode: u8) {
        self.state.mode.store(mode, Ordering::SeqCst);
        self.state.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.change(CUT);
        // Wakes the thread in accept.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.ended.load(Ordering::SeqCst) {
            return;
        }
        let epoch = state.epoch.load(Ordering::SeqCst);
        let (Ok(client), PASS | SILENT) = (client, state.mode.load(Ordering::SeqCst)) else { continue };
        let Ok(server) = TcpStream::connect(state.target) else { continue };
        state.connections.fetch_add(1, Ordering::SeqCst);
        for (from, to, slow) in [(&client, &server, true), (&server, &client, false)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
            let shared = Arc::clone(state);
            std::thread::spawn(move || pump(from, to, &shared, epoch, slow));
        }
    }
}

/// Carries bytes one way until either side or the epoch ends.
fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, epoch: u64, slow: bool) {
    let _ = from.set_read_timeout(Some(POLL));
    let _ = from.set_nodelay(true);
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 64 * 1024];
    while state.epoch.load(Ordering::SeqCst) == epoch {
        let len = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        let delay_ms = state.delay_ms.load(Ordering::SeqCst);
        if delay_ms > 0 {
            std::thread::sleep(Duration::from_millis(delay_ms));
        }
        let rate = state.rate.load(Ordering::SeqCst);
        if slow && rate > 0 {
            let _turn = state.turn.lock();
            std::thread::sleep(Duration::from_secs_f64(len as f64 / rate as f64));
        }
        if state.mode.load(Ordering::SeqCst) == SILENT {
            continue;
        }
        if state.epoch.load(Ordering::SeqCst) != epoch || to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo_server() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(len @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..len]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        port
    }

    fn echoes(stream: &mut TcpStream) -> bool {
        let mut buffer = [0; 4];
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"ping"
    }

    #[test]
    fn a_cut_link_closes_connections_and_a_healed_one_carries_again() {
        let proxy = Proxy::start(echo_server()).unwrap();
        let mut before = TcpStream::connect(proxy.address()).unwrap();
        assert!(echoes(&mut before));
        proxy.cut();
        assert!(!echoes(&mut before));
        let mut during = TcpStream::connect(proxy.address()).unwrap();
        assert!(!echoes(&mut during));
        proxy.heal();
        assert!(echoes(&mut TcpStream::connect(proxy.address()).unwrap()));
        assert_eq!(proxy.connections(), 2);
    }

    #[test]
    fn a_silent_link_stays_open_and_carries_nothing() {
        let proxy = Proxy::start(echo_server()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert!(echoes(&mut stream));
        proxy.go_silent();
        assert!(!echoes(&mut stream));
        assert!(stream.write_all(b"still open").is_ok());
    }
}
