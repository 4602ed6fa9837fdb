//! What the fuzz target of request bodies drives: compiled under `--cfg fuzzing` alone, part of no release.

use order_domain::Command;

use crate::error::Problem;
use crate::order_body::{
    CancelBody, NewLineBody, PayBody, PlaceOrderBody, RefundBody, ShipBody, parse, parse_optional,
};

/// Makes a body into the command that the first byte chooses, as the endpoints do; the error is the problem's JSON.
///
/// # Errors
/// The problem that a client would be told.
pub fn command_of(input: &[u8]) -> Result<Command, Vec<u8>> {
    let (kind, body) = input.split_first().unwrap_or((&0, &[]));
    let command = match kind % 6 {
        0 => parse::<PlaceOrderBody<'_>>(body).and_then(PlaceOrderBody::into_command),
        1 => parse::<NewLineBody<'_>>(body).and_then(NewLineBody::into_command),
        2 => parse::<PayBody>(body).and_then(PayBody::into_command),
        3 => parse_optional::<RefundBody>(body).and_then(RefundBody::into_command),
        4 => parse_optional::<ShipBody>(body).map(ShipBody::into_command),
        _ => parse_optional::<CancelBody>(body).map(CancelBody::into_command),
    };
    command.map_err(|problem: Problem| {
        let mut json = Vec::new();
        problem.write_json("/orders", "fuzz", &mut json);
        json
    })
}
