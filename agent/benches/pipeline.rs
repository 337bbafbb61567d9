//! What the pipeline alone costs: `cargo bench -p spindle-agent --bench pipeline`. Prints ns per sample (one channel's), on one
//! core, from wire blocks in memory to records, for the usual block and for others.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(missing_docs, reason = "no library")]

use spindle_agent::pipeline::Pipeline;
use spindle_agent::record::{Record, RecordKind, SensorKey};
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::{BlockHeader, Encoding, Samples, encode_block};
use std::sync::Arc;
use std::time::Instant;

const RATE_HZ: f64 = 26_667.0;

fn records(axes: usize, block_len: usize, encoding: Encoding, sensors: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut noise = 1_u32;
    for block in 0..(20.0 * RATE_HZ) as usize / block_len {
        for sensor in 0..sensors {
            let first = (block * block_len) as u64;
            let counts: Vec<i16> = (0..axes * block_len)
                .map(|i| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let t = (first as f64 + (i % block_len) as f64) / RATE_HZ;
                    ((t * 800.0).sin() * 3000.0) as i16 + (noise >> 24) as i16
                })
                .collect();
            let header = BlockHeader {
                node: "bench",
                boot: BootId(1),
                stream: StreamId(0),
                seq: Seq(block as u32),
                first_sample: first,
                tick: first,
                tick_hz: 1_000_000,
                rate_nominal_mhz: (RATE_HZ * 1000.0) as u32,
                rate_measured_mhz: 0,
                scale: 0.001_2,
                bits: 16,
                axes: axes as u8,
                samples: block_len as u16,
                flags: 0,
                encoding,
                decimation: 1,
            };
            let mut body = vec![0; 64 * 1024];
            let len = encode_block(&header, Samples::I16(&counts), &mut body).expect("fits");
            body.truncate(len);
            records.push(Record {
                offset: records.len() as u64 + 1,
                kind: RecordKind::Block,
                key: Arc::new(SensorKey {
                    site: "s".into(),
                    machine: "m".into(),
                    sensor: sensor.to_string().into(),
                }),
                time_ns: (first as f64 * 1e9 / RATE_HZ) as i64,
                flags: 0,
                first_sample: 0,
                arrival_ns: 0,
                body: body.into(),
            });
        }
    }
    records
}

fn main() {
    let text = "[gateway]\nname = \"bench\"\ndata_dir = \"/nowhere\"\n";
    let config = toml::from_str(text).expect("a configuration");
    for (name, axes, block_len, encoding, sensors) in [
        ("3 x 512, raw16", 3, 512, Encoding::Raw16, 1),
        ("3 x 512, raw16, 50 sensors in turns", 3, 512, Encoding::Raw16, 50),
        ("3 x 512, rice16", 3, 512, Encoding::Rice16, 1),
        ("3 x 64, raw16", 3, 64, Encoding::Raw16, 1),
        ("1 x 512, raw16", 1, 512, Encoding::Raw16, 1),
    ] {
        let records = records(axes, block_len, encoding, sensors);
        let samples = (records.len() * axes * block_len) as f64;
        let mut best = f64::INFINITY;
        let mut outputs = 0;
        for _ in 0..5 {
            let mut pipeline = Pipeline::new(&config);
            let mut out = Vec::new();
            let start = Instant::now();
            for record in &records {
                pipeline.push(record, &mut out);
            }
            best = best.min(start.elapsed().as_secs_f64());
            outputs = out.len();
        }
        println!("{name}: {:.1} ns per sample ({outputs} records)", best * 1e9 / samples);
    }
}
