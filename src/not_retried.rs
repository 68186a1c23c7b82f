//! Why a 401 was handed back.

use std::fmt;

use http::{Extensions, Response};

use crate::TokenError;

/// Why a rejected request was not sent again, or not once more: among the extensions of a response
/// that is handed back with its rejection (status 401, or `grpc-status: 16` in its headers).
///
/// ```
/// use tower_symbl_auth::NotRetried;
///
/// fn explain(response: &http::Response<()>) -> String {
///     match response.extensions().get::<NotRetried>() {
///         Some(why) => format!("{}: {why}", response.status()),
///         None => response.status().to_string(),
///     }
/// }
/// # let mut response = http::Response::new(());
/// # *response.status_mut() = http::StatusCode::UNAUTHORIZED;
/// # response.extensions_mut().insert(NotRetried::SecondRejection);
/// # assert!(explain(&response).contains("rejected as well"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NotRetried {
    /// The body cannot be sent again: it was over the replay limit, or failed.
    Body,
    /// Refreshes have lately not helped this path, or too many paths at once: no new token was asked for.
    CoolingDown,
    /// The token endpoint handed out the same token again, and so vouches for it.
    SameToken,
    /// The request was sent again, and rejected as well.
    SecondRejection,
    /// There is only a new token that the API has not accepted from anybody yet. It may still have to
    /// become known there, so it is not thrown away for another.
    Unproven,
    /// The request went without a token, since its origin is not among the layer's.
    Unstamped,
    /// No new token could be had.
    Token(TokenError),
}

impl NotRetried {
    pub(crate) fn mark<R>(self, mut response: Response<R>) -> Response<R> {
        let extensions: &mut Extensions = response.extensions_mut();
        extensions.insert(self);
        response
    }
}

impl fmt::Display for NotRetried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("the body could not be sent again"),
            Self::CoolingDown => f.write_str("no new token was asked for: too many did not help"),
            Self::SameToken => f.write_str("the token endpoint handed out the same token again"),
            Self::SecondRejection => f.write_str("another token was rejected as well"),
            Self::Unproven => f.write_str("the API has not accepted the new token yet"),
            Self::Unstamped => f.write_str(
                "the request went without a token: list its origin with `Builder::origins`",
            ),
            Self::Token(error) => write!(f, "no new token: {error}"),
        }
    }
}
