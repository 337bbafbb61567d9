//! The judge of `tests/crash` can find fault: real boards, gateway and Kafka, and then a promise too many.

use spindle_firmware::host::{VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::signal::Spindle;
use spindle_tests::agent::Agent;
use spindle_tests::crash::account::Account;
use spindle_tests::crash::board::{self, Spec};
use spindle_tests::crash::ledger::{Counts, Entry, Ledger};
use spindle_tests::crash::oracle::Oracle;
use spindle_tests::crash::plan::SensorSpec;
use spindle_tests::crash::witness;
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::process;
use spindle_tests::wait::PATIENCE;
use std::time::Duration;

const SAMPLES: u64 = 5_000;

/// A board of one sensor behind the witness, played to its end.
fn played(broker: &Mosquitto, folder: &std::path::Path, boot: u64) -> Account {
    let (ledger, stop) = board::paths(folder, &format!("{boot}"));
    let sensor =
        SensorSpec { name: "acc".into(), is_fast: true, block_samples: 128, is_coded: false, seed: 1 };
    let spec =
        Spec { node: "n1".into(), boot, broker: broker.address(), ledger, stop, sensors: vec![sensor] };
    let witness = witness::start(spec.broker.clone(), boot, Ledger::create(&spec.ledger).unwrap()).unwrap();
    let (site, machine) = board::PLACE.split_once('/').unwrap();
    let sensor = VirtualSensor::spindle("acc", Spindle::default()).block_samples(128).stop_after(SAMPLES);
    let board = VirtualBoard::new(site, machine, "n1").boot(boot).sensor(sensor);
    let board = board.mqtt(format!("127.0.0.1:{witness}")).start().unwrap();
    spindle_tests::wait::until("the board's end", PATIENCE, || {
        Ok(board.counters().is_complete().then_some(()))
    })
    .unwrap();
    let drained = board.drain_blocking(PATIENCE);
    let counts = Counts { is_complete: drained.complete, streams: vec![(SAMPLES, 0)] };
    Ledger::create(&spec.ledger).unwrap().write(&[Entry::Ended(counts)]).unwrap();
    let mut account = Account::new(spec);
    account.look().unwrap();
    account
}

#[test]
fn the_judge_of_crash_rounds_finds_a_lost_block_other_bytes_and_wrong_books() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let agent = Agent::started(&crate::config(&broker.address(), kafka, "judged", "")).unwrap();
    let folder = process::folder("judged").unwrap();
    let mut first = played(&broker, folder.path(), 1);
    assert_eq!(first.promises.len() as u64, SAMPLES.div_ceil(128), "the witness saw every ack");
    Oracle::new(kafka, "judged", PATIENCE).unwrap().judge(&agent, &[&first]).unwrap();

    let patience = Duration::from_secs(2);
    let judge = |account: &Account| {
        let verdict = Oracle::new(kafka, "judged", patience).unwrap().judge(&agent, &[account]);
        format!("{:#}", verdict.unwrap_err())
    };
    let kept = first.promises.pop().unwrap();
    first.promises.push(spindle_tests::crash::ledger::Promise { seq: kept.seq + 1, ..kept });
    assert!(judge(&first).contains("LOST: 1 acknowledged blocks are not in Kafka"), "{}", judge(&first));
    first.promises.pop();
    first.promises.push(spindle_tests::crash::ledger::Promise { hash: kept.hash ^ 1, ..kept });
    assert!(judge(&first).contains("with other bytes"), "{}", judge(&first));
    first.promises.pop();
    first.counts = Some(Counts { is_complete: true, streams: vec![(SAMPLES + 1, 0)] });
    assert!(judge(&first).contains("the books are wrong"), "{}", judge(&first));
}
