//! Compiles the configuration of the filter `expr`: its form by a schema, then every name and every expression, all
//! faults at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::check::{Purpose, compile};
use super::expression::Expr;
use super::rules::{Compiled, Config, MAX_NAME, Respond, Rule, Rules, Then};
use crate::schema;

static SCHEMA: LazyLock<Json> =
    LazyLock::new(|| serde_json::from_str(include_str!("config.schema.json")).expect("the schema is JSON"));

/// A wrong place of a configuration, `rules[0].when`, and what is wrong there. Of an expression it begins with line and
/// column in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    pub at: String,
    pub message: String,
}

/// The configuration as the filter takes it. `uneditable`: why a header, its name in lower case, is not for rules to
/// change.
///
/// # Errors
/// Everything that is wrong; where the form is, that alone.
pub fn compile_config(
    config: &Json,
    uneditable: impl Fn(&str) -> Option<&'static str>,
) -> Result<Config<Compiled>, Vec<ConfigFault>> {
    let of_form = schema::check(&SCHEMA, config);
    if !of_form.is_empty() {
        let fault = |fault: schema::Fault| ConfigFault { at: fault.at, message: fault.message };
        return Err(of_form.into_iter().map(fault).collect());
    }
    let written: Config<String> = serde_path_to_error::deserialize(config).map_err(|error| {
        let at = error.path().to_string();
        vec![ConfigFault { at, message: error.into_inner().to_string() }]
    })?;
    let mut compiler = Compiler { uneditable, names: BTreeSet::new(), faults: Vec::new() };
    let rules = written.rules.into_iter().enumerate();
    let rules = rules.map(|(index, rule)| compiler.rule(&format!("rules[{index}]"), rule)).collect();
    let (faults, compiled) = (compiler.faults, Config { rules, default: written.default });
    if !faults.is_empty() {
        return Err(faults);
    }
    // The filter has these bounds too.
    let fault = |message| vec![ConfigFault { at: String::new(), message }];
    Rules::new(compiled).map(Rules::into_config).map_err(fault)
}

struct Compiler<U> {
    uneditable: U,
    names: BTreeSet<String>,
    faults: Vec<ConfigFault>,
}

impl<U: Fn(&str) -> Option<&'static str>> Compiler<U> {
    fn wrong(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.faults.push(ConfigFault { at: at.into(), message: message.into() });
    }

    fn rule(&mut self, at: &str, rule: Rule<String>) -> Rule<Compiled> {
        let Rule { name, when, then, on_error } = rule;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            let message = format!("{name:?}: a name has 1 to {MAX_NAME} letters, digits, '-', '_' and '.'");
            self.wrong(format!("{at}.name"), message);
        } else if !self.names.insert(name.clone()) {
            self.wrong(format!("{at}.name"), format!("another rule is called {name}"));
        }
        let when = self.expression(&format!("{at}.when"), &when, Purpose::Condition);
        let then = self.then(&format!("{at}.then"), then);
        Rule { name, when, then, on_error }
    }

    fn then(&mut self, at: &str, then: Then<String>) -> Then<Compiled> {
        if let Some(why) = then.contradiction() {
            self.wrong(at, why);
        }
        let Then { deny, respond, remove, set, add, pass } = then;
        let respond = respond.map(|Respond { status, headers, body }| Respond {
            status,
            headers: self.fields(&format!("{at}.respond.headers"), headers),
            body: body.map(|body| self.expression(&format!("{at}.respond.body"), &body, Purpose::Text)),
        });
        let named = remove.into_iter().enumerate();
        let remove = named.map(|(index, name)| self.header(&format!("{at}.remove[{index}]"), &name)).collect();
        let set = self.fields(&format!("{at}.set"), set);
        let add = self.fields(&format!("{at}.add"), add);
        Then { deny, respond, remove, set, add, pass }
    }

    fn fields(&mut self, at: &str, fields: BTreeMap<String, String>) -> BTreeMap<String, Compiled> {
        let mut compiled = BTreeMap::new();
        for (name, value) in fields {
            let at = format!("{at}.{name}");
            let value = self.expression(&at, &value, Purpose::Text);
            let name = self.header(&at, &name);
            if compiled.insert(name, value).is_some() {
                self.wrong(at, "the header is there twice, in another case");
            }
        }
        compiled
    }

    /// The name of a header, in lower case.
    fn header(&mut self, at: &str, name: &str) -> String {
        let lower = name.to_ascii_lowercase();
        if !crate::authz::is_token(name) || name.len() > 256 {
            self.wrong(at, format!("{name:?} is no name of a header"));
        } else if let Some(why) = (self.uneditable)(&lower) {
            self.wrong(at, format!("the header {lower} is not for rules to change: {why}"));
        }
        lower
    }

    fn expression(&mut self, at: &str, text: &str, purpose: Purpose) -> Compiled {
        match compile(text, purpose) {
            Ok(expr) => Compiled(expr),
            Err(faults) => {
                self.faults
                    .extend(faults.iter().map(|fault| ConfigFault { at: at.to_owned(), message: fault.to_string() }));
                Compiled(Expr::Null(()))
            }
        }
    }
}
