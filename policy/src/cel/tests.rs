//! Text in, value or fault out, in the manner of the language's conformance tests; rules; what is hostile.
//! tests/model.rs compares with a naive evaluator.

mod model;
mod rules;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::rules::Compiled;
use super::{Each, EvalError, Expr, Purpose, Told, Value, compile, evaluate};

/// What the host tells of the request of these tests.
struct Request(BTreeMap<&'static str, &'static [u8]>);

impl Told for Request {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.0.get(name).map(|value| Cow::Borrowed(*value))
    }
}

fn request() -> Request {
    let told: [(&str, &[u8]); 11] = [
        ("request.method", b"GET"),
        ("request.path", b"/a"),
        ("request.header.x-team", b"a"),
        ("request.header.x-bin", b"\xff"),
        ("source.principal", b"spiffe://cluster.local/ns/shop/sa/web"),
        ("source.namespace", b"shop"),
        ("destination.port", b"8080"),
        ("filter.jwt.sub", b"u1"),
        ("connection.tls", b"true"),
        ("time", b"1000"),
        ("dice", b"7"),
    ];
    Request(told.into_iter().collect())
}

fn shown(value: &Value) -> String {
    let listed = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => format!("{number}u"),
        Value::Double(number) => format!("{number:?}"),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("b{bytes:?}"),
        Value::List(list) => format!("[{}]", listed(list.items.iter().map(shown).collect())),
        Value::Map(map) => {
            let entry = |(key, value): &(Value, Value)| format!("{}: {}", shown(key), shown(value));
            format!("{{{}}}", listed(map.entries.iter().map(entry).collect()))
        }
    }
}

