//! A small model of what a chain means, beside the real thing: random filters, and who is called in which order, whose
//! edits happen, how it ends.

use super::*;

/// What a filter does at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Pass,
    Edit,
    Delay,
    Reply,
    Reset,
    Trap,
}

#[derive(Debug, Clone)]
struct Plan {
    acts: Vec<(Hook, Act)>,
    may_fail: bool,
    audit: bool,
}

impl Plan {
    fn at(&self, hook: Hook) -> Option<Act> {
        self.acts.iter().find(|(at, _)| *at == hook).map(|(_, act)| *act)
    }
}

/// What happened.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    calls: Vec<(usize, Hook)>,
    /// Filters whose edits of the request, and of the answer, happened.
    edits: [Vec<usize>; 2],
    request: &'static str,
    response: &'static str,
}

const HOOKS: [(Hook, &str); 5] = [
    (Hook::RequestHead, "request-head"),
    (Hook::RequestBody, "request-body=buffer:16"),
    (Hook::ResponseHead, "response-head"),
    (Hook::ResponseBody, "response-body=buffer:16"),
    (Hook::Done, "done"),
];

struct Model<'p> {
    plans: &'p [Plan],
    out: Vec<bool>,
    seen: Seen,
}

impl Model<'_> {
    /// One call; `Some`: the run ends so.
    fn call(&mut self, index: usize, hook: Hook, side: usize) -> Option<&'static str> {
        let plan = &self.plans[index];
        let act = plan.at(hook).filter(|_| !self.out[index])?;
        self.seen.calls.push((index, hook));
        match act {
            Act::Trap => {
                self.out[index] = true;
                (!plan.may_fail && !plan.audit).then_some("failed")
            }
            Act::Edit if !plan.audit => {
                self.seen.edits[side].push(index);
                None
            }
            Act::Reply if !plan.audit => Some("reply"),
            Act::Reset if !plan.audit => Some("reset"),
            Act::Pass | Act::Delay | Act::Edit | Act::Reply | Act::Reset => None,
        }
    }

    fn run(mut self) -> Seen {
        let (mut reached, mut entered) = (0, 0);
        self.seen.request = "permitted";
        'chain: for index in 0..self.plans.len() {
            reached = index + 1;
            for hook in [Hook::RequestHead, Hook::RequestBody] {
                if let Some(end) = self.call(index, hook, 0) {
                    self.seen.request = end;
                    break 'chain;
                }
            }
            entered = index + 1;
        }
        self.seen.response = "permitted";
        'back: for index in (0..entered).rev() {
            for hook in [Hook::ResponseHead, Hook::ResponseBody] {
                if let Some(end) = self.call(index, hook, 1) {
                    self.seen.response = end;
                    break 'back;
                }
            }
        }
        for index in 0..reached {
            // What a filter wants at the end changes nothing.
            self.call(index, Hook::Done, 1);
        }
        self.seen
    }
}

fn said(act: Act, index: usize) -> Result<Said, Failure> {
    match act {
        Act::Pass => pass(),
        Act::Edit => edit(add("x-by", &index.to_string())),
        Act::Delay => verdict(Verdict::ContinueAfter(5)),
        Act::Reply => verdict(reply(418)),
        Act::Reset => verdict(Verdict::Close("as told".to_owned())),
        Act::Trap => trap(),
    }
}

fn name_of<T>(outcome: &Outcome<T>) -> &'static str {
    match outcome {
        Outcome::Permitted(_) => "permitted",
        Outcome::Respond(reply) if reply.cause == ReplyCause::Failed => "failed",
        Outcome::Respond(_) => "reply",
        Outcome::Reset(_) => "reset",
        Outcome::Delay { .. } | Outcome::Body { .. } | Outcome::Wait { .. } => "held",
    }
}

fn edited(headers: &HeaderMap) -> Vec<usize> {
    let by = |value: &HeaderValue| value.to_str().ok().and_then(|text| text.parse().ok());
    headers.get_all("x-by").iter().filter_map(by).collect()
}

