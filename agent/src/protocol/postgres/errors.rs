//! What weir says in the server's place, and what it lets the server say about tables with masked columns.

use bytes::{Bytes, BytesMut};
use weir_wire::{WireError, postgres};

use crate::{
    flow::{Failure, Reason, SessionId},
    policy::Denied,
};

/// One error of weir's own. Empty parts are left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complaint<'a> {
    pub(super) severity: &'static str,
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    pub(super) detail: &'a str,
}

impl Complaint<'_> {
    /// The ErrorResponse; its hint names the session, by which the journal finds the rest.
    pub(super) fn encode(self, session: SessionId) -> Bytes {
        let hint = format!("weir session {session}");
        let mut out = BytesMut::with_capacity(128 + self.message.len() + self.detail.len());
        let fields = [
            (b'S', self.severity),
            (b'V', self.severity),
            (b'C', self.code),
            (b'M', self.message),
            (b'D', self.detail),
            (b'H', hint.as_str()),
        ];
        postgres::error_response(&mut out, b'E', fields.map(|(code, value)| (code, value.as_bytes())));
        out.freeze()
    }
}

/// A statement that policy refused: the session lives on.
pub(super) fn denial(denied: &Denied, session: SessionId) -> Bytes {
    let detail = format!("Denied by rule {}.", denied.rule);
    Complaint { severity: "ERROR", code: "42501", message: &denied.message, detail: &detail }.encode(session)
}

/// Text that is no SQL, which policy refuses because nobody can judge it: in the words of a server that meets a typing error.
pub(super) fn misspelling(denied: &Denied, syntax_error: &str, session: SessionId) -> Bytes {
    let message = format!("weir cannot read this statement: {syntax_error}");
    let detail = format!("Denied by rule {}.", denied.rule);
    Complaint { severity: "ERROR", code: "42601", message: &message, detail: &detail }.encode(session)
}

/// Why a setting is refused under which text means something else.
pub(super) fn unsafe_setting(setting: &str) -> String {
    let safe = if setting == "client_encoding" { "an encoding like UTF8" } else { "on" };
    format!("{setting} must stay {safe}: weir could not read later statements as the server does")
}

/// A login that policy refused: the session ends.
pub(super) fn login_denial(denied: &Denied, session: SessionId) -> Bytes {
    let detail = format!("Denied by rule {}.", denied.rule);
    Complaint { severity: "FATAL", code: "28000", message: &denied.message, detail: &detail }.encode(session)
}

/// The last words of a session that ends for `failure`; empty when there is nobody left to hear them.
pub(super) fn farewell(failure: &Failure, session: SessionId) -> Bytes {
    let (code, message) = match failure.reason {
        Reason::DownstreamClosed | Reason::DownstreamReset => return Bytes::new(),
        Reason::CredentialRejected => ("28000", "the server rejected the managed credential"),
        Reason::CredentialUnavailable => ("57P03", "the managed credential is not available"),
        Reason::Denied => ("28000", "the connection was denied by policy"),
        Reason::DownstreamMalformed => ("08P01", "malformed message from the client"),
        Reason::DownstreamTls => ("08P01", "the TLS handshake with the client failed"),
        Reason::Drained => ("57P01", "the agent is shutting down"),
        Reason::Internal => ("XX000", "internal error of the agent"),
        Reason::JournalUnavailable => ("57P03", "the journal cannot be written"),
        Reason::LimitExceeded => ("54000", "a limit of the agent was exceeded"),
        Reason::MaskImpossible => ("42501", "the answer cannot be masked"),
        Reason::TimedOut => ("57P05", "the connection timed out"),
        Reason::UnknownOrigin => ("28000", "the origin of the connection is not known"),
        Reason::UpstreamClosed => ("08006", "the server closed the connection"),
        Reason::UpstreamMalformed => ("08P01", "malformed message from the server"),
        Reason::UpstreamReset => ("08006", "the connection to the server was lost"),
        Reason::UpstreamTls => ("08001", "no acceptable TLS with the server"),
        Reason::UpstreamUnreachable => ("08001", "the server cannot be reached"),
    };
    Complaint { severity: "FATAL", code, message, detail: failure.public() }.encode(session)
}

/// To a client whose first words are not PostgreSQL's; empty if it said nothing wrong.
pub(super) fn invalid_startup(failure: &Failure, session: SessionId) -> Bytes {
    match failure.reason {
        Reason::DownstreamMalformed | Reason::LimitExceeded => {
            let message = "invalid startup packet";
            Complaint { severity: "FATAL", code: "08P01", message, detail: &failure.detail }.encode(session)
        }
        _ => Bytes::new(),
    }
}

