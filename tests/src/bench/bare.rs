//! The floor to compare with: a bare rumqttc subscriber that acknowledges at QoS 1 and does nothing else.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use std::time::{Duration, Instant};

/// Topic that the messages go over.
const TOPIC: &str = "bench/bare/raw";

/// What a subscriber measured about itself.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Bare {
    /// Messages received and acknowledged.
    pub messages: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// CPU time of its thread meanwhile.
    pub cpu_seconds: f64,
}

fn options(name: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_receive_maximum(Some(1000)).set_outgoing_inflight_upper_limit(1000);
    options.set_max_packet_size(Some(1 << 20)).set_connection_timeout(10);
    options
}

/// Subscribes, prints `ready` and then, after `count` messages, itself as JSON. The whole of the process that
/// `tests/bench` starts for this.
///
/// # Errors
/// When the broker cannot be reached or goes away.
pub fn subscribe(port: u16, count: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, mut events) = AsyncClient::new(options("bench-bare", port), 16);
        client.subscribe_many([Filter::new(TOPIC, QoS::AtLeastOnce)]).await?;
        let mut messages = 0;
        let mut start = None;
        while messages < count {
            match events.poll().await? {
                Event::Incoming(Packet::SubAck(_)) => println!("ready"),
                Event::Incoming(Packet::Publish(_)) => {
                    start.get_or_insert((Instant::now(), thread_cpu_s()?));
                    messages += 1;
                }
                _ => {}
            }
        }
        let (time, cpu) = start.context("no message came")?;
        let (seconds, cpu_seconds) = (time.elapsed().as_secs_f64(), thread_cpu_s()? - cpu);
        println!("{}", serde_json::to_string(&Bare { messages, seconds, cpu_seconds })?);
        Ok(())
    })
}

/// Publishes `messages` over and over, `count` in all, at QoS 1 with up to 1,000 under way; returns when all are
/// acknowledged by the broker.
///
/// # Errors
/// When the broker cannot be reached or goes away.
pub fn publish(port: u16, messages: &[Bytes], count: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, mut events) = AsyncClient::new(options("bench-publisher", port), 100);
        let send = async {
            let mut left = count;
            for message in messages.iter().cycle() {
                if left == 0 {
                    break;
                }
                left -= 1;
                client.publish(TOPIC, QoS::AtLeastOnce, false, message.clone()).await?;
            }
            std::future::pending::<Result<()>>().await
        };
        let drive = async {
            let mut acknowledged = 0;
            while acknowledged < count {
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                    acknowledged += 1;
                }
            }
            anyhow::Ok(())
        };
        tokio::select! {
            result = send => result,
            result = drive => result,
            () = tokio::time::sleep(Duration::from_secs(120)) => bail!("the broker did not take {count} messages in 120 s"),
        }
    })
}

/// CPU time of this thread, from the scheduler's own count in ns.
fn thread_cpu_s() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("read schedstat")?;
    let on_cpu_ns: f64 = text.split(' ').next().unwrap_or_default().parse().context("malformed schedstat")?;
    Ok(on_cpu_ns / 1e9)
}