/// The value; behind `?` why there is none; behind `!` what is wrong with the text.
fn found(text: &str) -> String {
    let expr = match compile(text, Purpose::Any) {
        Ok(expr) => Compiled(expr),
        Err(faults) => return faults.iter().map(|fault| format!("! {fault}")).collect::<Vec<_>>().join("\n"),
    };
    let travelled = serde_json::to_string(&expr).expect("expressions are JSON");
    assert_eq!(serde_json::from_str::<Compiled>(&travelled).expect("as it was written"), expr, "{travelled}");
    assert_eq!(serde_json::from_str::<Expr>(&travelled).expect("as serde reads it"), expr.0, "{travelled}");
    match evaluate(&expr.0, &request()) {
        Ok(value) => shown(&value),
        Err(error) => format!("? {error}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (text, expect) in cases {
        assert_eq!(found(text), *expect, "{text}");
    }
}

#[test]
fn literals_and_operators() {
    check(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("2 - 3 - 4", "-5"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("1 < 2 == true", "true"),
        ("!true || true", "true"),
        ("true || false && false", "true"),
        ("true ? 1 : false ? 2 : 3", "1"),
        ("1 + 1 == 2 ? 'a' : 'b'", r#""a""#),
        ("-9223372036854775808", "-9223372036854775808"),
        ("--1", "1"),
        ("2 -1", "1"),
        ("!!true", "true"),
        ("0xff", "255"),
        ("-0x10", "-16"),
        ("7u / 2u", "3u"),
        ("1.5 + .5", "2.0"),
        ("1e3", "1000.0"),
        ("1.0 / 0.0", "inf"),
        ("null == null", "true"),
        ("1 // a comment\n + 1", "2"),
        (r#"'a' + "b""#, r#""ab""#),
        (r"b'a' + b'\xff'", "b[97, 255]"),
        (r"'\u00e9\x41\101\n'", r#""éAA\n""#),
        (r"r'\n'", r#""\\n""#),
        ("'''a'b'''", r#""a'b""#),
    ]);
}

#[test]
fn order_is_by_what_numbers_count() {
    check(&[
        ("1 < 2u", "true"),
        ("1.0 <= 1", "true"),
        ("2u > -1", "true"),
        ("9007199254740993 > 9007199254740992.0", "true"),
        ("18446744073709551615u < 1e30", "true"),
        ("-1.5 < -1", "true"),
        ("0.0 / 0.0 == 0.0 / 0.0", "false"),
        ("0.0 / 0.0 < 1", "false"),
        ("'a' < 'b'", "true"),
        ("false < true", "true"),
        ("b'a' < b'b'", "true"),
    ]);
}

#[test]
fn lists_maps_and_text() {
    check(&[
        ("[1, 2,][1]", "2"),
        ("[[1], [2]][1][0]", "2"),
        ("{'a': 1}['a'] + {'b': 2}.b", "3"),
        ("2 in [1, 2] && 'a' in {'a': 1}", "true"),
        ("[1] + [2]", "[1, 2]"),
        ("[] == []", "true"),
        ("{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "true"),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", "true"),
        ("'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b')", "true"),
        ("'ÄBc'.lowerAscii() + 'x'.upperAscii()", r#""ÄbcX""#),
        ("[size('é'), size(b'é'), 'abc'.size(), size([1, 2]), size({'a': 1})]", "[1, 2, 3, 2, 1]"),
        ("[int('12'), int(2u), int(2.9), int(-2.9)]", "[12, 2, 2, -2]"),
        ("uint(3)", "3u"),
        ("double(1) / 4.0", "0.25"),
        ("string(12) + string(true) + string(b'a')", r#""12truea""#),
    ]);
}

#[test]
fn macros() {
    check(&[
        ("[1, 2].all(x, x > 0)", "true"),
        ("[1, 2].exists(x, x > 1)", "true"),
        ("[1, 1].exists_one(x, x == 1)", "false"),
        ("[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        ("[1, 2].map(x, x * 2)", "[2, 4]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("{'a': 1}.all(k, k == 'a')", "true"),
        ("[1, 2].map(x, [10, 20].map(y, x + y))", "[[11, 21], [12, 22]]"),
        ("[[1, 2], [3]].exists(x, x.exists(y, y == 3))", "true"),
        ("[1].exists(request, request == 1)", "true"),
    ]);
}

#[test]
fn what_has_no_value_says_why() {
    check(&[
        ("1 / 0", "? division by zero"),
        ("1 % 0", "? division by zero"),
        ("1u / 0u", "? division by zero"),
        ("9223372036854775807 + 1", "? a number is out of range"),
        ("-9223372036854775808 / -1", "? a number is out of range"),
        ("-(-9223372036854775808)", "? a number is out of range"),
        ("0u - 1u", "? a number is out of range"),
        ("[1][1]", "? the list has no element 1"),
        ("{'a': 1}.b", "? the map has no such key"),
        ("int('x')", "? int() of a value out of its range"),
        ("uint(-1)", "? uint() of a value out of its range"),
        ("{'a': 1, 'a': 2}", "? the keys of a map must differ, and be text, whole numbers or truth values"),
    ]);
}

#[test]
fn another_operand_may_decide_over_an_error() {
    let error = "? division by zero";
    check(&[
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("1 / 0 == 1 || false", error),
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 && true", error),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0].exists(x, 1 / x == 1)", error),
        ("[0, 2].all(x, 1 / x == 1)", "false"),
        ("[0, 1].exists_one(x, 1 / x == 1)", error),
        ("false ? 1 / 0 : 2", "2"),
    ]);
}

#[test]
fn values_of_the_request() {
    check(&[
        ("request.path", r#""/a""#),
        ("request.headers['X-Team']", r#""a""#),
        ("request.headers.absent", "? request.headers['absent'] is not there"),
        ("'x-team' in request.headers", "true"),
        ("'x-none' in request.headers", "false"),
        ("request.headers['x-none'] == 'a' || request.method == 'GET'", "true"),
        ("request.headers['x-bin']", "? request.headers['x-bin'] can't be read"),
        ("'x-bin' in request.headers", "true"),
        ("request.query", r#""""#),
        ("has(request.query) || has(source.address)", "false"),
        ("source.namespace == 'shop' && connection.tls", "true"),
        ("source.address", "? source.address is not there"),
        ("destination.port + 1", "8081"),
        ("filter.jwt.sub == filter['jwt.sub'] && has(filter.jwt.sub) && 'jwt.sub' in filter", "true"),
        ("dice % 10u", "7u"),
        ("time + 1", "1001"),
    ]);
}

#[test]
fn faults_say_where_and_all_at_once() {
    let pth = "there is no request.pth; did you mean `request.path`?";
    check(&[
        ("1 +", "! 1:4: a value is expected, not the end"),
        ("1 ? 2", "! 1:6: ':' is expected, not the end"),
        ("1 2", "! 1:3: a number is not expected here"),
        ("'a", "! 1:1: the text has no end"),
        (r"'\q'", "! 1:2: there is no such escape"),
        ("9223372036854775808", "! 1:1: the number is out of range"),
        ("1x", "! 1:2: 'x' can't follow a number"),
        ("1 # 2", "! 1:3: '#' means nothing here"),
        ("zzzz", "! 1:1: there is no zzzz"),
        ("request", "! 1:1: request is no value by itself: name one of its fields"),
        ("request.pth", format!("! 1:8: {pth}").as_str()),
        (
            "request.pth == 1 &&\n  source.nam == 'a'",
            format!("! 1:8: {pth}\n! 2:9: there is no source.nam; did you mean `source.namespace`?").as_str(),
        ),
        (
            "request.headers[request.path]",
            "! 1:16: the key of request.headers has to be written out, request.headers['name'], since the proxy is asked for it \
             beforehand",
        ),
        ("request.headers['host']", "! 1:16: the host of a request is request.authority"),
        ("1 + 'a'", "! 1:3: + has no meaning for int and string"),
        ("1 == 1u", "! 1:3: == has no meaning for int and uint"),
        ("request.path && true", "! 1:8: bool is expected, not string"),
        ("true ? 1 : 'a'", "! 1:6: one of int or string: both have to be of one type"),
        (
            "request.path.matches('a')",
            "! 1:13: there are no regular expressions here: startsWith, endsWith and contains do",
        ),
        ("size(1)", "! 1:1: size has no meaning for int"),
        ("namespace", "! 1:1: `namespace` is kept by the language and no name"),
        ("a{}", "! 1:2: messages can't be made here"),
        ("[1].map(1, 2)", "! 1:9: the name of an element is expected"),
        ("1.all(x, x)", "! 1:1: a list is expected, not int"),
        ("has(1)", "! 1:5: has() takes a field, has(a.b); of a key it is asked by 'key' in a"),
    ]);
    let wrong = |purpose| compile("1", purpose).unwrap_err().remove(0).to_string();
    assert_eq!(wrong(Purpose::Condition), "1:1: bool is expected, not int");
    assert_eq!(wrong(Purpose::Text), "1:1: string is expected, not int");
}

#[test]
fn what_costs_too_much_is_refused_beforehand() {
    let list = format!("[{}]", vec!["1"; 22].join(","));
    let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, a == b)))");
    let parentheses = format!("{}1{}", "(".repeat(40), ")".repeat(40));
    for (text, words) in [
        (nested, "steps, at most 10000"),
        (parentheses, "nested deeper than 32"),
        (format!("{}true", "!".repeat(40)), "nested deeper than 32"),
        (vec!["1"; 40].join(" + "), "nested deeper than 32"),
        (" ".repeat(5000), "5000 bytes, at most 4096"),
        (format!("size([{}]) > 1", vec!["1"; 1100].join(",")), "more than 1000 parts"),
    ] {
        let found = found(&text);
        assert!(found.contains(words), "{text}: {found}");
    }
    assert_eq!(found(&vec!["true"; 100].join(" && ")), "true", "a chain is one level");
}

/// What travels is read by hand; serde's own reading takes the same forms.
#[test]
fn what_is_no_form_is_refused() {
    for form in [
        r#"{"i":-1}"#,
        r#"{"i":1}"#,
        r#"{"i":9223372036854775808}"#,
        r#"{"u":1}"#,
        r#"{"u":-1}"#,
        r#"{"d":4607182418800017408}"#,
        r#"{"d":1.5}"#,
        r#"{"n":null}"#,
        r#"{"n":0}"#,
        r#"{"b":0}"#,
        r#"{"s":"a"}"#,
        r#"{"s":1}"#,
        r#"{"x":[0,255]}"#,
        r#"{"x":[256]}"#,
        r#"{"x":[-1]}"#,
        r#"{"l":[]}"#,
        r#"{"l":{}}"#,
        r#"{"m":[[{"i":1},{"b":true}]]}"#,
        r#"{"m":[[{"i":1}]]}"#,
        r#"{"e":0}"#,
        r#"{"e":-1}"#,
        r#"{"?":[{"b":true},{"i":1},{"i":2}]}"#,
        r#"{"?":[{"b":true},{"i":1}]}"#,
        r#"{"f":["less_or_equal",[{"i":1},{"i":2}]]}"#,
        r#"{"f":["LessOrEqual",[]]}"#,
        r#"{"f":["not"]}"#,
        r#"{"f":["not",[],[]]}"#,
        r#"{"q":["exists_one",[{"l":[]},{"b":true},{"n":null}]]}"#,
        r#"{"q":["some",[{"l":[]},{"b":true},{"n":null}]]}"#,
        r#"{"q":["all",[{"l":[]}]]}"#,
        r#"{"b":true,"i":1}"#,
        r#"{"z":1}"#,
        "{}",
        "[]",
        "null",
        r#"{"&":[true]}"#,
    ] {
        let (found, expect) = (serde_json::from_str::<Compiled>(form), serde_json::from_str::<Expr>(form));
        assert_eq!(found.as_ref().ok().map(|found| &found.0), expect.as_ref().ok(), "{form}: {found:?} {expect:?}");
    }
}

/// Forms that no compiler makes: each has an error and costs what is allowed, whatever stands beside it.
#[test]
fn what_was_not_compiled_here_is_bounded_too() {
    let numbers = Expr::List(vec![Expr::Int(1); 30]);
    let each = |each, list, inner, transform| Expr::Each(each, Box::new([list, inner, transform]));
    let slow = (0..4).fold(Expr::Bool(true), |inner, _| each(Each::All, numbers.clone(), inner, Expr::Null(())));
    let pair = Expr::List(vec![Expr::Element(0), Expr::Element(0)]);
    let start = Expr::List(vec![Expr::Text(Arc::from("text"))]);
    let large = (0..25).fold(start, |list, _| each(Each::Map, list, Expr::Bool(true), pair.clone()));
    let beside = |expr: Expr| Expr::Or(vec![expr, Expr::Bool(true)]);
    for (expr, expect) in [
        (beside(slow), EvalError::Steps),
        (beside(large), EvalError::Bytes),
        (Expr::Element(3), EvalError::NoKey),
        (Expr::And(vec![Expr::Int(1)]), EvalError::NoCondition),
        (each(Each::All, Expr::Int(1), Expr::Bool(true), Expr::Null(())), EvalError::NoList),
        (Expr::Told("request.body".to_owned()), EvalError::Unreadable("request.body".to_owned())),
        (Expr::Call(super::Function::Add, vec![Expr::Int(1)]), EvalError::NoOverload(super::Function::Add)),
    ] {
        expr.measure().expect("small");
        assert_eq!(evaluate(&expr, &request()).expect_err("no value"), expect);
    }
    let deep = (0..40).fold(r#"{"b":true}"#.to_owned(), |inner, _| format!(r#"{{"&":[{inner}]}}"#));
    let error = serde_json::from_str::<Compiled>(&deep).expect_err("deep").to_string();
    assert!(error.contains("nested deeper than 32"), "{error}");
    let error = serde_json::from_str::<Compiled>("\"true\"").expect_err("text").to_string();
    assert!(error.contains("the control plane has to compile it"), "{error}");
}
