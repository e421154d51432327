//! Strict readers for mappings, words, numbers and lists: each reports what is wrong and lets the walk go on.

use std::time::Duration;

use super::{
    source::{Reporter, closest},
    tree::{Node, Span, Value},
};

/// A mapping whose keys were checked against what the language knows.
pub(super) struct Map<'n> {
    pub(super) span: Span,
    entries: &'n [(Node, Node)],
}

impl<'n> Map<'n> {
    /// Reads a mapping; unknown and repeated keys are reported. `what` names it in messages.
    pub(super) fn read(reporter: &Reporter<'_>, node: &'n Node, what: &str, known: &[&str]) -> Option<Self> {
        let map = Self::read_open(reporter, node, what)?;
        for (key, value) in map.entries {
            let Value::Scalar { text, .. } = &key.value else { continue };
            if !known.contains(&text.as_str()) && SECRETIVE.iter().any(|part| text.to_lowercase().contains(part)) {
                reporter.hide(value.span);
            }
            if text == "<<" {
                reporter.error(key.span, "merge keys (`<<`) are not part of YAML 1.2: write the keys out");
            } else if !known.contains(&text.as_str()) {
                reporter.misspelt(key.span, format!("unknown key `{}` in {what}", short(text)), text, known);
            }
        }
        Some(map)
    }

    /// Reads a mapping with free keys (labels, headers).
    pub(super) fn read_open(reporter: &Reporter<'_>, node: &'n Node, what: &str) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            reporter.error(node.span, format!("{what} must be a mapping (`key: value`), not {}", kind(node)));
            return None;
        };
        let mut seen = std::collections::HashSet::new();
        for (key, _) in entries {
            match &key.value {
                Value::Scalar { text, .. } if !seen.insert(text.as_str()) => {
                    reporter.error(key.span, format!("key `{}` is given twice in {what}", short(text)));
                }
                Value::Scalar { .. } => {}
                Value::List(_) | Value::Map(_) => reporter.error(key.span, "a key must be text"),
            }
        }
        Some(Self { span: node.span, entries })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'n str, &'n Node, &'n Node)> + use<'n> {
        self.entries.iter().filter_map(|(key, value)| match &key.value {
            Value::Scalar { text, .. } => Some((text.as_str(), key, value)),
            _ => None,
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries().find(|(key, ..)| *key == name).map(|(.., value)| value)
    }

    pub(super) fn key_span(&self, name: &str) -> Option<Span> {
        self.entries().find(|(key, ..)| *key == name).map(|(_, key, _)| key.span)
    }

    /// A key that must be there. A missing key is not reported when a misspelt one was.
    pub(super) fn require(&self, reporter: &Reporter<'_>, what: &str, name: &str, known: &[&str]) -> Option<&'n Node> {
        let found = self.get(name);
        let misspelt = || self.entries().any(|(key, ..)| !known.contains(&key) && closest(key, known) == Some(name));
        if found.is_none() && !misspelt() {
            reporter.error(start_of(self.span), format!("{what} needs `{name}:`"));
        }
        found
    }
}

/// Text: a quoted scalar, or a plain one that YAML does not take for something else.
pub(super) fn text<'n>(reporter: &Reporter<'_>, node: &'n Node, what: &str) -> Option<&'n str> {
    match &node.value {
        Value::Scalar { text, plain } if !(*plain && is_special(text)) => {
            if text.is_empty() {
                reporter.error(node.span, format!("{what} is empty"));
                return None;
            }
            if text.len() > TEXT_BYTES_MAX {
                reporter.error(node.span, format!("{what} is longer than {TEXT_BYTES_MAX} bytes"));
                return None;
            }
            Some(text)
        }
        _ => {
            reporter.error(node.span, format!("{what} must be text, not {}", kind(node)));
            None
        }
    }
}

/// A number in a range.
pub(super) fn number(reporter: &Reporter<'_>, node: &Node, what: &str, min: u64, max: u64) -> Option<u64> {
    let read = match &node.value {
        Value::Scalar { text, plain: true } => text.parse::<u64>().ok().filter(|number| (min..=max).contains(number)),
        _ => None,
    };
    if read.is_none() {
        reporter.error(node.span, format!("{what} must be a number from {min} to {max}"));
    }
    read
}

/// One word of a closed set.
pub(super) fn word<T: Copy>(reporter: &Reporter<'_>, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
    let Value::Scalar { text, .. } = &node.value else {
        reporter.error(node.span, format!("{what} must be one word, not {}", kind(node)));
        return None;
    };
    let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        reporter.misspelt(node.span, format!("{what} cannot be `{}`", short(text)), text, &known);
    }
    found
}

/// A list with at least one entry.
pub(super) fn list<'n>(reporter: &Reporter<'_>, node: &'n Node, what: &str) -> &'n [Node] {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            reporter.error(node.span, format!("{what} is empty: it would match nothing; leave it out or fill it"));
            &[]
        }
        Value::List(items) if items.len() > LIST_ENTRIES_MAX => {
            reporter.error(node.span, format!("{what} has more than {LIST_ENTRIES_MAX} entries"));
            &[]
        }
        Value::List(items) => items,
        _ => {
            reporter.error(node.span, format!("{what} must be a list (`[a, b]`), not {}", kind(node)));
            &[]
        }
    }
}

