//! End to end: the real `spindle` program between real Mosquitto and real Kafka. `tests/run` prepares what this needs.
//! One test program, so that all its tests share one Kafka.

mod harness;
