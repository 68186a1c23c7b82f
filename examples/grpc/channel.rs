//! The layer around a channel, bounded in time, and with errors that tonic understands. Used by `tests/grpc.rs` as well.

use std::time::Duration;

use http::Request;
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::{BoxError, Service, ServiceBuilder, timeout::error::Elapsed};
use tower_symbl_auth::{ReplayBody, SymblAuthLayer, TokenError, TokenErrorKind};

pub(crate) fn authenticated(
    channel: Channel,
    auth: SymblAuthLayer,
    timeout: Duration,
) -> impl Service<Request<Body>, Response = http::Response<Body>, Error = BoxError> + Clone {
    ServiceBuilder::new()
        .map_err(to_status)
        // Outside the layer, so that it bounds the wait for a token and both attempts. A call's own timeout, or
        // the channel's, bounds each attempt alone.
        .timeout(timeout)
        .layer(auth)
        // Back to the body that a channel takes.
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel)
}

/// What tonic would call `Unknown`, named.
pub(crate) fn to_status(error: BoxError) -> BoxError {
    let code = match error.downcast_ref::<TokenError>().map(TokenError::kind) {
        Some(TokenErrorKind::Credentials) => Code::Unauthenticated,
        Some(_) => Code::Unavailable,
        None if error.is::<Elapsed>() => Code::DeadlineExceeded,
        None => return error, // one of the channel's, which tonic knows
    };
    let mut status = Status::new(code, error.to_string());
    status.set_source(error.into());
    status.into()
}
