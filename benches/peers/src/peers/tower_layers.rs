//! Layers that stamp a fixed token, and what a user would write around one.

use std::future::{Ready, ready};

use http::{HeaderValue, Request, Response, StatusCode};
use octocrab::service::middleware::auth_header::AuthHeaderLayer;
use tower::retry::{Policy, RetryLayer};
use tower_http::auth::AddAuthorizationLayer;

use crate::common::{ORIGIN, token};

pub fn add_authorization() -> AddAuthorizationLayer {
    AddAuthorizationLayer::bearer(&token(1))
}

pub fn octocrab() -> AuthHeaderLayer {
    let value = HeaderValue::try_from(format!("Bearer {}", token(1))).expect("it is ASCII");
    let origin: http::Uri = ORIGIN.parse().expect("it is a URI");
    AuthHeaderLayer::new(Some(value), origin.clone(), origin)
}

/// A retry on 401, for which each request is cloned.
pub fn retry() -> RetryLayer<On401> {
    RetryLayer::new(On401)
}

#[derive(Clone)]
pub struct On401;

impl<B: Clone, R, E> Policy<Request<B>, Response<R>, E> for On401 {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Ready<()>> {
        let rejected = |response: &Response<R>| response.status() == StatusCode::UNAUTHORIZED;
        result.as_ref().is_ok_and(rejected).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}
