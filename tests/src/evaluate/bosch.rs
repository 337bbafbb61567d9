//! Production mills: are bad cycles told from good ones by good cycles of the same process, and how soon?

use super::input::{attribute, frames, recordings};
use super::stats::{Auroc, Rate, Share};
use anyhow::{Context, Result};
use spindle_agent::detect::mask::{
    ALL_HZ, Bands, CYCLE_MIN_S, Cycle, LEVELS_DB, REFERENCES_MIN, Reference, SPINDLE_LEVELS_DB, Scored,
    Signature, nearest, spindle_range_hz,
};
use std::collections::BTreeSet;
use std::path::Path;

/// Middle of the spindles' lines, which the recordings do not name: about 14,400 rpm.
const SPINDLE_HZ: f64 = 240.0;

/// At either end of a bad recording, which hold more of the cycle's start and end than those of good ones.
const EDGE_S: f64 = 5.0;

struct Case {
    machine: String,
    process: String,
    half_year: u32,
    bad: bool,
    seconds: f64,
    signature: Signature,
    /// What there was of it after so many seconds, every half second.
    growing: Vec<(f64, Signature)>,
}

struct Method {
    name: &'static str,
    range_hz: [f64; 2],
    levels_db: [f64; 2],
}

/// Which good recordings of the process one is compared with.
struct Protocol {
    title: &'static str,
    allows: fn(&Case, &Case) -> bool,
    own_needed: usize,
    references_needed: usize,
}

const EARLIER: fn(&Case, &Case) -> bool = |case, other| other.half_year < case.half_year;

const PROTOCOLS: [Protocol; 4] = [
    Protocol {
        title: "earlier half-years of that machine alone",
        allows: |case, other| EARLIER(case, other) && case.machine == other.machine,
        own_needed: 1,
        references_needed: 1,
    },
    Protocol {
        title: "earlier half-years of all machines: at least five, one of them that machine's",
        allows: EARLIER,
        own_needed: 1,
        references_needed: REFERENCES_MIN,
    },
    Protocol {
        title: "all but that machine's half-year (also later ones, also other machines)",
        allows: |case, other| case.machine != other.machine || case.half_year != other.half_year,
        own_needed: 0,
        references_needed: 1,
    },
    Protocol {
        title: "all but that recording (also later ones, also other machines)",
        allows: |_, _| true,
        own_needed: 0,
        references_needed: 1,
    },
];

pub(super) fn evaluate(folder: &Path) -> Result<()> {
    let whole = cases(folder, 0.0)?;
    let methods = [
        Method { name: "all bands", range_hz: ALL_HZ, levels_db: LEVELS_DB },
        Method {
            name: "around the spindle",
            range_hz: spindle_range_hz(SPINDLE_HZ),
            levels_db: SPINDLE_LEVELS_DB,
        },
    ];
    let bad = whole.iter().filter(|case| case.bad).count();
    println!("Bosch: {} good and {bad} bad recordings of machining cycles", whole.len() - bad);
    for protocol in &PROTOCOLS {
        println!("  learning from {}", protocol.title);
        for method in &methods {
            table(&whole, protocol, method);
        }
    }
    println!("  the same, {EDGE_S} s cut from both ends of the bad ones");
    let cut = cases(folder, EDGE_S)?;
    for protocol in [&PROTOCOLS[0], &PROTOCOLS[3]] {
        println!("    learning from {}", protocol.title);
        for method in &methods {
            let scored = judge(&cut, protocol, method);
            println!("      {:18}  AUROC {}", method.name, auroc(&scored, |_| true));
        }
    }
    println!();
    Ok(())
}

fn cases(folder: &Path, edge_s: f64) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for recording in recordings(folder)? {
        let bad = recording.label == "bad";
        if recording.label != "good" && !bad {
            continue;
        }
        let mut frames = frames(&recording)?;
        let edge = (if bad { edge_s } else { 0.0 } * recording.rate_hz) as usize;
        if (frames.len() as f64) < 2.0 * edge as f64 + CYCLE_MIN_S * recording.rate_hz {
            continue;
        }
        frames.truncate(frames.len() - edge);
        let frames = &frames[edge..];
        let mut bands = Bands::new(recording.rate_hz)?;
        let mut cycle = Cycle::new(recording.axes.len());
        let mut growing = Vec::new();
        for (index, window) in frames.windows(bands.len()).step_by(bands.hop()).enumerate() {
            bands.add(window, &mut cycle);
            if index % 2 == 1 {
                growing.extend(cycle.signature().map(|signature| (cycle.seconds(), signature)));
            }
        }
        let timeframe = attribute(&recording.condition, "timeframe").unwrap_or_default();
        cases.push(Case {
            half_year: half_year(timeframe).with_context(|| format!("{}: time frame", recording.file))?,
            bad,
            seconds: frames.len() as f64 / recording.rate_hz,
            signature: cycle.signature().with_context(|| format!("{} is too short", recording.file))?,
            growing,
            machine: recording.machine,
            process: recording.process,
        });
    }
    Ok(cases)
}

