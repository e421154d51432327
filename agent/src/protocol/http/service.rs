//! One exchange: refuse, or judge, journal, inject, forward, mask.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, Version, header::EXPECT, request::Parts, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    body::{Finish, ResponseBody},
    gate::{Decision, refusal},
    head,
    inject::Injection,
    plan::{Masks, Plan, Purpose, lock},
    problem::Problem,
    respond::{ask_readable, respond},
    upstream::Upstream,
};
use crate::{
    flow::{Failure, HttpRequest, Reason, Request as Asked},
    journal::{Event, JournalError},
    policy::{Denied, Verdict},
};

/// What a connection's requests share.
pub(super) struct Service {
    plan: Plan,
    upstream: Upstream,
    ending: Arc<Ending>,
    /// The journal knows that the credential is in use.
    injected: AtomicBool,
}

/// Why the session must end, once something says so; the first reason stands.
#[derive(Default)]
pub(super) struct Ending(Mutex<Option<Failure>>);

impl Ending {
    pub(super) fn set(&self, reason: Reason, detail: impl Into<String>) {
        lock(&self.0).get_or_insert_with(|| Failure::new(reason, detail));
    }
}

/// An allowed request, ready to go.
struct Admitted {
    number: u64,
    query: Option<String>,
    /// The masks in force.
    masks: Arc<Masks>,
    /// A reload sends such requests elsewhere, or with another credential.
    outdated: bool,
}

impl Service {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, upstream: Upstream::default(), ending: Arc::default(), injected: AtomicBool::new(false) }
    }

    pub(super) fn poll_upstream(&self, cx: &mut Context<'_>) {
        self.upstream.poll(cx);
    }

    pub(super) fn ending(&self) -> Option<Failure> {
        lock(&self.ending.0).take()
    }

    /// Answers one request. Cancel safe: dropped midway, the journal says that the exchange was broken off.
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
        let started = Instant::now();
        let answer = self.exchange(request, started).await;
        Ok(answer.unwrap_or_else(|problem| problem.response(self.plan.gate.session(), &self.plan.known.scrubber())))
    }

    async fn exchange(&self, request: Request<Incoming>, started: Instant) -> Result<Response<ResponseBody>, Problem> {
        let (mut parts, incoming) = request.into_parts();
        let downstream = parts.version;
        let expects = parts.headers.contains_key(EXPECT);
        let admitted = match self.admit(&mut parts).await {
            Ok(admitted) => admitted,
            Err(problem) => {
                // A client that waits for an invitation gets none.
                if !expects {
                    drain(incoming).await;
                }
                return Err(problem);
            }
        };
        let mut finish = Finish::new(Arc::clone(&self.plan.gate), admitted.number, started, Arc::clone(&self.ending));
        if admitted.outdated {
            let detail = "the policies changed; this connection ends here, and the next one is served by them";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Drained, detail).closing();
            return Err(self.failed(problem, &mut finish));
        }
        let forwarded = self.forward(parts, incoming, admitted.query, &admitted.masks).await;
        let (method, response) = match forwarded {
            Ok(forwarded) => forwarded,
            Err(problem) => return Err(self.failed(problem, &mut finish)),
        };
        match respond(&self.plan, &admitted.masks, &method, response, downstream, finish).await {
            Ok(response) => Ok(response),
            Err((problem, mut finish)) => Err(self.failed(problem, &mut finish)),
        }
    }

    /// Journals that weir answers in the upstream's stead.
    fn failed(&self, problem: Problem, finish: &mut Finish) -> Problem {
        finish.failed(problem.status, self.plan.known.scrubber().text(problem.detail.as_bytes()));
        problem
    }

    /// Everything before the first byte goes up: the protocol's own demands, the verdict, and its place in the journal.
    async fn admit(&self, parts: &mut Parts) -> Result<Admitted, Problem> {
        let host = head::host(parts)
            .map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, Reason::DownstreamMalformed, detail).closing())?;
        let host = host.unwrap_or_else(|| self.plan.default_host.clone());
        let unservable = unservable(parts);
        // First of all: what `Connection` names is taken out, and the credential must not be named.
        head::take_out_hop_by_hop(&mut parts.headers);
        let query = match &self.plan.injection {
            Some(injection) => injection.strip(&mut parts.headers, parts.uri.query()),
            None => parts.uri.query().map(str::to_owned),
        };
        let asked = head::request(parts, host, query.as_deref());
        if let Some(problem) = unservable {
            self.refused(&asked, &problem)?;
            return Err(problem);
        }
        let misdirected = self.plan.injection.is_some()
            && !self.plan.names.is_empty()
            && !self.plan.names.iter().any(|name| **name == asked.host);
        if misdirected {
            // Many names share an address; the credential is meant for the names that the operator wrote.
            let detail = format!("weir has no credential for the host {} at this address", asked.host);
            let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, Reason::Denied, detail);
            self.refused(&asked, &problem)?;
            return Err(problem);
        }
        let Decision { verdict, number, barrier } =
            self.plan.gate.decide(&Asked::Http(Arc::new(asked))).map_err(|error| self.unjournaled(&error))?;
        if let Verdict::Deny(denied) = verdict {
            return Err(refusal_of(&denied));
        }
        if let Some(barrier) = barrier {
            barrier.await.map_err(|error| self.unjournaled(&error))?;
        }
        let renewed = self.plan.gate.renewed();
        let masks = renewed.as_ref().map_or_else(|| Arc::clone(&self.plan.masks), |permit| Arc::new(Masks::new(permit)));
        let outdated = renewed.is_some_and(|permit| Purpose::of(&permit) != self.plan.purpose);
        Ok(Admitted { number, query, masks, outdated })
    }

    /// Puts the credential in and asks the upstream.
    async fn forward(
        &self,
        mut parts: Parts,
        incoming: Incoming,
        query: Option<String>,
        masks: &Masks,
    ) -> Result<(Method, Response<Incoming>), Problem> {
        let query = match &self.plan.injection {
            Some(injection) => self.inject(injection, &mut parts, query)?,
            None => query,
        };
        ask_readable(&self.plan, masks, &mut parts.headers);
        parts.uri = origin_form(&parts.uri, query.as_deref()).ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST, Reason::DownstreamMalformed, "the request's target is malformed")
        })?;
        let method = parts.method.clone();
        let request = Request::from_parts(parts, incoming);
        match self.upstream.send(request, &self.plan.connect, &self.plan.limits).await {
            Ok(response) => Ok((method, response)),
            Err(failure) => {
                let status = if failure.reason == Reason::CredentialUnavailable {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::BAD_GATEWAY
                };
                Err(Problem::new(status, failure.reason, failure.public().to_owned()))
            }
        }
    }

    fn inject(&self, injection: &Injection, parts: &mut Parts, query: Option<String>) -> Result<Option<String>, Problem> {
        let value = match &injection.value {
            Ok(value) => value,
            Err(detail) => {
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, Reason::CredentialUnavailable, detail.clone()));
            }
        };
        if !self.injected.swap(true, Ordering::Relaxed) {
            let event = Event::CredentialInjected {
                credential: Arc::clone(&injection.credential),
                version: Arc::clone(&value.version),
                method: Arc::from(injection.method),
            };
            self.plan.gate.record(event).map_err(|error| self.unjournaled(&error))?;
        }
        Ok(value.apply(injection, &mut parts.headers, query.as_deref()))
    }

    /// Journals a refusal that no policy was asked about.
    fn refused(&self, asked: &HttpRequest, problem: &Problem) -> Result<(), Problem> {
        let denied = Denied {
            rule: Arc::from(problem.rule.as_deref().unwrap_or("weir/http")),
            message: Arc::from(problem.detail.as_str()),
            reason: problem.reason,
        };
        let gate = &self.plan.gate;
        let event = refusal(gate.next_number(), asked, &denied, &self.plan.known.scrubber());
        gate.record(event).map_err(|error| self.unjournaled(&error))
    }

    fn unjournaled(&self, error: &JournalError) -> Problem {
        self.ending.set(Reason::JournalUnavailable, error.to_string());
        let detail = "the journal cannot be written, so nothing is let through";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, Reason::JournalUnavailable, detail).closing()
    }
}

