//! The origin guard: which requests may be sent the token.

use http::{
    HeaderMap, Uri,
    header::HOST,
    uri::{Authority, Scheme},
};

use super::{Origin, is_tls};

/// Whether a request may be sent the token.
///
/// Its scheme has to be `https` or `http` to the letter, as connectors compare it: they exist that
/// encrypt what is `https` and send all else, `wss` among it, in clear.
///
/// A URI without authority (origin-form: what tonic hands on, and what a client bound to one host is
/// given) goes where the inner service leads, so it passes. In either case a `Host` header must not name
/// another host: over HTTP/1.1 it is the virtual host it names that gets the token.
#[inline]
pub(crate) fn allows(origins: &[Origin], uri: &Uri, headers: &HeaderMap) -> Option<Listed> {
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => {
            let is_written = |origin: &Origin| origin.is_written(scheme, authority);
            match origins.iter().position(is_written) {
                Some(at) => {
                    let is_allowed = is_host(&origins[at], headers);
                    is_allowed.then_some(Listed::AsWritten(at))
                }
                None => allows_equivalent(origins, scheme, authority, headers)
                    .then_some(Listed::Otherwise),
            }
        }
        // The authority form of CONNECT: what follows on that connection is not ours to see.
        (None, Some(_)) => None,
        (_, None) => {
            let mut hosts = headers.get_all(HOST).iter();
            let is_allowed = hosts.all(|host| {
                let host = Authority::try_from(host.as_bytes());
                host.is_ok_and(|host| origins.iter().any(|o| o.has_host(&host)))
            });
            is_allowed.then_some(match uri.scheme() {
                None => Listed::Unnamed,
                Some(_) => Listed::Otherwise,
            })
        }
    }
}

/// How a request names an origin of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// To the letter as the one at this place.
    AsWritten(usize),
    /// In other words.
    Otherwise,
    /// Not at all: the request goes where the inner service leads.
    Unnamed,
}

/// The same for a request that something else sends, a WebSocket's handshake among them: `ws` stands for
/// `http`, and `wss` for `https`.
pub(crate) fn allows_handshake(origins: &[Origin], uri: &Uri, headers: &HeaderMap) -> bool {
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => {
            equivalent(origins, scheme, authority).is_some_and(|origin| is_host(origin, headers))
        }
        _ => allows(origins, uri, headers).is_some(),
    }
}

#[cold]
fn allows_equivalent(
    origins: &[Origin],
    scheme: &Scheme,
    authority: &Authority,
    headers: &HeaderMap,
) -> bool {
    let is_plain = matches!(scheme.as_str(), "https" | "http");
    let origin = equivalent(origins, scheme, authority).filter(|_| is_plain);
    origin.is_some_and(|origin| is_host(origin, headers))
}

/// How many names are few.
const FEW: usize = 16;

/// Whether no `Host` header names another host.
#[inline]
pub(crate) fn is_host(origin: &Origin, headers: &HeaderMap) -> bool {
    // Of few names, to look at each takes less time than to hash one.
    if headers.keys_len() <= FEW && !headers.keys().any(|name| name == HOST) {
        return true;
    }
    headers.get_all(HOST).iter().all(|host| {
        host.as_bytes() == origin.authority.as_bytes()
            || Authority::try_from(host.as_bytes()).is_ok_and(|host| origin.has_host(&host))
    })
}

fn equivalent<'a>(
    origins: &'a [Origin],
    scheme: &Scheme,
    authority: &Authority,
) -> Option<&'a Origin> {
    let tls = is_tls(scheme.as_str());
    let is = |origin: &&Origin| tls == Some(origin.tls) && origin.has_host(authority);
    origins.iter().find(is)
}
