//! azure_core: its policy, with the challenge handler that its documentation suggests.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
    http::{
        AsyncRawResponse, Context, Method, Request, StatusCode,
        headers::{AUTHORIZATION, Headers, WWW_AUTHENTICATE},
        policies::{
            Policy, PolicyResult,
            auth::{Authorizer, BearerTokenAuthorizationPolicy, OnChallenge},
        },
    },
    time::OffsetDateTime,
};
use bytes::Bytes;

use crate::{
    common::{BODY, HEADERS, Shape, URL},
    endpoint::{Endpoint, LIFETIME},
};

const SCOPE: &str = "scope";

#[derive(Debug)]
struct Credential(Endpoint);

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let fail = |why| azure_core::Error::with_message(ErrorKind::Credential, why);
        let token = self.0.fetch().await.map_err(fail)?;
        Ok(AccessToken::new(
            token,
            OffsetDateTime::now_utc() + LIFETIME,
        ))
    }
}

#[derive(Debug)]
struct Again;

#[async_trait]
impl OnChallenge for Again {
    async fn on_challenge(
        &self,
        _context: &Context,
        request: &mut Request,
        authorizer: &dyn Authorizer,
        _headers: &Headers,
    ) -> azure_core::Result<()> {
        let options = TokenRequestOptions::default();
        authorizer.authorize(request, &[SCOPE], options).await
    }
}

pub fn policy(endpoint: &Endpoint) -> BearerTokenAuthorizationPolicy {
    BearerTokenAuthorizationPolicy::new(Arc::new(Credential(endpoint.clone())), [SCOPE])
        .with_on_challenge(Arc::new(Again))
}

pub fn request(shape: Shape) -> Request {
    let method = match shape {
        Shape::Get => Method::Get,
        Shape::Post => Method::Post,
    };
    let mut request = Request::new(URL.parse().expect("it is a URL"), method);
    if matches!(shape, Shape::Post) {
        for (name, value) in HEADERS {
            request.insert_header(name, value);
        }
        request.set_body(Bytes::from_static(&BODY));
    }
    request
}

/// The status that a request ends with; zero if it fails.
pub async fn send(policy: &impl Policy, mut request: Request, next: &[Arc<dyn Policy>]) -> u16 {
    let answer = policy.send(&Context::new(), &mut request, next).await;
    answer.map_or(0, |response| u16::from(response.status()))
}

#[derive(Debug)]
pub struct Nothing;

#[async_trait]
impl Policy for Nothing {
    async fn send(
        &self,
        _context: &Context,
        request: &mut Request,
        _next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        std::hint::black_box(&request);
        Ok(answer(StatusCode::Ok, Headers::new()))
    }
}

/// The API: a rejection takes as long as it is told.
pub struct Api<F>(pub F);

impl<F> std::fmt::Debug for Api<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

#[async_trait]
impl<F: Fn(usize) -> Option<Duration> + Send + Sync> Policy for Api<F> {
    async fn send(
        &self,
        _context: &Context,
        request: &mut Request,
        _next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let value = request.headers().get_optional_string(&AUTHORIZATION);
        let value = value.expect("it is stamped");
        let number = value.trim_start_matches("Bearer ").parse();
        match self.0(number.expect("the token is a number")) {
            None => Ok(answer(StatusCode::Ok, Headers::new())),
            Some(delay) => {
                tokio::time::sleep(delay).await;
                let mut headers = Headers::new();
                headers.insert(WWW_AUTHENTICATE, "Bearer");
                Ok(answer(StatusCode::Unauthorized, headers))
            }
        }
    }
}

fn answer(status: StatusCode, headers: Headers) -> AsyncRawResponse {
    AsyncRawResponse::from_bytes(status, headers, Bytes::new())
}
