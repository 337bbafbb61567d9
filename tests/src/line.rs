//! A serial line between two pseudo terminals that can garble what passes.

use crate::pty::PtyPair;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The line. It ends with its terminals, when dropped.
#[derive(Debug)]
pub struct Line {
    board: PtyPair,
    gateway: PtyPair,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One byte in so many is changed; 0: none is.
    garble_every: AtomicU64,
    garbled: AtomicU64,
}

impl Line {
    /// A good line.
    ///
    /// # Errors
    /// When there are no pseudo terminals or threads.
    pub fn start() -> Result<Self> {
        let (board, gateway) = (PtyPair::start()?, PtyPair::start()?);
        let state = Arc::new(State::default());
        let open = |path: &Path| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .with_context(|| format!("open {}", path.display()))
        };
        // Of the first pair the board has one end and this line the other; of the second, the gateway.
        let (near, far) = (open(&board.gateway())?, open(&gateway.board())?);
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            let state = state.clone();
            std::thread::Builder::new().name("serial line".into()).spawn(move || pump(from, to, &state))?;
        }
        Ok(Self { board, gateway, state })
    }

    /// The board's end.
    #[must_use]
    pub fn board(&self) -> PathBuf {
        self.board.board()
    }

    /// The gateway's end.
    #[must_use]
    pub fn gateway(&self) -> PathBuf {
        self.gateway.gateway()
    }

    /// From now on changes one byte in `every`, both ways; 0: none.
    pub fn garble(&self, every: u64) {
        self.state.garble_every.store(every, Ordering::Relaxed);
    }

    /// Bytes changed so far.
    #[must_use]
    pub fn garbled(&self) -> u64 {
        self.state.garbled.load(Ordering::Relaxed)
    }
}

fn pump(mut from: File, mut to: File, state: &State) {
    let mut buffer = [0; 4096];
    let mut passed = 0_u64;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let every = state.garble_every.load(Ordering::Relaxed);
        for byte in &mut buffer[..count] {
            passed += 1;
            if every > 0 && passed.is_multiple_of(every) {
                *byte ^= 0x55;
                state.garbled.fetch_add(1, Ordering::Relaxed);
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
