//! reqwest-middleware: chains that end in a middleware which answers by itself.

use async_trait::async_trait;
use http::{Extensions, HeaderValue, header::AUTHORIZATION};
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};

use crate::common::{BODY, HEADERS, Shape, URL, token};

struct Nothing;

#[async_trait]
impl Middleware for Nothing {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        std::hint::black_box(&request);
        Ok(http::Response::new("").into())
    }
}

/// A fixed token: what reqwest's `bearer_auth` does, as a middleware.
struct Fixed(HeaderValue);

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

pub fn bare() -> ClientWithMiddleware {
    ClientBuilder::new(Client::new()).with(Nothing).build()
}

pub fn fixed() -> ClientWithMiddleware {
    let value = HeaderValue::try_from(format!("Bearer {}", token(1))).expect("it is ASCII");
    let client = ClientBuilder::new(Client::new()).with(Fixed(value));
    client.with(Nothing).build()
}

/// This crate, as a middleware.
#[cfg(feature = "ours-reqwest")]
pub fn ours(layer: tower_symbl_auth::SymblAuthLayer) -> ClientWithMiddleware {
    let client = ClientBuilder::new(Client::new()).with(layer);
    client.with(Nothing).build()
}

pub async fn send(client: &ClientWithMiddleware, shape: Shape) {
    let request = match shape {
        Shape::Get => client.get(URL),
        Shape::Post => HEADERS
            .iter()
            .fold(client.post(URL), |request, (name, value)| {
                request.header(*name, HeaderValue::from_static(value))
            })
            .body(&BODY[..]),
    };
    let response = request.send().await.expect("the middleware answers");
    assert_eq!(response.status(), 200);
}
