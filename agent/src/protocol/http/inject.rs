//! Where the credential goes, and how the client's own value for that place is taken out.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
};
use zeroize::Zeroizing;

use crate::{
    credential::{Pin, Secret},
    flow::path,
    mask::KnownSecrets,
    policy::object::{HttpPlace, Inject},
};

/// What every request of a session gets; made once.
pub(super) struct Injection {
    place: Place,
    /// What the journal calls it.
    pub(super) method: &'static str,
    pub(super) credential: Arc<str>,
    /// The credential's version; or why there is none, in a sentence for the client.
    pub(super) value: Result<Value, String>,
}

pub(super) struct Value {
    pub(super) version: Arc<str>,
    form: Form,
}

/// What a pin holds, lent for the rendering.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) version: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a [u8]>,
    pub(super) token: Option<&'a [u8]>,
}

impl<'a> From<&'a Pin> for Held<'a> {
    fn from(pin: &'a Pin) -> Self {
        Self {
            version: pin.version(),
            user: pin.user(),
            password: pin.password().map(Secret::expose),
            token: pin.token().map(Secret::expose),
        }
    }
}

enum Form {
    Header(HeaderValue),
    /// Percent-encoded `name=value`.
    Query(Zeroizing<String>),
}

enum Place {
    Header(HeaderName),
    Query(String),
}

impl Injection {
    /// Renders the credential. What is rendered anew (user and password in one base64 text) is made known to the masks.
    pub(super) fn new(inject: &Inject, pin: Option<Held<'_>>, known: &KnownSecrets) -> Self {
        let spec = &inject.credential;
        let by_default = if spec.token.is_some() { HttpPlace::Bearer } else { HttpPlace::Basic };
        let chosen = inject.http.as_ref().unwrap_or(&by_default);
        let (place, method) = match chosen {
            HttpPlace::Basic => (Ok(Place::Header(AUTHORIZATION)), "http-basic"),
            HttpPlace::Bearer => (Ok(Place::Header(AUTHORIZATION)), "http-bearer"),
            HttpPlace::Header(name) => (header_place(name), "http-header"),
            HttpPlace::Query(name) => (Ok(Place::Query(name.clone())), "http-query"),
        };
        let value = match &place {
            Ok(place) => render(chosen, place, pin, known).map_err(|cause| format!("credential {}: {cause}", spec.name)),
            Err(cause) => Err(format!("credential {}: {cause}", spec.name)),
        };
        // A place that cannot be used has no value either; the client's Authorization is dropped all the same.
        Self { place: place.unwrap_or(Place::Header(AUTHORIZATION)), method, credential: Arc::clone(&spec.name), value }
    }

    /// Takes out every value that the client itself sent for the place; the query that is left.
    pub(super) fn strip(&self, headers: &mut HeaderMap, query: Option<&str>) -> Option<String> {
        match &self.place {
            Place::Header(name) => {
                headers.remove(name);
                query.map(str::to_owned)
            }
            Place::Query(name) => query.and_then(|query| without(query, name)),
        }
    }
}

impl Value {
    /// Puts the credential in; the query to ask with.
    pub(super) fn apply(&self, place: &Injection, headers: &mut HeaderMap, query: Option<&str>) -> Option<String> {
        match (&self.form, &place.place) {
            (Form::Header(value), Place::Header(name)) => {
                headers.insert(name.clone(), value.clone());
                query.map(str::to_owned)
            }
            (Form::Query(pair), _) => Some(match query {
                Some(query) if !query.is_empty() => format!("{query}&{}", **pair),
                _ => pair.as_str().to_owned(),
            }),
            (Form::Header(_), Place::Query(_)) => query.map(str::to_owned),
        }
    }
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injection").field("credential", &self.credential).field("method", &self.method).finish_non_exhaustive()
    }
}

/// Headers that say where a message ends or goes are no place for a credential.
fn header_place(name: &str) -> Result<Place, &'static str> {
    match HeaderName::try_from(name) {
        Ok(CONNECTION | CONTENT_LENGTH | HOST | TRANSFER_ENCODING | UPGRADE) | Err(_) => {
            Err("the header cannot carry a credential")
        }
        Ok(name) => Ok(Place::Header(name)),
    }
}

fn render(chosen: &HttpPlace, place: &Place, pin: Option<Held<'_>>, known: &KnownSecrets) -> Result<Value, String> {
    let pin = pin.ok_or("it is not available")?;
    let token = || pin.token.or(pin.password).ok_or("it has no token");
    let text = match chosen {
        HttpPlace::Basic => {
            let password = pin.password.ok_or("it has no password")?;
            let user = pin.user.ok_or("it has no user")?;
            let pair = Zeroizing::new([user.as_bytes(), b":", password].concat());
            let pair = Zeroizing::new(STANDARD.encode(&*pair));
            // A short password is looked for only as it is, and this is another form of it.
            known.register(pair.trim_end_matches('=').as_bytes()).map_err(|refused| refused.to_string())?;
            Zeroizing::new(format!("Basic {}", *pair).into_bytes())
        }
        HttpPlace::Bearer => Zeroizing::new([b"Bearer ".as_slice(), token()?].concat()),
        HttpPlace::Header(_) | HttpPlace::Query(_) => Zeroizing::new(token()?.to_vec()),
    };
    let form = match place {
        Place::Header(_) => {
            let mut value =
                HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text)).map_err(|_| "it does not fit into a header")?;
            value.set_sensitive(true);
            Form::Header(value)
        }
        Place::Query(name) => Form::Query(Zeroizing::new(format!("{}={}", encode(name.as_bytes()), encode(&text)))),
    };
    Ok(Value { version: Arc::from(pin.version), form })
}

/// The query without the pairs of this name, however the name is spelt; `None` when nothing is left.
fn without(query: &str, name: &str) -> Option<String> {
    let named = |pair: &&str| {
        let spelt = pair.split('=').next().unwrap_or_default();
        let plain: Vec<u8> = spelt.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        path::decode(&plain) == name.as_bytes()
    };
    let kept: Vec<&str> = query.split('&').filter(|pair| !named(pair)).collect();
    if kept.is_empty() { None } else { Some(kept.join("&")) }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_query_name_is_taken_out() {
        assert_eq!(
            without("a=1&api_key=x&b=2&api%5Fkey=y&api_key&%61pi_key=&api_keys=3", "api_key").as_deref(),
            Some("a=1&b=2&api_keys=3")
        );
        assert_eq!(without("api_key=x", "api_key"), None);
        assert_eq!(without("a+b=1&a%20b=2&c", "a b").as_deref(), Some("c"));
        assert_eq!(without("", "k").as_deref(), Some(""));
    }

    #[test]
    fn framing_headers_are_no_place_for_a_credential() {
        assert!(header_place("host").is_err());
        assert!(header_place("transfer-encoding").is_err());
        assert!(header_place("x api").is_err());
        assert!(header_place("x-api-key").is_ok());
    }

    #[test]
    fn encoding_escapes_what_a_query_would_misread() {
        assert_eq!(encode(b"a+/=&%\xff-._~"), "a%2B%2F%3D%26%25%FF-._~");
    }
}
