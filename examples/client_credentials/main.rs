//! Tokens from any issuer: the layer with a token service of its own, which gets them by OAuth 2.0 client
//! credentials (`token_service.rs`).
//!
//! Starts a token endpoint and an API on loopback (`servers.rs`). With `OAUTH_TOKEN_URL` set the tokens
//! come from there, for `OAUTH_CLIENT_ID`, `OAUTH_CLIENT_SECRET` and `OAUTH_SCOPE`.
//!
//! `cargo run --example client_credentials --features full`

mod servers;
mod token_service;

use std::env;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use servers::Api;
use token_service::ClientCredentials;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};
use tower_symbl_auth::{SymblAuthLayer, TokenRequest};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let id = setting("OAUTH_CLIENT_ID", "calls-app");
    let secret = setting("OAUTH_CLIENT_SECRET", "calls-secret");
    let scope = setting("OAUTH_SCOPE", "calls:read");
    let token_url = match env::var("OAUTH_TOKEN_URL") {
        Ok(url) => url,
        Err(_) => servers::token_endpoint(&id, &secret, &scope).await?,
    };
    println!("tokens from {token_url}");

    // Any tower service will do, and tower's layers go around it as around any other.
    let tokens = ServiceBuilder::new()
        .map_request(|request: TokenRequest| {
            println!("  a token is fetched, reason: {:?}", request.reason());
            request
        })
        .service(ClientCredentials::new(&token_url, &id, &secret, &scope)?);
    let api = Api::default();
    let origin = api.start().await?;
    let layer = SymblAuthLayer::builder(tokens)
        .origins([origin.parse()?])
        .build();

    println!(
        "{} of 100 requests answered",
        hundred(&layer, &origin).await?
    );
    api.refuse_tokens();
    println!("the API refuses that token from now on");
    println!(
        "{} of 100 requests answered",
        hundred(&layer, &origin).await?
    );

    let wrong = ClientCredentials::new(&token_url, &id, "wrong", &scope)?;
    match SymblAuthLayer::builder(wrong).build().token().await {
        Ok(_) => println!("the server does not look at secrets"),
        Err(error) => println!("with a wrong secret: {error}"),
    }
    Ok(())
}

/// How many of a hundred concurrent requests the API answers with 200.
async fn hundred(layer: &SymblAuthLayer, origin: &str) -> Result<usize, BoxError> {
    let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let request = Request::get(format!("{origin}/calls")).body(Full::<Bytes>::default())?;
    let requests = (0..100).map(|_| client.clone().oneshot(request.clone()));
    let answers = join_all(requests).await;
    let answered = |answer: &&Result<http::Response<_>, _>| matches!(answer, Ok(answer) if answer.status() == StatusCode::OK);
    Ok(answers.iter().filter(answered).count())
}
