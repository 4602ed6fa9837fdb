//! The bodies of commands: parsed once, from bytes, into borrowed shapes; then made into the domain's checked types.
//!
//! Two kinds of mistakes: a wrong shape (400) and an impossible value (422). Both point at the place. Pointers are worked
//! out only when parsing failed: the way without mistakes does not pay for them.
//!
//! Long because the borrowed shapes, their way into the domain and the tests of both are one mapping, read side by side.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use order_domain::{
    Amount, Command, Currency, CustomerId, Metadata, MoneyError, NewLine, PlaceOrder, Quantity, Sku,
};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use utoipa::ToSchema;

use crate::error::{FieldError, Problem, ProblemKind};

/// The body of `POST /orders`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PlaceOrder)]
pub(crate) struct PlaceOrderBody<'a> {
    /// Who orders.
    #[serde(borrow)]
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]([ -~]*[!-~])?$")]
    customer_id: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(schema_with = crate::openapi::currency_ref)]
    currency: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = Vec<NewLineBody<'a>>, min_items = 1, max_items = 500)]
    lines: Vec<Object<NewLineBody<'a>>>,
    /// Labels of the client's own: at most 32, keys up to 64 bytes, values up to 512.
    #[serde(default)]
    #[schema(schema_with = crate::openapi::metadata)]
    metadata: MetadataBody,
}

/// The body of `POST /orders/:id/lines`, and one line of a new order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewLine)]
pub(crate) struct NewLineBody<'a> {
    /// What to order.
    #[serde(borrow)]
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]([ -~]*[!-~])?$")]
    sku: Cow<'a, str>,
    /// How many units.
    #[schema(value_type = i64, minimum = 1, maximum = 1_000_000)]
    quantity: Integer,
    /// Price of one unit, in minor units of the currency.
    #[schema(value_type = i64, minimum = 0)]
    unit_price: Integer,
}

/// The body of `POST /orders/:id/pay`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PayOrder)]
pub(crate) struct PayBody {
    /// Must equal the order's total.
    #[schema(value_type = i64, minimum = 0)]
    amount: Integer,
    /// The payment provider's reference.
    #[schema(max_length = 256, pattern = "^([!-~]([ -~]*[!-~])?)?$")]
    reference: Option<String>,
}

/// The body of `POST /orders/:id/ship`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ShipOrder)]
pub(crate) struct ShipBody {
    /// Who carries it.
    #[schema(max_length = 256, pattern = "^([!-~]([ -~]*[!-~])?)?$")]
    carrier: Option<String>,
    /// The carrier's number.
    #[schema(max_length = 256, pattern = "^([!-~]([ -~]*[!-~])?)?$")]
    tracking_number: Option<String>,
}

/// The body of `POST /orders/:id/cancel`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CancelOrder)]
pub(crate) struct CancelBody {
    /// Why, in the client's words.
    #[schema(max_length = 256, pattern = "^([!-~]([ -~]*[!-~])?)?$")]
    reason: Option<String>,
}

/// The body of `POST /orders/:id/refund`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RefundOrder)]
pub(crate) struct RefundBody {
    /// All that is left if not given.
    #[schema(value_type = Option<i64>, minimum = 1)]
    amount: Option<Integer>,
    /// Why, in the client's words.
    #[schema(max_length = 256, pattern = "^([!-~]([ -~]*[!-~])?)?$")]
    reason: Option<String>,
}

/// The body of a step that takes nothing: no body, or an empty object.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NoFields)]
pub(crate) struct EmptyBody {}

