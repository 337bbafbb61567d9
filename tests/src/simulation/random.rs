//! The one source of chance: splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).

/// Draws from a seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// From a seed; any will do.
    #[must_use]
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub(super) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `from` to `to`, both included.
    pub(super) const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.draw() % (to - from + 1)
    }

    /// True in so many of a thousand.
    pub(super) const fn chance(&mut self, per_mille: u64) -> bool {
        self.draw() % 1000 < per_mille
    }

    /// Small numbers mostly, up to `to` at times: each scale is as likely as the next.
    pub(super) fn scaled(&mut self, from: u64, to: u64) -> u64 {
        let scales = u64::from((to / from.max(1)).max(1).ilog2()) + 1;
        let top = from.max(1) << self.between(0, scales);
        self.between(from, top.clamp(from, to))
    }
}