/// Rewrites an error or notice that may quote values of masked columns: the message becomes the name of the condition; detail,
/// context, hint, internal query and fields unknown to us go; names of objects and positions stay.
pub(super) fn canonical(tag: u8, body: &[u8], out: &mut BytesMut) -> Result<(), WireError> {
    let fields = postgres::error_fields(body)?;
    let condition = condition_name(field(&fields, b'C').unwrap_or_default());
    let kept = fields.iter().filter_map(|(code, value)| match code {
        b'M' => Some((b'M', condition.as_bytes())),
        b'S' | b'V' | b'C' | b'P' | b'p' | b'F' | b'L' | b'R' | b's' | b't' | b'c' | b'd' | b'n' => Some((*code, *value)),
        _ => None,
    });
    postgres::error_response(out, tag, kept);
    Ok(())
}

/// The value of one field.
pub(super) fn field<'a>(fields: &[(u8, &'a [u8])], code: u8) -> Option<&'a [u8]> {
    fields.iter().find(|(known, _)| *known == code).map(|(_, value)| *value)
}

/// The name of a SQLSTATE (appendix A of PostgreSQL's manual), for the conditions that applications meet.
pub(super) fn condition_name(code: &[u8]) -> &'static str {
    let found = CONDITIONS.binary_search_by(|(known, _)| known.as_bytes().cmp(code));
    found.ok().and_then(|at| CONDITIONS.get(at)).map_or("error", |(_, name)| name)
}

