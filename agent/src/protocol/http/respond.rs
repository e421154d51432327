//! Responses: which masks are due, whether they can be applied, and how.

use std::sync::Arc;

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, IF_RANGE, RANGE, TRAILER, TRANSFER_ENCODING,
    },
    response::Parts,
};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::{body::Incoming, ext::ReasonPhrase};

use super::{
    body::{BodyMasker, Counts, Finish, KNOWN, ResponseBody},
    head,
    plan::{Masks, Plan},
    problem::Problem,
};
use crate::{
    flow::Reason,
    mask::{Dialect, Scrubber},
};

/// Asks the upstream for what can be masked: no encoding, and no ranges that would cut JSON or a secret apart.
pub(super) fn ask_readable(plan: &Plan, masks: &Masks, headers: &mut HeaderMap) {
    if masks.json.is_some() || !plan.known.scrubber().is_empty() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.remove(RANGE);
        headers.remove(IF_RANGE);
    }
}

/// Turns the upstream's response into the client's.
///
/// # Errors
/// It cannot be passed on: a mask is due that cannot be applied, or the upstream broke off.
pub(super) async fn respond(
    plan: &Plan,
    masks: &Masks,
    method: &Method,
    response: Response<Incoming>,
    downstream: Version,
    mut finish: Finish,
) -> Result<Response<ResponseBody>, (Problem, Finish)> {
    let scrubber = plan.known.scrubber();
    let (mut parts, incoming) = response.into_parts();
    finish.answered(parts.status);
    if let Some(problem) = unreadable(&parts) {
        return Err((problem, finish));
    }
    reframe(&mut parts, downstream);
    let header_masks = HeaderMasks { headers: Arc::clone(&masks.headers), scrubber: Arc::clone(&scrubber) };
    finish.head_masks = header_masks.apply(&mut parts.headers);
    forget_phrase(&mut parts, &scrubber);
    let bodiless = *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless || incoming.is_end_stream() {
        return Ok(Response::from_parts(parts, ResponseBody::relayed(incoming, finish)));
    }
    if masks.json.is_none() && scrubber.is_empty() {
        let body = if masks.headers.is_empty() || !parts.headers.contains_key(TRAILER) {
            ResponseBody::relayed(incoming, finish)
        } else {
            ResponseBody::masked(incoming, None, header_masks, finish)
        };
        return Ok(Response::from_parts(parts, body));
    }
    if let Some(problem) = unmaskable(&parts) {
        return Err((problem, finish));
    }
    let dialect = dialect(&parts.headers);
    if masks.json.is_some() && dialect.is_none() {
        let problem = gateway(Reason::MaskImpossible, "keys must be masked in a body of a type that weir cannot read");
        return Err((problem, finish));
    }
    let json = masks.json.as_ref().zip(dialect);
    let masker = BodyMasker::new(json, &scrubber);
    if incoming.size_hint().exact().is_none_or(|length| length > plan.limits.whole_body_bytes_max) {
        parts.headers.remove(CONTENT_LENGTH);
        return Ok(Response::from_parts(parts, ResponseBody::masked(incoming, Some(masker), header_masks, finish)));
    }
    mask_whole(parts, incoming, masker, finish).await
}

/// Why a response cannot be read at all.
fn unreadable(parts: &Parts) -> Option<Problem> {
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Some(gateway(Reason::UpstreamMalformed, "the upstream switched protocols unasked"));
    }
    if parts.headers.contains_key(TRANSFER_ENCODING) && parts.headers.contains_key(CONTENT_LENGTH) {
        return Some(gateway(Reason::UpstreamMalformed, "the upstream said in two ways where the body ends"));
    }
    if !head::plainly_framed(&parts.headers) {
        return Some(gateway(Reason::MaskImpossible, "the upstream used a transfer coding that weir does not read"));
    }
    None
}

/// Takes out what was said for the upstream's connection only; the body's frame becomes one that the client can read.
fn reframe(parts: &mut Parts, downstream: Version) {
    head::take_out_nominated(&mut parts.headers);
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        parts.headers.remove(CONTENT_LENGTH);
        if downstream < Version::HTTP_11 {
            parts.headers.remove(TRANSFER_ENCODING);
        }
    }
    parts.version = Version::HTTP_11;
}

/// Takes out a reason phrase that holds a known secret: the status says enough.
fn forget_phrase(parts: &mut Parts, scrubber: &Scrubber) {
    let tells = parts.extensions.get::<ReasonPhrase>().is_some_and(|phrase| scrubber.finds(phrase.as_bytes()));
    if tells {
        parts.extensions.remove::<ReasonPhrase>();
    }
}

/// Why a body that must be masked cannot be, by what its head says.
fn unmaskable(parts: &Parts) -> Option<Problem> {
    if encoded(&parts.headers) {
        return Some(gateway(Reason::MaskImpossible, "the upstream encoded a body that must be masked"));
    }
    if parts.status == StatusCode::PARTIAL_CONTENT {
        let detail = "the upstream answered with a part of a body that must be masked whole";
        return Some(gateway(Reason::MaskImpossible, detail));
    }
    None
}

