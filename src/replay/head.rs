//! The head of a request, saved for its retry, and the name that its rejections go by.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, header::HOST};

use super::headers::Packed;
use crate::{deadline::Deadline, grpc_timeout, origin::canonical};

pub(super) struct Head {
    method: Method,
    version: Version,
    uri: Uri,
    extensions: Extensions,
    headers: Packed,
}

impl Head {
    #[inline(always)]
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let extensions = request.extensions().clone();
        Self::with(request, extensions, Packed::new(request.headers()))
    }

    /// What is of use even if the request will not be sent again: what its key is made of.
    pub(super) fn for_key<B>(request: &Request<B>) -> Self {
        let host = match request.uri().authority() {
            None => request.headers().get(HOST),
            Some(_) => None,
        };
        let host = host.map(|host| (HOST, host.clone()));
        let headers = Packed::new(&host.into_iter().collect());
        Self::with(request, Extensions::new(), headers)
    }

    #[inline(always)]
    fn with<B>(request: &Request<B>, extensions: Extensions, headers: Packed) -> Self {
        Self {
            method: request.method().clone(),
            version: request.version(),
            uri: request.uri().clone(),
            extensions,
            headers,
        }
    }

    /// The request as it was, with another body.
    pub(super) fn restore<B>(self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.version_mut() = self.version;
        *request.uri_mut() = self.uri;
        *request.extensions_mut() = self.extensions;
        *request.headers_mut() = self.headers.unpack();
        request
    }

    /// When the request's `grpc-timeout` runs out, if it has one.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let since = self.headers.timed_since()?;
        grpc_timeout::deadline(&self.headers.unpack(), since)
    }

    /// What counts as the request's path when rejections are told apart.
    pub(super) fn key(&self) -> Arc<str> {
        key(&self.method, &self.uri, &self.headers.unpack())
    }
}

/// Method, origin and path; no query.
pub(crate) fn key(method: &Method, uri: &Uri, headers: &HeaderMap) -> Arc<str> {
    let origin = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => canonical(scheme, authority),
        _ => match headers.get(HOST) {
            Some(host) => String::from_utf8_lossy(host.as_bytes()).to_ascii_lowercase(),
            None => String::new(),
        },
    };
    format!("{method} {origin}{}", uri.path()).into()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was() {
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        let request = Request::builder()
            .method("PURGE")
            .uri("https://u@h:1/v1/job?a=b")
            .version(Version::HTTP_2)
            .header("x-many", "1")
            .header("x-many", "2")
            .header("x-long", "l".repeat(10_000))
            .header("x-empty", "")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap())
            .header("authorization", secret)
            .extension(7_u8)
            .body(())
            .unwrap();
        let restored = Head::of(&request).restore(());
        assert_eq!(restored.method(), request.method());
        assert_eq!(restored.uri(), request.uri());
        assert_eq!(restored.version(), request.version());
        assert_eq!(restored.headers(), request.headers());
        assert!(restored.headers()["authorization"].is_sensitive());
        assert!(!restored.headers()["x-long"].is_sensitive());
        assert_eq!(restored.extensions().get(), Some(&7_u8));
    }

    #[test]
    fn a_request_that_is_not_sent_again_keeps_its_host_and_no_more() {
        let request = Request::post("/v1/job")
            .header("host", "h:1")
            .header("x-other", "1")
            .body(())
            .unwrap();
        let head = Head::for_key(&request);
        assert_eq!(head.headers.unpack().len(), 1);
        assert_eq!(&*head.key(), "POST h:1/v1/job");
        let request = Request::post("https://h/v1/job").header("host", "h");
        let request = request.body(()).unwrap();
        let head = Head::for_key(&request);
        assert!(head.headers.unpack().is_empty());
        assert_eq!(&*head.key(), "POST https://h/v1/job");
    }

    #[test]
    fn the_key_leaves_the_query_out_and_takes_the_host_header_for_an_origin() {
        let key = |uri: &str, host: &[(HeaderName, HeaderValue)]| {
            let headers = host.iter().cloned().collect();
            key(&Method::GET, &uri.parse().unwrap(), &headers)
        };
        for same in [
            "https://API.symbl.ai/v1/job?a=b",
            "wss://api.symbl.ai:443/v1/job",
            "https://api.symbl.ai:443/v1/job",
        ] {
            assert_eq!(&*key(same, &[]), "GET https://api.symbl.ai/v1/job");
        }
        let host = (HOST, HeaderValue::from_static("H:1"));
        assert_eq!(&*key("/v1/job", &[host]), "GET h:1/v1/job");
        assert_eq!(&*key("/v1/job", &[]), "GET /v1/job");
    }
}
