//! A TCP proxy that does to a connection what networks do.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// How often a pump looks whether something has changed.
const POLL: Duration = Duration::from_millis(50);

/// A slow link carries this many pieces a second.
const PIECES_PER_S: u64 = 20;

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
    /// Each way; 0: as fast as it goes.
    bytes_per_s: AtomicU64,
    /// Connections of an earlier epoch are closed.
    epoch: AtomicU64,
    connections: AtomicU64,
    /// Connections up to this number carry nothing any more, and are not closed either.
    half_open: AtomicU64,
    ended: AtomicBool,
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
            bytes_per_s: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            half_open: AtomicU64::new(0),
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

    /// The connections that are open now carry nothing any more and stay open, as when a router forgets them; new ones pass.
    pub fn go_half_open(&self) {
        self.state.half_open.store(self.connections(), Ordering::SeqCst);
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

    /// Carries so many bytes a second each way, and no more.
    pub fn slow_to(&self, bytes_per_s: u64) {
        self.state.bytes_per_s.store(bytes_per_s, Ordering::SeqCst);
    }

    /// Carries as much as comes again.
    pub fn full_speed(&self) {
        self.slow_to(0);
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
        let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
            let shared = Arc::clone(state);
            std::thread::spawn(move || pump(from, to, &shared, (epoch, number)));
        }
    }
}

/// Carries bytes one way until either side or the epoch ends.
fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, (epoch, number): (u64, u64)) {
    let _ = from.set_read_timeout(Some(POLL));
    let _ = from.set_nodelay(true);
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 64 * 1024];
    while state.epoch.load(Ordering::SeqCst) == epoch {
        let bytes_per_s = state.bytes_per_s.load(Ordering::SeqCst);
        let piece = match usize::try_from(bytes_per_s / PIECES_PER_S) {
            Ok(piece @ 1..) => piece.min(buffer.len()),
            _ => buffer.len(),
        };
        let is_half_open = || number <= state.half_open.load(Ordering::SeqCst);
        let len = match from.read(&mut buffer[..piece]) {
            // Nor does the other side learn that this one has given up.
            Ok(0) if is_half_open() => {
                std::thread::sleep(POLL);
                continue;
            }
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        if let Some(takes_ms) = (len as u64 * 1000).checked_div(bytes_per_s) {
            std::thread::sleep(Duration::from_millis(takes_ms));
        }
        let delay_ms = state.delay_ms.load(Ordering::SeqCst);
        if delay_ms > 0 {
            std::thread::sleep(Duration::from_millis(delay_ms));
        }
        if state.mode.load(Ordering::SeqCst) == SILENT || is_half_open() {
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
    fn a_slow_link_carries_so_many_bytes_a_second() {
        let proxy = Proxy::start(echo_server()).unwrap();
        proxy.slow_to(100);
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        let started = std::time::Instant::now();
        assert!(echoes(&mut stream));
        // Four bytes, each way.
        assert!(started.elapsed() >= Duration::from_millis(80));
    }

    #[test]
    fn a_half_open_link_stays_open_for_old_connections_and_carries_only_for_new_ones() {
        let proxy = Proxy::start(echo_server()).unwrap();
        let mut before = TcpStream::connect(proxy.address()).unwrap();
        assert!(echoes(&mut before));
        proxy.go_half_open();
        assert!(!echoes(&mut before));
        assert!(before.write_all(b"still open").is_ok());
        assert!(echoes(&mut TcpStream::connect(proxy.address()).unwrap()));
        assert!(!echoes(&mut before));
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