/// Halves of years since the year 0.
fn half_year(timeframe: &str) -> Option<u32> {
    let (month, year) = timeframe.split_once('_')?;
    let half = ["Feb", "Aug"].iter().position(|name| *name == month)?;
    Some(2 * year.parse::<u32>().ok()? + half as u32)
}

type Judged<'a> = (&'a Case, Scored, Vec<Reference>);

/// Those that are covered by references, with their scores.
fn judge<'a>(cases: &'a [Case], protocol: &Protocol, method: &Method) -> Vec<Judged<'a>> {
    let mut judged = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let others = cases.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other);
        let references: Vec<Reference> = others
            .filter(|other| !other.bad && other.process == case.process && (protocol.allows)(case, other))
            .map(|other| Reference { own: other.machine == case.machine, signature: other.signature.clone() })
            .collect();
        let own = references.iter().filter(|reference| reference.own).count();
        if own >= protocol.own_needed && references.len() >= protocol.references_needed {
            let scored = nearest(&case.signature, &references, method.range_hz);
            judged.extend(scored.map(|scored| (case, scored, references)));
        }
    }
    judged
}

fn auroc(judged: &[Judged<'_>], of: impl Fn(&Case) -> bool) -> Auroc {
    let scores = |bad: bool| {
        judged
            .iter()
            .filter(|(case, ..)| case.bad == bad && of(case))
            .map(|(_, scored, _)| scored.score_db)
            .collect()
    };
    Auroc { good: scores(false), bad: scores(true) }
}

fn table(cases: &[Case], protocol: &Protocol, method: &Method) {
    let judged = judge(cases, protocol, method);
    let covered = |bad: bool| Share {
        hits: judged.iter().filter(|(case, ..)| case.bad == bad).count(),
        all: cases.iter().filter(|case| case.bad == bad).count(),
    };
    println!("    {}", method.name);
    println!("      covered, others are learning  good {}; bad {}", covered(false), covered(true));
    println!("      AUROC                         {}", auroc(&judged, |_| true));
    let processes: BTreeSet<&str> = cases.iter().map(|case| case.process.as_str()).collect();
    for process in processes {
        let auroc = auroc(&judged, |case| case.process == process);
        if !auroc.good.is_empty() && !auroc.bad.is_empty() {
            println!("        {process}                        {auroc}");
        }
    }
    for (level, name) in method.levels_db.into_iter().zip(["warning", "alarm  "]) {
        let over = |bad: bool| {
            Share::count(
                judged
                    .iter()
                    .filter(|(case, ..)| case.bad == bad)
                    .map(|(_, scored, _)| scored.score_db > level),
            )
        };
        let good = || judged.iter().filter(|(case, ..)| !case.bad);
        let hours = good().map(|(case, ..)| case.seconds).sum::<f64>() / 3600.0;
        let rate = Rate { count: over(false).hits, hours };
        println!(
            "      {name} from {level:4.1} dB          bad {}; good {}, {rate}",
            over(true),
            over(false)
        );
    }
    let alarm_db = method.levels_db[1];
    // When each first passed the alarm level, had it been judged every half second.
    let first = |(case, _, references): &Judged<'_>| {
        let over = |signature: &Signature| {
            nearest(signature, references, method.range_hz).is_some_and(|now| now.score_db > alarm_db)
        };
        case.growing.iter().find(|(_, signature)| over(signature)).map(|(seconds, _)| *seconds)
    };
    let noticed = |bad: bool| -> Vec<f64> {
        judged.iter().filter(|judged| judged.0.bad == bad).filter_map(first).collect()
    };
    let (mut delays, false_alarms) = (noticed(true), noticed(false).len());
    delays.sort_by(f64::total_cmp);
    let within = delays.iter().filter(|seconds| **seconds <= 10.0).count();
    print!("      alarm while still running     ");
    match delays.as_slice() {
        [] => print!("bad none"),
        [first, .., last] | [first @ last] => print!(
            "bad {}, {within} of them within 10 s; after {first:.1} to {last:.1} s, median {:.1} s",
            delays.len(),
            delays[delays.len() / 2]
        ),
    }
    println!("; good {false_alarms}");
}
