//! The head of a request, saved for its retry.
//!
//! Nearly no head is ever needed again, so saving is what must be cheap: everything of variable length
//! goes into one buffer, where clones of the URI and of the header map cost an allocation for each part.
//! It is parsed again when it is needed.

use std::sync::Arc;

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header::HOST,
};

#[derive(Debug)]
pub(crate) struct Head {
    method: Method,
    version: Version,
    extensions: Extensions,
    /// The URI, then name and value of each header; each after its length.
    buffer: Buffer,
}

/// In the length of a header's value: that the value is marked sensitive.
const SENSITIVE: u32 = 1 << 31;

impl Head {
    pub(super) fn new() -> Self {
        Self {
            method: Method::GET,
            version: Version::HTTP_11,
            extensions: Extensions::new(),
            buffer: Buffer::new(),
        }
    }

    /// Saves in place, for moving a buffer costs more than filling it.
    pub(super) fn save<B>(&mut self, request: &Request<B>) {
        self.method = request.method().clone();
        self.version = request.version();
        self.extensions = request.extensions().clone();

        let (uri, headers) = (request.uri(), request.headers());
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let separator = if scheme.is_empty() { "" } else { "://" };
        let uri_len = scheme.len() + separator.len() + authority.len() + path.len();

        let buffer = &mut self.buffer;
        buffer.put_length(uri_len, 0);
        for part in [scheme, separator, authority, path] {
            buffer.put(part.as_bytes());
        }
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            buffer.put_length(name.len(), 0);
            buffer.put(name);
            let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
            buffer.put_length(value.len(), flag);
            buffer.put(value.as_bytes());
        }
    }

    /// The request as it was, with another body.
    pub(crate) fn restore<B>(&self, body: B) -> Request<B> {
        let (uri, headers) = self.parse();
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request
    }

    /// What the book of rejections knows the request by.
    pub(crate) fn key(&self) -> Arc<str> {
        let (uri, headers) = self.parse();
        key(&self.method, &uri, &headers)
    }

    fn parse(&self) -> (Uri, HeaderMap) {
        let mut rest = self.buffer.bytes();
        let (uri, _) = take(&mut rest);
        let uri = Uri::try_from(uri).expect("it was a URI when it was saved");
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let (name, _) = take(&mut rest);
            let (value, sensitive) = take(&mut rest);
            let name = HeaderName::from_bytes(name).expect("it was a header's name");
            let mut value = HeaderValue::from_bytes(value).expect("it was a header's value");
            value.set_sensitive(sensitive);
            headers.append(name, value);
        }
        (uri, headers)
    }
}

/// Method, origin and path; no query.
pub(crate) fn key(method: &Method, uri: &Uri, headers: &HeaderMap) -> Arc<str> {
    let origin = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}"),
        _ => match headers.get(HOST) {
            Some(host) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
            None => String::new(),
        },
    };
    let origin = origin.to_ascii_lowercase();
    format!("{method} {origin}{}", uri.path()).into()
}

/// Bytes that take no allocation of their own unless there are many of them.
#[derive(Debug)]
struct Buffer {
    inline: [u8; INLINE],
    len: usize,
    /// All of them, once they are too many.
    spilled: Vec<u8>,
}

/// Enough for most heads.
const INLINE: usize = 320;

impl Buffer {
    fn new() -> Self {
        Self {
            inline: [0; INLINE],
            len: 0,
            spilled: Vec::new(),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.inline.get_mut(self.len..end) {
            Some(free) if self.spilled.is_empty() => {
                free.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.spill(bytes),
        }
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        if self.spilled.is_empty() {
            self.spilled.reserve(4 * INLINE);
            self.spilled.extend_from_slice(&self.inline[..self.len]);
        }
        self.spilled.extend_from_slice(bytes);
    }

    fn put_length(&mut self, length: usize, flag: u32) {
        // A header's value or a URI of 2 GiB cannot be made: `http` refuses both long before.
        let length = length as u32 | flag;
        self.put(&length.to_le_bytes());
    }

    fn bytes(&self) -> &[u8] {
        if self.spilled.is_empty() {
            &self.inline[..self.len]
        } else {
            &self.spilled
        }
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> (&'a [u8], bool) {
    let (length, after) = rest.split_first_chunk().expect("a length comes first");
    let length = u32::from_le_bytes(*length);
    let (part, after) = after.split_at((length & !SENSITIVE) as usize);
    *rest = after;
    (part, length & SENSITIVE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved<B>(request: &Request<B>) -> Head {
        let mut head = Head::new();
        head.save(request);
        head
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        for (uri, long) in [
            ("https://api.symbl.ai/v1/job?a=b", 0),
            ("https://u@h:1/", 10_000),
            ("/v1/job", 200),
            ("*", 220),
        ] {
            let mut secret = HeaderValue::from_static("s");
            secret.set_sensitive(true);
            let request = Request::builder()
                .method("PURGE")
                .uri(uri)
                .version(Version::HTTP_2)
                .header("x-many", "1")
                .header("x-many", "2")
                .header("x-long", "l".repeat(long))
                .header("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap())
                .header("authorization", secret)
                .extension(7_u8)
                .body(())
                .unwrap();
            let restored = saved(&request).restore(());
            assert_eq!(restored.method(), request.method());
            assert_eq!(restored.uri(), request.uri());
            assert_eq!(restored.version(), request.version());
            assert_eq!(restored.headers(), request.headers());
            assert!(restored.headers()["authorization"].is_sensitive());
            assert_eq!(restored.extensions().get(), Some(&7_u8));
        }
    }

    #[test]
    fn the_key_leaves_the_query_out_and_takes_the_host_header_for_an_origin() {
        let request = Request::get("https://API.symbl.ai/v1/job?a=b");
        let key = saved(&request.body(()).unwrap()).key();
        assert_eq!(&*key, "GET https://api.symbl.ai/v1/job");
        let request = Request::post("/v1/job").header("host", "h:1");
        let key = saved(&request.body(()).unwrap()).key();
        assert_eq!(&*key, "POST h:1/v1/job");
    }
}
