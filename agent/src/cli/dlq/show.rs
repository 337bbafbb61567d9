//! `spindle dlq show`.

use super::find::{Desk, Id};
use crate::cli::Outcome;
use crate::cli::place::Place;
use crate::cli::tap::describe::describe_bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes that are shown without --full.
const BYTES_SHOWN: usize = 512;

/// Show one dead letter: its reason, its bytes, and what they are if they can be decoded
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Which, as `list` shows it
    id: Id,
    /// All bytes, not only the first
    #[arg(long)]
    full: bool,
    /// Print one JSON object; bytes as "payload" when they are text, else as "payload_base64", always in full
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let desk = Desk::open(self.place.data_dir()?)?;
        let (found, bytes) = desk.one(&self.id)?;
        let decoded = bytes.as_ref().ok().map(|bytes| describe_bytes(bytes));
        if self.json {
            let mut json = found.json();
            match &bytes {
                Ok(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => json["payload"] = text.into(),
                    Err(_) => json["payload_base64"] = STANDARD.encode(bytes).into(),
                },
                Err(reason) => json["payload_missing"] = reason.as_str().into(),
            }
            if let Some((kind, text)) = decoded {
                json["decoded"] = serde_json::json!({ "kind": kind, "text": text });
            }
            println!("{json}");
            return Ok(Outcome::Done);
        }
        println!("id       {}", found.id);
        println!("sensor   {}", found.key);
        println!("time     {}", crate::cli::time_text(found.time_ns));
        println!("topic    {}", found.topic.as_deref().unwrap_or("-"));
        println!("reason   {}", found.reason);
        println!("state    {:?}, tried again {} times", found.state, found.tries);
        match &bytes {
            Err(reason) => println!("bytes    {} bytes: {reason}", found.payload_bytes),
            Ok(bytes) => {
                if let Some((kind, text)) = decoded {
                    println!("is       {kind}: {text}");
                }
                let shown = if self.full { &bytes[..] } else { bytes.get(..BYTES_SHOWN).unwrap_or(bytes) };
                println!("bytes    {} of {}", shown.len(), found.payload_bytes);
                match std::str::from_utf8(shown) {
                    Ok(text) => println!("{text}"),
                    Err(_) => print!("{}", hex(shown)),
                }
            }
        }
        Ok(Outcome::Done)
    }
}

/// Sixteen bytes a line: position, hexadecimal, and what is printable.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "{:08x} ", line * 16);
        for byte in chunk {
            let _ = write!(text, " {byte:02x}");
        }
        let printable =
            chunk.iter().map(|&byte| if (0x20..0x7F).contains(&byte) { char::from(byte) } else { '.' });
        let _ =
            writeln!(text, "{:pad$}  |{}|", "", printable.collect::<String>(), pad = 3 * (16 - chunk.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_hexadecimal_with_what_is_printable() {
        let text = hex(b"\x00Spindle\xFF and more than one line");
        assert!(text.starts_with("00000000  00 53 70 69 6e 64 6c 65 ff 20"), "{text}");
        assert!(text.lines().all(|line| line.contains('|')) && text.contains("|.Spindle. and mo|"), "{text}");
    }
}
