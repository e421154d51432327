//! Bytes without meaning: allowed or denied as a whole, and counted.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use weir_wire::WireError;

use super::{Conversation, Step, TlsFacts};
use crate::{
    credential::Pin,
    flow::{Failure, Reason, Request, Side},
    policy::Verdict,
};

/// A connection that is passed on as it is.
#[derive(Debug, Default)]
pub struct Opaque {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    New,
    Asked,
    Open,
}

impl Conversation for Opaque {
    fn receive(&mut self, from: Side, input: &mut BytesMut) -> Result<Option<Step>, WireError> {
        Ok(match self.state {
            State::New => {
                self.state = State::Asked;
                Some(Step::Decide(Request::Stream))
            }
            State::Asked => None,
            State::Open if input.is_empty() => None,
            State::Open => Some(Step::Send { to: from.other(), bytes: input.split().freeze() }),
        })
    }

    fn decided(&mut self, verdict: &Verdict, _: u64) -> Option<Step> {
        Some(match verdict {
            Verdict::Allow(_) => Step::Dial,
            Verdict::Deny(_) => Step::Close(Reason::Denied),
        })
    }

    fn dialled(&mut self, _: Option<Arc<Pin>>) -> Option<Step> {
        self.state = State::Open;
        None
    }

    fn secured(&mut self, _: Side, _: TlsFacts) -> Option<Step> {
        None
    }

    fn farewell(&mut self, _: &Failure) -> Bytes {
        Bytes::new()
    }

    fn inbox_bytes_max(&self) -> usize {
        INBOX_BYTES_MAX
    }

    fn is_opening(&self) -> bool {
        self.state != State::Open
    }
}

/// What a client may send before the upstream is connected.
const INBOX_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Allowed, Denied};

    #[test]
    fn asks_before_it_dials_and_then_passes_bytes_on() {
        let mut opaque = Opaque::default();
        let mut input = BytesMut::from(&b"early"[..]);
        assert!(matches!(opaque.receive(Side::Downstream, &mut input), Ok(Some(Step::Decide(Request::Stream)))));
        assert!(matches!(opaque.receive(Side::Downstream, &mut input), Ok(None)));
        assert!(matches!(opaque.decided(&Verdict::Allow(Allowed::default()), 1), Some(Step::Dial)));
        assert!(opaque.dialled(None).is_none());
        let Ok(Some(Step::Send { to: Side::Upstream, bytes })) = opaque.receive(Side::Downstream, &mut input) else {
            panic!("nothing was sent")
        };
        assert_eq!(&bytes[..], b"early");
    }

    #[test]
    fn closes_when_denied() {
        let mut opaque = Opaque::default();
        let denied = Denied { rule: "p/r".into(), message: "no".into(), reason: Reason::Denied };
        assert!(matches!(opaque.decided(&Verdict::Deny(denied), 1), Some(Step::Close(Reason::Denied))));
    }
}
