//! Tells the app who calls, and counts the answers of each caller by the class of their status. Callers that the
//! configuration does not name are counted together: a metric has as many series as an operator wants, not as many as
//! there are callers.

use std::collections::BTreeSet;

use serde::Deserialize;
use weft_filters_sdk::{Counter, Filter, Interest, Outcome, Request, Response, Value, hook, rules};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The header that names the caller to the app. Default: `x-caller`.
    #[serde(default = "default_header")]
    header: String,
    /// Service accounts, `NAMESPACE/ACCOUNT`, that are counted apart.
    #[serde(default)]
    apart: BTreeSet<String>,
}

fn default_header() -> String {
    "x-caller".to_owned()
}

const NOBODY: &str = "nobody";
const OTHERS: &str = "others";

#[derive(Debug)]
pub struct Labels {
    header: String,
    apart: BTreeSet<String>,
    namespace: Value<hook::RequestHead>,
    account: Value<hook::RequestHead>,
    status: Value<hook::ResponseHead>,
    answers: Counter,
}

impl Filter for Labels {
    type Config = Config;
    /// Who is counted.
    type State = String;

    fn configure(config: Config, ask: &mut Interest) -> Result<Self, String> {
        rules::header_name(&config.header).map_err(|error| format!("header: {error}"))?;
        if let Some(wrong) = config.apart.iter().find(|caller| caller.split('/').count() != 2) {
            return Err(format!("apart: {wrong:?} is not NAMESPACE/ACCOUNT"));
        }
        let mut head = ask.request_head();
        let (namespace, account) = (head.source_namespace(), head.source_service_account());
        let status = ask.response_head().status();
        let answers = Counter::define("answers_total", &["caller", "class"])?;
        Ok(Self { header: config.header, apart: config.apart, namespace, account, status, answers })
    }

    fn request_head(&mut self, request: &Request<'_>, counted: &mut String) -> Outcome {
        let caller = match (request.text(self.namespace), request.text(self.account)) {
            (Some(namespace), Some(account)) => format!("{namespace}/{account}"),
            (None, _) | (_, None) => NOBODY.to_owned(),
        };
        let is_apart = caller == NOBODY || self.apart.contains(&caller);
        *counted = if is_apart { caller.clone() } else { OTHERS.to_owned() };
        // Whatever the caller itself said there is replaced.
        Outcome::pass().set_header(&self.header, caller)
    }

    fn response_head(&mut self, response: &Response<'_>, counted: &mut String) -> Outcome {
        let class = match response.number(self.status).unwrap_or_default() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.answers.add(&[counted.as_str(), class], 1);
        Outcome::pass()
    }
}

weft_filters_sdk::export!(Labels);
