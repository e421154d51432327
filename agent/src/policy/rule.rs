//! Rules and their matchers.

/// One entry of `rules:`.
#[derive(Debug)]
pub struct Rule {}