/// Masks a short body before its head is sent: its length is known, and what cannot be masked is still refused in words.
async fn mask_whole(
    mut parts: Parts,
    incoming: Incoming,
    mut masker: BodyMasker,
    mut finish: Finish,
) -> Result<Response<ResponseBody>, (Problem, Finish)> {
    let Ok(whole) = incoming.collect().await else {
        return Err((gateway(Reason::UpstreamClosed, "the upstream broke off the body"), finish));
    };
    let masked = masker.push(whole.to_bytes()).and_then(|mut head| {
        let tail = masker.finish()?;
        if !tail.is_empty() {
            let mut both = BytesMut::from(head);
            both.extend_from_slice(&tail);
            head = both.freeze();
        }
        Ok(head)
    });
    match masked {
        Ok(bytes) => {
            finish.masks = masker.counts();
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            Ok(Response::from_parts(parts, ResponseBody::masked_whole(bytes, finish)))
        }
        Err(error) => {
            let detail = format!("the upstream's body must be masked and cannot be: {error}");
            Err((gateway(Reason::MaskImpossible, detail), finish))
        }
    }
}

fn gateway(reason: Reason, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, reason, detail)
}

fn encoded(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(CONTENT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    codings.map(<[u8]>::trim_ascii).any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// How a body is to be read by what its head says; `None`: it cannot be, although keys may be in it. Servers often call JSON
/// something else (`text/html` is PHP's default), so whatever may be text is looked at.
fn dialect(headers: &HeaderMap) -> Option<Dialect> {
    let mut dialect = Dialect::Lines;
    for value in headers.get_all(CONTENT_TYPE) {
        let value = value.as_bytes().to_ascii_lowercase();
        let mut parts = value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let essence = parts.next().unwrap_or_default();
        let has = |word: &str| memchr::memmem::find(essence, word.as_bytes()).is_some();
        if has("json") {
            return Some(Dialect::Json);
        }
        let charset = parts.find_map(|parameter| parameter.strip_prefix(b"charset="));
        if !charset.is_none_or(is_like_ascii) {
            return None;
        }
        let starts = |kinds: &[&str]| kinds.iter().any(|kind| essence.starts_with(kind.as_bytes()));
        dialect = if has("x-www-form-urlencoded") {
            Dialect::Form
        } else if has("yaml") || essence.is_empty() || essence == b"text/plain" {
            Dialect::Lines
        } else if starts(&["text/"]) || TEXTS.iter().any(|word| has(word)) {
            Dialect::Code
        } else if starts(&["multipart/", "message/", "image/", "audio/", "video/", "font/"])
            || OPAQUE.iter().any(|word| has(word))
        {
            Dialect::Parts
        } else {
            return None;
        };
    }
    Some(dialect)
}

/// What is text although its type does not begin so.
const TEXTS: [&str; 8] = ["xml", "javascript", "ecmascript", "graphql", "toml", "sql", "x-sh", "x-empty"];
/// What is known to be no text of keys and values, whatever is called so: it is looked at nevertheless.
const OPAQUE: [&str; 10] =
    ["octet-stream", "pdf", "zip", "x-tar", "wasm", "officedocument", "opendocument", "x-xz", "x-bzip", "zstd"];

/// Character sets in which quotes, colons and the letters of keys are those of ASCII.
fn is_like_ascii(charset: &[u8]) -> bool {
    let charset = charset.trim_ascii().strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(charset);
    let known = [b"utf-8".as_slice(), b"utf8", b"us-ascii", b"ascii", b"iso-8859-", b"latin1", b"windows-125"];
    known.iter().any(|name| charset.starts_with(name))
}

/// Masks of header and trailer values.
#[derive(Clone)]
pub(super) struct HeaderMasks {
    headers: Arc<[(HeaderName, Arc<str>)]>,
    scrubber: Arc<Scrubber>,
}

impl HeaderMasks {
    /// Replaces named values whole, and known secrets within others. Values that frame the message stay: without them nobody
    /// could read it, and they hold numbers and words of the protocol only.
    pub(super) fn apply(&self, headers: &mut HeaderMap) -> Counts {
        let mut counts = Counts::new();
        for (name, mask) in self.headers.iter() {
            if FRAMING.contains(name) {
                continue;
            }
            if let http::header::Entry::Occupied(mut entry) = headers.entry(name) {
                let mut count = 0;
                for value in entry.iter_mut() {
                    *value = HeaderValue::from_static("***");
                    count += 1;
                }
                counts.push((Arc::clone(mask), Arc::from(name.as_str()), count));
            }
        }
        if self.scrubber.is_empty() {
            return counts;
        }
        let mut scrubbed = 0;
        for (name, value) in headers.iter_mut() {
            if !FRAMING.contains(name) && self.scrubber.finds(value.as_bytes()) {
                let clean = self.scrubber.scrub(value.as_bytes());
                *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static("***"));
                scrubbed += 1;
            }
        }
        if scrubbed > 0 {
            counts.push((Arc::from(KNOWN), Arc::from("headers"), scrubbed));
        }
        counts
    }
}

const FRAMING: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING];
