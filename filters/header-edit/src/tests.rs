//! Header edits: what comes of a head, and which configurations are refused, where.

use weft_filters_sdk::testing::{Harness, TestRequest, TestResponse};
use weft_filters_sdk::{Edit, Outcome, Verdict};

use super::HeaderEdit;

fn told(outcome: &Outcome) -> Vec<String> {
    assert!(matches!(outcome.verdict, Verdict::Continue));
    let line = |edit: &Edit| match edit {
        Edit::Set(field) => format!("{} = {}", field.name, String::from_utf8_lossy(&field.value)),
        Edit::Add(field) => format!("{} + {}", field.name, String::from_utf8_lossy(&field.value)),
        Edit::Remove(name) => format!("{name} -"),
        Edit::Path(_) | Edit::Authority(_) | Edit::Status(_) | Edit::Body(_) | Edit::Attribute(_) | Edit::Other(_) => {
            "another".to_owned()
        }
    };
    outcome.edits.iter().map(line).collect()
}

#[test]
fn heads_are_edited_in_order_with_what_the_host_tells() {
    let config = r#"{
        "request": {
            "set": [{"name": "x-env", "value": "prod"}, {"name": "x-caller", "from": "source.principal"}],
            "add": [{"name": "via", "from": "request.header.x-hop"}],
            "remove": ["x-debug"]},
        "response": {"set": [{"name": "x-was", "from": "response.status"}], "remove": ["server"]}}"#;
    let mut edit = Harness::<HeaderEdit>::new(config).expect("a sound configuration");
    let request = TestRequest::default().principal("spiffe://a").header("x-hop", "b");
    assert_eq!(told(&edit.request(1, &request)), ["x-debug -", "x-env = prod", "x-caller = spiffe://a", "via + b"]);
    let nobody = told(&edit.request(2, &TestRequest::default()));
    assert_eq!(nobody, ["x-debug -", "x-env = prod", "x-caller -"], "nobody can send it in the mesh's place");
    assert_eq!(told(&edit.response(1, &TestResponse::new(404))), ["server -", "x-was = 404"]);
}

#[test]
fn one_side_alone_asks_for_its_hook_alone() {
    let edit = Harness::<HeaderEdit>::new(r#"{"response": {"remove": ["server"]}}"#).expect("a sound configuration");
    assert_eq!(edit.hooks(), ["response-head"]);
}

#[test]
fn a_bad_configuration_says_where() {
    for (config, word) in [
        ("{}", "neither"),
        (r#"{"request": {}}"#, "request: nothing"),
        (r#"{"request": {"remove": ["a b"]}}"#, "request.remove[0]"),
        (r#"{"request": {"set": [{"name": "host", "value": "a"}]}}"#, "request.set[0].name"),
        (r#"{"request": {"set": [{"name": "a", "value": "\n"}]}}"#, "request.set[0].value"),
        (r#"{"response": {"add": [{"name": "a"}]}}"#, "response.add[0]: one of"),
        (r#"{"response": {"add": [{"name": "a", "value": "b", "from": "time"}]}}"#, "response.add[0]: one of"),
        (r#"{"request": {"add": [{"name": "a", "from": "filter.*"}]}}"#, "request.add[0].from"),
        (r#"{"request": {"add": [{"name": "a", "from": "source.colour"}]}}"#, "source.colour"),
        (r#"{"request": {"adds": []}}"#, "request.adds"),
    ] {
        let error = Harness::<HeaderEdit>::new(config).expect_err("not a configuration");
        assert!(error.contains(word), "{config}: {error}");
    }
    let many = vec![r#""x-a""#; 65].join(",");
    let error = Harness::<HeaderEdit>::new(&format!(r#"{{"request": {{"remove": [{many}]}}}}"#)).expect_err("65");
    assert!(error.contains("65 edits"), "{error}");
}
