//! Response bodies on their way down: masked as they pass, and journaled when they end, however they end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{gate::Gate, plan::JsonMask, respond::HeaderMasks};
use crate::{
    journal::Event,
    mask::{Dialect, EmbeddedMasker, JsonError, JsonMasker, Masked, ScrubStream, Scrubber},
};

/// What hyper sends to the client.
pub(super) struct ResponseBody {
    kind: Kind,
    finish: Option<Finish>,
}

enum Kind {
    Whole(Bytes),
    Relayed(Incoming),
    Masked(Box<MaskedBody>),
}

struct MaskedBody {
    incoming: Incoming,
    masker: Option<BodyMasker>,
    headers: HeaderMasks,
    /// The trailers came while the last masked bytes had to go first.
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// Why a body breaks off. hyper then closes the connection without the end of the body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("mask response body: {0}")]
    Mask(#[from] JsonError),
    #[error("read response body: {0}")]
    Upstream(#[source] hyper::Error),
}

impl ResponseBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole(bytes), finish: None }
    }

    pub(super) fn masked_whole(bytes: Bytes, mut finish: Finish) -> Self {
        finish.complete = bytes.is_empty();
        Self { kind: Kind::Whole(bytes), finish: Some(finish) }
    }

    pub(super) fn relayed(incoming: Incoming, mut finish: Finish) -> Self {
        finish.complete = incoming.is_end_stream();
        Self { kind: Kind::Relayed(incoming), finish: Some(finish) }
    }

    pub(super) fn masked(incoming: Incoming, masker: Option<BodyMasker>, headers: HeaderMasks, finish: Finish) -> Self {
        let body = MaskedBody { incoming, masker, headers, trailers: None, ended: false };
        Self { kind: Kind::Masked(Box::new(body)), finish: Some(finish) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Whole(bytes) if bytes.is_empty() => None,
            Kind::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Kind::Relayed(incoming) => ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(BodyError::Upstream)),
            Kind::Masked(body) => ready!(body.poll_frame(cx)),
        };
        if let Some(finish) = &mut this.finish {
            match &frame {
                Some(Ok(frame)) => finish.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(error)) => finish.broke(error),
                None => {}
            }
            let end = match &this.kind {
                Kind::Whole(bytes) => bytes.is_empty(),
                Kind::Relayed(incoming) => incoming.is_end_stream(),
                Kind::Masked(body) => {
                    if let Some(masker) = &body.masker {
                        finish.masks = masker.counts();
                    }
                    body.ended && body.trailers.is_none()
                }
            };
            finish.complete |= end || frame.is_none();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Relayed(incoming) => incoming.is_end_stream(),
            Kind::Masked(body) => body.ended && body.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Relayed(incoming) => incoming.size_hint(),
            Kind::Masked(_) => SizeHint::default(),
        }
    }
}

impl MaskedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let bytes = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.masker.as_mut().map_or(Ok(data.clone()), |masker| masker.push(data)),
                    Err(frame) => {
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        self.headers.apply(&mut trailers);
                        self.trailers = Some(trailers);
                        self.end()
                    }
                },
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(BodyError::Upstream(error))));
                }
                None => self.end(),
            };
            match bytes {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(error) => {
                    self.ended = true;
                    self.trailers = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }

    fn end(&mut self) -> Result<Bytes, JsonError> {
        self.ended = true;
        self.masker.as_mut().map_or(Ok(Bytes::new()), BodyMasker::finish)
    }
}

/// Masks JSON by its structure, then what is embedded in texts, then scrubs known secrets from what is left.
pub(super) struct BodyMasker {
    json: Option<JsonMasker>,
    embedded: Option<EmbeddedMasker>,
    mask: Option<JsonMask>,
    scrub: Option<ScrubStream>,
    structured: BytesMut,
    out: BytesMut,
    clean: BytesMut,
}

/// Mask name, what was masked, how often.
pub(super) type Counts = Vec<(Arc<str>, Arc<str>, u64)>;

