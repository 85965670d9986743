//! Endpoints that checks beside the traffic found unwell: they are out as those who are ejected are, as long as another can
//! be picked, whatever share of them that is. Who says so, and when, is not known here.

#[cfg(test)]
mod tests;

use super::{Balancer, Vitals, vitals_of};

impl<E: AsRef<Vitals>> Balancer<E> {
    /// Takes in what checks say of all endpoints. One that is well again is measured anew, since its speed is from before, and
    /// starts as slowly as a new one.
    pub fn heed(&mut self, is_unwell: impl Fn(&E) -> bool) {
        let mut is_news = false;
        for it in &self.endpoints {
            let (vitals, is_unwell) = (vitals_of(&it.endpoint), is_unwell(&it.endpoint));
            if vitals.standing.borrow_mut().set_unwell(is_unwell) {
                is_news = true;
                if !is_unwell {
                    vitals.forget_latency();
                    self.comes_back(vitals);
                }
            }
        }
        if is_news {
            self.redraw();
        }
    }
}
