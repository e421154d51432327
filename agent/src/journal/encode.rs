//! Records as lines of JSON. What every request makes (`executed`, `finished`, `request`, `statement`) is written by hand: the same
//! bytes as serde's, for a quarter of its work.

use serde::Serialize;

use super::{
    event::{Event, Record, VerdictEntry},
    time::Stamp,
};
use crate::flow::{Effects, Object};

impl Record {
    /// One line of JSON without the line feed: time, session, then the event's own fields. Its number is its place in the log.
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = Line(Vec::with_capacity(RECORD_BYTES_TYPICAL));
        line.raw(b"{\"time\":\"").raw(&Stamp(self.time).ascii()).raw(b"\",");
        if let Some(session) = self.session {
            let mut text = uuid::Uuid::encode_buffer();
            line.raw(b"\"session\":\"").raw(session.0.as_hyphenated().encode_lower(&mut text).as_bytes()).raw(b"\",");
        }
        line.event(&self.event)?;
        Ok(line.0)
    }
}

/// A line that is being written.
struct Line(Vec<u8>);

impl Line {
    /// The event's fields and the closing brace.
    fn event(&mut self, event: &Event) -> Result<(), serde_json::Error> {
        match event {
            Event::Executed { number, statement } => {
                self.raw(b"\"event\":\"executed\",\"number\":").integer(*number).raw(b",\"statement\":").integer(*statement);
            }
            Event::Finished { number, status, rows, bytes, duration_us, error } => {
                self.raw(b"\"event\":\"finished\",\"number\":").integer(*number).raw(b",\"status\":").text(status)?;
                if let Some(rows) = rows {
                    self.raw(b",\"rows\":").integer(*rows);
                }
                self.raw(b",\"bytes\":").integer(*bytes).raw(b",\"duration_us\":").integer(*duration_us);
                self.optional(b",\"error\":", error.as_ref().map(|error| error.as_str()))?;
            }
            Event::Request { number, method, host, target, verdict } => {
                self.raw(b"\"event\":\"request\",\"number\":").integer(*number);
                self.raw(b",\"method\":").text(method.as_str())?.raw(b",\"host\":").text(host.as_str())?;
                self.raw(b",\"target\":").text(target.as_str())?.raw(b",\"verdict\":").verdict(verdict)?;
            }
            Event::Statement { number, text, effects, objects, verdict } => {
                self.raw(b"\"event\":\"statement\",\"number\":").integer(*number).raw(b",\"text\":").text(text.as_str())?;
                self.raw(b",\"effects\":").effects(*effects).raw(b",\"objects\":").objects(objects)?;
                self.raw(b",\"verdict\":").verdict(verdict)?;
            }
            other => return self.object_of(other),
        }
        self.raw(b"}");
        Ok(())
    }

    /// By serde; the object's opening brace is already there.
    fn object_of(&mut self, event: &Event) -> Result<(), serde_json::Error> {
        let joint = self.0.len();
        serde_json::to_writer(&mut self.0, event)?;
        self.0.remove(joint);
        Ok(())
    }

    fn verdict(&mut self, verdict: &VerdictEntry) -> Result<&mut Self, serde_json::Error> {
        self.raw(if verdict.allowed { b"{\"allowed\":true" } else { b"{\"allowed\":false" });
        self.optional(b",\"rule\":", verdict.rule.as_deref())?;
        self.optional(b",\"message\":", verdict.message.as_deref())?;
        self.optional(b",\"would_deny\":", verdict.would_deny.as_deref())?;
        Ok(self.raw(b"}"))
    }

    fn effects(&mut self, effects: Effects) -> &mut Self {
        self.raw(b"[");
        for (position, effect) in effects.iter().enumerate() {
            self.raw(if position == 0 { b"\"" } else { b",\"" }).raw(effect.word().as_bytes()).raw(b"\"");
        }
        self.raw(b"]")
    }

    fn objects(&mut self, objects: &[Object]) -> Result<&mut Self, serde_json::Error> {
        self.raw(b"[");
        for (position, Object { kind, schema, name, write }) in objects.iter().enumerate() {
            self.raw(if position == 0 { b"{\"kind\":" } else { b",{\"kind\":" }).value(kind)?.raw(b",\"schema\":");
            match schema {
                Some(schema) => self.text(schema)?,
                None => self.raw(b"null"),
            };
            self.raw(b",\"name\":").text(name)?.raw(if *write { b",\"write\":true}" } else { b",\"write\":false}" });
        }
        Ok(self.raw(b"]"))
    }

