//! Which header carries the token.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, HeaderMap},
};

use crate::{AccessToken, token::secret_bytes};

/// Which header carries the token. Whatever the header held before is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Placement {
    /// `Authorization: Bearer <token>`, what Symbl's documentation asks for.
    #[default]
    Bearer,
    /// `x-api-key: <token>`: deprecated, but accepted, and what Symbl's SDKs send in the handshake of a
    /// WebSocket.
    ApiKey,
}

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

impl Placement {
    #[inline]
    pub(crate) fn stamp(self, headers: &mut HeaderMap, value: HeaderValue) {
        match self {
            Self::Bearer => headers.insert(AUTHORIZATION, value),
            Self::ApiKey => headers.insert(API_KEY.clone(), value),
        };
    }

    /// What builds the header's value, once for each token.
    pub(crate) fn header(self) -> fn(&AccessToken) -> HeaderValue {
        match self {
            Self::Bearer => |token| sensitive("Bearer ", token),
            Self::ApiKey => |token| sensitive("", token),
        }
    }
}

/// Shared by reference count, zeroized with the last request that holds it.
fn sensitive(scheme: &str, token: &AccessToken) -> HeaderValue {
    let value: Bytes = secret_bytes(&[scheme, token.expose_secret()]);
    let mut value =
        HeaderValue::from_maybe_shared(value).expect("a token is made of visible ASCII and spaces");
    value.set_sensitive(true);
    value
}
