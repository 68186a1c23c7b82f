//! The headers of a request, packed into bytes for its retry.
//!
//! Nearly none is ever needed again, so packing is what must be cheap: a clone of the header map costs
//! two allocations, and counts a reference on each value. They are parsed again when they are needed.
//!
//! For each header: the lengths of name and value, then name and value.

use bytes::Buf;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::grpc_timeout::GRPC_TIMEOUT;

const LENGTHS: usize = size_of::<u64>();
// Of the lengths, 16 bits are the name's: `http` makes none of more than 65,535 bytes. The next one says
// that the value is marked sensitive.
const NAME_LEN: u64 = (1 << 16) - 1;
const SENSITIVE: u64 = 1 << 16;
const VALUE_LEN: u32 = 17;

/// Enough for the headers of most requests.
const ROOM: usize = 192;

pub(super) enum Packed {
    None,
    Small(Box<Small>),
    Large(Vec<u8>),
    Timed(Box<Timed>),
}

/// Those of a request that must be answered in time.
pub(super) struct Timed {
    packed: Vec<u8>,
    since: Instant,
}

impl Packed {
    #[inline(always)]
    pub(super) fn new(headers: &HeaderMap) -> Self {
        if headers.is_empty() {
            return Self::None;
        }
        Self::pack(headers)
    }

    fn pack(headers: &HeaderMap) -> Self {
        if headers.keys().any(|name| name == GRPC_TIMEOUT) {
            return Self::Timed(Box::new(Timed {
                packed: pack(headers),
                since: Instant::now(),
            }));
        }
        match Small::pack(headers) {
            Some(small) => Self::Small(Box::new(small)),
            None => Self::Large(pack(headers)),
        }
    }

    pub(super) fn unpack(&self) -> HeaderMap {
        unpack(match self {
            Self::None => &[],
            Self::Small(small) => &small.bytes[..small.len.into()],
            Self::Large(bytes) => bytes,
            Self::Timed(timed) => &timed.packed,
        })
    }

    /// When they were packed, if the request has a `grpc-timeout`.
    pub(super) fn timed_since(&self) -> Option<Instant> {
        match self {
            Self::Timed(timed) => Some(timed.since),
            _ => None,
        }
    }
}

/// Packed headers that take one allocation, whatever their number. In place they would make each request, and
/// those without headers too, some hundred bytes longer to move.
pub(super) struct Small {
    bytes: [u8; ROOM],
    len: u8,
}

impl Small {
    /// `None` if there is not enough room.
    #[inline]
    fn pack(headers: &HeaderMap) -> Option<Self> {
        let mut bytes = [0; ROOM];
        let mut end = 0;
        for (name, value) in headers {
            let header = Header::new(name, value);
            let start = end;
            end += header.len();
            header.put(bytes.get_mut(start..end)?);
        }
        Some(Self {
            bytes,
            len: end as u8,
        })
    }
}

fn pack(headers: &HeaderMap) -> Vec<u8> {
    let all = || headers.iter().map(|(name, value)| Header::new(name, value));
    let mut packed = vec![0; all().map(|header| header.len()).sum()];
    let mut room = &mut packed[..];
    for header in all() {
        let (own, rest) = room.split_at_mut(header.len());
        header.put(own);
        room = rest;
    }
    packed
}

struct Header<'a> {
    name: &'a [u8],
    value: &'a [u8],
    is_sensitive: bool,
}

impl<'a> Header<'a> {
    #[inline]
    fn new(name: &'a HeaderName, value: &'a HeaderValue) -> Self {
        Self {
            name: name.as_str().as_bytes(),
            value: value.as_bytes(),
            is_sensitive: value.is_sensitive(),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        LENGTHS + self.name.len() + self.value.len()
    }

    /// Fills room of its very length.
    #[inline]
    fn put(&self, room: &mut [u8]) {
        let sensitive = if self.is_sensitive { SENSITIVE } else { 0 };
        let lengths = (self.value.len() as u64) << VALUE_LEN | sensitive | self.name.len() as u64;
        let (name, value) = room.split_at_mut(LENGTHS + self.name.len());
        name[..LENGTHS].copy_from_slice(&lengths.to_be_bytes());
        name[LENGTHS..].copy_from_slice(self.name);
        value.copy_from_slice(self.value);
    }
}

fn unpack(mut packed: &[u8]) -> HeaderMap {
    const PACKED: &str = "it was a header when it was packed";
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
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_kept_with_its_moment_and_makes_no_request_longer_to_move() {
        let mut headers = HeaderMap::new();
        headers.append("te", HeaderValue::from_static("trailers"));
        assert_eq!(Packed::new(&headers).timed_since(), None);
        headers.append(&GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        let packed = Packed::new(&headers);
        assert!(packed.timed_since().is_some());
        assert_eq!(packed.unpack(), headers);
        assert_eq!(size_of::<Packed>(), size_of::<Vec<u8>>());
    }

    #[test]
    fn what_just_fits_is_packed_in_little_room_and_what_does_not_is_refused() {
        let taken = LENGTHS + "x-long".len();
        let headers = |length: usize| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(&vec![b'v'; length]).unwrap();
            headers.append("x-long", value);
            headers
        };
        let fits = headers(ROOM - taken);
        let packed = Packed::new(&fits);
        assert!(matches!(packed, Packed::Small(_)));
        assert_eq!(packed.unpack(), fits);

        let too_long = headers(ROOM - taken + 1);
        let packed = Packed::new(&too_long);
        assert!(matches!(packed, Packed::Large(_)));
        assert_eq!(packed.unpack(), too_long);
    }
}
