//! What a template takes, and what becomes of its body with values.

use serde_json::json;

use super::*;

fn template(spec: &str) -> Result<PolicyTemplateSpec, Vec<String>> {
    let text =
        format!("{{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {{name: t}}, spec: {spec}}}\n");
    let parsed = manifest::parse("t.yaml", &text);
    let mut documents =
        parsed.map_err(|errors| errors.iter().map(|it| format!("{}: {}", it.key, it.message)).collect::<Vec<_>>())?;
    let crate::resource::Resource::PolicyTemplate(template) = documents.remove(0).resource else {
        panic!("no template")
    };
    Ok(template.spec)
}

fn refused(spec: &str, expect: &[&str]) {
    assert_eq!(template(spec).map(|_| ()), Err(expect.iter().map(|it| (*it).to_owned()).collect()), "{spec}");
}

/// A parameter with these fields that stands at `timeouts.request`.
fn of(fields: &str) -> String {
    format!("{{parameters: [{{name: p, {fields}}}], trafficPolicy: {{timeouts: {{request: '${{p}}'}}}}}}")
}

#[test]
fn parameters_are_judged_by_themselves() {
    let at = |key: &str, message: &str| format!("spec.parameters[0].{key}: {message}");
    let check = |fields: &str, key: &str, message: &str| refused(&of(fields), &[&at(key, message)]);
    assert!(template(&of("type: Duration")).is_ok());
    assert!(template(&of("type: Duration, default: 1s, min: 1s, max: 1s, description: none")).is_ok());
    check("type: Duration, default: 5", "default", "the number 5 is not a duration such as 15s, 250ms or 1m30s");
    check("type: Duration, default: soon", "default", "\"soon\" is not a duration such as 15s, 250ms or 1m30s");
    check("type: Duration, default: 9s, max: 5s", "default", "9s is out of range: 5s at most");
    check("type: Duration, default: 9s, min: 10s", "default", "9s is out of range: 10s at least");
    check("type: Duration, default: 9s, min: 10s, max: 1m", "default", "9s is out of range: 10s to 1m");
    check("type: Duration, min: 5s, max: 4s", "max", "is less than min");
    check("type: Duration, min: 5", "min", "the number 5 is not a duration such as 15s, 250ms or 1m30s");
    check("type: Duration, values: [a]", "values", "Duration takes any: an Enum is one of some values");
    check("type: Integer, default: -1", "default", "the number -1 is not a whole number, 0 or more");
    check("type: Percent, default: 101", "default", "the number 101 is not a percentage: a whole number from 0 to 100");
    check("type: Boolean, default: 'yes'", "default", "\"yes\" is not true or false");
    check("type: Boolean, max: true", "max", "Boolean has no order: Duration, Integer and Percent have");
    check("type: String, default: ''", "default", "\"\" is not a text of 1 to 256 characters");
    check("type: Enum", "values", "is missing: an Enum is one of some values");
    check("type: Enum, values: [a, b, a]", "values", "\"a\" is given twice");
    check(
        "type: Enum, values: [Random, Maglev], default: Randon",
        "default",
        "\"Randon\" is not one of Random, Maglev; did you mean `Random`?",
    );
    refused(
        &of("type: Number"),
        &["spec.parameters[0].type: \"Number\" is not one of Duration, Integer, Percent, String, Boolean, Enum"],
    );
    let body = "trafficPolicy: {timeouts: {request: '${p}'}}";
    refused(
        &format!("{{parameters: [{{name: p, type: Duration}}, {{name: p, type: Duration}}], {body}}}"),
        &["spec.parameters[1].name: \"p\" is given twice"],
    );
    refused(
        &format!("{{tier: gold, namespaces: [], parameters: [{{name: p, type: Duration}}], {body}}}"),
        &[
            "spec.namespaces: nobody may use it: leave it out for all namespaces",
            "spec.parameters[0].default: is missing: the services of a tier give no values",
        ],
    );
}

#[test]
fn a_parameter_is_a_whole_value_of_the_body() {
    refused(
        "{parameters: [{name: most, type: Integer, default: 1}, {name: idle, type: Integer, default: 1}], trafficPolicy: \
         {limits: {maxActiveRequests: '${mots}', maxPendingRequests: '${most}'}, retry: {codes: ['5${most}']}}}",
        &[
            "spec.parameters[1].name: \"idle\" stands nowhere in trafficPolicy",
            "spec.trafficPolicy.limits.maxActiveRequests: ${mots} is not one of the parameters; did you mean `most`?",
            "spec.trafficPolicy.retry.codes[0]: \"5${most}\": a parameter is a whole value, \"${NAME}\", and no part of a text",
        ],
    );
    refused("{trafficPolicy: {}}", &["spec.trafficPolicy: it sets nothing"]);
    refused(
        "{trafficPolicy: {targetRefs: [], template: {name: x}}}",
        &[
            "spec.trafficPolicy.targetRefs: is not for a template: a policy says whom it is for",
            "spec.trafficPolicy.template: is not for a template: a template is of no other",
        ],
    );
}

