//! Board and gateway against each other in virtual time: see `spindle_tests::simulation`.

use spindle_tests::simulation::{self, batch};

/// Seeds in each run of the tests; `tests/simulate` plays millions.
const SEEDS: u64 = 3_000;

#[test]
fn what_boards_make_is_in_the_journal_once_or_in_a_gap_whatever_network_broker_disk_clocks_and_power_do() {
    match batch::run_all(0, SEEDS, 0, |_| ()) {
        // Faults that no seed meets would prove nothing.
        Ok(sum) => {
            println!("{SEEDS} seeds: {sum:?}");
            assert!(
                sum.gap_samples > 0 && sum.late > 0 && sum.duplicates > 0 && sum.unflagged > 0,
                "{sum:?}"
            );
            assert!(sum.twins > 0 && sum.starts > 3 * SEEDS, "{sum:?}");
        }
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_seed_plays_the_same_way_every_time_with_and_without_a_trace() {
    for seed in 0..20 {
        let first = simulation::run(seed, false).map_err(|failure| failure.to_string()).unwrap();
        assert_eq!(simulation::run(seed, true).map_err(|failure| failure.to_string()).unwrap(), first);
    }
}
