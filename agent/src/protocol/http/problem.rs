//! Refusals in HTTP's own words: `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::body::ResponseBody;
use crate::{
    flow::{Reason, SessionId},
    mask::Scrubber,
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

    pub(super) fn response(&self, session: SessionId, scrubber: &Scrubber) -> Response<ResponseBody> {
        let session = session.to_string();
        let document = Document {
            r#type: format!("urn:weir:{}", self.reason),
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            detail: &self.detail,
            rule: self.rule.as_deref(),
            session: session.clone(),
        };
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let text = Bytes::from(scrubber.scrub(&text).into_owned());
        let mut response = Response::new(ResponseBody::whole(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Ok(session) = HeaderValue::try_from(session) {
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
