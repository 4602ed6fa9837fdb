//! How often a test does what it does: as often as fits into an ordinary run, or as an environment variable says. A soak
//! is the same test with a larger number.

/// The number in `variable`, or the `ordinary` one.
pub(crate) fn count(variable: &str, ordinary: u64) -> u64 {
    std::env::var(variable).map_or(ordinary, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not `{text}`"))
    })
}