    fn optional(&mut self, field: &[u8], text: Option<&str>) -> Result<(), serde_json::Error> {
        if let Some(text) = text {
            self.raw(field).text(text)?;
        }
        Ok(())
    }

    /// A string; most have nothing to escape, and are copied.
    fn text(&mut self, text: &str) -> Result<&mut Self, serde_json::Error> {
        if is_plain(text.as_bytes()) {
            return Ok(self.raw(b"\"").raw(text.as_bytes()).raw(b"\""));
        }
        self.value(text)
    }

    fn integer(&mut self, mut value: u64) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
            value /= 10;
            used += 1;
            if value == 0 {
                break;
            }
        }
        self.raw(digits.get(digits.len() - used..).unwrap_or_default())
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<&mut Self, serde_json::Error> {
        serde_json::to_writer(&mut self.0, value)?;
        Ok(self)
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// True when JSON takes the text as it is. In blocks, so that the compiler looks at many bytes at once.
fn is_plain(text: &[u8]) -> bool {
    let plain = |byte: &u8| (*byte >= 0x20) & (*byte != b'"') & (*byte != b'\\');
    let blocks = text.chunks_exact(BLOCK_BYTES);
    blocks.remainder().iter().all(plain) && blocks.into_iter().all(|block| block.iter().fold(true, |all, byte| all & plain(byte)))
}

const BLOCK_BYTES: usize = 16;
const RECORD_BYTES_TYPICAL: usize = 512;

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use serde_json::Value;

    use super::*;
    use crate::{
        flow::{Effect, ObjectKind, SessionId},
        mask::{KnownSecrets, Masked},
    };

    fn masked(text: &str) -> Masked {
        KnownSecrets::default().scrubber().text(text.as_bytes())
    }

    fn by_serde(record: &Record) -> String {
        let time = serde_json::to_string(&Stamp(record.time)).unwrap();
        let session = record.session.map_or(String::new(), |session| format!(",\"session\":\"{session}\""));
        let event = serde_json::to_string(&record.event).unwrap();
        format!("{{\"time\":{time}{session},{}", &event[1..])
    }

    fn same(event: Event) {
        for session in [None, Some(SessionId::fresh())] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
            let record = Record { time, session, event: event.clone() };
            let line = String::from_utf8(record.encode().unwrap()).unwrap();
            assert_eq!(line, by_serde(&record));
            assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
        }
    }

    fn denied() -> VerdictEntry {
        let [rule, message, other] = ["p/rule", "no \"drop\"", "p/other"].map(|text| Some(Arc::from(text)));
        VerdictEntry { allowed: false, rule, message, would_deny: other }
    }

    fn allowed() -> VerdictEntry {
        VerdictEntry { allowed: true, rule: None, message: None, would_deny: None }
    }

    #[test]
    fn statements_are_as_serde_writes_them() {
        let object = |schema: Option<&str>, write| {
            let (kind, schema) = (ObjectKind::Table, schema.map(str::to_owned));
            Object { kind, schema, name: "a\"b".to_owned(), write }
        };
        for text in
            ["", "select 1", "select '\n\t\\' || \"a\" -- \u{1}\u{7f} é 💥", "0123456789abcdef\"", "0123456789abcdef0\u{1f}"]
        {
            let text = masked(text);
            let objects = [object(None, false), object(Some("public"), true)].into();
            let effects = Effects::of(&[Effect::Read, Effect::Drop]);
            same(Event::Statement { number: 0, text: text.clone(), effects, objects, verdict: denied() });
            same(Event::Statement { number: 10, text, effects: Effects::default(), objects: Arc::new([]), verdict: allowed() });
        }
    }

    #[test]
    fn requests_and_ends_are_as_serde_writes_them() {
        let [method, host, target] = ["GET", "api.internal", "/v1?a=\\"].map(masked);
        same(Event::Request { number: u64::MAX, method, host, target, verdict: allowed() });
        same(Event::Executed { number: 1, statement: 99 });
        for (rows, error) in [(None, None), (Some(7), Some(masked("a \"b\"")))] {
            same(Event::Finished { number: 12, status: "SELECT 1".into(), rows, bytes: 100, duration_us: 1_000_000, error });
        }
    }

    #[test]
    fn other_events_are_left_to_serde() {
        same(Event::AgentStopped {});
        same(Event::PolicyRejected { errors: vec![masked("line\n2")] });
    }
}
