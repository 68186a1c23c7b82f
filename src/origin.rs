//! Where a token may go: the origins. The guard holds each request against them.

use std::{error::Error, fmt, str::FromStr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

pub(crate) mod guard;

/// Scheme, host and port of a server that may be sent the token, as in `https://api.symbl.ai`.
///
/// Matching is exact, but for what RFC 9110 section 4.2.3 calls equivalent: hosts are compared without
/// case, and the scheme's default port is filled in. Where an origin is written, `ws` stands for `http` and
/// `wss` for `https`. Of requests, [`authorize`](crate::SymblAuthLayer::authorize) takes a WebSocket's
/// `ws` and `wss`; the service takes `http` and `https` only.
///
/// ```
/// use tower_symbl_auth::Origin;
///
/// let origin: Origin = "https://api.symbl.ai".parse()?;
/// assert_eq!(origin, "wss://API.symbl.ai:443".parse()?);
/// assert_eq!(origin.to_string(), "https://api.symbl.ai");
/// assert!("https://*.symbl.ai".parse::<Origin>().is_err());
/// # Ok::<(), tower_symbl_auth::InvalidOrigin>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    tls: bool,
    port: u16,
    /// Lower case; `[…]` around an IPv6 address.
    host: Box<str>,
    /// `host`, with the port unless it is the scheme's default: what requests usually carry, to the letter.
    authority: Box<str>,
}

impl Origin {
    /// The origins of Symbl's Async and Labs APIs. Not Nebula, which takes another, static key.
    pub(crate) fn symbl() -> [Self; 2] {
        ["https://api.symbl.ai", "https://api-labs.symbl.ai"]
            .map(|origin| origin.parse().expect("these two parse"))
    }

    fn new(tls: bool, host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase().into_boxed_str();
        let authority = if port == default_port(tls) {
            host.clone()
        } else {
            format!("{host}:{port}").into_boxed_str()
        };
        Self {
            tls,
            port,
            host,
            authority,
        }
    }

    /// Whether these name it as it writes itself, as those of nearly every request do.
    #[inline]
    fn is_written(&self, scheme: &Scheme, authority: &Authority) -> bool {
        let own = if self.tls {
            &Scheme::HTTPS
        } else {
            &Scheme::HTTP
        };
        authority.as_str() == &*self.authority && scheme == own
    }

    /// A URI that names it as it writes itself.
    pub(crate) fn uri(&self, path: PathAndQuery) -> Uri {
        let scheme = if self.tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let uri = Uri::builder().scheme(scheme).authority(&*self.authority);
        let uri = uri.path_and_query(path).build();
        uri.expect("an origin is a scheme and an authority")
    }

    /// Whether a URL that names these, in lower case, is one of this origin.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn is(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let own = if self.tls { "https" } else { "http" };
        *self.host == *host && port == Some(self.port) && scheme == own
    }

    /// Whether the authority names this host and port; without a port, the scheme's default is meant.
    fn has_host(&self, authority: &Authority) -> bool {
        let Some((host, port)) = host_and_port(authority) else {
            return false;
        };
        host.eq_ignore_ascii_case(&self.host) && port.unwrap_or(default_port(self.tls)) == self.port
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why| Err(InvalidOrigin(why));
        if text.contains(['?', '#']) {
            return refuse("it has a query or fragment; give scheme, host and port only");
        }
        if text.contains('*') {
            return refuse("wildcards match nothing; list each origin");
        }
        let Ok(uri) = text.parse::<Uri>() else {
            return refuse("it does not parse as a URI");
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return refuse("scheme or host is missing");
        };
        let Some(tls) = is_tls(scheme) else {
            return refuse("the scheme must be https, http, wss or ws");
        };
        if !matches!(uri.path(), "" | "/") {
            return refuse("it has a path; give scheme, host and port only");
        }
        if authority.as_str().contains('@') {
            return refuse("it has userinfo; give scheme, host and port only");
        }
        match host_and_port(authority) {
            Some((host, port)) => Ok(Self::new(tls, host, port.unwrap_or(default_port(tls)))),
            None => {
                refuse("the host is empty or ends in a dot, or the port is no number up to 65535")
            }
        }
    }
}

impl TryFrom<&str> for Origin {
    type Error = InvalidOrigin;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

/// An origin that could never match a request, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOrigin(&'static str);

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not an origin such as `https://api.symbl.ai`: {}",
            self.0
        )
    }
}

impl Error for InvalidOrigin {}

/// Whether a request's URI names a server at all, and which: for telling that it goes without a token.
#[cfg(feature = "tracing")]
pub(crate) fn server(uri: &Uri) -> Option<String> {
    Some(canonical(uri.scheme_str()?, uri.authority()?))
}

/// Scheme and authority as an origin writes them, so that one origin has one name.
pub(crate) fn canonical(scheme: &str, authority: &Authority) -> String {
    match (is_tls(scheme), host_and_port(authority)) {
        (Some(tls), Some((host, port))) => {
            Origin::new(tls, host, port.unwrap_or(default_port(tls))).to_string()
        }
        _ => format!("{scheme}://{authority}").to_ascii_lowercase(),
    }
}

/// `None` for what never matches: userinfo, an empty host, a trailing dot, a port that is no number.
fn host_and_port(authority: &Authority) -> Option<(&str, Option<u16>)> {
    let (whole, host) = (authority.as_str(), authority.host());
    if host.is_empty() || host.ends_with('.') || whole.contains('@') {
        return None;
    }
    if whole.len() == host.len() {
        return Some((host, None));
    }
    let port = authority.port()?;
    // Digits alone: a number may have a sign.
    let is_number = port.as_str().bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (host, Some(port.as_u16())))
}

fn is_tls(scheme: &str) -> Option<bool> {
    match scheme {
        "https" => Some(true),
        "http" => Some(false),
        other => {
            let is = |name: &str| other.eq_ignore_ascii_case(name);
            let tls = is("wss") || is("https");
            (tls || is("ws") || is("http")).then_some(tls)
        }
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}
