//! The path and the headers of a request, packed into bytes for its retry.
//!
//! Nearly none is ever needed again, so packing is what must be cheap: a clone of a header map costs two allocations, and
//! counts a reference on each value; one of a path counts one as well. They are parsed again when they are needed.
//!
//! First the length of the path and the path; then for each header the lengths of name and value, and both.

use bytes::Buf;
use http::{HeaderMap, HeaderName, HeaderValue, uri::PathAndQuery};
use tokio::time::Instant;

use crate::grpc_timeout::GRPC_TIMEOUT;

const LENGTHS: usize = size_of::<u64>();
// Of the lengths, 16 bits are the name's: `http` makes none of more than 65,535 bytes. The next one says
// that the value is marked sensitive.
const NAME_LEN: u64 = (1 << 16) - 1;
const SENSITIVE: u64 = 1 << 16;
const VALUE_LEN: u32 = 17;

/// Enough for most requests.
const ROOM: usize = 256;

pub(crate) enum Packed {
    /// There are no headers. Nothing need be allocated then.
    Path(Option<PathAndQuery>),
    Both(Vec<u8>),
    Timed(Box<Timed>),
}

/// A request that must be answered in time.
pub(crate) struct Timed {
    packed: Vec<u8>,
    since: Instant,
}

impl Packed {
    #[inline(always)]
    pub(crate) fn new(path: Option<&PathAndQuery>, headers: &HeaderMap) -> Self {
        if headers.is_empty() {
            return Self::Path(path.cloned());
        }
        Self::pack(path, headers)
    }

    fn pack(path: Option<&PathAndQuery>, headers: &HeaderMap) -> Self {
        let path = path.map_or("", PathAndQuery::as_str);
        let mut packed = Vec::with_capacity(ROOM);
        packed.extend_from_slice(&(path.len() as u64).to_be_bytes());
        packed.extend_from_slice(path.as_bytes());
        let mut is_timed = false;
        for (name, value) in headers {
            is_timed |= name == GRPC_TIMEOUT;
            put(&mut packed, name, value);
        }
        if is_timed {
            let since = Instant::now();
            return Self::Timed(Box::new(Timed { packed, since }));
        }
        Self::Both(packed)
    }

    pub(crate) fn unpack(&self) -> (Option<PathAndQuery>, HeaderMap) {
        match self {
            Self::Path(path) => (path.clone(), HeaderMap::new()),
            Self::Both(packed) => unpack(packed),
            Self::Timed(timed) => unpack(&timed.packed),
        }
    }

    /// When they were packed, if the request has a `grpc-timeout`.
    pub(crate) fn timed_since(&self) -> Option<Instant> {
        match self {
            Self::Timed(timed) => Some(timed.since),
            _ => None,
        }
    }
}

#[inline]
fn put(packed: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let sensitive = if value.is_sensitive() { SENSITIVE } else { 0 };
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    let lengths = (value.len() as u64) << VALUE_LEN | sensitive | name.len() as u64;
    packed.reserve(LENGTHS + name.len() + value.len());
    packed.extend_from_slice(&lengths.to_be_bytes());
    packed.extend_from_slice(name);
    packed.extend_from_slice(value);
}

fn unpack(mut packed: &[u8]) -> (Option<PathAndQuery>, HeaderMap) {
    const PACKED: &str = "it was one when it was packed";
    let length = packed.get_u64() as usize;
    let (path, mut packed) = packed.split_at(length);
    let path = match path {
        [] => None,
        path => Some(PathAndQuery::try_from(path).expect(PACKED)),
    };
    let mut headers = HeaderMap::new();
    while packed.has_remaining() {
        let lengths = packed.get_u64();
        let (name, rest) = packed.split_at((lengths & NAME_LEN) as usize);
        let (value, rest) = rest.split_at((lengths >> VALUE_LEN) as usize);
        let name = HeaderName::from_bytes(name).expect(PACKED);
        let mut value = HeaderValue::from_bytes(value).expect(PACKED);
        value.set_sensitive(lengths & SENSITIVE != 0);
        headers.append(name, value);
        packed = rest;
    }
    (path, headers)
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    fn unpacked(uri: &Uri, headers: &HeaderMap) -> HeaderMap {
        let (path, unpacked) = Packed::new(uri.path_and_query(), headers).unpack();
        assert_eq!(path.as_ref(), uri.path_and_query());
        unpacked
    }

    #[test]
    fn a_timeout_is_kept_with_its_moment() {
        let uri = Uri::from_static("https://h/a?b=c");
        let mut headers = HeaderMap::new();
        headers.append("te", HeaderValue::from_static("trailers"));
        assert_eq!(
            Packed::new(uri.path_and_query(), &headers).timed_since(),
            None
        );
        headers.append(&GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        assert!(
            Packed::new(uri.path_and_query(), &headers)
                .timed_since()
                .is_some()
        );
        assert_eq!(unpacked(&uri, &headers), headers);
    }

    #[test]
    fn paths_and_headers_of_any_length_come_back() {
        for length in [0, ROOM - 8, ROOM, 10 * ROOM] {
            let long = "v".repeat(length);
            for path in [
                String::new(),
                format!("/{long}"),
                format!("/?{long}"),
                "*".into(),
            ] {
                let uri = if path.is_empty() { "https://h" } else { &path };
                let uri: Uri = uri.parse().unwrap();
                let mut headers = HeaderMap::new();
                assert_eq!(unpacked(&uri, &headers), headers);
                headers.append("x-first", HeaderValue::from_static("1"));
                headers.append("x-long", long.parse().unwrap());
                assert_eq!(unpacked(&uri, &headers), headers);
            }
        }
    }
}
