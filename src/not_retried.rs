//! Why a 401 was handed back.

use std::fmt;

use http::{Extensions, Response};

use crate::TokenError;

/// Why a caller gets a 401 (or a response with `grpc-status: 16` in its headers): why the request was not sent again, or
/// why its second attempt was the last. Find it among the response's extensions.
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
/// # assert!(explain(&response).contains("rejected again"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NotRetried {
    /// The body cannot be sent again: it was longer than the
    /// [replay limit](crate::Builder::replay_limit), or failed.
    Body,
    /// No new token was fetched: the last ones did not help this path, or too many were fetched after rejections.
    CoolingDown,
    /// The token endpoint handed out the same token again. To the endpoint it is a good one.
    SameToken,
    /// The request was sent again with another token, and rejected again.
    SecondRejection,
    /// There is a new token, but the API has not accepted it from anybody yet. It may take a while until all of the
    /// API knows it, so no other is fetched meanwhile.
    Unproven,
    /// The request was sent without a token, since its origin is not among the layer's.
    Unstamped,
    /// There was no other token, and none could be fetched.
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
            Self::CoolingDown => {
                f.write_str("no new token was fetched: the last ones did not help")
            }
            Self::SameToken => f.write_str("the token endpoint handed out the same token again"),
            Self::SecondRejection => {
                f.write_str("it was sent again with another token and rejected again")
            }
            Self::Unproven => f.write_str("the new token is not known to the API yet"),
            Self::Unstamped => {
                f.write_str("it was sent without a token: list its origin with `Builder::origins`")
            }
            Self::Token(error) => write!(f, "no new token: {error}"),
        }
    }
}