/// An integer as JSON Schema has it: `2.0` is 2. Only where a double is exact, so that no amount is rounded.
#[derive(Debug, Clone, Copy)]
struct Integer(i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Doubles hold every integer up to here.
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Integer;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a 64-bit integer")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Integer, E> {
                Ok(Integer(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Integer, E> {
                let refused = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
                i64::try_from(number).map(Integer).map_err(|_| refused())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Integer, E> {
                if number.fract() == 0.0 && number.abs() < EXACT_MAX {
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "it is whole and below 2^53"
                    )]
                    return Ok(Integer(number as i64));
                }
                Err(E::invalid_type(de::Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_i64(Whole)
    }
}

/// A shape that is read from an object alone. serde would also take an array of the fields' values in their order,
/// which no document promises.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectOf<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectOf<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectOf(PhantomData))
    }
}

/// A client's labels: texts, no key twice. (serde's own maps let the last of two win.)
#[derive(Debug, Default)]
struct MetadataBody(Metadata);

impl<'de> Deserialize<'de> for MetadataBody {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Labels;
        impl<'de> Visitor<'de> for Labels {
            type Value = MetadataBody;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetadataBody, A::Error> {
                let mut labels = Metadata::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if labels.contains_key(&key) {
                        return Err(de::Error::custom(format_args!("duplicate key `{key}`")));
                    }
                    labels.insert(key, value);
                }
                Ok(MetadataBody(labels))
            }
        }
        deserializer.deserialize_map(Labels)
    }
}

/// Parses a body. An empty one is `None`: whether that is allowed is the caller's to say.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    match serde_json::from_slice(body) {
        Ok(Object(parsed)) => Ok(parsed),
        Err(error) => Err(explain::<T>(body, &error)),
    }
}

/// Parses a body that may be left out.
pub(crate) fn parse_optional<'a, T: Deserialize<'a> + Default>(
    body: &'a [u8],
) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    parse(body)
}

/// Why parsing failed: once more, this time keeping track of where.
#[cold]
fn explain<'a, T: Deserialize<'a>>(body: &'a [u8], error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::new(ProblemKind::InvalidJson, error.to_string());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let pointer = match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
        Err(located) => pointer(located.path()),
        Ok(_) => String::new(),
    };
    let detail = error.to_string();
    Problem::with_errors(
        ProblemKind::InvalidRequest,
        vec![FieldError { pointer, detail }],
    )
}

/// An RFC 6901 pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

/// Impossible values, gathered so that a client sees all of them at once.
#[derive(Debug, Default)]
struct Mistakes(Vec<FieldError>);

impl Mistakes {
    /// The value, or a mistake noted at what `pointer` makes.
    fn check<T, E: fmt::Display>(
        &mut self,
        result: Result<T, E>,
        pointer: impl FnOnce() -> String,
    ) -> Option<T> {
        result
            .map_err(|error| {
                self.0.push(FieldError {
                    pointer: pointer(),
                    detail: error.to_string(),
                });
            })
            .ok()
    }

    #[cold]
    fn problem(self) -> Problem {
        Problem::with_errors(ProblemKind::InvalidValue, self.0)
    }
}

impl PlaceOrderBody<'_> {
    /// The command, if every value is possible.
    pub(crate) fn into_command(self) -> Result<Command, Problem> {
        let mut mistakes = Mistakes::default();
        let customer_id = mistakes.check(CustomerId::new(self.customer_id.into_owned()), || {
            "/customer_id".to_owned()
        });
        let currency = mistakes.check(Currency::parse(&self.currency), || "/currency".to_owned());
        let mut lines = Vec::with_capacity(self.lines.len());
        for (index, Object(line)) in self.lines.into_iter().enumerate() {
            lines.extend(line.checked(&mut mistakes, || format!("/lines/{index}")));
        }
        match (customer_id, currency) {
            (Some(customer_id), Some(currency)) if mistakes.0.is_empty() => {
                Ok(Command::Place(PlaceOrder {
                    customer_id,
                    currency,
                    lines,
                    metadata: self.metadata.0,
                }))
            }
            _ => Err(mistakes.problem()),
        }
    }
}

impl NewLineBody<'_> {
    /// The command, if every value is possible.
    pub(crate) fn into_command(self) -> Result<Command, Problem> {
        let mut mistakes = Mistakes::default();
        match self.checked(&mut mistakes, String::new) {
            Some(line) => Ok(Command::AddLine(line)),
            None => Err(mistakes.problem()),
        }
    }

    fn checked(self, mistakes: &mut Mistakes, at: impl Fn() -> String) -> Option<NewLine> {
        let sku = mistakes.check(Sku::new(self.sku.into_owned()), || at() + "/sku");
        let units = quantity(self.quantity.0);
        let units = mistakes.check(units, || at() + "/quantity");
        let unit_price = mistakes.check(Amount::new(self.unit_price.0), || at() + "/unit_price");
        Some(NewLine {
            sku: sku?,
            quantity: units?,
            unit_price: unit_price?,
        })
    }
}

