//! The panic threshold: where so few endpoints are in that they could not take what all did, those that are out although
//! they can be reached take their shares again. Not while endpoints at another distance take over: a failover is no panic. Who
//! can't be reached would only cost an attempt, and stays out.

/// Endpoints with weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: usize,
    pub(super) reachable: usize,
    /// Of those that can be reached, the ones that nothing keeps out.
    pub(super) within: usize,
}

impl Counts {
    /// True where fewer than `percent` of all are in and there is somebody to add to them.
    pub(super) fn are_below(self, percent: u32) -> bool {
        let Self { all, reachable, within } = self;
        within < reachable && within.saturating_mul(100) < all.saturating_mul(percent as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_than_so_many_are_in() {
        fn check((all, reachable, within): (usize, usize, usize), percent: u32, expect: bool) {
            assert_eq!(Counts { all, reachable, within }.are_below(percent), expect, "{within} of {all}, {percent} %");
        }
        check((10, 10, 0), 0, false);
        check((10, 10, 4), 50, true);
        check((10, 10, 5), 50, false);
        check((3, 3, 1), 33, false);
        check((3, 3, 1), 34, true);
        // Nobody who can be reached is out.
        check((10, 4, 4), 50, false);
        check((10, 5, 4), 50, true);
        check((2, 2, 2), 100, false);
        check((2, 2, 1), 100, true);
        check((0, 0, 0), 100, false);
    }
}