/// The real thing over the same filters.
fn real(host: &Host, plans: &[Plan]) -> Seen {
    let calls: Arc<Mutex<Vec<(usize, Hook)>>> = Arc::default();
    let one = |(index, plan): (usize, &Plan)| {
        let mut spec = spec(&format!("f{index}"));
        spec.on_failure = if plan.may_fail { OnFailure::Allow } else { OnFailure::Deny };
        spec.mode = if plan.audit { FilterMode::Audit } else { FilterMode::Enforce };
        let hooks: Vec<_> = HOOKS.iter().filter(|(hook, _)| plan.at(*hook).is_some()).map(|(_, text)| *text).collect();
        let (calls, plan) = (calls.clone(), plan.clone());
        filter(host, &spec, &hooks, move |told, _| {
            calls.lock().unwrap_or_else(PoisonError::into_inner).push((index, told.hook));
            said(plan.at(told.hook).expect("only what was asked for is called"), index)
        })
    };
    let chain = Chain::new(plans.iter().enumerate().map(one).collect());
    let mut worker = Worker::new(host);
    let mut seen = Seen::default();
    let mut request = Request::new(1);
    let mut outcome = request.start(&mut worker, &chain);
    loop {
        outcome = match outcome {
            Outcome::Delay { resume, .. } => request.go(&mut worker, &chain, resume, Event::Go),
            Outcome::Body { resume, .. } => {
                request.body = Some(Bytes::from_static(b"body"));
                request.go(&mut worker, &chain, resume, Event::Body)
            }
            Outcome::Permitted(_) | Outcome::Wait { .. } | Outcome::Respond(_) | Outcome::Reset(_) => break,
        };
    }
    seen.request = name_of(&outcome);
    let (mut status, mut headers, mut body) = (StatusCode::OK, HeaderMap::new(), None);
    let mut view = ResponseView { status: &mut status, headers: &mut headers, body: &mut body };
    let mut outcome = worker.response_head(&chain, Position::START, Event::Go, 1, &mut view);
    loop {
        let (resume, event) = match outcome {
            Outcome::Delay { resume, .. } => (resume, Event::Go),
            Outcome::Body { resume, .. } => {
                *view.body = Some(Bytes::from_static(b"body"));
                (resume, Event::Body)
            }
            Outcome::Permitted(()) | Outcome::Wait { .. } | Outcome::Respond(_) | Outcome::Reset(_) => break,
        };
        outcome = worker.response_head(&chain, resume, event, 1, &mut view);
    }
    seen.response = name_of(&outcome);
    worker.done(&chain, 1, &Summary::default());
    assert!(worker.streams.is_empty(), "nothing is left of the stream");
    seen.edits = [edited(&request.headers), edited(&headers)];
    seen.calls.clone_from(&calls.lock().unwrap_or_else(PoisonError::into_inner));
    seen
}

#[test]
fn a_chain_does_as_its_model_says() {
    let host = host();
    for seed in 1..=1_000_u64 {
        let mut state = seed;
        let mut roll = |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        let mut plan = || {
            let mut acts = Vec::new();
            for (hook, _) in HOOKS {
                let act = match roll(16) {
                    0..=4 => continue,
                    5..=8 => Act::Pass,
                    9..=10 => Act::Edit,
                    11..=12 => Act::Delay,
                    13 => Act::Reply,
                    14 => Act::Reset,
                    _ => Act::Trap,
                };
                // What an edit or a delay would be at the end is refused, which is no matter of order.
                acts.push((hook, if hook == Hook::Done { Act::Pass } else { act }));
            }
            Plan { acts, may_fail: roll(2) == 0, audit: roll(4) == 0 }
        };
        let plans: Vec<Plan> = (0..1 + seed % 5).map(|_| plan()).collect();
        let expect = Model { out: vec![false; plans.len()], plans: &plans, seen: Seen::default() }.run();
        assert_eq!(real(&host, &plans), expect, "seed {seed}: {plans:#?}");
    }
}
