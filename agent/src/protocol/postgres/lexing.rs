//! Whether the server reads text by the rules that `sql` reads it by.

use std::sync::Arc;

use super::{rows::Mentions, sql::Reading};
use crate::flow::{Effect, Statement};

/// How the server reads text, as far as ours depends on it.
#[derive(Default)]
pub(super) struct Lexing {
    plain_backslashes_off: bool,
    unsafe_encoding: bool,
}

impl Lexing {
    /// Follows the server's reports.
    pub(super) fn reported(&mut self, name: &[u8], value: &[u8]) {
        match name {
            CONFORMING => self.plain_backslashes_off = value != b"on",
            ENCODING => self.unsafe_encoding = is_unsafe_encoding(value),
            _ => {}
        }
    }

    /// Why this text cannot be read at the moment, if it cannot. Without a backslash, or with ASCII alone, it means the same under
    /// every setting: so a session can always be brought back.
    pub(super) fn objection(&self, text: &[u8]) -> Option<&'static str> {
        if self.plain_backslashes_off && text.contains(&b'\\') {
            return Some("standard_conforming_strings is off");
        }
        (self.unsafe_encoding && !text.is_ascii()).then_some("client_encoding has characters that hold ASCII bytes")
    }
}

impl Reading {
    /// What is left of a reading when the server reads the text by other rules than ours.
    pub(super) fn made_unreadable(self, why: &str) -> Self {
        let mut statement = Statement::clone(&self.statement);
        statement.effects.insert(Effect::Unreadable);
        statement.readable = false;
        statement.unreadable_reason = Some(why.to_owned());
        Self { statement: Arc::new(statement), mentions: Arc::new(Mentions::unknown()), by_name: None, ..self }
    }
}

/// The setting, if later text could not be read with this value of it. `None`: the value is not known.
pub(super) fn unsafe_setting(name: &[u8], value: Option<&[u8]>) -> Option<&'static str> {
    if name.eq_ignore_ascii_case(CONFORMING) {
        return (!value.is_some_and(is_true)).then_some("standard_conforming_strings");
    }
    (name.eq_ignore_ascii_case(ENCODING) && value.is_none_or(is_unsafe_encoding)).then_some("client_encoding")
}

/// The unsafe setting among the command-line options of a startup message.
pub(super) fn unsafe_option(options: &[u8]) -> Option<&'static str> {
    let words = split(options);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let assignment = match word.as_slice() {
            b"-c" | b"--" => words.next().map(Vec::as_slice),
            [b'-', b'c', rest @ ..] | [b'-', b'-', rest @ ..] => Some(rest),
            _ => None,
        };
        let Some(assignment) = assignment else { continue };
        let mut parts = assignment.splitn(2, |byte| *byte == b'=');
        let name: Vec<u8> =
            parts.next().unwrap_or_default().iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect();
        if let Some(setting) = unsafe_setting(&name, parts.next()) {
            return Some(setting);
        }
    }
    None
}

/// As the server splits them: at white space, unless a backslash stands before it.
pub(super) fn split(options: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut bytes) = (Vec::new(), Vec::new(), options.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => word.extend(bytes.next()),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.push(std::mem::take(&mut word)),
            byte => word.push(*byte),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// As the server spells true: any beginning that is not also one of false.
pub(super) fn is_true(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &[u8]| !value.is_empty() && word.starts_with(&value);
    begins(b"true") || begins(b"yes") || value == b"on" || value == b"1"
}

/// The server compares names of encodings by their letters and digits alone.
pub(super) fn is_unsafe_encoding(value: &[u8]) -> bool {
    let name: Vec<u8> = value.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    UNSAFE_ENCODINGS.contains(&name.as_slice())
}

const CONFORMING: &[u8] = b"standard_conforming_strings";
const ENCODING: &[u8] = b"client_encoding";

/// Client encodings in which a byte below 128 may be part of another character, so that a quote is not what it seems; with all
/// their names.
const UNSAFE_ENCODINGS: &[&[u8]] = &[
    b"big5",
    b"gb18030",
    b"gbk",
    b"johab",
    b"mskanji",
    b"shiftjis",
    b"shiftjis2004",
    b"sjis",
    b"uhc",
    b"win932",
    b"win936",
    b"win949",
    b"win950",
    b"windows932",
    b"windows936",
    b"windows949",
    b"windows950",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_unsafe_options_in_every_spelling() {
        for options in [
            "-c standard_conforming_strings=off",
            "-cclient_encoding=SJIS",
            "--standard-conforming-strings=0",
            "-c geqo=on --client-encoding=windows-932",
            "-c\tstandard_conforming\\_strings=off",
            "-c Client_Encoding=Shift_JIS_2004",
        ] {
            assert!(unsafe_option(options.as_bytes()).is_some(), "{options}");
        }
        for options in ["", "-c search_path=a", "-c standard_conforming_strings=on", "--client-encoding=latin1", "-c"] {
            assert!(unsafe_option(options.as_bytes()).is_none(), "{options}");
        }
    }

    #[test]
    fn reads_what_means_the_same_under_every_setting() {
        let mut lexing = Lexing::default();
        lexing.reported(b"standard_conforming_strings", b"off");
        assert!(lexing.objection(br"select '\'").is_some());
        assert!(lexing.objection(b"set standard_conforming_strings = on").is_none());
        lexing.reported(b"standard_conforming_strings", b"on");
        lexing.reported(b"client_encoding", b"SJIS");
        assert!(lexing.objection(b"select '\x83\x5c'").is_some());
        assert!(lexing.objection(b"rollback").is_none());
        lexing.reported(b"client_encoding", b"UTF8");
        assert!(lexing.objection("select 'ü'".as_bytes()).is_none());
    }
}
