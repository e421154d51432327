//! The upstream's side of a login: TLS, then whatever the server asks, answered from the credential.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use weir_wire::postgres::{self, Authentication, Frame};

use super::errors;
use crate::{
    credential::{
        Pin, Secret,
        md5::md5_response,
        scram::{Binding, Exchange},
    },
    flow::{Failure, Reason},
    mask::Scrubber,
    policy::object::TlsMode,
    protocol::TlsFacts,
};

/// One login. Without a pin, the client's own exchange is passed on.
pub(super) struct Login {
    pin: Option<Arc<Pin>>,
    user: String,
    startup: Bytes,
    mode: TlsMode,
    facts: TlsFacts,
    scrubber: Arc<Scrubber>,
    state: State,
}

enum State {
    /// The SSLRequest was sent.
    AwaitingTls,
    Securing,
    /// The startup message was sent.
    AwaitingChallenge,
    Scram(Box<Exchange>, &'static str),
    /// Everything was answered; only AuthenticationOk is left.
    Answered(&'static str),
}

/// What follows from one message of the server.
#[derive(Debug)]
pub(super) enum Turn {
    /// The server is satisfied, by this method.
    Accepted(&'static str),
    Nothing,
    /// Say this to the client instead of the message (no credential is injected).
    Offer(Bytes),
    /// Pass the message on to the client (no credential is injected).
    Pass,
    /// The server refused the session for another reason than the login: its words are the client's to read.
    Refused,
    Secure,
    Send(Bytes),
}

impl Login {
    /// `parameters` are the startup parameters but the user; `client_user` is taken when the credential names none.
    pub(super) fn new(
        pin: Option<Arc<Pin>>,
        client_user: &str,
        parameters: &[(&[u8], &[u8])],
        mode: TlsMode,
        scrubber: Arc<Scrubber>,
    ) -> Self {
        let user = pin.as_ref().and_then(|pin| pin.user()).unwrap_or(client_user).to_owned();
        let startup =
            postgres::startup_message(std::iter::once((&b"user"[..], user.as_bytes())).chain(parameters.iter().copied()));
        Self { pin, user, startup, mode, facts: TlsFacts::default(), scrubber, state: State::AwaitingChallenge }
    }

    pub(super) fn begin(&mut self) -> Turn {
        if self.mode == TlsMode::Off {
            return Turn::Send(self.startup.clone());
        }
        self.state = State::AwaitingTls;
        Turn::Send(postgres::ssl_request())
    }

    pub(super) fn secured(&mut self, facts: TlsFacts) -> Turn {
        self.facts = facts;
        self.state = State::AwaitingChallenge;
        Turn::Send(self.startup.clone())
    }

    /// True while no message can be read: the reply to the SSLRequest has no frame, and TLS records are not ours.
    pub(super) fn is_before_startup(&self) -> bool {
        matches!(self.state, State::AwaitingTls | State::Securing)
    }

    /// True while the client's own answers are wanted.
    pub(super) fn relays_answers(&self) -> bool {
        self.pin.is_none() && !self.is_before_startup()
    }

    /// Reads the one byte that answers the SSLRequest.
    pub(super) fn tls_answer(&mut self, input: &mut BytesMut) -> Result<Turn, Failure> {
        let fails = |why: &str| Err(Failure::new(Reason::UpstreamTls, why));
        match (&self.state, input.first()) {
            (State::Securing, _) | (_, None) => Ok(Turn::Nothing),
            // Clear text behind the answer would be read as if it had come through TLS (CVE-2021-23222).
            (_, Some(b'S')) if input.len() > 1 => fails("the server sent clear text behind its consent to TLS"),
            (_, Some(b'S')) => {
                input.clear();
                self.state = State::Securing;
                Ok(Turn::Secure)
            }
            (_, Some(b'N')) => fails("the server declined TLS, which policy requires; the credential was not sent"),
            (_, Some(b'E')) => fails("the server answered the request for TLS with an error; the credential was not sent"),
            (_, Some(_)) => fails("the server's answer to the request for TLS is not PostgreSQL's"),
        }
    }

    /// Answers one message of the server before it is ready.
    pub(super) fn message(&mut self, frame: Frame, body: &[u8]) -> Result<Turn, Failure> {
        match frame.tag {
            b'R' => self.challenge(postgres::authentication(body).map_err(malformed)?),
            b'E' => self.refused(body),
            // Nothing was asked beyond 3.0; a notice before the login has no reader.
            b'N' | b'v' => Ok(Turn::Nothing),
            _ => Err(Failure::new(Reason::UpstreamMalformed, "the server sent an unexpected message during login")),
        }
    }

    fn challenge(&mut self, challenge: Authentication<'_>) -> Result<Turn, Failure> {
        let Some(pin) = self.pin.clone() else {
            return Ok(relayed(&challenge));
        };
        if challenge == Authentication::Ok {
            return self.accepted(&pin);
        }
        let Some(password) = pin.password() else {
            return Err(self.rejected("the server asks for a password and the credential has none"));
        };
        match (challenge, std::mem::replace(&mut self.state, State::Answered(""))) {
            (Authentication::Sasl { mechanisms }, State::AwaitingChallenge) => self.scram(&mechanisms),
            (Authentication::SaslContinue(first), State::Scram(mut exchange, method)) => {
                let answer = exchange.answer(password, first).map_err(|error| self.rejected(&error.to_string()))?;
                self.state = State::Scram(exchange, method);
                Ok(Turn::Send(answer_message(&answer)))
            }
            (Authentication::SaslFinal(last), State::Scram(exchange, method)) => {
                exchange.verify(last).map_err(|error| self.rejected(&error.to_string()))?;
                self.state = State::Answered(method);
                Ok(Turn::Nothing)
            }
            (Authentication::Md5Password { salt }, State::AwaitingChallenge) => {
                self.state = State::Answered("md5");
                Ok(Turn::Send(password_message(md5_response(&self.user, password, salt).as_bytes())))
            }
            (Authentication::CleartextPassword, State::AwaitingChallenge) => self.cleartext(password),
            (Authentication::Other(number), _) => {
                Err(self.rejected(&format!("the server asks for authentication method {number}, which is not supported")))
            }
            _ => Err(Failure::new(Reason::UpstreamMalformed, "the server's authentication messages are out of order")),
        }
    }

    /// Without a challenge, anyone who answers the port could pose as the server and be given statements.
    fn accepted(&self, pin: &Pin) -> Result<Turn, Failure> {
        match self.state {
            State::Answered(method) => Ok(Turn::Accepted(method)),
            State::AwaitingChallenge if pin.password().is_none() => Ok(Turn::Accepted("trust")),
            State::AwaitingChallenge => Err(self.rejected("the server asked for no password although the credential has one")),
            _ => Err(self.rejected("the server ended the exchange without proving that it knows the password")),
        }
    }

    fn scram(&mut self, mechanisms: &[&[u8]]) -> Result<Turn, Failure> {
        let offers = |name: &[u8]| mechanisms.contains(&name);
        let (binding, mechanism, method) = match &self.facts.server_end_point {
            Some(hash) if offers(SCRAM_PLUS) => (Binding::EndPoint(hash.clone()), SCRAM_PLUS, "scram-sha-256-plus"),
            Some(_) if offers(SCRAM) => (Binding::NotOffered, SCRAM, "scram-sha-256"),
            None if offers(SCRAM) => (Binding::Absent, SCRAM, "scram-sha-256"),
            _ => return Err(self.rejected("the server offers no SASL mechanism that can be used on this connection")),
        };
        let (exchange, first) = Exchange::start(binding);
        self.state = State::Scram(Box::new(exchange), method);
        Ok(Turn::Send(postgres::sasl_initial_response(mechanism, &first)))
    }

    fn cleartext(&mut self, password: &Secret) -> Result<Turn, Failure> {
        if !self.facts.verified {
            return Err(self.rejected("the server asks for the password in clear text without verified TLS; it was not sent"));
        }
        self.state = State::Answered("password");
        Ok(Turn::Send(password_message(password.expose())))
    }

    fn refused(&self, body: &[u8]) -> Result<Turn, Failure> {
        let fields = postgres::error_fields(body).map_err(malformed)?;
        let code = errors::field(&fields, b'C').unwrap_or_default();
        // Class 28: invalid authorization specification. With the client's own password, its server answers it.
        if self.pin.is_none() || !code.starts_with(b"28") {
            return Ok(Turn::Refused);
        }
        let message = self.scrubber.text(errors::field(&fields, b'M').unwrap_or_default());
        Err(self.rejected(&format!("the server said {}: {message}", String::from_utf8_lossy(code))))
    }

    fn rejected(&self, why: &str) -> Failure {
        let which = match &self.pin {
            Some(pin) => format!("Managed credential {}, version {}: ", pin.name(), pin.version()),
            None => String::new(),
        };
        Failure::new(Reason::CredentialRejected, format!("{which}{why}"))
    }
}

/// What the client hears of a challenge that it answers itself. Its channel ends here, so it cannot bind to the server's.
fn relayed(challenge: &Authentication<'_>) -> Turn {
    match challenge {
        Authentication::Ok => Turn::Accepted("client"),
        Authentication::Sasl { mechanisms } if mechanisms.contains(&SCRAM_PLUS) => {
            let mut out = BytesMut::new();
            postgres::message(&mut out, b'R', |out| {
                out.extend_from_slice(&10_u32.to_be_bytes());
                for mechanism in mechanisms.iter().filter(|mechanism| **mechanism != SCRAM_PLUS) {
                    out.extend_from_slice(mechanism);
                    out.extend_from_slice(&[0]);
                }
                out.extend_from_slice(&[0]);
            });
            Turn::Offer(out.freeze())
        }
        _ => Turn::Pass,
    }
}

fn malformed(error: weir_wire::WireError) -> Failure {
    Failure::new(Reason::UpstreamMalformed, error.to_string())
}

fn answer_message(answer: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    postgres::message(&mut out, b'p', |out| out.extend_from_slice(answer));
    out.freeze()
}

fn password_message(password: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(password.len() + 6);
    postgres::message(&mut out, b'p', |out| {
        out.extend_from_slice(password);
        out.extend_from_slice(&[0]);
    });
    out.freeze()
}

const SCRAM: &[u8] = b"SCRAM-SHA-256";
const SCRAM_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
