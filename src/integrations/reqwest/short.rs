//! The short way, which nearly every request takes: its body is in memory, and a token is live. Nothing of it is converted.

use std::mem;

use reqwest::{Request, Response, Url};

use super::chain::tells_of_token;
use crate::{
    Origin,
    layer::Auth,
    origin::guard::is_host,
    replay::{head::key, packed::Packed},
    token::Key,
};

/// A request, saved while it is sent.
pub(super) struct Saved {
    /// But for its headers.
    request: Request,
    headers: Packed,
    pub(super) generation: u64,
}

/// Adds the live token to a request, and saves it as it was; unless it has to go the long way.
pub(super) fn stamp(auth: &Auth, request: &mut Request) -> Option<Saved> {
    // A timeout of its own is for all that may have to be done.
    if request.timeout().is_some() || !is_listed(auth, request) {
        return None;
    }
    let stamp = auth.cache.live()?;
    let headers = Packed::new(None, request.headers());
    if headers.timed_since().is_some() {
        return None;
    }
    let unpacked = mem::take(request.headers_mut());
    let saved = request.try_clone();
    *request.headers_mut() = unpacked;
    let saved = saved?;
    auth.placement.stamp(request.headers_mut(), stamp.value);
    Some(Saved {
        request: saved,
        headers,
        generation: stamp.generation,
    })
}

impl Saved {
    /// Whether an answer rejects the token that was added. If not, it may accept it.
    pub(super) fn is_rejected(&self, auth: &Auth, response: &Response) -> bool {
        let (url, status, headers) = (response.url(), response.status(), response.headers());
        if !tells_of_token(auth, &self.request, url, status, headers) {
            return false;
        }
        let rejects = auth.means_rejection(status, headers);
        if !rejects {
            auth.answered(self.generation, status, || self.key());
        }
        rejects
    }

    fn key(&self) -> Key {
        let url = self.request.url().as_str();
        match url.parse() {
            Ok(uri) => key(self.request.method(), &uri, self.request.headers()),
            Err(_) => url.into(),
        }
    }

    pub(super) fn restore(mut self) -> Request {
        *self.request.headers_mut() = self.headers.unpack().1;
        self.request
    }
}

/// Whether a request goes to one of the layer's origins.
pub(super) fn is_listed(auth: &Auth, request: &Request) -> bool {
    origin(auth, request.url()).is_some_and(|origin| is_host(origin, request.headers()))
}

/// That of the layer's origins which a URL leads to.
pub(super) fn origin<'a>(auth: &'a Auth, url: &Url) -> Option<&'a Origin> {
    if !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let (host, port) = (url.host_str()?, url.port_or_known_default());
    let mut listed = auth.origins.iter();
    listed.find(|origin| origin.is(url.scheme(), host, port))
}

#[cfg(test)]
mod tests {
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::{AccessToken, SymblAuthLayer, TokenRequest, origin::guard::allows};

    #[test]
    fn a_url_is_listed_if_its_uri_is() {
        let none = service_fn(async |_: TokenRequest| Err::<AccessToken, BoxError>("none".into()));
        let layer = SymblAuthLayer::builder(none).origins(
            ["https://api.symbl.ai", "http://[::1]:8080", "http://h"].map(|o| o.parse().unwrap()),
        );
        let auth = layer.build().auth;
        let mut seen = [0, 0];
        for url in [
            "https://api.symbl.ai/v1",
            "https://API.symbl.ai:443/v1?a#b",
            "https://api.symbl.ai",
            "http://[::1]:8080/",
            "http://H:80/",
            "http://api.symbl.ai/",
            "https://api.symbl.ai:444/",
            "https://api.symbl.ai./",
            "https://user@api.symbl.ai/",
            "https://:word@api.symbl.ai/",
            "https://api.symbl.ai.example/",
            "wss://api.symbl.ai/",
            "ws://h/",
            "http://[::1]/",
            "https://h/",
        ] {
            let url: Url = url.parse().unwrap();
            for host in [None, Some("api.symbl.ai"), Some("h"), Some("other")] {
                let mut request = Request::new(http::Method::GET, url.clone());
                if let Some(host) = host {
                    request.headers_mut().insert("host", host.parse().unwrap());
                }
                let uri = url.as_str().parse().unwrap();
                let expected = allows(&auth.origins, &uri, request.headers()).is_some();
                assert_eq!(is_listed(&auth, &request), expected, "{url} {host:?}");
                seen[usize::from(expected)] += 1;
            }
        }
        assert!(seen.iter().all(|seen| *seen > 5), "{seen:?}");
    }
}