impl BodyMasker {
    pub(super) fn new(json: Option<(&JsonMask, Dialect)>, scrubber: &Arc<Scrubber>) -> Self {
        let structured = json.filter(|(_, dialect)| *dialect == Dialect::Json);
        Self {
            json: structured.map(|(mask, _)| JsonMasker::new(Arc::clone(&mask.keys))),
            embedded: json.map(|(mask, dialect)| EmbeddedMasker::new(Arc::clone(&mask.keys), dialect)),
            mask: json.map(|(mask, _)| mask.clone()),
            scrub: (!scrubber.is_empty()).then(|| scrubber.stream()),
            structured: BytesMut::new(),
            out: BytesMut::new(),
            clean: BytesMut::new(),
        }
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<Bytes, JsonError> {
        let data = match &mut self.json {
            Some(masker) => {
                masker.push(&data, &mut self.structured)?;
                self.structured.split().freeze()
            }
            None => data,
        };
        let data = match &mut self.embedded {
            Some(masker) => {
                masker.push(&data, &mut self.out)?;
                self.out.split().freeze()
            }
            None => data,
        };
        Ok(match &mut self.scrub {
            Some(stream) => stream.push_bytes(data, &mut self.clean),
            None => data,
        })
    }

    /// What was held back; an error when the text is not whole.
    pub(super) fn finish(&mut self) -> Result<Bytes, JsonError> {
        if let Some(masker) = &mut self.json {
            masker.finish()?;
        }
        if let Some(masker) = &mut self.embedded {
            masker.finish(&mut self.out)?;
        }
        let Some(stream) = &mut self.scrub else { return Ok(self.out.split().freeze()) };
        stream.push(&self.out.split(), &mut self.clean);
        stream.finish(&mut self.clean);
        Ok(self.clean.split().freeze())
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        let count = |masker: Option<&[u64]>, index| masker.and_then(|counts| counts.get(index)).copied().unwrap_or(0);
        for (index, (name, key)) in self.mask.iter().flat_map(|mask| mask.names.iter()).enumerate() {
            let masked = count(self.json.as_ref().map(JsonMasker::counts), index)
                + count(self.embedded.as_ref().map(EmbeddedMasker::counts), index);
            if masked > 0 {
                counts.push((Arc::clone(name), Arc::clone(key), masked));
            }
        }
        if let Some(replaced) = self.scrub.as_ref().map(ScrubStream::replaced).filter(|replaced| *replaced > 0) {
            counts.push((Arc::from(KNOWN), Arc::from("body"), replaced));
        }
        counts
    }
}

/// Name, in the journal, of the mask that no rule asks for.
pub(super) const KNOWN: &str = "known-secrets";

/// Journals the end of an exchange when it is dropped: nothing that was forwarded stays without an end.
pub(super) struct Finish {
    gate: Arc<dyn Gate>,
    number: u64,
    status: StatusCode,
    started: Instant,
    bytes: u64,
    complete: bool,
    error: Option<Masked>,
    /// Of the head.
    pub(super) head_masks: Counts,
    pub(super) masks: Counts,
    ending: Arc<super::service::Ending>,
}

impl Finish {
    pub(super) fn new(gate: Arc<dyn Gate>, number: u64, started: Instant, ending: Arc<super::service::Ending>) -> Self {
        Self {
            gate,
            number,
            status: StatusCode::BAD_GATEWAY,
            started,
            bytes: 0,
            complete: false,
            error: None,
            head_masks: Counts::new(),
            masks: Counts::new(),
            ending,
        }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// Weir answered in the upstream's stead.
    pub(super) fn failed(&mut self, status: StatusCode, error: Masked) {
        self.status = status;
        self.error = Some(error);
        self.complete = true;
    }

    fn broke(&mut self, error: &BodyError) {
        let (reason, text) = match error {
            BodyError::Mask(_) => (crate::flow::Reason::MaskImpossible, "the body could not be masked"),
            BodyError::Upstream(_) => (crate::flow::Reason::UpstreamClosed, "the upstream broke off the body"),
        };
        self.error = Some(Masked::plain(text));
        self.ending.set(reason, error.to_string());
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if !self.complete && self.error.is_none() {
            self.error = Some(Masked::plain("the exchange was broken off"));
        }
        let mut events: Vec<Event> = Vec::new();
        for (mask, what, count) in self.head_masks.drain(..).chain(self.masks.drain(..)) {
            events.push(Event::Masks { mask, what, count });
        }
        events.push(Event::Finished {
            number: self.number,
            status: Arc::from(self.status.as_str()),
            rows: None,
            bytes: self.bytes,
            duration_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            error: self.error.take(),
        });
        for event in events {
            if let Err(error) = self.gate.record(event) {
                self.ending.set(crate::flow::Reason::JournalUnavailable, error.to_string());
                return;
            }
        }
    }
}
