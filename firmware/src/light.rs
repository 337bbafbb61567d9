//! The light of a board: on while the gateway hears it, off while not, and flickering when somebody wants to know which
//! board it is.

use crate::node::Node;
use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Instant, Timer};
use embedded_hal::digital::{OutputPin, PinState};

/// How long the light flickers when asked to, ms.
const IDENTIFY_MS: u64 = 15_000;

/// Half a period of the flicker, ms.
const FLICKER_MS: u64 = 100;

/// How often the link's state is looked at, ms.
const LOOK_MS: u64 = 500;

/// The light's task; never ends. A pin that fails shows nothing, which harms nobody.
pub async fn show<M, B, const BLOCKS: usize>(node: &Node<'_, M, B, BLOCKS>, pin: &mut impl OutputPin)
where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
{
    let mut identify_until_ms = 0;
    loop {
        let now_ms = Instant::now().as_millis();
        if node.identify.try_take().is_some() {
            identify_until_ms = now_ms.saturating_add(IDENTIFY_MS);
        }
        let (_, linked) = node.uplink_counters();
        let _ = pin.set_state(PinState::from(is_lit(now_ms, identify_until_ms, linked)));
        if now_ms < identify_until_ms {
            Timer::after(Duration::from_millis(FLICKER_MS)).await;
            continue;
        }
        let asked = async {
            node.identify.wait().await;
            // Taken here, so it is given back for the next look.
            node.identify.signal(());
        };
        select(asked, Timer::after(Duration::from_millis(LOOK_MS))).await;
    }
}

const fn is_lit(now_ms: u64, identify_until_ms: u64, linked: bool) -> bool {
    if now_ms < identify_until_ms { (now_ms / FLICKER_MS).is_multiple_of(2) } else { linked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_light_shows_the_link_and_flickers_only_while_it_was_asked_to() {
        assert!(is_lit(1_000, 0, true) && !is_lit(1_000, 0, false));
        let flicker: Vec<_> = (0..4).map(|step| is_lit(1_000 + step * FLICKER_MS, 5_000, false)).collect();
        assert_eq!(flicker, [true, false, true, false]);
        assert!(!is_lit(5_000, 5_000, false));
    }
}
