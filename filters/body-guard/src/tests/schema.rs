//! Schemas: which are taken, what a body that does not fit is told, and that the walk judges as an obvious validator
//! over whole documents does.

use serde_json::{Value, json};

use super::*;

const ORDER: &str = r##"{"json": {"schema": {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An order", "type": "object",
    "required": ["id", "lines"], "additionalProperties": false,
    "properties": {
        "id": {"type": "integer", "minimum": 1, "maximum": 18446744073709551615},
        "state": {"enum": ["new", "paid", null]},
        "kind": {"const": "order"},
        "note": {"type": ["string", "null"], "minLength": 2, "maxLength": 4},
        "lines": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"$ref": "#/$defs/line"}},
        "tags": {"additionalProperties": {"type": "boolean"}},
        "gone": false},
    "$defs": {"line": {"required": ["sku"], "properties": {"sku": true, "price": {"type": "number"},
        "parts": {"items": {"$ref": "#/$defs/line"}}}}}}}}"##;

#[test]
fn a_body_that_does_not_fit_is_told_where() {
    let mut guard = guard(ORDER);
    for (body, expect) in [
        (r#"{"id": 1, "lines": [{"sku": 1, "price": 1.5, "parts": [{"sku": []}]}]}"#, ""),
        (r#"{"id": 1.0, "lines": [7], "state": null, "note": "éé", "kind": "order", "tags": {"a": true}}"#, ""),
        (r#"{"id": 18446744073709551615, "lines": [{"sku": 1}], "note": null}"#, ""),
        ("[]", "the whole: object is expected"),
        ("", "EOF while parsing a value at line 1 column 0"),
        (r#"{"lines": [{"sku": 1}]}"#, "the whole: the field id is missing"),
        (r#"{"id": 1.5, "lines": [{"sku": 1}]}"#, "/id: integer is expected"),
        (r#"{"id": 0}"#, "/id: the number is below the minimum"),
        (r#"{"id": 1e30}"#, "/id: the number is above the maximum"),
        (r#"{"id": 18446744073709551616}"#, "/id: the number is above the maximum"),
        (r#"{"id": 18446744073709551615.0}"#, "/id: the number is above the maximum"),
        (r#"{"state": "old"}"#, "/state: one of the listed values is expected"),
        (r#"{"state": {}}"#, "/state: one of the listed values is expected"),
        (r#"{"kind": "orders"}"#, "/kind: one of the listed values is expected"),
        (r#"{"note": 7}"#, "/note: null or string is expected"),
        (r#"{"note": "é"}"#, "/note: at least 2 characters are expected"),
        (r#"{"note": "12345"}"#, "/note: at most 4 characters are expected"),
        (r#"{"lines": []}"#, "/lines: at least 1 items are expected"),
        (r#"{"lines": [{"sku": 1}, {"sku": 2}, {"sku": 3}]}"#, "/lines: at most 2 items are expected"),
        (r#"{"lines": [{"sku": 1}, {"sku": 1, "parts": [7, {}]}]}"#, "/lines/1/parts/1: the field sku is missing"),
        (r#"{"tags": {"a/b~c": 1}}"#, "/tags/a~1b~0c: boolean is expected"),
        (r#"{"tags": {"\u0007": 1}}"#, "/tags/\\u{7}: boolean is expected"),
        (r#"{"gone": 1}"#, "/gone: nothing is allowed here"),
        (r#"{"other": 1}"#, "/other: this field is not allowed"),
    ] {
        let found = ask(&mut guard, &post(), body);
        let expect = if expect.is_empty() { "pass".to_owned() } else { format!("400 body_refused: {expect}") };
        assert_eq!(found, expect, "{body}");
    }
    let long = format!(r#"{{"tags": {{"{}": 1}}}}"#, "é".repeat(1_000));
    assert!(ask(&mut guard, &post(), &long).len() < 400, "a place is cut");
}

#[test]
fn a_schema_that_is_not_built_says_where() {
    let deep = (0..33).fold(json!({}), |inner, _| json!({"items": inner}));
    for (schema, word) in [
        (json!(7), "json.schema: a schema is expected"),
        (json!({"properties": {"a": {"pattern": "^a"}}}), "json.schema.properties.a.pattern: regular expressions"),
        (json!({"items": {"anyOf": []}}), "json.schema.items.anyOf: this keyword is not built"),
        (json!({"format": "email"}), "json.schema.format: this keyword"),
        (json!({"type": "float"}), "json.schema.type: \"float\" is no type"),
        (json!({"type": ["string", 7]}), "json.schema.type: 7 is no type"),
        (json!({"required": "a"}), "json.schema.required: an array"),
        (json!({"required": [1]}), "json.schema.required[0]: text"),
        (json!({"enum": [1, []]}), "json.schema.enum[1]: arrays and objects"),
        (json!({"enum": [1], "const": 1}), "one of enum and const"),
        (json!({"enum": vec![1; 257]}), "json.schema.enum: 257 values"),
        (json!({"minLength": -1}), "json.schema.minLength: a whole number"),
        (json!({"minimum": "1"}), "json.schema.minimum: a number"),
        (json!({"items": [{}]}), "json.schema.items: a schema is expected"),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "json.schema.$schema"),
        (json!({"items": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}), "json.schema.items.$schema"),
        (json!({"$ref": "other.json"}), "json.schema.$ref: \"other.json\" is no #/$defs/NAME"),
        (json!({"$ref": "#/$defs/a", "$defs": {}}), "json.schema.$ref"),
        (json!({"$ref": "#/$defs/a", "$defs": {"a": {}}, "type": "string"}), "json.schema.type: nothing stands beside"),
        (json!({"$defs": {"a": {"$ref": "#/$defs/a"}}}), "json.schema.$defs.a.$ref"),
        (json!({"items": {"$defs": {}}}), "json.schema.items.$defs: this keyword"),
        (deep, "more than 32 schemas in one another"),
    ] {
        let config = json!({"json": {"schema": schema}}).to_string();
        let error = Harness::<BodyGuard>::new(&config).expect_err("not a schema");
        assert!(error.contains(word), "{config}: {error}");
    }
}

/// What JSON Schema says, as plainly as can be.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema == &Value::Bool(true) };
    let compare = |a: &Value, b: &Value| a.as_f64().zip(b.as_f64()).map(|(a, b)| a - b);
    let equal = |a: &Value, b: &Value| compare(a, b).map_or(a == b, |difference| difference == 0.0);
    let is = |kind: &Value| match kind.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    let count = |asked: &Value| asked.as_u64().and_then(|count| usize::try_from(count).ok()).expect("a count");
    let length = value.as_str().map(|text| text.chars().count());
    let items = value.as_array().map(Vec::len);
    keywords.iter().all(|(key, asked)| match key.as_str() {
        "$ref" => {
            let name = asked.as_str().and_then(|text| text.strip_prefix("#/$defs/")).expect("a name");
            fits(root, &root["$defs"][name], value)
        }
        "type" => asked.as_array().map_or_else(|| is(asked), |kinds| kinds.iter().any(is)),
        "enum" => asked.as_array().is_some_and(|all| all.iter().any(|one| equal(one, value))),
        "const" => equal(asked, value),
        "minimum" => compare(value, asked).is_none_or(|difference| difference >= 0.0),
        "maximum" => compare(value, asked).is_none_or(|difference| difference <= 0.0),
        "minLength" => length.is_none_or(|length| length >= count(asked)),
        "maxLength" => length.is_none_or(|length| length <= count(asked)),
        "minItems" => items.is_none_or(|items| items >= count(asked)),
        "maxItems" => items.is_none_or(|items| items <= count(asked)),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(root, asked, item))),
        "required" => value.as_object().is_none_or(|fields| {
            asked
                .as_array()
                .is_some_and(|names| names.iter().all(|name| fields.contains_key(name.as_str().expect("text"))))
        }),
        "properties" => value.as_object().is_none_or(|fields| {
            fields.iter().all(|(name, field)| asked.get(name).is_none_or(|schema| fits(root, schema, field)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|fields| {
            let named = |name: &str| keywords.get("properties").is_some_and(|known| known.get(name).is_some());
            fields.iter().all(|(name, field)| named(name) || fits(root, asked, field))
        }),
        "$defs" => true,
        other => panic!("{other}"),
    })
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).expect("32 bits") % most
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn scalar(&mut self) -> Value {
        self.one(&[
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(2),
            json!(2.0),
            json!(1.5),
            json!(""),
            json!("a"),
            json!("éa"),
        ])
    }

    fn document(&mut self, level: usize) -> Value {
        match self.below(if level == 0 { 1 } else { 3 }) {
            0 => self.scalar(),
            1 => (0..self.below(4)).map(|_| self.document(level - 1)).collect(),
            _ => {
                (0..self.below(4)).map(|_| (self.one(&["a", "b", "c"]).to_owned(), self.document(level - 1))).collect()
            }
        }
    }

    fn schema(&mut self, level: usize) -> Value {
        if self.below(8) == 0 {
            return self.one(&[json!(true), json!(false), json!({"$ref": "#/$defs/d"}), json!({"$ref": "#/$defs/e"})]);
        }
        let mut schema = serde_json::Map::new();
        for _ in 0..self.below(4) {
            let (key, asked) = match self.below(if level == 0 { 7 } else { 10 }) {
                0 => (
                    "type",
                    self.one(&[
                        json!("integer"),
                        json!("number"),
                        json!(["array", "object"]),
                        json!(["null", "string"]),
                    ]),
                ),
                1 => ("enum", (0..3).map(|_| self.scalar()).collect()),
                2 => ("minimum", self.one(&[json!(0), json!(1.5)])),
                3 => ("maximum", self.one(&[json!(1.5), json!(2)])),
                4 => (self.one(&["minLength", "maxLength"]), self.below(3).into()),
                5 => (self.one(&["minItems", "maxItems"]), self.below(4).into()),
                6 => ("required", self.one(&[json!(["a"]), json!(["a", "b", "a"])])),
                7 => ("items", self.schema(level - 1)),
                8 => ("additionalProperties", self.schema(level - 1)),
                _ => ("properties", json!({"a": self.schema(level - 1), "c": self.schema(level - 1)})),
            };
            schema.insert(key.to_owned(), asked);
        }
        schema.into()
    }
}

#[test]
fn the_walk_judges_as_the_model_does() {
    let mut dice = Dice(0x5eed_0001);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..4_000 {
        let mut schema = dice.schema(3);
        if let Some(schema) = schema.as_object_mut().filter(|schema| !schema.contains_key("$ref")) {
            let (d, e) = (dice.schema(1), dice.schema(1));
            let defined = |it: Value| if it.get("$ref").is_some() { json!(true) } else { it };
            schema.insert("$defs".to_owned(), json!({"d": defined(d), "e": defined(e)}));
        } else {
            schema =
                json!({"items": schema, "$defs": {"d": {"type": "string"}, "e": {"items": {"$ref": "#/$defs/e"}}}});
        }
        let ready = crate::schema::Schema::read(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        let bounds = json::Bounds { depth: 100, schema: Some(ready), ..json::Bounds::default() };
        for _ in 0..4 {
            let document = dice.document(4);
            let expect = fits(&schema, &schema, &document);
            let found = json::judge(document.to_string().as_bytes(), &bounds);
            assert_eq!(found.is_ok(), expect, "{schema}\n{document}\n{found:?}");
            *(if expect { &mut good } else { &mut bad }) += 1;
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} fit, {bad} don't");
}
