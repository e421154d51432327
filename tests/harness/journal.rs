//! Journal entries as `weir journal show --json` prints them.

use anyhow::{Context, Result};
use serde_json::Value;

/// One entry of the journal.
#[derive(Clone, Debug)]
pub struct Entry(pub Value);

impl Entry {
    /// Reads what `--json` printed: one object a line, or one array.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        let mut entries = Vec::new();
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            match value.context("the journal's output is not JSON")? {
                Value::Array(items) => entries.extend(items.into_iter().map(Self)),
                item => entries.push(Self(item)),
            }
        }
        Ok(entries)
    }

    /// The event's own fields.
    #[must_use]
    pub fn body(&self) -> &Value {
        if self.0["event"].is_object() { &self.0["event"] } else { &self.0 }
    }

    /// The event's word: `session_opened`, `statement`, ...
    #[must_use]
    pub fn kind(&self) -> &str {
        self.body()["event"].as_str().unwrap_or_default()
    }

    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.0["session"].as_str()
    }

    /// A text field of the event.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.body()[field].as_str().unwrap_or_default()
    }

    /// Whether the event carries a verdict that allowed.
    #[must_use]
    pub fn allowed(&self) -> Option<bool> {
        self.body()["verdict"]["allowed"].as_bool()
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.body()["verdict"]["rule"].as_str().unwrap_or_default()
    }
}
