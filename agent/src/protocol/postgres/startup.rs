//! The first words of a client: encryption, cancellation, startup.

use bytes::{Bytes, BytesMut};
use weir_wire::{
    WireError,
    postgres::{First, Startup, first},
};

use super::{
    Steps,
    errors::{self, Complaint},
    lexing,
};
use crate::{
    flow::{Login, Reason, SessionId, Side},
    policy::object::DownstreamTls,
    protocol::Step,
};

/// The negotiation before the startup message: each kind of encryption may be asked for once, in either order.
#[derive(Debug, Default)]
pub(super) struct Opening {
    gss_asked: bool,
    tls_asked: bool,
    /// TLS was agreed and is not up yet: what is in the inbox is not ours to read.
    securing: bool,
}

impl Opening {
    pub(super) fn secured(&mut self) {
        self.securing = false;
    }

    /// True while the client, whatever it speaks, could read words that are not encrypted or come through its TLS.
    pub(super) fn hears(&self) -> bool {
        !self.securing
    }

    /// Reads first packets until the startup message.
    pub(super) fn receive(
        &mut self,
        input: &mut BytesMut,
        offer: DownstreamTls,
        session: SessionId,
        steps: &mut Steps,
    ) -> Result<Option<Startup>, WireError> {
        while !self.securing {
            let Some((packet, length)) = first(input)? else {
                return Ok(None);
            };
            let _ = input.split_to(length);
            match packet {
                First::Cancel { process, key } => {
                    steps.push_back(Step::Cancel { process, key });
                    steps.push_back(Step::Close(Reason::DownstreamClosed));
                    return Ok(None);
                }
                First::GssEncryption if !self.gss_asked => {
                    self.gss_asked = true;
                    steps.push_back(answer(b"N"));
                }
                First::Ssl if !self.tls_asked => self.tls(input, offer, steps)?,
                First::GssEncryption | First::Ssl => return Err(WireError::Unexpected { what: "second request for encryption" }),
                First::Startup(startup) => return Ok(Some(startup)),
                First::Unsupported { major, minor } => {
                    let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
                    refuse(steps, session, "0A000", &message);
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    fn tls(&mut self, input: &BytesMut, offer: DownstreamTls, steps: &mut Steps) -> Result<(), WireError> {
        // Clear text behind the request would be read as if it had come through TLS (CVE-2021-23214).
        if !input.is_empty() {
            return Err(WireError::Malformed { what: "SSLRequest", why: "bytes behind it before TLS" });
        }
        self.tls_asked = true;
        match offer {
            DownstreamTls::Accept => {
                self.securing = true;
                steps.push_back(answer(b"S"));
                steps.push_back(Step::Secure(Side::Downstream));
            }
            DownstreamTls::Decline => steps.push_back(answer(b"N")),
        }
        Ok(())
    }
}

/// What policy judges; `None` when the client named no user, or wants what weir cannot read (the refusal is in `steps`).
pub(super) fn login(startup: &Startup, observes: bool, session: SessionId, steps: &mut Steps) -> Option<Login> {
    let text = |name: &[u8]| {
        let value = startup.parameter(name).filter(|value| !value.is_empty())?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let Some(user) = text(b"user") else {
        refuse(steps, session, "28000", "no PostgreSQL user name specified in startup packet");
        return None;
    };
    if let Some(setting) = unsafe_setting(startup).filter(|_| !observes) {
        refuse(steps, session, "42501", &errors::unsafe_setting(setting));
        return None;
    }
    let replication = startup.parameter(b"replication").is_some_and(|value| !is_false(value));
    Some(Login { user, database: text(b"database"), application: text(b"application_name"), replication })
}

/// A setting with which no statement could be read, be it a parameter of its own or one of the command line.
fn unsafe_setting(startup: &Startup) -> Option<&'static str> {
    startup.parameters.iter().find_map(|(name, value)| match name.as_ref() {
        b"options" => lexing::unsafe_option(value),
        name => lexing::unsafe_setting(name, Some(value)),
    })
}

/// Options of protocol extensions, none of which is known here.
pub(super) fn unknown_options(startup: &Startup) -> Vec<&[u8]> {
    startup.parameters.iter().map(|(name, _)| name.as_ref()).filter(|name| name.starts_with(b"_pq_.")).collect()
}

/// Ends the session with an error of the server's own kind.
pub(super) fn refuse(steps: &mut Steps, session: SessionId, code: &str, message: &str) {
    let bytes = Complaint { severity: "FATAL", code, message, detail: "" }.encode(session);
    steps.push_back(Step::Send { to: Side::Downstream, bytes });
    steps.push_back(Step::Close(if code == "42501" { Reason::Denied } else { Reason::DownstreamMalformed }));
}

fn answer(byte: &'static [u8]) -> Step {
    Step::Send { to: Side::Downstream, bytes: Bytes::from_static(byte) }
}

/// The spellings of false that clients use; everything else counts as a request for replication.
fn is_false(value: &[u8]) -> bool {
    [&b"false"[..], b"off", b"no", b"0", b"f", b"n"].iter().any(|spelling| value.eq_ignore_ascii_case(spelling))
}
