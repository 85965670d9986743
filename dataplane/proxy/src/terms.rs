//! On which terms TLS is begun to somebody outside the mesh: whom to believe, and who it has to be. Connections on other terms
//! are never shared: each has a number that no other ever has.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

/// So many are remembered: below a pattern there may be any number of names.
const MOST: usize = 1_024;

/// The number of some terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TermsId(u64);

#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Those of one worker, by number.
#[derive(Debug, Default)]
pub(crate) struct AllTerms {
    known: RefCell<HashMap<TermsId, (Terms, Instant)>>,
    next: Cell<u64>,
}

impl AllTerms {
    /// The number of these terms. The configuration is the same where it is the same object.
    pub(crate) fn number(&self, config: &Arc<ClientConfig>, name: &ServerName<'static>, now: Instant) -> TermsId {
        let mut known = self.known.borrow_mut();
        let is_same = |terms: &Terms| Arc::ptr_eq(&terms.config, config) && terms.name == *name;
        if let Some((id, (_, used))) = known.iter_mut().find(|(_, (terms, _))| is_same(terms)) {
            *used = now;
            return *id;
        }
        if known.len() >= MOST
            && let Some(oldest) = known.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id)
        {
            known.remove(&oldest);
        }
        let id = TermsId(self.next.replace(self.next.get() + 1));
        known.insert(id, (Terms { config: Arc::clone(config), name: name.clone() }, now));
        id
    }

    pub(crate) fn get(&self, id: TermsId) -> Option<Terms> {
        self.known.borrow().get(&id).map(|(terms, _)| terms.clone())
    }

    /// Forgets those that nobody has used for so long. A connection that was made on them is not found any more.
    pub(crate) fn expire(&self, now: Instant, idle: Duration) {
        self.known.borrow_mut().retain(|_, (_, used)| now.saturating_duration_since(*used) < idle);
    }
}

#[cfg(test)]
mod tests {
    use weft_transport::tls::{ALPN_H1, OutsideTerms, outside_client_config};

    use super::*;

    #[test]
    fn other_terms_have_another_number_for_good() {
        let key = rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap();
        let root = key.cert.pem();
        let terms = OutsideTerms { roots_pem: Some(&root), alpn: Some(ALPN_H1), ..OutsideTerms::default() };
        let config = || Arc::new(outside_client_config(terms.clone()).unwrap());
        let name = |text: &str| ServerName::try_from(text.to_owned()).unwrap();
        let (all, start, one, other) = (AllTerms::default(), Instant::now(), config(), config());
        let first = all.number(&one, &name("a.test"), start);
        assert_eq!(all.number(&one, &name("a.test"), start), first);
        let different = [all.number(&other, &name("a.test"), start), all.number(&one, &name("b.test"), start)];
        assert!(!different.contains(&first) && different[0] != different[1], "{first:?} {different:?}");
        assert_eq!(all.get(first).unwrap().name, name("a.test"));
        let later = start + Duration::from_secs(10);
        all.expire(later, Duration::from_secs(10));
        assert!(all.get(first).is_none());
        assert!(![first, different[0], different[1]].contains(&all.number(&one, &name("a.test"), later)));
        for number in 0..2 * MOST {
            all.number(&one, &name(&format!("n{number}.test")), later + Duration::from_millis(number as u64));
        }
        assert_eq!(all.known.borrow().len(), MOST);
    }
}
