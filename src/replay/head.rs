//! The head of a request, saved for its retry.
//!
//! Nearly no head is ever needed again, so saving is what must be cheap: everything of variable length
//! goes into one buffer, where clones of the URI and of the header map cost an allocation for each part.
//! It is parsed again when it is needed.

use std::{mem, sync::Arc};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::HOST,
    uri::{self, Authority, PathAndQuery},
};

use crate::origin::canonical;

pub(super) struct Head {
    method: Method,
    version: Version,
    extensions: Extensions,
    /// Scheme, authority, path and query, then name and value of each header; each after its length.
    buffer: Buffer,
}

/// In the length of a header's value: that the value is marked sensitive.
const SENSITIVE: u32 = 1 << 31;
/// In the place of a length: that a URI has no such part.
const ABSENT: u32 = SENSITIVE - 1;

impl Head {
    pub(super) fn new() -> Self {
        Self {
            method: Method::GET,
            version: Version::HTTP_11,
            extensions: Extensions::new(),
            buffer: Buffer::new(),
        }
    }

    /// Saves all of it, in place.
    pub(super) fn save<B>(&mut self, request: &Request<B>) {
        self.save_target(request);
        self.version = request.version();
        self.extensions = request.extensions().clone();
        for (name, value) in request.headers() {
            self.save_header(name, value);
        }
    }

    /// Saves what the key is made of, of a request that will not be sent again.
    pub(super) fn save_for_key<B>(&mut self, request: &Request<B>) {
        self.save_target(request);
        for host in request.headers().get_all(HOST) {
            self.save_header(&HOST, host);
        }
    }

    fn save_target<B>(&mut self, request: &Request<B>) {
        self.method = request.method().clone();
        // Part by part: put together as text, they could be read as another URI.
        let uri = request.uri();
        self.buffer.put_part(uri.scheme_str());
        self.buffer.put_part(uri.authority().map(Authority::as_str));
        let path = uri.path_and_query().map(PathAndQuery::as_str);
        self.buffer.put_part(path);
    }

    fn save_header(&mut self, name: &HeaderName, value: &HeaderValue) {
        let buffer = &mut self.buffer;
        let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
        buffer.put_sized(name.as_str().as_bytes(), 0);
        buffer.put_sized(value.as_bytes(), flag);
    }

    /// Moves out what has been saved.
    pub(super) fn give_up(&mut self) -> Self {
        mem::replace(self, Self::new())
    }

    /// Frees what is held outside of this; to be dropped where nothing is locked.
    #[must_use]
    pub(super) fn release(&mut self) -> impl Sized + use<> {
        (
            mem::take(&mut self.extensions),
            mem::take(&mut self.buffer.spilled),
        )
    }

    /// The request as it was, with another body.
    pub(super) fn restore<B>(self, body: B) -> Request<B> {
        let (uri, headers) = self.parse();
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request
    }

    /// What the book of rejections knows the request by.
    pub(super) fn key(&self) -> Arc<str> {
        let (uri, headers) = self.parse();
        key(&self.method, &uri, &headers)
    }

    fn parse(&self) -> (Uri, HeaderMap) {
        const SAVED: &str = "it was part of a request when it was saved";
        let mut rest = self.buffer.bytes();
        let mut uri = uri::Parts::default();
        uri.scheme = take_part(&mut rest).map(|part| part.try_into().expect(SAVED));
        uri.authority = take_part(&mut rest).map(|part| part.try_into().expect(SAVED));
        uri.path_and_query = take_part(&mut rest).map(|part| part.try_into().expect(SAVED));
        let uri = Uri::from_parts(uri).expect(SAVED);
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let (name, _) = take_sized(&mut rest);
            let (value, sensitive) = take_sized(&mut rest);
            let name = HeaderName::from_bytes(name).expect(SAVED);
            let mut value = HeaderValue::from_bytes(value).expect(SAVED);
            value.set_sensitive(sensitive);
            headers.append(name, value);
        }
        (uri, headers)
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

/// Bytes that take no allocation of their own unless there are many of them.
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

    fn put_sized(&mut self, bytes: &[u8], flag: u32) {
        // A header's value or a URI of 2 GiB cannot be made: `http` refuses both long before.
        let length = bytes.len() as u32 | flag;
        self.put(&length.to_le_bytes());
        self.put(bytes);
    }

    fn put_part(&mut self, part: Option<&str>) {
        match part {
            Some(part) => self.put_sized(part.as_bytes(), 0),
            None => self.put(&ABSENT.to_le_bytes()),
        }
    }

    fn bytes(&self) -> &[u8] {
        if self.spilled.is_empty() {
            &self.inline[..self.len]
        } else {
            &self.spilled
        }
    }
}

fn take_length(rest: &mut &[u8]) -> u32 {
    let (length, after) = rest.split_first_chunk().expect("a length comes first");
    *rest = after;
    u32::from_le_bytes(*length)
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> (&'a [u8], bool) {
    let length = take_length(rest);
    let (bytes, after) = rest.split_at((length & !SENSITIVE) as usize);
    *rest = after;
    (bytes, length & SENSITIVE != 0)
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.starts_with(&ABSENT.to_le_bytes()) {
        take_length(rest);
        return None;
    }
    Some(take_sized(rest).0)
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
        let odd = |path: &str| {
            let uri = Uri::builder().scheme("https").authority("api.symbl.ai");
            uri.path_and_query(path.to_owned()).build()
        };
        let longest = format!("/{}", "p".repeat(65_530));
        for (uri, long) in [
            ("https://api.symbl.ai/v1/job?a=b".parse(), 0),
            ("https://u@h:1/".parse(), 10_000),
            ("/v1/job".parse(), 200),
            ("*".parse(), 220),
            ("api.symbl.ai:443".parse(), 0),
        ]
        .into_iter()
        .map(|(uri, long)| (uri.unwrap(), long))
        .chain([
            (odd("*").unwrap(), 0),
            (odd(&longest).unwrap(), 0),
            (Uri::builder().path_and_query("?q=1").build().unwrap(), 0),
        ]) {
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
            assert_eq!(restored.uri().host(), request.uri().host());
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
        for same in [
            "wss://api.symbl.ai:443/v1/job",
            "https://api.symbl.ai:443/v1/job",
        ] {
            let request = Request::get(same).body(()).unwrap();
            let mut head = Head::new();
            head.save_for_key(&request);
            assert_eq!(head.key(), key);
        }
        let request = Request::post("/v1/job").header("host", "h:1");
        let key = saved(&request.body(()).unwrap()).key();
        assert_eq!(&*key, "POST h:1/v1/job");
    }
}
