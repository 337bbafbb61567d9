use super::*;
use spindle_common::dsp::Bearing;

const RATE_HZ: f64 = 12_000.0;
const SHAFT_HZ: f64 = 29.5;
const SECONDS: usize = 8;

/// The 6205 of the CWRU rig.
fn orders() -> BearingOrders {
    let bearing =
        Bearing { elements: 9, element_diameter: 0.3126, pitch_diameter: 1.537, contact_angle_deg: 0.0 };
    bearing.orders().expect("a bearing")
}

/// xorshift64*, of which Gaussian numbers are made by the sum of twelve.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

fn noise(seed: u64) -> Vec<f64> {
    let mut noise = Noise(seed);
    (0..RATE_HZ as usize * SECONDS).map(|_| noise.normal()).collect()
}

/// Adds impacts that ring at 3.1 kHz, `order` times a turn with 1 % slip between them, as loud as the turns of `modulation` allow.
fn strike(signal: &mut [f64], order: f64, modulation: f64, amplitude: f64, seed: u64) {
    let mut slip = Noise(seed);
    let mut at = 0.0;
    while at < signal.len() as f64 / RATE_HZ {
        let loud = 1.0 + (core::f64::consts::TAU * modulation * SHAFT_HZ * at).cos();
        let start = (at * RATE_HZ) as usize;
        for (after, sample) in signal[start..].iter_mut().take(60).enumerate() {
            let seconds = after as f64 / RATE_HZ;
            *sample += amplitude
                * loud
                * (-seconds * 1_000.0).exp()
                * (core::f64::consts::TAU * 3_100.0 * seconds).sin();
        }
        at += (1.0 + 0.01 * slip.normal()) / (order * SHAFT_HZ);
    }
}

fn average(signal: &[f64]) -> CombAverage {
    let frames: Vec<Frame> = signal.iter().map(|value| [*value as f32, 0.0, 0.0, 0.0]).collect();
    let mut comb = Comb::new(RATE_HZ, SHAFT_HZ).expect("a length");
    let mut average = CombAverage::default();
    for window in frames.windows(comb.len()).step_by(comb.hop()) {
        comb.add(window, 1, SHAFT_HZ, &mut average);
    }
    average
}

fn verdict(signal: &[f64]) -> Verdict {
    average(signal).verdict(0, &orders()).expect("windows")
}

#[test]
fn each_part_is_named_by_its_own_strikes() {
    let BearingOrders { outer, inner, element, cage, .. } = orders();
    let cases = [
        (Fault::Outer, outer, 0.0, 3.0),
        (Fault::Inner, inner, 1.0, 3.0),
        (Fault::Ball, element, cage, 3.0),
        (Fault::Cage, cage, 0.0, 10.0),
    ];
    for (fault, order, modulation, amplitude) in cases {
        for seed in 1..4 {
            let mut signal = noise(seed);
            strike(&mut signal, order, modulation, amplitude, seed + 10);
            let verdict = verdict(&signal);
            assert_eq!(verdict.fault(), fault, "seed {seed}: {verdict:?}");
        }
    }
}

#[test]
fn load_may_move_the_lines_a_little_but_not_to_another_bearing() {
    let mut signal = noise(5);
    strike(&mut signal, orders().outer * 1.008, 0.0, 3.0, 15);
    assert_eq!(verdict(&signal).fault(), Fault::Outer);
    let named = verdict(&signal).named().expect("named");
    assert!((named.order / orders().outer - 1.008).abs() < 0.003, "{named:?}");
    let mut signal = noise(6);
    strike(&mut signal, orders().outer * 1.05, 0.0, 3.0, 16);
    assert_eq!(verdict(&signal).fault(), Fault::None);
}

#[test]
fn tones_and_noise_are_named_nothing() {
    for seed in 1..=30 {
        let mut signal = noise(seed);
        let mut random = Noise(seed + 1_000);
        for _ in 0..seed % 8 {
            let (hz, amplitude) = (20.0 + 5_000.0 * random.uniform(), 10.0 * random.uniform());
            for (index, sample) in signal.iter_mut().enumerate() {
                *sample += amplitude * (core::f64::consts::TAU * hz * index as f64 / RATE_HZ).sin();
            }
        }
        let verdict = verdict(&signal);
        assert_eq!(verdict.fault(), Fault::None, "seed {seed}: {verdict:?}");
    }
}

#[test]
fn a_strike_at_every_turn_or_tooth_is_no_bearing() {
    for order in [1.0, 3.0, 5.0] {
        let mut signal = noise(7);
        let mut at = 0.0;
        while at < signal.len() as f64 {
            for (after, sample) in signal[at as usize..].iter_mut().take(60).enumerate() {
                *sample += 8.0 * (-(after as f64) / 12.0).exp() * (1.6 * after as f64).sin();
            }
            at += RATE_HZ / SHAFT_HZ / order;
        }
        let verdict = verdict(&signal);
        assert_eq!(verdict.fault(), Fault::None, "order {order}: {verdict:?}");
    }
}

#[test]
fn silence_and_missing_channels_are_no_verdict_of_a_fault() {
    let silent = average(&vec![0.0; RATE_HZ as usize * SECONDS]);
    assert_eq!(silent.verdict(0, &orders()).expect("windows").fault(), Fault::None);
    assert_eq!(silent.verdict(1, &orders()), None);
    assert_eq!(CombAverage::default().verdict(0, &orders()), None);
}

#[test]
fn windows_at_other_speeds_average_over_orders() {
    let mut comb = Comb::new(RATE_HZ, SHAFT_HZ).expect("a length");
    let mut average = CombAverage::default();
    for (seed, share) in [(21, 1.0), (22, 1.02), (23, 0.98), (24, 1.01)] {
        let mut signal = noise(seed);
        strike(&mut signal, orders().outer * share, 0.0, 2.0, seed);
        let frames: Vec<Frame> = signal.iter().map(|value| [*value as f32, 0.0, 0.0, 0.0]).collect();
        comb.add(&frames[..comb.len()], 1, SHAFT_HZ * share, &mut average);
    }
    assert_eq!(average.windows(), 4);
    let named = average.verdict(0, &orders()).and_then(|verdict| verdict.named()).expect("named");
    assert_eq!(named.fault, Fault::Outer);
    // The second and third harmonic line up only if orders, not bins, were averaged.
    assert!(named.lines.iter().all(|line| *line > 1.0), "{named:?}");
}

#[test]
fn an_average_remembers_a_bounded_number_of_windows() {
    let signal: Vec<f64> = noise(9).repeat(3);
    assert_eq!(average(&signal).windows(), WINDOWS_MAX);
}
