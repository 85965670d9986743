//! Policies of the shipped filter `expr`: their expressions are checked where a policy is taken, and compiled where
//! proxies are told, so that the filter evaluates and does nothing else. Invariant: what is kept of a compilation follows from
//! the text of the configuration alone, so that it makes no difference but in time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cel::{ConfigFault, compile_config};
use crate::resource::filter::FilterRef;
use crate::resource::{FilterPolicySpec, ROOT_NAMESPACE};

use super::modifier::uneditable;

const FILTER: &str = "expr";

fn is_expr(filter: &FilterRef) -> bool {
    (filter.namespace.as_str(), filter.name.as_str()) == (ROOT_NAMESPACE, FILTER)
}

/// What is wrong with the expressions of a policy; nothing where it has none.
pub(crate) fn unfit_expressions(spec: &FilterPolicySpec) -> Vec<ConfigFault> {
    match is_expr(&spec.filter) {
        true => compile_config(&spec.config, uneditable).err().unwrap_or_default(),
        false => Vec::new(),
    }
}

/// The configuration that a policy's filter is given. One that can't be compiled, of a policy that an earlier release
/// took, goes as it is: the filter refuses text, and the policy fails closed with a reason.
pub(super) fn config_of(compilations: &Compilations, spec: &FilterPolicySpec) -> String {
    let text = spec.config.to_string();
    if !is_expr(&spec.filter) {
        return text;
    }
    compilations.get(text, |text| match compile_config(&spec.config, uneditable) {
        Ok(config) => serde_json::to_string(&config).expect("a configuration has string keys only"),
        Err(_) => text.to_owned(),
    })
}

/// Bytes of configurations, as written and as compiled, that are kept.
const MOST_BYTES: usize = 16 << 20;

/// Configurations that were compiled, by their text. Each set of proxies that a policy holds for asks for the same; worlds that
/// follow one another share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Compilations(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    by_text: BTreeMap<String, Arc<str>>,
    bytes: usize,
}

impl Compilations {
    /// What `make` makes of a text. Two that ask at the same time for what is not kept yet both make it.
    fn get(&self, text: String, make: impl FnOnce(&str) -> String) -> String {
        let known = self.kept(|kept| kept.by_text.get(&text).map(Arc::clone));
        if let Some(known) = known {
            return known.to_string();
        }
        let made = make(&text);
        self.kept(|kept| kept.keep(text, &made, MOST_BYTES));
        made
    }

    fn kept<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    /// Where there is no room all is forgotten: what is still asked for is made again once.
    fn keep(&mut self, text: String, made: &str, most: usize) {
        let bytes = text.len() + made.len();
        if bytes > most || self.by_text.contains_key(&text) {
            return;
        }
        if self.bytes + bytes > most {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.by_text.insert(text, made.into());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    fn spec(filter: &str, number: u64) -> FilterPolicySpec {
        let when = match number % 4 {
            0 => "request.pth == 1".to_owned(),
            1 => format!("request.path == '/{number}'"),
            2 => format!("request.method == 'GET' || request.path.startsWith('/{number}')"),
            _ => "true".to_owned(),
        };
        let config = json!({"rules": [{"name": format!("r{number}"), "when": when, "then": {"deny": {}}}]});
        serde_json::from_value(json!({"filter": {"name": filter, "namespace": ROOT_NAMESPACE}, "config": config}))
            .unwrap()
    }

    /// The same random questions of one that keeps and of one that never did.
    #[test]
    fn what_is_kept_makes_no_difference() {
        for seed in 0..8_u64 {
            let (kept, mut dice) = (Compilations::default(), seed);
            for step in 0..200 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let filter = if dice >> 60 == 0 { "other" } else { FILTER };
                let asked = spec(filter, (dice >> 33) % 24);
                let fresh = config_of(&Compilations::default(), &asked);
                assert_eq!(config_of(&kept.clone(), &asked), fresh, "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn the_same_is_compiled_once() {
        let (kept, made) = (Compilations::default(), Cell::new(0));
        let ask = |text: &str| {
            kept.clone().get(text.to_owned(), |text| {
                made.set(made.get() + 1);
                text.to_uppercase()
            })
        };
        assert_eq!([ask("a"), ask("b"), ask("a")], ["A", "B", "A"]);
        assert_eq!(made.get(), 2);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut kept = Kept::default();
        let texts = |kept: &Kept| kept.by_text.keys().cloned().collect::<Vec<_>>();
        kept.keep("aa".to_owned(), "AA", 10);
        kept.keep("aa".to_owned(), "AA", 10);
        kept.keep("bb".to_owned(), "BB", 10);
        assert_eq!((texts(&kept), kept.bytes), (vec!["aa".to_owned(), "bb".to_owned()], 8));
        kept.keep("cccccc".to_owned(), "CCCCCC", 10);
        assert_eq!(kept.bytes, 8, "one that never fits costs nobody his place");
        kept.keep("dd".to_owned(), "DD", 10);
        assert_eq!((texts(&kept), kept.bytes), (vec!["dd".to_owned()], 4));
    }
}
