//! Request heads: which host is meant, what a transparent proxy takes out, what rules see.

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
    uri::Authority,
};

use crate::flow::{HttpRequest, path};

/// The host that a request is for: lower case, no port, no brackets, no trailing dot. `Ok(None)`: HTTP/1.0 need not say.
///
/// # Errors
/// The sentence for the client. An absolute-form target must agree with the Host header, or two servers could read two hosts.
pub(super) fn host(parts: &Parts) -> Result<Option<String>, &'static str> {
    let mut values = parts.headers.get_all(HOST).iter();
    let (value, more) = (values.next(), values.next());
    if more.is_some() {
        return Err("the request has more than one Host header");
    }
    let named = match value {
        Some(value) => Some(authority(value)?),
        None if parts.version >= Version::HTTP_11 => return Err("the request has no Host header"),
        None => None,
    };
    if let (Some(target), Some(named)) = (parts.uri.authority(), &named)
        && !target.as_str().eq_ignore_ascii_case(named.as_str())
    {
        return Err("the request's target and its Host header disagree");
    }
    Ok(named.as_ref().or(parts.uri.authority()).map(|authority| plain(authority.host())))
}

fn authority(value: &HeaderValue) -> Result<Authority, &'static str> {
    match Authority::try_from(value.as_bytes()) {
        Ok(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => Ok(authority),
        _ => Err("the Host header is malformed"),
    }
}

fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return address.to_canonical().to_string();
    }
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// What a request wants the connection to become, if it wants that. `h2c` is an offer that a server may ignore (RFC 9113
/// dropped it), so it is taken out without a word.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let offer_only = |value: &HeaderValue| {
        let mut protocols = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        protocols.all(|protocol| protocol.eq_ignore_ascii_case(b"h2c"))
    };
    headers.get_all(UPGRADE).iter().find(|value| !offer_only(value))
}

/// True when the framing is one that both legs read the same way: none, or exactly `chunked`.
pub(super) fn plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Takes out what is meant for one leg only (RFC 9110, 7.6.1), but for a wish to close, which is the other side's to know.
pub(super) fn take_out_hop_by_hop(headers: &mut HeaderMap) {
    take_out_nominated(headers);
    let keep_alive = [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
    for name in keep_alive.into_iter().chain([UPGRADE, PROXY_AUTHORIZATION]) {
        headers.remove(name);
    }
    if let Some(te) = headers.get(TE) {
        let trailers = tokens(te).any(|token| token.eq_ignore_ascii_case(b"trailers"));
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
}

/// Takes out the headers that `Connection` names, and of it everything but `close` and `keep-alive`.
pub(super) fn take_out_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let nominated: Vec<Vec<u8>> = headers.get_all(CONNECTION).iter().flat_map(tokens).map(<[u8]>::to_ascii_lowercase).collect();
    let has = |wanted: &[u8]| nominated.iter().any(|token| token == wanted);
    let close = has(b"close");
    let simple = headers.get_all(CONNECTION).iter().count() == 1;
    if simple && nominated.iter().all(|token| token == b"close" || token == b"keep-alive") {
        return;
    }
    let keep_alive = has(b"keep-alive");
    for token in &nominated {
        if let Ok(name) = HeaderName::from_bytes(token)
            // These say where a message goes and ends; no client may have them dropped.
            && ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER, TE].contains(&name)
        {
            headers.remove(name);
        }
    }
    headers.remove(CONNECTION);
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if keep_alive {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// What rules and journal see. `query` and the headers are without the client's own credential.
pub(super) fn request(parts: &Parts, host: String, query: Option<&str>) -> HttpRequest {
    let path = if parts.uri.path().is_empty() { "/" } else { parts.uri.path() };
    let headers = parts.headers.iter();
    HttpRequest {
        method: parts.method.as_str().to_owned(),
        host,
        path: path.to_owned(),
        path_normal: path::normal(path),
        path_lenient: path::lenient(path),
        query: query.map(str::to_owned),
        headers: headers.map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn hosts_are_compared_in_one_spelling() {
        for (value, host) in [
            ("API.Internal:8080", "api.internal"),
            ("api.internal.", "api.internal"),
            ("[::1]:80", "::1"),
            ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ] {
            assert_eq!(super::host(&parts("/", &[("host", value)])).unwrap().as_deref(), Some(host), "{value}");
        }
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        for headers in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "")],
            &[("host", "user@a")],
            &[("host", "a b")],
            &[("host", "a/b")],
        ] {
            assert!(host(&parts("/", headers)).is_err(), "{headers:?}");
        }
        assert!(host(&parts("http://b/", &[("host", "a")])).is_err());
        assert!(host(&parts("http://a:81/", &[("host", "a:80")])).is_err());
        assert_eq!(host(&parts("http://A/", &[("host", "a")])).unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn what_is_nominated_is_taken_out_but_never_the_framing() {
        let mut parts = parts(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-One, host"),
                ("connection", "te"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("te", "gzip, trailers"),
            ],
        );
        take_out_hop_by_hop(&mut parts.headers);
        let left: Vec<_> = parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(left.len(), 4, "{left:?}");
        for line in ["host: a", "connection: close", "x-two: 2", "te: trailers"] {
            assert!(left.iter().any(|kept| kept == line), "{line} in {left:?}");
        }
    }

    #[test]
    fn an_offer_of_h2c_is_no_upgrade() {
        assert!(upgrade(&parts("/", &[("upgrade", "h2c")]).headers).is_none());
        assert!(upgrade(&parts("/", &[("upgrade", "websocket")]).headers).is_some());
        assert!(upgrade(&parts("/", &[("upgrade", "h2c, websocket")]).headers).is_some());
    }

    #[test]
    fn other_transfer_codings_are_not_plain() {
        assert!(plainly_framed(&parts("/", &[]).headers));
        assert!(plainly_framed(&parts("/", &[("transfer-encoding", "Chunked")]).headers));
        assert!(!plainly_framed(&parts("/", &[("transfer-encoding", "gzip, chunked")]).headers));
        assert!(!plainly_framed(&parts("/", &[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")]).headers));
    }
}
