//! reqwest-middleware: chains that end in a middleware which answers by itself.

use http::HeaderValue;
use reqwest::Client;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};

use super::middlewares::{Fixed, Nothing};
use crate::common::{BODY, HEADERS, Shape, URL, token};

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
