//! A serial port: the same messages, in COBS frames, both ways. The port is opened again when it was unplugged. Nothing
//! is acknowledged on the line itself; the node keeps what the gateway's own acks have not covered.

use super::time::TimeTeller;
use super::{BATCH_LEN_MAX, Inbox, Incoming, SourceEnd, SourceId};
use crate::api::metrics;
use crate::config::SerialSource;
use crate::runtime::Stop;
use bytes::Bytes;
use spindle_common::wire::{MESSAGE_LEN_MAX, frame};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio_serial::{SerialPortBuilderExt, SerialStream};

/// First and longest pause before opening again.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A line that takes no more for this long is opened again.
const WRITE_MAX: Duration = Duration::from_secs(2);
const READ_LEN: usize = 16 * 1024;

/// A serial port that is ready to be opened.
#[derive(Debug)]
pub struct Serial {
    id: SourceId,
    config: SerialSource,
    metrics: Arc<metrics::Metrics>,
    time: TimeTeller,
}

impl Serial {
    /// Prepares the port.
    #[must_use]
    pub const fn new(
        id: SourceId,
        config: SerialSource,
        metrics: Arc<metrics::Metrics>,
        time: TimeTeller,
    ) -> Self {
        Self { id, config, metrics, time }
    }

    /// Works until `stop`, and then until the agent has no more to say.
    pub async fn run(self, inbox: Inbox, mut end: SourceEnd, stop: Stop) {
        let mut backoff = BACKOFF_MIN;
        let mut said = false;
        let device = self.config.device.display().to_string();
        loop {
            match open(&device, self.config.baud) {
                Ok(port) => {
                    tracing::info!(device, "serial port is open");
                    end.state.up();
                    self.metrics.source.connections.increment();
                    said = false;
                    backoff = BACKOFF_MIN;
                    if self.serve(port, &inbox, &mut end, &stop).await {
                        return;
                    }
                    self.metrics.source.disconnections.increment();
                    end.state.down("serial port was lost");
                    tracing::warn!(device, "serial port was lost");
                }
                Err(error) => {
                    end.state.down(error.to_string());
                    if !said {
                        tracing::warn!(device, %error, "serial port does not open; trying again");
                        said = true;
                    }
                }
            }
            if pause(super::mqtt::jittered(backoff), &mut end).await {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Serves an open port; says whether the agent is done (else the port is gone).
    async fn serve(&self, port: SerialStream, inbox: &Inbox, end: &mut SourceEnd, stop: &Stop) -> bool {
        let (mut reader, mut writer) = tokio::io::split(port);
        let mut decoder = Box::new(frame::Decoder::<MESSAGE_LEN_MAX>::new());
        let mut buffer = vec![0; READ_LEN];
        loop {
            tokio::select! {
                tokens = end.release.recv() => {
                    if tokens.is_none() {
                        while let Ok(message) = end.outgoing.try_recv() {
                            send(&mut writer, &message.payload).await;
                        }
                        return true;
                    }
                }
                Some(message) = end.outgoing.recv() => {
                    if !send(&mut writer, &message.payload).await {
                        return false;
                    }
                }
                read = reader.read(&mut buffer) => {
                    let Ok(len @ 1..) = read else { return false };
                    if stop.is_set() {
                        continue;
                    }
                    let (batch, answers) = self.read(&mut decoder, buffer.get(..len).unwrap_or(&[]));
                    for answer in answers {
                        if !send(&mut writer, &answer).await {
                            return false;
                        }
                    }
                    if !hand_on(batch, inbox).await {
                        return true;
                    }
                }
            }
        }
    }

    /// The messages whose frames end in `bytes`, and the answers to those of them that ask for the time.
    fn read(
        &self,
        decoder: &mut frame::Decoder<MESSAGE_LEN_MAX>,
        bytes: &[u8],
    ) -> (Vec<Incoming>, Vec<Bytes>) {
        let received_ns = self.time.utc_ns();
        let (mut batch, mut answers) = (Vec::new(), Vec::new());
        let refused = decoder.counters().refused;
        decoder.feed(bytes, |message| {
            if let Some(answer) = self.time.answer(None, message, received_ns) {
                answers.push(answer.payload);
                return;
            }
            batch.push(Incoming {
                source: self.id,
                topic: None,
                payload: Bytes::copy_from_slice(message),
                redelivered: false,
                token: None,
            });
        });
        self.metrics.source.frames_damaged.add(decoder.counters().refused - refused);
        self.metrics.source.messages.add(batch.len() as u64);
        self.metrics.source.bytes.add(batch.iter().map(|message| message.payload.len() as u64).sum());
        (batch, answers)
    }
}

/// Hands messages on; says whether anyone still takes them.
async fn hand_on(mut batch: Vec<Incoming>, inbox: &Inbox) -> bool {
    while !batch.is_empty() {
        let rest = batch.split_off(batch.len().min(BATCH_LEN_MAX));
        if inbox.send(std::mem::replace(&mut batch, rest)).await.is_err() {
            return false;
        }
    }
    true
}

/// Writes a message as a frame; says whether the line took it.
async fn send(writer: &mut WriteHalf<SerialStream>, message: &[u8]) -> bool {
    let mut framed = vec![0; frame::len_max(message.len())];
    let Ok(len) = frame::encode(message, &mut framed) else { return true };
    let write = writer.write_all(framed.get(..len).unwrap_or(&[]));
    matches!(tokio::time::timeout(WRITE_MAX, write).await, Ok(Ok(())))
}

fn open(device: &str, baud: u32) -> tokio_serial::Result<SerialStream> {
    tokio_serial::new(device, baud).open_native_async()
}

/// Waits, dropping what is meant for the absent port; says whether the agent is done.
async fn pause(pause: Duration, end: &mut SourceEnd) -> bool {
    let wait = tokio::time::sleep(pause);
    tokio::pin!(wait);
    loop {
        tokio::select! {
            () = &mut wait => return false,
            tokens = end.release.recv() => if tokens.is_none() { return true },
            Some(_) = end.outgoing.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
