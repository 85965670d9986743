//! What a request holds of its destination until the head of its answer has come: it is one of those under way that the
//! retry budget counts, may have a place among those that are sent again, and moves the limit that follows from
//! latency. What comes behind the head, were it a stream that lasts for days, is none of that; it keeps its place among
//! the active ones alone.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::budget::{Budget, Counted};
use crate::gate::{Held, Place};
use crate::trial::Begun;

#[derive(Debug, Default)]
pub(super) struct Holds {
    counted: RefCell<Option<Counted<Arc<Budget>>>>,
    retrying: RefCell<Option<Held>>,
    place: RefCell<Option<Place>>,
    was_refused: Cell<bool>,
}

impl Holds {
    /// Counts the request in the budget of its destination, once.
    pub(super) fn count(&self, budget: &Arc<Budget>) {
        self.counted.borrow_mut().get_or_insert_with(|| Counted::of(Arc::clone(budget)));
    }

    /// Its place among those that are sent again. `None`: it has asked for none.
    pub(super) fn retrying(&self) -> &RefCell<Option<Held>> {
        &self.retrying
    }

    /// Notes that a further attempt was wanted, and that the budget or the limits of its destination refused it.
    pub(super) fn refused(&self) {
        self.was_refused.set(true);
    }

    pub(super) fn was_refused(&self) -> bool {
        self.was_refused.get()
    }

    /// Holds the place that it was given among those under way.
    pub(super) fn place(&self, place: Place) {
        self.place.replace(Some(place));
    }
}

impl Begun for Holds {
    fn begun(&self, own: StatusCode, at: Instant) {
        drop(self.counted.take());
        drop(self.retrying.take());
        if let Some(place) = &mut *self.place.borrow_mut() {
            place.answered(at, !own.is_server_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_flow::Allowance;
    use weft_policy::bundle::{AdaptiveLimit, Limits, ObjectName};

    use super::*;
    use crate::gate::{GateFull, Gates, Wait};

    #[tokio::test]
    async fn the_head_of_an_answer_frees_all_but_the_place_of_an_active_request() {
        let adaptive = Some(AdaptiveLimit { least: 1, most: 1, window_ms: 60_000 });
        let limits = Limits { active: 2, retries: Some(1), adaptive, pending_ms: 1_000, ..Limits::default() };
        let (gates, name) = (Gates::default(), ObjectName::new("shop", "cart"));
        let gate = gates.of(&name, &limits);
        let budget = Arc::new(Budget::new(Allowance { percent: 100, per_second: 0 }));
        let second = std::time::Duration::from_secs(1);

        let holds = Holds::default();
        holds.place(gate.enter(Wait::AsSet).await.unwrap());
        (0..2).for_each(|_| holds.count(&budget));
        assert!(gate.retry(&mut holds.retrying().borrow_mut()));
        assert!(!gate.retry(&mut None), "one is sent again");
        assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Adaptive(1));
        assert!(budget.withdraw(second) && !budget.withdraw(second), "it counts once");

        holds.begun(StatusCode::OK, Instant::now());
        assert!(gate.retry(&mut None));
        let _other = gate.enter(Wait::AsSet).await.unwrap();
        assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Active(2), "it is active to its end");
        drop(Counted::of(&*budget));
        let left = (budget.withdraw(second), budget.withdraw(second));
        assert_eq!(left, (true, false), "of what is over no more than one is kept");
        drop(holds);
        assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Adaptive(1));
    }
}
