//! Run-time settings whose change has an effect of its own.

use crate::{flow::Effect, protocol::postgres::lexing};

/// What setting (or resetting) `name` does beyond its own value. Names are compared without case, as the server does.
pub(super) fn effect_of(name: &str) -> Option<Effect> {
    let name = name.to_ascii_lowercase();
    if ROLE.contains(&name.as_str()) {
        return Some(Effect::SessionRole);
    }
    LEXING.contains(&name.as_str()).then_some(Effect::SessionLex)
}

/// The setting, if later text could not be read with this value of it. `None`: the value is computed.
pub(super) fn unsafe_setting(name: &str, value: Option<&str>) -> Option<&'static str> {
    lexing::unsafe_setting(name.as_bytes(), value.map(str::as_bytes))
}

const ROLE: &[&str] = &["role", "session_authorization"];

/// How later text is lexed, how its names are resolved, and which code runs because of it.
const LEXING: &[&str] = &[
    "array_nulls",
    "backslash_quote",
    "check_function_bodies",
    "client_encoding",
    "default_table_access_method",
    "dynamic_library_path",
    "escape_string_warning",
    "local_preload_libraries",
    "operator_precedence_warning",
    "quote_all_identifiers",
    "search_path",
    "session_preload_libraries",
    "session_replication_role",
    "standard_conforming_strings",
    "temp_schema",
    "transform_null_equals",
];
