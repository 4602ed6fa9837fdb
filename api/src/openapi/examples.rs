//! Examples of the OpenAPI document: what a person copies, and what tools try first. Each is held against the very code
//! that reads such a request.

use serde_json::{Value, json};

/// An example of a parameter, by its name in the components. There is none for what the service seals, nor for a form
/// that says it all.
pub(super) fn of_parameter(name: &str) -> Option<Value> {
    Some(match name {
        "OrderId" => json!("0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f"),
        "EventId" | "DeadAfter" => json!("0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f-1"),
        "LineId" | "MinVersion" | "AtVersion" | "AfterVersion" => json!(1),
        "ProjectionName" => json!("sku_demand"),
        "Status" => json!("placed"),
        "CustomerId" => json!("c-1042"),
        "CreatedAfter" | "AsOf" => json!("2026-11-22T19:00:00Z"),
        "CreatedBefore" => json!("2026-11-23T19:00:00Z"),
        "Limit" | "EventLimit" | "DeadLimit" => json!(50),
        "Partition" => json!(0),
        "EventType" => json!("OrderPlaced,OrderPaid"),
        "From" => json!("end"),
        "IfMatch" | "IfNoneMatch" => json!("\"1\""),
        "IdempotencyKey" => json!("checkout-17"),
        "Prefer" => json!("wait=1"),
        "PreferAsync" => json!("respond-async"),
        "RequestId" => json!("checkout-17-try-1"),
        "Traceparent" => json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        _ => return None,
    })
}

/// An example of a request's body, by its schema's name in the components.
pub(super) fn of_body(schema: &str) -> Option<Value> {
    Some(match schema {
        "PlaceOrder" => json!({
            "customer_id": "c-1042",
            "currency": "EUR",
            "lines": [{"sku": "SKU-1", "quantity": 2, "unit_price": 1999}],
            "metadata": {"channel": "web"}
        }),
        "NewLine" => json!({"sku": "SKU-2", "quantity": 1, "unit_price": 500}),
        "PayOrder" => json!({"amount": 3998, "reference": "p-9"}),
        "ShipOrder" => json!({"carrier": "DHL", "tracking_number": "00340"}),
        "CancelOrder" => json!({"reason": "ordered twice"}),
        "RefundOrder" => json!({"amount": 100, "reason": "scratched"}),
        "NoFields" => json!({}),
        "OrderLines" => json!(
            "{\"customer_id\":\"c-8\",\"currency\":\"EUR\",\"lines\":[{\"sku\":\"SKU-1\",\"quantity\":1,\"unit_price\":100}]}\n"
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::operations::OPERATIONS;
    use super::*;
    use crate::error::Problem;
    use crate::order_body::{
        CancelBody, EmptyBody, NewLineBody, PayBody, PlaceOrderBody, RefundBody, ShipBody, parse,
    };

    #[test]
    fn every_body_has_an_example_that_makes_a_command() {
        for operation in OPERATIONS {
            let Some(body) = &operation.body else {
                continue;
            };
            let example = of_body(body.schema).unwrap_or_else(|| panic!("{}", body.schema));
            let text = match &example {
                Value::String(text) => text.clone(),
                object => object.to_string(),
            };
            let bytes = text.trim_end().as_bytes();
            let read: Result<(), Problem> = match body.schema {
                "PlaceOrder" | "OrderLines" => parse::<PlaceOrderBody<'_>>(bytes)
                    .and_then(PlaceOrderBody::into_command)
                    .map(drop),
                "NewLine" => parse::<NewLineBody<'_>>(bytes)
                    .and_then(NewLineBody::into_command)
                    .map(drop),
                "PayOrder" => parse::<PayBody>(bytes)
                    .and_then(PayBody::into_command)
                    .map(drop),
                "RefundOrder" => parse::<RefundBody>(bytes)
                    .and_then(RefundBody::into_command)
                    .map(drop),
                "ShipOrder" => parse::<ShipBody>(bytes).map(drop),
                "CancelOrder" => parse::<CancelBody>(bytes).map(drop),
                "NoFields" => parse::<EmptyBody>(bytes).map(drop),
                other => panic!("nothing reads {other}"),
            };
            assert!(read.is_ok(), "{}: {read:?}", body.schema);
        }
    }
}
