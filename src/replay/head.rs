//! The head of a request, saved for its retry, and the name that its rejections go by.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, header::HOST, uri::PathAndQuery};

use super::packed::Packed;
use crate::{
    Origin,
    deadline::Deadline,
    grpc_timeout,
    origin::{canonical, guard::Listed},
};

pub(super) struct Head {
    method: Method,
    version: Version,
    server: Server,
    packed: Packed,
    extensions: Extensions,
}

/// The server that a request's URI names. Most name one of the list, as it is written there: no need to keep it again.
enum Server {
    None,
    Listed(usize),
    Other(Box<Uri>),
}

impl Head {
    #[inline(always)]
    pub(super) fn of<B>(request: &Request<B>, listed: Listed) -> Self {
        Self::with(
            request,
            listed,
            request.headers(),
            request.extensions().clone(),
        )
    }

    /// What is of use even if the request will not be sent again: what its key is made of.
    pub(super) fn for_key<B>(request: &Request<B>, listed: Listed) -> Self {
        let host = match request.uri().authority() {
            None => request.headers().get(HOST),
            Some(_) => None,
        };
        let host = host.map(|host| (HOST, host.clone()));
        let headers = host.into_iter().collect();
        Self::with(request, listed, &headers, Extensions::new())
    }

    #[inline(always)]
    fn with<B>(
        request: &Request<B>,
        listed: Listed,
        headers: &HeaderMap,
        extensions: Extensions,
    ) -> Self {
        let server = match listed {
            Listed::AsWritten(at) => Server::Listed(at),
            Listed::Unnamed => Server::None,
            Listed::Otherwise => Server::Other(Box::new(request.uri().clone())),
        };
        Self {
            method: request.method().clone(),
            version: request.version(),
            server,
            packed: Packed::new(request.uri().path_and_query(), headers),
            extensions,
        }
    }

    /// The request as it was, with another body.
    pub(super) fn restore<B>(self, origins: &[Origin], body: B) -> Request<B> {
        let (uri, headers) = self.uri_and_headers(origins);
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.version_mut() = self.version;
        *request.uri_mut() = uri;
        *request.extensions_mut() = self.extensions;
        *request.headers_mut() = headers;
        request
    }

    fn uri_and_headers(&self, origins: &[Origin]) -> (Uri, HeaderMap) {
        let (path, headers) = self.packed.unpack();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = match &self.server {
            Server::None => path.into(),
            Server::Listed(at) => origins[*at].uri(path),
            Server::Other(uri) => (**uri).clone(),
        };
        (uri, headers)
    }

    /// When the request's `grpc-timeout` runs out, if it has one.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let since = self.packed.timed_since()?;
        let (_, headers) = self.packed.unpack();
        grpc_timeout::deadline(&headers, since)
    }

    /// What counts as the request's path when rejections are told apart.
    pub(super) fn key(&self, origins: &[Origin]) -> Arc<str> {
        let (uri, headers) = self.uri_and_headers(origins);
        key(&self.method, &uri, &headers)
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
    use crate::origin::guard::allows;

    #[test]
    fn a_head_comes_back_as_it_was() {
        let origins = ["https://h:1".parse().unwrap(), "http://h".parse().unwrap()];
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        for uri in [
            "https://H:1/v1/job?a=b",
            "https://h:1/v1/job?a=b",
            "http://h",
            "/v1/job",
            "*",
        ] {
            let request = Request::builder()
                .method("PURGE")
                .uri(uri)
                .version(Version::HTTP_2)
                .header("x-many", "1")
                .header("x-many", "2")
                .header("x-long", "l".repeat(10_000))
                .header("x-empty", "")
                .header("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap())
                .header("authorization", &secret)
                .extension(7_u8)
                .body(())
                .unwrap();
            let listed = allows(&origins, request.uri(), request.headers()).unwrap();
            let restored = Head::of(&request, listed).restore(&origins, ());
            assert_eq!(restored.method(), request.method());
            assert_eq!(restored.uri().to_string(), request.uri().to_string());
            assert_eq!(restored.version(), request.version());
            assert_eq!(restored.headers(), request.headers());
            assert!(restored.headers()["authorization"].is_sensitive());
            assert!(!restored.headers()["x-long"].is_sensitive());
            assert_eq!(restored.extensions().get(), Some(&7_u8));

            let mut bare = Request::new(());
            *bare.uri_mut() = request.uri().clone();
            let restored = Head::of(&bare, listed).restore(&origins, ());
            assert_eq!(restored.uri().to_string(), request.uri().to_string());
            assert!(restored.headers().is_empty());
        }
    }

    #[test]
    fn a_request_that_is_not_sent_again_keeps_its_host_and_no_more() {
        let request = Request::post("/v1/job")
            .header("host", "h:1")
            .header("x-other", "1")
            .body(())
            .unwrap();
        let head = Head::for_key(&request, Listed::Unnamed);
        assert_eq!(head.packed.unpack().1.len(), 1);
        assert_eq!(&*head.key(&[]), "POST h:1/v1/job");
        let request = Request::post("https://h/v1/job").header("host", "h");
        let request = request.body(()).unwrap();
        let head = Head::for_key(&request, Listed::AsWritten(0));
        assert!(head.packed.unpack().1.is_empty());
        let origin = "https://h".parse().unwrap();
        assert_eq!(&*head.key(&[origin]), "POST https://h/v1/job");
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