/// A quantity from whatever integer a client sent.
fn quantity(units: i64) -> Result<Quantity, String> {
    let refused = || {
        format!(
            "the quantity {units} is not between 1 and {}",
            Quantity::MAX
        )
    };
    let units = u32::try_from(units).map_err(|_| refused())?;
    Quantity::new(units).map_err(|_| refused())
}

fn amount(minor_units: i64) -> Result<Amount, Problem> {
    Amount::new(minor_units).map_err(|error: MoneyError| {
        Problem::with_errors(
            ProblemKind::InvalidValue,
            vec![FieldError {
                pointer: "/amount".to_owned(),
                detail: error.to_string(),
            }],
        )
    })
}

impl PayBody {
    /// The command, if every value is possible.
    pub(crate) fn into_command(self) -> Result<Command, Problem> {
        Ok(Command::Pay {
            amount: amount(self.amount.0)?,
            reference: self.reference,
        })
    }
}

impl RefundBody {
    /// The command, if every value is possible.
    pub(crate) fn into_command(self) -> Result<Command, Problem> {
        Ok(Command::Refund {
            amount: self.amount.map(|Integer(sum)| amount(sum)).transpose()?,
            reason: self.reason,
        })
    }
}

impl ShipBody {
    /// The command.
    pub(crate) fn into_command(self) -> Command {
        Command::Ship {
            carrier: self.carrier,
            tracking_number: self.tracking_number,
        }
    }
}