/// `500ms`, `30s`, `10m`, `1h`.
pub(super) fn duration(reporter: &Reporter<'_>, node: &Node, what: &str) -> Option<Duration> {
    let Value::Scalar { text: written, .. } = &node.value else {
        reporter.error(node.span, format!("{what} must be a duration, not {}", kind(node)));
        return None;
    };
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = written.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let read = count
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(millis))
        .filter(|total| (1..=DURATION_MS_MAX).contains(total));
    if read.is_none() {
        reporter.error_with(
            node.span,
            format!("{what} `{}` is not a duration", short(written)),
            "write 500ms, 30s, 10m or 1h; at most 24h",
        );
    }
    read.map(Duration::from_millis)
}

/// The name of an object, a rule or a mask: it stands in journals and on command lines.
pub(super) fn name<'n>(reporter: &Reporter<'_>, node: &'n Node, what: &str) -> Option<&'n str> {
    let written = text(reporter, node, what)?;
    let fits = written.len() <= NAME_BYTES_MAX
        && written.starts_with(|c: char| c.is_ascii_alphanumeric())
        && written.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !fits {
        reporter.error(
            node.span,
            format!(
                "{what} must be letters, digits, `-`, `_` and `.`, at most {NAME_BYTES_MAX}, and start with a letter or digit"
            ),
        );
        return None;
    }
    Some(written)
}

pub(super) fn is_null(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
}

/// The first character of something, for messages about what is missing in it.
pub(super) fn start_of(span: Span) -> Span {
    Span { start: span.start, end: super::tree::Mark { column: span.start.column + 1, ..span.start } }
}

pub(super) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

fn kind(node: &Node) -> &'static str {
    match &node.value {
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Scalar { .. } if is_null(node) => "nothing",
        Value::Scalar { plain: true, text } if matches!(text.as_str(), "true" | "false") => "a truth value; quote it",
        Value::Scalar { plain: true, text } if is_special(text) => "a number; quote it",
        Value::Scalar { .. } => "text",
    }
}

/// YAML 1.2's core schema: what a plain scalar may be besides text.
fn is_special(text: &str) -> bool {
    let named = ["", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE"];
    named.contains(&text)
        || (text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) && text.parse::<f64>().is_ok())
}

/// What the value of an unknown key may be by its name: a secret that stands in the wrong place is not shown.
const SECRETIVE: &[&str] = &["auth", "cred", "key", "pas", "pwd", "secret", "toke", "tokn", "value"];
const TEXT_BYTES_MAX: usize = 16 * 1024;
const NAME_BYTES_MAX: usize = 128;
const LIST_ENTRIES_MAX: usize = 4096;
const DURATION_MS_MAX: u64 = 24 * 3_600_000;
const SHOWN_CHARS_MAX: usize = 60;
