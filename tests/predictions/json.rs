//! Generated JSON that looks like rows, and which of its keys stand twice.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// An object with all its entries, of which a map keeps one for each key; or another value.
#[derive(Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

/// The first key of a row that stands in its object twice.
pub fn find_doubled(line: &[u8]) -> Option<String> {
    const KEYS: [&str; 7] =
        ["dataset", "text", "prediction", "label_list", "words", "labels", "instance"];
    let Node::Object(entries) = serde_json::from_slice(line).ok()? else { return None };
    let mut seen = Vec::new();
    for (key, value) in entries {
        if KEYS.contains(&key.as_str()) && seen.contains(&key) {
            return Some(key);
        }
        if let ("instance", Node::Object(inner)) = (key.as_str(), value) {
            let mut seen = Vec::new();
            for (key, _) in inner {
                if ["words", "labels"].contains(&key.as_str()) && seen.contains(&key) {
                    return Some(format!("instance.{key}"));
                }
                seen.push(key);
            }
        }
        seen.push(key);
    }
    None
}

/// Pieces of JSON: one list joins to a plain line, or with white space to an unusual one.
#[derive(Debug, Clone)]
pub struct Tokens(Vec<String>);

impl Tokens {
    pub fn join(&self, space: &str) -> Vec<u8> {
        self.0.join(space).into_bytes()
    }

    fn mark(&mut self, mark: &str) {
        self.0.push(mark.to_owned());
    }

    fn list<T>(&mut self, frame: [&str; 2], items: &[T], write: impl Fn(&mut Self, &T)) {
        self.mark(frame[0]);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.mark(",");
            }
            write(self, item);
        }
        self.mark(frame[1]);
    }

    fn value(&mut self, value: &Json) {
        match value {
            Json::Literal(text) => self.mark(text),
            Json::List(items) => self.list(["[", "]"], items, Self::value),
            Json::Object(entries) => self.list(["{", "}"], entries, |tokens, (key, value)| {
                tokens.mark(key);
                tokens.mark(":");
                tokens.value(value);
            }),
        }
    }
}

/// JSON whose strings and keys are literals, so that escapes and doubled keys can be chosen.
#[derive(Debug, Clone)]
enum Json {
    Literal(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

fn literal() -> impl Strategy<Value = String> {
    let plain = prop_oneof!["[a-c]{0,3}", "\\PC{0,12}", Just("B-x".to_owned())]
        .prop_map(|text| serde_json::to_string(&text).unwrap());
    let escaped = select(vec![
        r#""\u0041\n""#,
        r#""\"""#,
        r#""\\""#,
        r#""a\\\"b""#,
        r#""\ud83d\ude00x""#,
        r#""x\/\b\f\r\t""#,
        r#""北\u5317""#,
        r#""\u00""#,
        r#""\ud800""#,
        r#""\x""#,
        "\"\u{7f}\"",
    ]);
    prop_oneof![9 => plain, 1 => escaped.prop_map(str::to_owned)]
}

/// A string that is what the row's texts are made of: never broken.
fn good_literal() -> impl Strategy<Value = String> {
    literal().prop_filter("a JSON string", |text| serde_json::from_str::<String>(text).is_ok())
}

fn other_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        select(vec![
            "0",
            "-1",
            "17",
            "1.5",
            "1e5",
            "-0.0",
            "1E+2",
            "10000000000000000000000",
            "true",
            "false",
            "null",
            "01",
            "1.",
            "-",
            "tru",
            "nulls",
            "+1",
            ".5",
            "NaN",
            "''",
            "",
        ])
        .prop_map(str::to_owned),
        literal(),
    ]
    .prop_map(Json::Literal);
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::List),
            prop::collection::vec((literal(), inner), 0..3).prop_map(Json::Object),
        ]
    })
}

fn strings() -> impl Strategy<Value = Json> {
    prop::collection::vec(good_literal().prop_map(Json::Literal), 0..5).prop_map(Json::List)
}

fn key() -> impl Strategy<Value = String> {
    select(vec![
        r#""dataset""#,
        r#""text""#,
        r#""prediction""#,
        r#""label_list""#,
        r#""words""#,
        r#""labels""#,
        r#""instance""#,
        r#""w\u006frds""#,
        r#""other""#,
        r#""""#,
    ])
    .prop_map(str::to_owned)
}

/// An object that looks like a row: usable, doubled keys, wrong types, and unread keys.
fn entries(hostile: bool) -> BoxedStrategy<Vec<(String, Json)>> {
    let pair = |name: &'static str, value: BoxedStrategy<Json>| {
        value.prop_map(move |value| (format!("\"{name}\""), value)).boxed()
    };
    let text = || good_literal().prop_map(Json::Literal).boxed();
    let sentence = || {
        prop::collection::vec((good_literal(), good_literal()), 0..5).prop_map(|pairs| {
            let (words, labels): (Vec<_>, Vec<_>) =
                pairs.into_iter().map(|(w, l)| (Json::Literal(w), Json::Literal(l))).unzip();
            vec![
                ("\"words\"".to_owned(), Json::List(words)),
                ("\"labels\"".to_owned(), Json::List(labels)),
            ]
        })
    };
    let nested =
        sentence().prop_map(|entries| vec![("\"instance\"".to_owned(), Json::Object(entries))]);
    let both = prop_oneof![sentence(), nested];
    let optional = prop::option::of(prop_oneof![pair("dataset", text()), pair("text", text())]);
    let scalar = select(vec!["1", "17", "true", "false", "null", r#""a\n""#, r#""{[""#])
        .prop_map(|text| Json::Literal(text.to_owned()));
    let unread = prop::collection::vec((Just("\"other\"".to_owned()), scalar), 0..2);
    let usable =
        (both, pair("label_list", strings().boxed()), pair("prediction", text()), optional, unread)
            .prop_map(|(mut row, list, prediction, optional, unread)| {
                row.extend([list, prediction]);
                row.extend(optional);
                row.extend(unread);
                row
            })
            .prop_shuffle();
    if !hostile {
        return usable.boxed();
    }
    let change = prop_oneof![
        2 => other_value(),
        1 => strings(),
        1 => prop::collection::vec((key(), prop_oneof![strings(), other_value()]), 0..3).prop_map(Json::Object),
    ];
    (usable, prop::collection::vec((any::<Index>(), any::<bool>(), key(), change), 0..3))
        .prop_map(|(mut row, changes)| {
            for (at, replace, key, value) in changes {
                let at = at.index(row.len());
                if replace {
                    row[at].1 = value;
                } else {
                    row.insert(at, (key, value));
                }
            }
            row
        })
        .boxed()
}

pub fn tokens(hostile: bool) -> impl Strategy<Value = Tokens> {
    entries(hostile).prop_map(|entries| {
        let mut tokens = Tokens(Vec::new());
        tokens.value(&Json::Object(entries));
        tokens
    })
}
