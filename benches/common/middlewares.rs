//! Middlewares of reqwest-middleware to compare with.
#![allow(unreachable_pub)]

use async_trait::async_trait;
use http::{Extensions, HeaderValue, header::AUTHORIZATION};
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};

/// Answers by itself.
pub struct Nothing;

#[async_trait]
impl Middleware for Nothing {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        std::hint::black_box(&request);
        Ok(http::Response::new("").into())
    }
}

/// A fixed token: what reqwest's `bearer_auth` does, as a middleware.
pub struct Fixed(pub HeaderValue);

#[async_trait]
impl Middleware for Fixed {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        next.run(request, extensions).await
    }
}
