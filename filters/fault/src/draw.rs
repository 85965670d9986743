//! Lots: drawn from a request's id, so that another attempt at it draws the same ones, or from dice.

/// What is decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lot {
    Delay,
    Abort,
}

/// All that is drawn for one request; each lot by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    delay: u32,
    abort: u32,
    /// Of how long an exponential delay is.
    length: u64,
}

impl Draw {
    /// Of a request's id. The seed's length is part of what is hashed, so that seed and id can't be told otherwise
    /// apart.
    pub(crate) fn of_id(seed: &str, id: &[u8]) -> Self {
        let length = u64::try_from(seed.len()).unwrap_or(u64::MAX).to_le_bytes();
        let hash = fnv(&[&length, seed.as_bytes(), id]);
        Self::of_dice(mixed(hash)).with_length(mixed(hash.wrapping_add(1)))
    }

    /// Of 64 random bits: two of 32 for the two faults.
    pub(crate) fn of_dice(dice: u64) -> Self {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { delay: half(dice), abort: half(dice >> 32), length: mixed(dice.wrapping_add(1)) }
    }

    fn with_length(self, length: u64) -> Self {
        Self { length, ..self }
    }

    pub(crate) fn lot(&self, lot: Lot) -> u32 {
        match lot {
            Lot::Delay => self.delay,
            Lot::Abort => self.abort,
        }
    }

    /// Of an exponential distribution with mean 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are as many as the quotient has")]
    pub(crate) fn exponential(&self) -> f64 {
        // In (0, 1], so that the logarithm is finite.
        let uniform = ((self.length >> 11) + 1) as f64 / 2_f64.powi(53);
        -uniform.ln()
    }
}

/// FNV-1a over the parts one after the other.
fn fnv(parts: &[&[u8]]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Spreads what differs in few bits over all of them (the finaliser of SplitMix64).
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_draw_evenly_and_each_seed_anew() {
        let ids: Vec<String> = (0..10_000).map(|number| format!("request-{number}")).collect();
        let draws = |seed: &str| ids.iter().map(|id| Draw::of_id(seed, id.as_bytes())).collect::<Vec<_>>();
        let (first, other) = (draws("shop/a"), draws("shop/b"));
        assert_eq!(first, draws("shop/a"), "the same every time");
        let tenth = u32::MAX / 10;
        let hit = |draw: &&Draw| draw.delay < tenth;
        let share = first.iter().filter(hit).count();
        assert!((900..1_100).contains(&share), "{share} of 10,000 for a share of 10 %");
        let both = first.iter().zip(&other).filter(|(one, two)| one.delay < tenth && two.delay < tenth).count();
        assert!(both < 200, "{both} are struck by both of two policies, 100 if they choose apart");
        let both = first.iter().filter(|draw| draw.delay < tenth && draw.abort < tenth).count();
        assert!(both < 200, "{both} are delayed and aborted, 100 if each is chosen by itself");
        let mean = first.iter().map(Draw::exponential).sum::<f64>() / 10_000.0;
        assert!((0.95..1.05).contains(&mean), "{mean}");
        assert_ne!(Draw::of_id("a", b"bc"), Draw::of_id("ab", b"c"));
    }

    #[test]
    fn lengths_are_finite_at_their_edges() {
        let at = |length: u64| Draw { delay: 0, abort: 0, length }.exponential();
        assert_eq!(at(u64::MAX), 0.0);
        assert!((36.0..37.0).contains(&at(0)), "{}", at(0));
    }
}
