//! The retry that a user would write.

use std::future::{Ready, ready};

use http::{Request, Response, StatusCode};
use tower::retry::Policy;

/// A retry on 401, for which each request is cloned.
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
