//! Sets, adds and removes headers of requests and of their answers. A value is text, or one of the values that the host
//! tells (`from`): where that is not there, `set` removes the header, so that nobody can send it in the mesh's place.

use serde::Deserialize;
use weft_filters_sdk::hook::{self, Hook};
use weft_filters_sdk::{Ask, Filter, Interest, Outcome, Request, Response, Value, Values, rules};

/// At least one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    request: Option<EditsConfig>,
    response: Option<EditsConfig>,
}

/// In this order: `remove`, `set`, `add`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EditsConfig {
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    set: Vec<FieldConfig>,
    #[serde(default)]
    add: Vec<FieldConfig>,
}

/// Exactly one of `value` and `from`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldConfig {
    name: String,
    value: Option<String>,
    /// A value that the host tells at this hook, by name: `source.principal`.
    from: Option<String>,
}

/// The edits under one configuration.
#[derive(Debug)]
pub struct HeaderEdit {
    request: Option<Edits<hook::RequestHead>>,
    response: Option<Edits<hook::ResponseHead>>,
}

#[derive(Debug)]
struct Edits<H> {
    remove: Vec<String>,
    set: Vec<Field<H>>,
    add: Vec<Field<H>>,
}

#[derive(Debug)]
struct Field<H> {
    name: String,
    source: Source<H>,
}

#[derive(Debug)]
enum Source<H> {
    Text(String),
    Told(Value<H>),
}

impl Filter for HeaderEdit {
    type Config = Config;
    type State = ();

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        if config.request.is_none() && config.response.is_none() {
            return Err("neither request nor response is given".to_owned());
        }
        let request = config.request.map(|edits| edits.compile("request", &mut ask.request_head())).transpose()?;
        let response = config.response.map(|edits| edits.compile("response", &mut ask.response_head())).transpose()?;
        Ok(Self { request, response })
    }

    fn request_head(&mut self, request: &Request<'_>, _: &mut ()) -> Outcome {
        self.request.as_ref().map_or_else(Outcome::pass, |edits| edits.apply(request))
    }

    fn response_head(&mut self, response: &Response<'_>, _: &mut ()) -> Outcome {
        self.response.as_ref().map_or_else(Outcome::pass, |edits| edits.apply(response))
    }
}

impl EditsConfig {
    fn compile<H: Hook>(self, place: &str, ask: &mut Ask<'_, H>) -> Result<Edits<H>, String> {
        let edits = self.remove.len() + self.set.len() + self.add.len();
        if edits > rules::EDITS {
            return Err(format!("{place}: {edits} edits, at most {}", rules::EDITS));
        }
        if edits == 0 {
            return Err(format!("{place}: nothing to remove, set or add"));
        }
        for (index, name) in self.remove.iter().enumerate() {
            rules::header_name(name).map_err(|error| format!("{place}.remove[{index}]: {error}"))?;
        }
        let mut fields = |kind: &str, fields: Vec<FieldConfig>| {
            let compile = |(index, field): (usize, FieldConfig)| {
                field.compile(ask).map_err(|error| format!("{place}.{kind}[{index}]{error}"))
            };
            fields.into_iter().enumerate().map(compile).collect::<Result<Vec<_>, _>>()
        };
        Ok(Edits { set: fields("set", self.set)?, add: fields("add", self.add)?, remove: self.remove })
    }
}

impl FieldConfig {
    /// An error begins with the path below the field.
    fn compile<H: Hook>(self, ask: &mut Ask<'_, H>) -> Result<Field<H>, String> {
        rules::header_name(&self.name).map_err(|error| format!(".name: {error}"))?;
        let source = match (self.value, self.from) {
            (Some(value), None) => {
                rules::header_value(value.as_bytes()).map_err(|error| format!(".value: {error}"))?;
                Source::Text(value)
            }
            (None, Some(from)) if from.ends_with('*') => {
                return Err(format!(".from: {from:?} is more than one value"));
            }
            (None, Some(from)) => Source::Told(ask.value(&from)),
            (None, None) | (Some(_), Some(_)) => return Err(": one of value and from".to_owned()),
        };
        Ok(Field { name: self.name, source })
    }
}

impl<H: Hook> Edits<H> {
    fn apply(&self, values: &Values<'_, H>) -> Outcome {
        let mut outcome = Outcome::pass();
        for name in &self.remove {
            outcome = outcome.remove_header(name);
        }
        for field in &self.set {
            outcome = match field.source.of(values) {
                Some(value) => outcome.set_header(&field.name, value),
                None => outcome.remove_header(&field.name),
            };
        }
        for field in &self.add {
            if let Some(value) = field.source.of(values) {
                outcome = outcome.add_header(&field.name, value);
            }
        }
        outcome
    }
}

impl<H: Hook> Source<H> {
    /// The value, as a header may have it: what the host tells is taken as it is, but for what no header can carry.
    fn of<'a>(&'a self, values: &Values<'a, H>) -> Option<&'a [u8]> {
        match self {
            Source::Text(text) => Some(text.as_bytes()),
            Source::Told(value) => values.get(*value).filter(|value| rules::header_value(value).is_ok()),
        }
    }
}

weft_filters_sdk::export!(HeaderEdit);

#[cfg(test)]
mod tests;
