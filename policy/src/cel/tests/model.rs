//! Random expressions, evaluated as they are compiled from their text and by a naive walk over the tree that the text
//! was made of.

use super::{Purpose, Value, compile, evaluate, request, shown};

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).expect("it is small")]
    }
}

#[derive(Debug, Clone)]
enum Tree {
    Int(i64),
    Bool(bool),
    Text(&'static str),
    /// The element of a macro by its depth.
    Element(usize),
    List(Vec<Tree>),
    Not(Box<Tree>),
    Size(Box<Tree>),
    Binary(&'static str, Box<[Tree; 2]>),
    If(Box<[Tree; 3]>),
    Each(&'static str, Box<[Tree; 2]>),
}

#[derive(Debug, Clone, PartialEq)]
enum Plain {
    Int(i64),
    Bool(bool),
    Text(String),
    List(Vec<Plain>),
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Int,
    Bool,
    Text,
    Ints,
}

/// A tree of one kind; `scope`: macros around, whose elements are whole numbers.
fn tree(dice: &mut Dice, kind: Kind, depth: usize, scope: usize) -> Tree {
    let leaf = depth == 0 || dice.below(6) == 0;
    let inner = |dice: &mut Dice, kind| tree(dice, kind, depth.saturating_sub(1), scope);
    let two = |dice: &mut Dice, sign, kind| {
        let first = inner(dice, kind);
        Tree::Binary(sign, Box::new([first, inner(dice, kind)]))
    };
    match (kind, leaf) {
        (Kind::Int, true) if scope > 0 && dice.below(2) == 0 => {
            Tree::Element(usize::try_from(dice.below(scope as u64)).expect("it is small"))
        }
        (Kind::Int, true) => Tree::Int(dice.one(&[-2, -1, 0, 1, 2, 3, 7, i64::MAX, i64::MIN])),
        (Kind::Bool, true) => Tree::Bool(dice.below(2) == 0),
        (Kind::Text, true) => Tree::Text(dice.one(&["", "a", "ab", "b"])),
        (Kind::Ints, true) => {
            let items = (0..dice.below(4)).map(|_| Tree::Int(dice.one(&[-1, 0, 1, 2]))).collect();
            Tree::List(items)
        }
        (Kind::Int, false) => match dice.below(4) {
            0 => Tree::Size(Box::new(tree(dice, dice_kind(depth), depth - 1, scope))),
            1 => {
                let list = tree(dice, Kind::Ints, depth - 1, scope);
                Tree::Binary("[]", Box::new([list, tree(dice, Kind::Int, depth - 1, scope)]))
            }
            _ => {
                let sign = dice.one(&["+", "-", "*", "/", "%"]);
                two(dice, sign, Kind::Int)
            }
        },
        (Kind::Bool, false) => match dice.below(6) {
            0 => Tree::Not(Box::new(inner(dice, Kind::Bool))),
            1 => {
                let sign = dice.one(&["<", "<=", ">", ">=", "==", "!="]);
                two(dice, sign, Kind::Int)
            }
            2 => {
                let sign = dice.one(&["startsWith", "==", "contains"]);
                two(dice, sign, Kind::Text)
            }
            3 => {
                let name = dice.one(&["all", "exists", "exists_one"]);
                let list = tree(dice, Kind::Ints, depth - 1, scope);
                Tree::Each(name, Box::new([list, tree(dice, Kind::Bool, depth - 1, scope + 1)]))
            }
            _ => {
                let sign = dice.one(&["&&", "||"]);
                two(dice, sign, Kind::Bool)
            }
        },
        (Kind::Text, false) => two(dice, "+", Kind::Text),
        (Kind::Ints, false) => match dice.below(4) {
            0 => two(dice, "+", Kind::Ints),
            1 => {
                let condition = inner(dice, Kind::Bool);
                let then = inner(dice, Kind::Ints);
                Tree::If(Box::new([condition, then, inner(dice, Kind::Ints)]))
            }
            2 => {
                let list = tree(dice, Kind::Ints, depth - 1, scope);
                Tree::Each("filter", Box::new([list, tree(dice, Kind::Bool, depth - 1, scope + 1)]))
            }
            _ => {
                let list = tree(dice, Kind::Ints, depth - 1, scope);
                Tree::Each("map", Box::new([list, tree(dice, Kind::Int, depth - 1, scope + 1)]))
            }
        },
    }
}

fn dice_kind(depth: usize) -> Kind {
    if depth.is_multiple_of(2) { Kind::Text } else { Kind::Ints }
}

/// As it is written; `scope`: macros around.
fn text(tree: &Tree, scope: usize) -> String {
    let inner = |tree: &Tree| text(tree, scope);
    match tree {
        Tree::Int(number) => number.to_string(),
        Tree::Bool(value) => value.to_string(),
        Tree::Text(text) => format!("'{text}'"),
        Tree::Element(at) => format!("x{at}"),
        Tree::List(items) => format!("[{}]", items.iter().map(inner).collect::<Vec<_>>().join(", ")),
        Tree::Not(of) => format!("!{}", inner(of)),
        Tree::Size(of) => format!("size({})", inner(of)),
        Tree::Binary("[]", parts) => format!("{}[{}]", inner(&parts[0]), inner(&parts[1])),
        Tree::Binary(name @ ("startsWith" | "contains"), parts) => {
            format!("{}.{name}({})", inner(&parts[0]), inner(&parts[1]))
        }
        Tree::Binary(sign, parts) => format!("({} {sign} {})", inner(&parts[0]), inner(&parts[1])),
        Tree::If(parts) => format!("({} ? {} : {})", inner(&parts[0]), inner(&parts[1]), inner(&parts[2])),
        Tree::Each(name, parts) => format!("{}.{name}(x{scope}, {})", inner(&parts[0]), text(&parts[1], scope + 1)),
    }
}

/// Its value; `None` is an error.
fn value(tree: &Tree, elements: &mut Vec<i64>) -> Option<Plain> {
    Some(match tree {
        Tree::Int(number) => Plain::Int(*number),
        Tree::Bool(value) => Plain::Bool(*value),
        Tree::Text(text) => Plain::Text((*text).to_owned()),
        Tree::Element(at) => Plain::Int(elements[*at]),
        Tree::List(items) => Plain::List(items.iter().map(|item| value(item, elements)).collect::<Option<_>>()?),
        Tree::Not(of) => Plain::Bool(!truth(of, elements)?),
        Tree::Size(of) => match value(of, elements)? {
            Plain::Text(text) => Plain::Int(i64::try_from(text.len()).expect("it is small")),
            Plain::List(items) => Plain::Int(i64::try_from(items.len()).expect("it is small")),
            Plain::Int(_) | Plain::Bool(_) => unreachable!("of text and lists only"),
        },
        Tree::Binary(sign @ ("&&" | "||"), parts) => {
            let decisive = *sign == "||";
            match (truth(&parts[0], elements), truth(&parts[1], elements)) {
                (Some(one), _) | (_, Some(one)) if one == decisive => Plain::Bool(decisive),
                (Some(_), Some(_)) => Plain::Bool(!decisive),
                _ => return None,
            }
        }
        Tree::Binary(sign, parts) => binary(sign, value(&parts[0], elements)?, value(&parts[1], elements)?)?,
        Tree::If(parts) => value(if truth(&parts[0], elements)? { &parts[1] } else { &parts[2] }, elements)?,
        Tree::Each(name, parts) => each(name, &parts[0], &parts[1], elements)?,
    })
}

fn truth(tree: &Tree, elements: &mut Vec<i64>) -> Option<bool> {
    match value(tree, elements)? {
        Plain::Bool(value) => Some(value),
        Plain::Int(_) | Plain::Text(_) | Plain::List(_) => unreachable!("a condition"),
    }
}

fn binary(sign: &str, left: Plain, right: Plain) -> Option<Plain> {
    Some(match (sign, left, right) {
        ("+", Plain::Int(a), Plain::Int(b)) => Plain::Int(a.checked_add(b)?),
        ("-", Plain::Int(a), Plain::Int(b)) => Plain::Int(a.checked_sub(b)?),
        ("*", Plain::Int(a), Plain::Int(b)) => Plain::Int(a.checked_mul(b)?),
        ("/", Plain::Int(a), Plain::Int(b)) => Plain::Int(a.checked_div(b)?),
        ("%", Plain::Int(a), Plain::Int(b)) => Plain::Int(a.checked_rem(b)?),
        ("<", Plain::Int(a), Plain::Int(b)) => Plain::Bool(a < b),
        ("<=", Plain::Int(a), Plain::Int(b)) => Plain::Bool(a <= b),
        (">", Plain::Int(a), Plain::Int(b)) => Plain::Bool(a > b),
        (">=", Plain::Int(a), Plain::Int(b)) => Plain::Bool(a >= b),
        ("==", a, b) => Plain::Bool(a == b),
        ("!=", a, b) => Plain::Bool(a != b),
        ("+", Plain::Text(a), Plain::Text(b)) => Plain::Text(a + &b),
        ("+", Plain::List(a), Plain::List(b)) => Plain::List([a, b].concat()),
        ("startsWith", Plain::Text(a), Plain::Text(b)) => Plain::Bool(a.starts_with(&b)),
        ("contains", Plain::Text(a), Plain::Text(b)) => Plain::Bool(a.contains(&b)),
        ("[]", Plain::List(items), Plain::Int(at)) => items.get(usize::try_from(at).ok()?)?.clone(),
        (sign, a, b) => unreachable!("{a:?} {sign} {b:?}"),
    })
}

fn each(name: &str, list: &Tree, body: &Tree, elements: &mut Vec<i64>) -> Option<Plain> {
    let Plain::List(items) = value(list, elements)? else { unreachable!("a list") };
    let mut found = Vec::new();
    for item in &items {
        let Plain::Int(number) = item else { unreachable!("of whole numbers") };
        elements.push(*number);
        found.push(value(body, elements));
        elements.pop();
    }
    let held = |wanted: bool| found.iter().filter(|it| **it == Some(Plain::Bool(wanted))).count();
    let failed = found.iter().any(Option::is_none);
    Some(match name {
        "all" if held(false) > 0 => Plain::Bool(false),
        "exists" if held(true) > 0 => Plain::Bool(true),
        _ if failed => return None,
        "all" => Plain::Bool(true),
        "exists" => Plain::Bool(false),
        "exists_one" => Plain::Bool(held(true) == 1),
        "map" => Plain::List(found.into_iter().flatten().collect()),
        _ => {
            let kept = items.iter().zip(&found).filter(|(_, held)| **held == Some(Plain::Bool(true)));
            Plain::List(kept.map(|(item, _)| item.clone()).collect())
        }
    })
}

fn plain(value: &Plain) -> String {
    match value {
        Plain::Int(number) => number.to_string(),
        Plain::Bool(value) => value.to_string(),
        Plain::Text(text) => format!("{text:?}"),
        Plain::List(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
    }
}

#[test]
fn random_expressions_have_the_value_of_a_naive_walk() {
    let (mut values, mut errors) = (0, 0);
    for seed in 0..1_000 {
        let dice = &mut Dice(seed);
        let kind = dice.one(&[Kind::Int, Kind::Bool, Kind::Text, Kind::Ints]);
        let tree = tree(dice, kind, 4, 0);
        let text = text(&tree, 0);
        let compiled = match compile(&text, Purpose::Any) {
            Ok(compiled) => compiled,
            Err(faults) if faults.iter().all(|fault| fault.message.starts_with("it costs up to")) => continue,
            Err(faults) => panic!("{seed}: {text}: {faults:?}"),
        };
        let found: Option<Value> = evaluate(&compiled, &request()).ok();
        let expect = value(&tree, &mut Vec::new());
        assert_eq!(found.as_ref().map(shown), expect.as_ref().map(plain), "{seed}: {text}");
        *(if expect.is_some() { &mut values } else { &mut errors }) += 1;
    }
    assert!(values > 300 && errors > 30, "{values} values and {errors} errors: one of the two is not tried");
}

/// Texts that are nearly expressions are refused or have a value or none; nothing panics.
#[test]
fn no_text_panics() {
    const WORDS: [&str; 30] = [
        "1",
        "-",
        "9223372036854775808",
        "0x",
        "1u",
        "1.5e",
        "'a'",
        "'",
        "\"\\u",
        "b'\\",
        "request",
        ".path",
        ".headers",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ":",
        ",",
        "?",
        "&&",
        "||",
        "!",
        " in ",
        ".all(x,",
        "has(",
        "\u{e9}",
        "//",
    ];
    let dice = &mut Dice(7);
    for _ in 0..5_000 {
        let text: String = (0..dice.below(12)).map(|_| dice.one(&WORDS)).collect();
        if let Ok(expr) = compile(&text, Purpose::Any) {
            _ = evaluate(&expr, &request());
        }
    }
}