#[test]
fn with_its_defaults_a_template_gives_settings_that_are_fit() {
    // Each mistake at its place, whether a parameter stands there or not.
    refused(
        "{parameters: [{name: most, type: Integer, default: 0}], trafficPolicy: {limits: {maxActiveRequests: '${most}'}, \
         retry: {attempts: 101}}}",
        &[
            "spec.trafficPolicy.limits.maxActiveRequests: 0 is out of range: 1 to 1000000 (the default of parameter most)",
            "spec.trafficPolicy.retry.attempts: 101 is out of range: 0 to 100",
        ],
    );
    refused(
        "{parameters: [{name: most, type: Duration, default: 1s}], trafficPolicy: {limits: {maxActiveRequests: '${most}'}, \
         retryy: {}}}",
        &[
            "spec.trafficPolicy.limits.maxActiveRequests: \"1s\" is not a whole number from 0 to 4294967295 (the default of \
             parameter most)",
            "spec.trafficPolicy.retryy: unknown field `retryy`; did you mean `retry`?",
        ],
    );
    // Without a default the place is not judged yet, the rest of the shape is.
    refused(
        "{parameters: [{name: most, type: Integer}], trafficPolicy: {limits: {maxActiveRequests: '${most}', maxPending: 1}}}",
        &["spec.trafficPolicy.limits.maxPending: unknown field `maxPending`; did you mean `maxPendingRequests`?"],
    );
}

#[test]
fn values_take_the_places_of_their_parameters() {
    let spec = "{parameters: [{name: most, type: Integer, max: 9}, {name: patience, type: Duration, default: 2s}, {name: how, \
                type: Enum, values: [Random, Maglev], default: Random}], trafficPolicy: {limits: {maxActiveRequests: '${most}', \
                maxPendingTime: '${patience}'}, timeouts: {request: '${patience}'}, loadBalancing: {algorithm: '${how}'}}}";
    let spec = template(spec).unwrap();
    let given = |values: Value| -> BTreeMap<String, Value> { serde_json::from_value(values).unwrap() };
    let settings = |values: Value| {
        let settings = spec.settings(&given(values))?;
        let (limits, timeouts) = (settings.limits?, settings.timeouts?);
        Some((limits.max_active_requests, limits.max_pending_time_ms, timeouts.request_ms))
    };
    assert_eq!(settings(json!({"most": 3})), Some((Some(3), 2_000, Some(2_000))));
    assert_eq!(settings(json!({"most": 9, "patience": "1m"})), Some((Some(9), 60_000, Some(60_000))));
    let misfits = |values: Value, expect: &[(&str, &str)]| {
        let told: Vec<_> =
            spec.misfits(&given(values.clone())).into_iter().map(|it| (it.parameter, it.message)).collect();
        let told: Vec<_> = told.iter().map(|(name, it)| (name.as_deref().unwrap_or_default(), it.as_str())).collect();
        assert_eq!(told, expect, "{values}");
        assert_eq!(settings(values).is_some(), expect.iter().all(|(name, _)| *name == "how"));
    };
    misfits(json!({"most": 3}), &[]);
    // All at once.
    misfits(
        json!({"patience": 5, "how": "Random", "mots": 1}),
        &[
            ("mots", "is not a parameter of the template: most, patience, how; did you mean `most`?"),
            ("most", "is missing: the template has no default for it"),
            ("patience", "the number 5 is not a duration such as 15s, 250ms or 1m30s"),
        ],
    );
    misfits(json!({"most": 10}), &[("most", "10 is out of range: 9 at most")]);
    // What fits by itself may be none that the settings take.
    let needs = "Maglev needs `hash`: one of `header`, `cookie` and `source` (trafficPolicy.loadBalancing.algorithm of the template)";
    misfits(json!({"most": 3, "how": "Maglev"}), &[("how", needs)]);
}

#[test]
fn names_of_parameters() {
    for (name, expect) in
        [("a", true), ("maxActive-2_x", true), ("", false), ("2a", false), ("a b", false), ("ä", false)]
    {
        assert_eq!(parameter::is_name(name), expect, "{name}");
    }
    assert!(!parameter::is_name(&"a".repeat(64)));
}
