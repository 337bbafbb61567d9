//! Board and gateway against each other in virtual time: see `spindle_tests::simulation`.

use spindle_tests::simulation;

#[test]
fn a_seed_plays_the_same_way_every_time() {
    for seed in 0..20 {
        let first = simulation::run(seed, false).map_err(|failure| failure.to_string()).unwrap();
        assert_eq!(simulation::run(seed, true).map_err(|failure| failure.to_string()).unwrap(), first);
    }
}
