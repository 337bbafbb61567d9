//! A year of messages from battery sensors and of machine states: what the dirt is, and what is to become of it.

use super::input::Table;
use super::stats::Share;
use anyhow::Result;
use spindle_agent::source::recording::manifest;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// A device's clock further off than this is not believed, seconds.
const CLOCK_S: i64 = 3600;

/// Messages come every 15 minutes; a longer silence is a gap from here on, seconds.
const GAP_S: i64 = 23 * 60;

/// A silence of a week or more is that of weeks that are not among the recordings, seconds.
const WEEK_S: i64 = 6 * 86_400;

/// How old a machine's state may be to be joined to a message, seconds: it comes every minute.
const STATE_S: i64 = 120;

struct Message {
    /// By the gateway's clock, ms.
    at_ms: i64,
    sequence: u8,
    device_s: i64,
    values: Vec<String>,
}

pub(super) fn evaluate(folder: &Path) -> Result<()> {
    let (mut sensors, mut unreadable, mut rows) = (BTreeMap::<String, Vec<Message>>::new(), 0, 0);
    let (mut states, mut state_rows, mut unknown_states) = (BTreeSet::new(), 0, 0);
    for other in manifest(folder)?.others {
        let table = Table::read(&folder.join(&other.file))?;
        if other.file.contains("machinestatus") {
            for row in &table.rows {
                state_rows += 1;
                unknown_states += usize::from(row.iter().any(|value| value == "-1"));
                states.extend(row.first().and_then(|text| text.parse::<i64>().ok()));
            }
            continue;
        }
        let columns =
            ["Timestamp", "SensorID", "SequenceNumber", "DeviceTime"].map(|name| table.column(name));
        let [Some(at), Some(sensor), Some(sequence), Some(device)] = columns else { continue };
        for row in table.rows {
            rows += 1;
            let message = || {
                Some(Message {
                    at_ms: row.get(at)?.parse().ok()?,
                    sequence: row.get(sequence)?.parse().ok()?,
                    device_s: row.get(device)?.parse().ok()?,
                    // All but the arrival time and the gateway's own count.
                    values: row.get(1..device - 4)?.to_vec(),
                })
            };
            match (row.get(sensor), message()) {
                (Some(sensor), Some(message)) => sensors.entry(sensor.clone()).or_default().push(message),
                _ => unreadable += 1,
            }
        }
    }
    println!("XEP: {rows} messages of {} sensors, {state_rows} of machine states", sensors.len());
    println!("  no time or no values            {unreadable}: set aside with the reason");
    println!("  a machine's state unknown (-1)  {unknown_states} rows: nothing is joined for that machine");
    println!("  sensor      messages  late  again  number again  gaps   lost  longest   clock wrong");
    let mut joined = Vec::new();
    for (name, messages) in &mut sensors {
        let late = messages.windows(2).filter(|pair| pair[1].at_ms < pair[0].at_ms).count();
        messages.sort_by_key(|message| message.at_ms);
        let mut seen = HashSet::new();
        let (mut again, mut number_again, mut gaps, mut lost, mut longest_s) = (0, 0, 0, 0_u64, 0);
        let mut before: Option<&Message> = None;
        for message in messages.iter() {
            if !seen.insert((message.sequence, message.device_s, &message.values)) {
                again += 1;
                continue;
            }
            joined.push(states.range(message.at_ms - STATE_S * 1000..=message.at_ms).next_back().is_some());
            if let Some(before) = before {
                let silence_s = (message.at_ms - before.at_ms) / 1000;
                number_again += usize::from(message.sequence == before.sequence);
                if silence_s > GAP_S && silence_s < WEEK_S {
                    gaps += 1;
                    lost += u64::from(message.sequence.wrapping_sub(before.sequence).saturating_sub(1));
                    longest_s = longest_s.max(silence_s);
                }
            }
            before = Some(message);
        }
        let wrong = Share::count(
            messages.iter().map(|message| (message.device_s - message.at_ms / 1000).abs() > CLOCK_S),
        );
        println!(
            "  {name:10} {:9} {late:5} {again:6} {number_again:13} {gaps:5} {lost:6} {:6.1} h   {wrong}",
            messages.len(),
            longest_s as f64 / 3600.0
        );
    }
    println!(
        "  late is put in order; the same again is dropped; a number that repeats with other values is kept and counted;"
    );
    println!(
        "  lost is what the 8-bit numbers in a gap say, modulo 256; a wrong clock is not believed: the gateway's time counts"
    );
    println!("  a machine's state not older than {STATE_S} s is joined to {}", Share::count(joined));
    println!();
    Ok(())
}