/// Reads what a refused client is still sending: closing on unread bytes resets the connection, and the refusal with it.
async fn drain(mut incoming: Incoming) {
    let read = async {
        let mut bytes = 0;
        while bytes < DRAIN_BYTES_MAX
            && let Some(Ok(frame)) = incoming.frame().await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whatever is left after that, hyper closes on.
    let _ = timeout(DRAIN_TIME_MAX, read).await;
}

const DRAIN_BYTES_MAX: usize = 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Requests that cannot be served where what comes back must be read.
fn unservable(parts: &Parts) -> Option<Problem> {
    let refuse = |status, detail| Some(Problem::new(status, Reason::Denied, detail));
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        // TRACE answers with the request, the credential included; CONNECT makes a tunnel that nobody can look into.
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "weir does not pass on CONNECT and TRACE");
    }
    if parts.version > Version::HTTP_11 {
        return refuse(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "weir speaks HTTP/1.1 here");
    }
    if head::upgrade(&parts.headers).is_some() {
        return refuse(
            StatusCode::NOT_IMPLEMENTED,
            "weir cannot look into an upgraded connection, so it does not pass on the upgrade",
        )
        .map(Problem::closing);
    }
    if !head::plainly_framed(&parts.headers) {
        return refuse(StatusCode::NOT_IMPLEMENTED, "weir reads no transfer coding but chunked").map(Problem::closing);
    }
    None
}

fn refusal_of(denied: &Denied) -> Problem {
    let status = match denied.reason {
        Reason::CredentialUnavailable | Reason::JournalUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    Problem { rule: Some(denied.rule.to_string()), ..Problem::new(status, denied.reason, denied.message.to_string()) }
}

/// The target as an origin server wants it (RFC 9112, 3.2.1); `*` stays.
fn origin_form(uri: &Uri, query: Option<&str>) -> Option<Uri> {
    if uri.authority().is_none() && uri.query() == query {
        return Some(uri.clone());
    }
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    let target = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.ok().map(Uri::from)
}
