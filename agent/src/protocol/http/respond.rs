//! Responses: which masks are due, whether they can be applied, and how.

use std::sync::Arc;

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, IF_RANGE, RANGE, TRAILER, TRANSFER_ENCODING,
    },
};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::{body::Incoming, ext::ReasonPhrase};

use super::{
    body::{BodyMasker, Counts, Finish, KNOWN, ResponseBody},
    head,
    plan::Plan,
    problem::Problem,
};
use crate::{
    flow::Reason,
    mask::{Scrubber, Trust},
};

/// Asks the upstream for what can be masked: no encoding, and no ranges that would cut JSON apart.
pub(super) fn ask_readable(plan: &Plan, headers: &mut HeaderMap) {
    if plan.masks.json.is_some() || !plan.known.scrubber().is_empty() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if plan.masks.json.is_some() {
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
    method: &Method,
    response: Response<Incoming>,
    downstream: Version,
    mut finish: Finish,
) -> Result<Response<ResponseBody>, (Problem, Finish)> {
    let scrubber = plan.known.scrubber();
    let (mut parts, incoming) = response.into_parts();
    finish.answered(parts.status);
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err((gateway(Reason::UpstreamMalformed, "the upstream switched protocols unasked"), finish));
    }
    if !head::plainly_framed(&parts.headers) {
        return Err((gateway(Reason::MaskImpossible, "the upstream used a transfer coding that weir does not read"), finish));
    }
    head::take_out_nominated(&mut parts.headers);
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        parts.headers.remove(CONTENT_LENGTH);
        if downstream < Version::HTTP_11 {
            parts.headers.remove(TRANSFER_ENCODING);
        }
    }
    parts.version = Version::HTTP_11;
    let masks = HeaderMasks { headers: Arc::clone(&plan.masks.headers), scrubber: Arc::clone(&scrubber) };
    finish.head_masks = masks.apply(&mut parts.headers);
    if !scrubber.is_empty()
        && let Some(phrase) = parts.extensions.get::<ReasonPhrase>()
        && scrubber.finds(phrase.as_bytes())
    {
        parts.extensions.remove::<ReasonPhrase>();
    }
    let bodiless = *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless || incoming.is_end_stream() {
        return Ok(Response::from_parts(parts, ResponseBody::relayed(incoming, finish)));
    }
    if plan.masks.json.is_none() && scrubber.is_empty() {
        let body = if plan.masks.headers.is_empty() || !parts.headers.contains_key(TRAILER) {
            ResponseBody::relayed(incoming, finish)
        } else {
            ResponseBody::masked(incoming, None, masks, finish)
        };
        return Ok(Response::from_parts(parts, body));
    }
    if encoded(&parts.headers) {
        return Err((gateway(Reason::MaskImpossible, "the upstream encoded a body that must be masked"), finish));
    }
    if plan.masks.json.is_some() && parts.status == StatusCode::PARTIAL_CONTENT {
        return Err((
            gateway(Reason::MaskImpossible, "the upstream answered with a part of a body that must be masked whole"),
            finish,
        ));
    }
    let json = plan.masks.json.as_ref().and_then(|mask| trust(&parts.headers).map(|trust| (mask, trust)));
    let mut masker = BodyMasker::new(json, &scrubber);
    if incoming.size_hint().exact().is_none_or(|length| length > plan.limits.whole_body_bytes_max) {
        parts.headers.remove(CONTENT_LENGTH);
        return Ok(Response::from_parts(parts, ResponseBody::masked(incoming, Some(masker), masks, finish)));
    }
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
            Err((gateway(Reason::MaskImpossible, format!("the upstream's body must be masked and cannot be: {error}")), finish))
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

/// How far a body is JSON by what its head says; `None`: not at all. Servers often call JSON something else (`text/html` is
/// PHP's default), so most other types are looked at.
fn trust(headers: &HeaderMap) -> Option<Trust> {
    let mut trust = Some(Trust::Sniffed);
    for value in headers.get_all(CONTENT_TYPE) {
        let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        if memchr::memmem::find(&essence, b"json").is_some() {
            return Some(Trust::Declared);
        }
        let opaque = [b"image/".as_slice(), b"audio/", b"video/", b"font/"];
        trust = if opaque.iter().any(|kind| essence.starts_with(kind)) { None } else { Some(Trust::Doubted) };
    }
    trust
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