impl CancelBody {
    /// The command.
    pub(crate) fn into_command(self) -> Command {
        Command::Cancel {
            reason: self.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn place(body: &[u8]) -> Result<Command, Problem> {
        parse::<PlaceOrderBody<'_>>(body)?.into_command()
    }

    fn an_order() -> Value {
        json!({
            "customer_id": "c-1042", "currency": "EUR",
            "lines": [{"sku": "SKU-1", "quantity": 2, "unit_price": 1999}],
            "metadata": {"channel": "web"}
        })
    }

    /// The problem's code and pointers after `change` was made to a good order.
    fn refused(change: impl FnOnce(&mut Value)) -> (&'static str, Vec<String>) {
        let mut body = an_order();
        change(&mut body);
        let problem = place(body.to_string().as_bytes()).expect_err("the change breaks the order");
        let mut shown = Vec::new();
        problem.write_json("/orders", "r", &mut shown);
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        let pointers = shown["errors"].as_array().map_or(Vec::new(), |errors| {
            let pointer = |error: &Value| error["pointer"].as_str().unwrap().to_owned();
            errors.iter().map(pointer).collect()
        });
        (problem.kind().code(), pointers)
    }

    #[test]
    fn a_good_body_is_the_command_it_says() {
        let body = an_order().to_string();
        let Ok(Command::Place(order)) = place(body.as_bytes()) else {
            panic!("not placed");
        };
        assert_eq!(order.customer_id.as_str(), "c-1042");
        assert_eq!(order.currency.code(), "EUR");
        assert_eq!(order.lines[0].quantity.get(), 2);
        assert_eq!(order.metadata["channel"], "web");
    }

    #[test]
    fn a_wrong_shape_is_pointed_at() {
        let at = |pointer: &str| ("invalid-request", vec![pointer.to_owned()]);
        assert_eq!(
            refused(|body| body["lines"][0]["quantity"] = json!("2")),
            at("/lines/0/quantity")
        );
        assert_eq!(
            refused(|body| body["lines"][0]["unit_price"] = json!(1.5)),
            at("/lines/0/unit_price")
        );
        assert_eq!(refused(|body| body["a/b~c"] = json!(1)), at("/a~1b~0c"));
        assert_eq!(
            refused(|body| body["metadata"]["n"] = json!(1)),
            at("/metadata/n")
        );
        assert_eq!(
            refused(|body| body["currency"] = json!(null)),
            at("/currency")
        );
        assert_eq!(
            refused(|body| drop(body.as_object_mut().unwrap().remove("lines"))),
            at("")
        );
    }

    #[test]
    fn every_impossible_value_is_pointed_at() {
        let (code, pointers) = refused(|body| {
            body["customer_id"] = json!("");
            body["currency"] = json!("eur");
            body["lines"][0] = json!({"sku": " ", "quantity": 0, "unit_price": -1});
        });
        assert_eq!(code, "invalid-value");
        assert_eq!(
            pointers,
            [
                "/customer_id",
                "/currency",
                "/lines/0/sku",
                "/lines/0/quantity",
                "/lines/0/unit_price"
            ]
        );
    }

    #[test]
    fn what_is_not_json_is_told_from_what_has_the_wrong_shape() {
        for body in ["", "{", "nope", "{\"customer_id\":\"\u{1}\"}", "{} {}"] {
            let problem = place(body.as_bytes()).expect_err("this is no order");
            let expected = ["invalid-json", "invalid-request"];
            assert!(
                expected.contains(&problem.kind().code()),
                "{body}: {problem:?}"
            );
        }
        assert_eq!(
            place(b"{\"customer_id\":").expect_err("cut off").kind(),
            ProblemKind::InvalidJson
        );
        assert_eq!(
            place(b"\xff").expect_err("no UTF-8").kind(),
            ProblemKind::InvalidJson
        );
    }

    #[test]
    fn an_array_of_a_shapes_values_is_not_the_shape() {
        let whole = br#"["c","EUR",[{"sku":"s","quantity":1,"unit_price":1}],{}]"#;
        let line = br#"{"customer_id":"c","currency":"EUR","lines":[["s",1,1]]}"#;
        for body in [&whole[..], &line[..]] {
            let problem = place(body).expect_err("an array");
            assert_eq!(problem.kind(), ProblemKind::InvalidRequest);
        }
    }

    #[test]
    fn a_whole_number_may_have_a_point_and_no_number_is_rounded() {
        let with = |number: &str| {
            let body = format!(
                r#"{{"customer_id":"c","currency":"EUR","lines":[{{"sku":"s","quantity":1,"unit_price":{number}}}]}}"#
            );
            match place(body.as_bytes())? {
                Command::Place(order) => Ok(order.lines[0].unit_price.minor_units()),
                other => panic!("{other:?}"),
            }
        };
        let price = |number: &str| with(number).map_err(|problem: Problem| problem.kind());
        assert_eq!(price("120.0"), Ok(120));
        assert_eq!(price("1.2e2"), Ok(120));
        assert_eq!(price("9223372036854775807"), Ok(i64::MAX));
        for number in [
            "1.5",
            "9007199254740993.0",
            "9223372036854775808",
            "1e300",
            "NaN",
        ] {
            assert!(price(number).is_err(), "{number}");
        }
    }

    #[test]
    fn a_label_given_twice_is_refused() {
        let twice =
            br#"{"customer_id":"c","currency":"EUR","lines":[],"metadata":{"a":"1","a":"2"}}"#;
        let problem = place(twice).expect_err("two labels of one name");
        assert_eq!(problem.kind(), ProblemKind::InvalidRequest);
    }

    #[test]
    fn escaped_texts_are_understood() {
        let body = br#"{"customer_id":"c\u00e9","currency":"E\u0055R","lines":[]}"#;
        let Ok(Command::Place(order)) = place(body) else {
            panic!("not placed");
        };
        assert_eq!(order.customer_id.as_str(), "cé");
        assert_eq!(order.currency.code(), "EUR");
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = place(&body);
        }

        #[test]
        fn no_cut_of_a_good_body_is_taken(cut in 0_usize..120) {
            let body = an_order().to_string();
            prop_assume!(cut < body.len());
            prop_assert!(place(&body.as_bytes()[..cut]).is_err());
        }
    }
}
