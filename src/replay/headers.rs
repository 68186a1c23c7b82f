//! The headers of a request, packed into bytes for its retry.
//!
//! Nearly none is ever needed again, so packing is what must be cheap: a clone of the header map costs
//! two allocations, and counts a reference on each value. They are parsed again when they are needed.
//!
//! For each header: the lengths of name and value, then name and value.

use bytes::{Buf, BufMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// In the length of a value: that the value is marked sensitive.
const SENSITIVE: u32 = 1 << 31;
const LENGTHS: usize = 2 * size_of::<u32>();

/// Packed headers in an allocation of someone else's.
pub(super) struct Small {
    bytes: [u8; ROOM],
    len: usize,
}

/// Enough for the headers of most requests.
const ROOM: usize = 192;

impl Small {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; ROOM],
            len: 0,
        }
    }

    /// `false` if there is not enough room: then nothing is packed.
    #[inline]
    pub(super) fn pack(&mut self, headers: &HeaderMap) -> bool {
        let mut room = &mut self.bytes[..];
        for (name, value) in headers {
            if room.len() < packed_len(name, value) {
                return false;
            }
            put(&mut room, name, value);
        }
        self.len = ROOM - room.len();
        true
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

pub(super) fn pack(headers: &HeaderMap) -> Vec<u8> {
    let length = headers.iter().map(|(name, value)| packed_len(name, value));
    let mut packed = Vec::with_capacity(length.sum());
    for (name, value) in headers {
        put(&mut packed, name, value);
    }
    packed
}

fn packed_len(name: &HeaderName, value: &HeaderValue) -> usize {
    LENGTHS + name.as_str().len() + value.len()
}

#[inline]
fn put(room: &mut impl BufMut, name: &HeaderName, value: &HeaderValue) {
    let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
    // A value of 2 GiB cannot be made: `http` refuses it long before.
    let lengths = u64::from(value.len() as u32 | flag) << 32 | name.as_str().len() as u64;
    room.put_u64(lengths);
    room.put_slice(name.as_str().as_bytes());
    room.put_slice(value.as_bytes());
}

pub(super) fn unpack(mut packed: &[u8]) -> HeaderMap {
    const PACKED: &str = "it was a header when it was packed";
    let mut headers = HeaderMap::new();
    while packed.has_remaining() {
        let lengths = packed.get_u64();
        let (name, value) = (lengths as u32 as usize, (lengths >> 32) as u32);
        let name = HeaderName::from_bytes(&packed[..name]).expect(PACKED);
        packed.advance(name.as_str().len());
        let (bytes, rest) = packed.split_at((value & !SENSITIVE) as usize);
        let mut bytes = HeaderValue::from_bytes(bytes).expect(PACKED);
        bytes.set_sensitive(value & SENSITIVE != 0);
        headers.append(name, bytes);
        packed = rest;
    }
    headers
}
