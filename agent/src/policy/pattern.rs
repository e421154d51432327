//! Compiled patterns: exact text where there is nothing to expand, a bounded regular expression where there is.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder};

use super::object::Glob;

/// A glob over one value (`*`, `?`, `[a-z]`, `{a,b}`; `**` crosses slashes in paths).
#[derive(Clone, Debug)]
pub(in crate::policy) struct Pattern {
    shape: Shape,
    fold: bool,
}

#[derive(Clone, Debug)]
enum Shape {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Regex(Box<Regex>),
}

/// How a pattern reads its text.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::policy) struct Reading {
    /// ASCII letters match in either case.
    pub(in crate::policy) fold: bool,
    /// `*` stops at a slash.
    pub(in crate::policy) path: bool,
}

impl Pattern {
    /// # Errors
    /// What is wrong with the glob.
    pub(in crate::policy) fn new(text: &str, reading: Reading) -> Result<Self, String> {
        let glob = compile(text, reading)?;
        let shape = match simple(text, reading) {
            Some(shape) => shape,
            None => Shape::Regex(Box::new(regex(&glob)?)),
        };
        Ok(Self { shape, fold: reading.fold })
    }

    pub(in crate::policy) fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    pub(in crate::policy) fn matches_bytes(&self, text: &[u8]) -> bool {
        match &self.shape {
            Shape::Any => true,
            Shape::Exact(exact) => self.same(exact, text),
            Shape::Prefix(prefix) => text.get(..prefix.len()).is_some_and(|start| self.same(prefix, start)),
            Shape::Suffix(suffix) => {
                let start = text.len().checked_sub(suffix.len());
                start.and_then(|start| text.get(start..)).is_some_and(|end| self.same(suffix, end))
            }
            Shape::Regex(regex) => regex.is_match(text),
        }
    }

    fn same(&self, literal: &str, text: &[u8]) -> bool {
        if self.fold { literal.as_bytes().eq_ignore_ascii_case(text) } else { literal.as_bytes() == text }
    }

    /// True for `*`: it matches what is not known, too.
    pub(in crate::policy) fn is_any(&self) -> bool {
        matches!(self.shape, Shape::Any)
    }
}

/// Compiles a glob that keeps its text.
///
/// # Errors
/// What is wrong with the glob.
pub(in crate::policy) fn glob(text: &str, reading: Reading) -> Result<Glob, String> {
    Ok(Glob { text: Arc::from(text), matcher: matcher(&compile(text, reading)?)? })
}

/// Most patterns are a literal with at most one star at an end: no regular expression is needed for those.
fn simple(text: &str, reading: Reading) -> Option<Shape> {
    let plain = |text: &str| !text.contains(['*', '?', '[', ']', '{', '}', '\\']);
    match text {
        _ if plain(text) => Some(Shape::Exact(text.into())),
        "*" if !reading.path => Some(Shape::Any),
        _ if reading.path => {
            text.strip_suffix("**").filter(|rest| rest.ends_with('/') && plain(rest)).map(|rest| Shape::Prefix(rest.into()))
        }
        _ => {
            let prefix = text.strip_suffix('*').filter(|rest| plain(rest)).map(|rest| Shape::Prefix(rest.into()));
            prefix.or_else(|| text.strip_prefix('*').filter(|rest| plain(rest)).map(|rest| Shape::Suffix(rest.into())))
        }
    }
}

fn compile(text: &str, reading: Reading) -> Result<globset::Glob, String> {
    if text.len() > GLOB_BYTES_MAX {
        return Err(format!("longer than {GLOB_BYTES_MAX} bytes"));
    }
    let mut builder = GlobBuilder::new(text);
    builder.case_insensitive(reading.fold).literal_separator(reading.path).backslash_escape(true);
    builder.build().map_err(|error| error.kind().to_string())
}

/// `compile_matcher` panics on an expression that is too large: build it with a limit first.
fn matcher(glob: &globset::Glob) -> Result<GlobMatcher, String> {
    regex(glob).map(|_| glob.compile_matcher())
}

fn regex(glob: &globset::Glob) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(glob.regex());
    builder.dot_matches_new_line(true).size_limit(REGEX_BYTES_MAX);
    builder.build().map_err(|_| "too large or not a valid pattern".to_owned())
}

/// Splits a dotted pattern at its dots, but not inside braces or brackets.
pub(in crate::policy) fn split_dots(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (index, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            '.' if depth == 0 => {
                parts.push(text.get(start..index).unwrap_or(""));
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or(""));
    parts
}

const GLOB_BYTES_MAX: usize = 512;
const REGEX_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, reading: Reading, text: &str) -> bool {
        Pattern::new(pattern, reading).unwrap().matches(text)
    }

    #[test]
    fn star_stops_at_slashes_in_paths_only() {
        let path = Reading { path: true, ..Reading::default() };
        assert!(matches("/v1/*", path, "/v1/a"));
        assert!(!matches("/v1/*", path, "/v1/a/b"));
        assert!(matches("/v1/**", path, "/v1/a/b"));
        assert!(matches("*.example.com", Reading::default(), "a.b.example.com"));
    }

    #[test]
    fn short_cuts_agree_with_the_expressions_they_replace() {
        let texts = ["", "a", "ab", "A", "xab", "abx", "a\nb", "/", "/v1", "/v1/", "/v1/a", "/v1/a/b", "/V1/a", "ax/", "é", "aé"];
        for pattern in ["a", "a*", "*a", "*", "**", "/v1/**", "/v1/*", "*/", "é*", "ab*"] {
            for reading in [(false, false), (true, false), (false, true), (true, true)] {
                let reading = Reading { fold: reading.0, path: reading.1 };
                let full = regex(&compile(pattern, reading).unwrap()).unwrap();
                for text in texts {
                    assert_eq!(matches(pattern, reading, text), full.is_match(text.as_bytes()), "{pattern} {reading:?} {text:?}");
                }
            }
        }
    }

    #[test]
    fn a_line_feed_does_not_hide_the_end() {
        assert!(!matches("a*b", Reading::default(), "a\nb\nc"));
        assert!(matches("a*b", Reading::default(), "a\nb"));
    }

    #[test]
    fn folds_case_only_when_asked() {
        let fold = Reading { fold: true, ..Reading::default() };
        assert!(matches("users", fold, "USERS") && matches("u*", fold, "USERS"));
        assert!(!matches("users", Reading::default(), "USERS"));
    }

    #[test]
    fn refuses_globs_that_are_broken_or_too_long() {
        for bad in ["[a", "{a,b", "a]b[", &"x*".repeat(GLOB_BYTES_MAX)] {
            assert!(Pattern::new(bad, Reading::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn braces_keep_their_dots() {
        assert_eq!(split_dots("public.{a.b,c}.x"), ["public", "{a.b,c}", "x"]);
        assert_eq!(split_dots("users"), ["users"]);
    }
}
