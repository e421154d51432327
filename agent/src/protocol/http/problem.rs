//! Refusals in HTTP's own words: `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::body::ResponseBody;
use crate::{
    flow::{Reason, SessionId},
    mask::Scrubber,
    protocol::Refused,
};

/// One refusal.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    /// A sentence for the client; no secret, but it is scrubbed nevertheless.
    pub(super) detail: String,
    /// The rule that decided, if one did.
    pub(super) rule: Option<String>,
    /// The connection ends after it.
    pub(super) close: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    session: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: Reason, detail: impl Into<String>) -> Self {
        Self { status, reason, detail: detail.into(), rule: None, close: false }
    }

    pub(super) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// A refusal of the whole connection, before any request was read by hyper: the bytes of a response that closes.
    pub(super) fn of(refused: &Refused) -> Self {
        let problem = match refused {
            Refused::Denied(denied) => Self {
                rule: Some(denied.rule.to_string()),
                ..Self::new(StatusCode::FORBIDDEN, denied.reason, denied.message.to_string())
            },
            Refused::Failed(failure) => {
                let status = match failure.reason {
                    Reason::CredentialUnavailable | Reason::Drained | Reason::JournalUnavailable => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    _ => StatusCode::BAD_GATEWAY,
                };
                Self::new(status, failure.reason, failure.public().to_owned())
            }
        };
        problem.closing()
    }

    /// The response as it goes over the wire.
    pub(super) fn bytes(&self, session: SessionId, scrubber: &Scrubber) -> Bytes {
        let text = self.document(session, scrubber);
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\nx-weir-session: {session}\r\n",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or("Refused"),
            text.len(),
        );
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            out += "Retry-After: 5\r\n";
        }
        out += "\r\n";
        let mut out = out.into_bytes();
        out.extend_from_slice(&text);
        Bytes::from(out)
    }

    fn document(&self, session: SessionId, scrubber: &Scrubber) -> Bytes {
        let document = Document {
            r#type: format!("urn:weir:{}", self.reason),
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            detail: &self.detail,
            rule: self.rule.as_deref(),
            session: session.to_string(),
        };
        let text = serde_json::to_vec(&document).unwrap_or_default();
        Bytes::from(scrubber.scrub(&text).into_owned())
    }

    pub(super) fn response(&self, session: SessionId, scrubber: &Scrubber) -> Response<ResponseBody> {
        let text = self.document(session, scrubber);
        let mut response = Response::new(ResponseBody::whole(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Ok(session) = HeaderValue::try_from(session.to_string()) {
            headers.insert("x-weir-session", session);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