/// Sorted by code.
const CONDITIONS: &[(&str, &str)] = &[
    ("00000", "successful_completion"),
    ("01000", "warning"),
    ("01003", "null_value_eliminated_in_set_function"),
    ("01004", "string_data_right_truncation"),
    ("01006", "privilege_not_revoked"),
    ("01007", "privilege_not_granted"),
    ("0100C", "dynamic_result_sets_returned"),
    ("01P01", "deprecated_feature"),
    ("02000", "no_data"),
    ("08000", "connection_exception"),
    ("08003", "connection_does_not_exist"),
    ("08006", "connection_failure"),
    ("08P01", "protocol_violation"),
    ("09000", "triggered_action_exception"),
    ("0A000", "feature_not_supported"),
    ("20000", "case_not_found"),
    ("21000", "cardinality_violation"),
    ("22000", "data_exception"),
    ("22001", "string_data_right_truncation"),
    ("22003", "numeric_value_out_of_range"),
    ("22004", "null_value_not_allowed"),
    ("22007", "invalid_datetime_format"),
    ("22008", "datetime_field_overflow"),
    ("22009", "invalid_time_zone_displacement_value"),
    ("2200G", "most_specific_type_mismatch"),
    ("22011", "substring_error"),
    ("22012", "division_by_zero"),
    ("22021", "character_not_in_repertoire"),
    ("22023", "invalid_parameter_value"),
    ("22025", "invalid_escape_sequence"),
    ("22026", "string_data_length_mismatch"),
    ("2202E", "array_subscript_error"),
    ("22030", "duplicate_json_object_key_value"),
    ("22032", "invalid_json_text"),
    ("22033", "invalid_sql_json_subscript"),
    ("22P01", "floating_point_exception"),
    ("22P02", "invalid_text_representation"),
    ("22P03", "invalid_binary_representation"),
    ("22P04", "bad_copy_file_format"),
    ("22P05", "untranslatable_character"),
    ("23000", "integrity_constraint_violation"),
    ("23001", "restrict_violation"),
    ("23502", "not_null_violation"),
    ("23503", "foreign_key_violation"),
    ("23505", "unique_violation"),
    ("23514", "check_violation"),
    ("23P01", "exclusion_violation"),
    ("24000", "invalid_cursor_state"),
    ("25000", "invalid_transaction_state"),
    ("25001", "active_sql_transaction"),
    ("25006", "read_only_sql_transaction"),
    ("25P01", "no_active_sql_transaction"),
    ("25P02", "in_failed_sql_transaction"),
    ("25P03", "idle_in_transaction_session_timeout"),
    ("26000", "invalid_sql_statement_name"),
    ("27000", "triggered_data_change_violation"),
    ("28000", "invalid_authorization_specification"),
    ("28P01", "invalid_password"),
    ("2BP01", "dependent_objects_still_exist"),
    ("2D000", "invalid_transaction_termination"),
    ("2F000", "sql_routine_exception"),
    ("34000", "invalid_cursor_name"),
    ("38000", "external_routine_exception"),
    ("3B001", "invalid_savepoint_specification"),
    ("3D000", "invalid_catalog_name"),
    ("3F000", "invalid_schema_name"),
    ("40000", "transaction_rollback"),
    ("40001", "serialization_failure"),
    ("40002", "transaction_integrity_constraint_violation"),
    ("40003", "statement_completion_unknown"),
    ("40P01", "deadlock_detected"),
    ("42501", "insufficient_privilege"),
    ("42601", "syntax_error"),
    ("42602", "invalid_name"),
    ("42611", "invalid_column_definition"),
    ("42622", "name_too_long"),
    ("42701", "duplicate_column"),
    ("42702", "ambiguous_column"),
    ("42703", "undefined_column"),
    ("42704", "undefined_object"),
    ("42710", "duplicate_object"),
    ("42712", "duplicate_alias"),
    ("42723", "duplicate_function"),
    ("42725", "ambiguous_function"),
    ("42803", "grouping_error"),
    ("42804", "datatype_mismatch"),
    ("42809", "wrong_object_type"),
    ("42830", "invalid_foreign_key"),
    ("42846", "cannot_coerce"),
    ("42883", "undefined_function"),
    ("428C9", "generated_always"),
    ("42939", "reserved_name"),
    ("42P01", "undefined_table"),
    ("42P02", "undefined_parameter"),
    ("42P03", "duplicate_cursor"),
    ("42P04", "duplicate_database"),
    ("42P05", "duplicate_prepared_statement"),
    ("42P06", "duplicate_schema"),
    ("42P07", "duplicate_table"),
    ("42P08", "ambiguous_parameter"),
    ("42P10", "invalid_column_reference"),
    ("42P16", "invalid_table_definition"),
    ("42P17", "invalid_object_definition"),
    ("42P18", "indeterminate_datatype"),
    ("42P19", "invalid_recursion"),
    ("42P20", "windowing_error"),
    ("42P21", "collation_mismatch"),
    ("42P22", "indeterminate_collation"),
    ("44000", "with_check_option_violation"),
    ("53000", "insufficient_resources"),
    ("53100", "disk_full"),
    ("53200", "out_of_memory"),
    ("53300", "too_many_connections"),
    ("53400", "configuration_limit_exceeded"),
    ("54000", "program_limit_exceeded"),
    ("54001", "statement_too_complex"),
    ("54011", "too_many_columns"),
    ("54023", "too_many_arguments"),
    ("55000", "object_not_in_prerequisite_state"),
    ("55006", "object_in_use"),
    ("55P02", "cant_change_runtime_param"),
    ("55P03", "lock_not_available"),
    ("57000", "operator_intervention"),
    ("57014", "query_canceled"),
    ("57P01", "admin_shutdown"),
    ("57P02", "crash_shutdown"),
    ("57P03", "cannot_connect_now"),
    ("57P04", "database_dropped"),
    ("57P05", "idle_session_timeout"),
    ("58000", "system_error"),
    ("58030", "io_error"),
    ("58P01", "undefined_file"),
    ("P0000", "plpgsql_error"),
    ("P0001", "raise_exception"),
    ("P0002", "no_data_found"),
    ("P0003", "too_many_rows"),
    ("P0004", "assert_failure"),
    ("XX000", "internal_error"),
    ("XX001", "data_corrupted"),
    ("XX002", "index_corrupted"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_conditions_sorted() {
        assert!(CONDITIONS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn names_conditions_and_nothing_else() {
        assert_eq!(condition_name(b"23514"), "check_violation");
        assert_eq!(condition_name(b"ZZZZZ"), "error");
        assert_eq!(condition_name(b""), "error");
    }

    #[test]
    fn drops_what_may_quote_a_value() {
        let mut body = BytesMut::new();
        let fields: [(u8, &[u8]); 9] = [
            (b'S', b"ERROR"),
            (b'C', b"22P02"),
            (b'M', b"invalid input syntax for type integer: \"S3cr3t!one\""),
            (b'D', b"row (1, S3cr3t!one)"),
            (b'H', b"S3cr3t!one"),
            (b'W', b"S3cr3t!one"),
            (b'q', b"S3cr3t!one"),
            (b'Z', b"S3cr3t!one"),
            (b't', b"users"),
        ];
        postgres::error_response(&mut body, b'E', fields);
        let mut out = BytesMut::new();
        canonical(b'E', &body[5..], &mut out).unwrap();
        assert_eq!(
            postgres::error_fields(&out[5..]).unwrap(),
            [(b'S', &b"ERROR"[..]), (b'C', b"22P02"), (b'M', b"invalid_text_representation"), (b't', b"users")]
        );
    }
}
