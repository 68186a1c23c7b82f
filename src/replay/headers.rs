//! The headers of a request, packed into bytes for its retry.
//!
//! Nearly none is ever needed again, so packing is what must be cheap: a clone of the header map costs
//! two allocations, and counts a reference on each value. They are parsed again when they are needed.
//!
//! For each header: the lengths of name and value, then name and value.

use bytes::Buf;
use http::{HeaderMap, HeaderName, HeaderValue};

/// In the length of a value: that the value is marked sensitive.
const SENSITIVE: u32 = 1 << 31;
const LENGTHS: usize = size_of::<u64>();

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
        let mut end = 0;
        for (name, value) in headers {
            let header = Header::new(name, value);
            let start = end;
            end += header.len();
            match self.bytes.get_mut(start..end) {
                Some(room) => header.put(room),
                None => return false,
            }
        }
        self.len = end;
        true
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

pub(super) fn pack(headers: &HeaderMap) -> Vec<u8> {
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
        let flag = if self.is_sensitive { SENSITIVE } else { 0 };
        // A value of 2 GiB cannot be made: `http` refuses it long before.
        let value_len = self.value.len() as u32 | flag;
        let lengths = u64::from(value_len) << 32 | self.name.len() as u64;
        let (name, value) = room.split_at_mut(LENGTHS + self.name.len());
        name[..LENGTHS].copy_from_slice(&lengths.to_be_bytes());
        name[LENGTHS..].copy_from_slice(self.name);
        value.copy_from_slice(self.value);
    }
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
