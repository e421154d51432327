//! Settings that a client asks for with its startup message: what `SET` would do, without a statement.

use weir_wire::postgres::Startup;

use super::{
    lexing::{is_true, is_unsafe_encoding, split},
    sql::{self, Reading},
};

/// What the startup message sets.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The `SET` statements that mean the same, for policy to judge; settings that every driver sends and that change nothing
    /// about statements are left out.
    text: Vec<u8>,
    /// Why statements could not be read under these settings.
    pub(super) objection: Option<&'static str>,
}

struct Setting {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Wanted {
    /// Reads parameters and `options`.
    ///
    /// # Errors
    /// `options` hold something else than settings; says what.
    pub(super) fn of(startup: &Startup) -> Result<Self, &'static str> {
        let mut wanted = Self::default();
        for (name, value) in &startup.parameters {
            match name.as_ref() {
                b"user" | b"database" | b"replication" => {}
                b"options" => {
                    for Setting { name, value } in options(value)? {
                        wanted.add(&name, &value);
                    }
                }
                name if name.starts_with(b"_pq_.") => {}
                name => wanted.add(name, value),
            }
        }
        Ok(wanted)
    }

    /// What policy is to judge, if anything.
    pub(super) fn reading(&self) -> Option<Reading> {
        (!self.text.is_empty()).then(|| sql::read(&self.text))
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        let lower = name.to_ascii_lowercase();
        match lower.as_slice() {
            b"client_encoding" if is_unsafe_encoding(value) => {
                self.objection = Some("client_encoding has characters that hold ASCII bytes");
            }
            b"standard_conforming_strings" if !is_true(value) => self.objection = Some("standard_conforming_strings is off"),
            b"client_encoding" | b"standard_conforming_strings" => {}
            name if HARMLESS.contains(&name) => {}
            _ => {
                if !self.text.is_empty() {
                    self.text.extend_from_slice(b"; ");
                }
                self.text.extend_from_slice(b"SET ");
                quote(&mut self.text, name, b'"');
                self.text.extend_from_slice(b" = ");
                quote(&mut self.text, value, b'\'');
            }
        }
    }
}

fn quote(text: &mut Vec<u8>, word: &[u8], mark: u8) {
    text.push(mark);
    for byte in word {
        text.extend(std::iter::repeat_n(*byte, if *byte == mark { 2 } else { 1 }));
    }
    text.push(mark);
}

/// Splits `options` as a server does: at white space, a backslash takes the next byte as it is; then `-c name=value`,
/// `-cname=value` or `--name=value`.
fn options(value: &[u8]) -> Result<Vec<Setting>, &'static str> {
    if !value.is_ascii() {
        return Err("options hold bytes outside of ASCII");
    }
    let mut words = split(value).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.as_slice() {
            b"-c" => words.next().unwrap_or_default(),
            [b'-', b'c', rest @ ..] => rest.to_vec(),
            [b'-', b'-', rest @ ..] => rest.to_vec(),
            _ => return Err("options hold something else than settings"),
        };
        let mut parts = assignment.splitn(2, |byte| *byte == b'=');
        let (Some(name), Some(value)) = (parts.next().filter(|name| !name.is_empty()), parts.next()) else {
            return Err("options hold a setting without a value");
        };
        let name = name.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect();
        settings.push(Setting { name, value: value.to_vec() });
    }
    Ok(settings)
}

/// What drivers send with every login: formats, names and times, with which no statement means something else.
const HARMLESS: &[&[u8]] = &[
    b"application_name",
    b"bytea_output",
    b"client_min_messages",
    b"connect_timeout",
    b"datestyle",
    b"extra_float_digits",
    b"fallback_application_name",
    b"geqo",
    b"idle_in_transaction_session_timeout",
    b"idle_session_timeout",
    b"intervalstyle",
    b"jit",
    b"lock_timeout",
    b"statement_timeout",
    b"tcp_keepalives_count",
    b"tcp_keepalives_idle",
    b"tcp_keepalives_interval",
    b"timezone",
    b"transaction_timeout",
];

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn wanted(parameters: &[(&str, &str)]) -> Result<Wanted, &'static str> {
        let parameters =
            parameters.iter().map(|(name, value)| (Bytes::from((*name).to_owned()), Bytes::from((*value).to_owned())));
        Wanted::of(&Startup { minor: 0, parameters: parameters.collect() })
    }

    fn text(parameters: &[(&str, &str)]) -> String {
        String::from_utf8(wanted(parameters).unwrap().text).unwrap()
    }

    #[test]
    fn asks_nothing_about_what_drivers_send() {
        let driver = [
            ("user", "ann"),
            ("database", "shop"),
            ("client_encoding", "'utf-8'"),
            ("DateStyle", "ISO"),
            ("TimeZone", "Europe/Berlin"),
            ("extra_float_digits", "2"),
            ("application_name", "psql"),
            ("options", "-c geqo=off -c statement_timeout=5s"),
        ];
        let wanted = wanted(&driver).unwrap();
        assert!(wanted.reading().is_none() && wanted.objection.is_none());
    }

    #[test]
    fn reads_every_spelling_of_an_option() {
        assert_eq!(text(&[("options", "-c role=boss")]), r#"SET "role" = 'boss'"#);
        assert_eq!(text(&[("options", "\t-crole=boss ")]), r#"SET "role" = 'boss'"#);
        assert_eq!(text(&[("options", "--search-path=a,b")]), r#"SET "search_path" = 'a,b'"#);
        assert_eq!(text(&[("options", r"-c ro\le=b\ o\\ss")]), r#"SET "role" = 'b o\ss'"#);
        assert_eq!(text(&[("options", "-c a.b=1 -c c=x=y"), ("d", "")]), r#"SET "a.b" = '1'; SET "c" = 'x=y'; SET "d" = ''"#);
    }

    #[test]
    fn quotes_names_and_values() {
        assert_eq!(text(&[("a\"b", "it's")]), r#"SET "a""b" = 'it''s'"#);
    }

    #[test]
    fn refuses_options_that_are_no_settings() {
        for options in ["-c", "-c role", "-c =x", "--", "-O", "-S 4MB", "role=boss", "-- role=x", "-e", "-c a=\u{e9}"] {
            assert!(wanted(&[("options", options)]).is_err(), "{options}");
        }
    }

    #[test]
    fn objects_to_settings_under_which_text_cannot_be_read() {
        for value in ["SJIS", "shift_jis", "gbk", "BIG-5", "Windows-949"] {
            assert!(wanted(&[("client_encoding", value)]).unwrap().objection.is_some(), "{value}");
        }
        for (value, objects) in
            [("off", true), ("OF", true), ("0", true), ("no", true), ("o", true), ("", true), ("on", false), ("T", false)]
        {
            let options = format!("-c Standard_Conforming_Strings={value}");
            assert_eq!(wanted(&[("options", &options)]).unwrap().objection.is_some(), objects, "{value}");
        }
    }

    #[test]
    fn has_the_effects_of_set() {
        use crate::flow::Effect;
        let effects = |parameters| wanted(parameters).unwrap().reading().unwrap().statement.effects;
        assert!(effects(&[("role", "boss")]).contains(Effect::SessionRole));
        assert!(effects(&[("options", "-c search_path=x")]).contains(Effect::SessionLex));
    }
}
