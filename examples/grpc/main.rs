//! A tonic channel, authenticated: calls of all four kinds, whose token is revoked in between.
//!
//! The token comes from the stand-in server in this crate; the layer is put around the channel in `channel.rs`; the gRPC
//! server is in `echo.rs`.
//!
//! `cargo run --example grpc --features full`

use std::time::Duration;

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use tonic::transport::Endpoint;
use tower::BoxError;
use tower_symbl_auth::{SymblAuthLayer, mock::MockSymbl};

mod channel;
mod echo;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let symbl = MockSymbl::start().await?;
    let server = echo::Received::default();
    let origin = format!("http://{}", echo::serve(server.clone()).await?);

    let auth = SymblAuthLayer::builder(symbl.fetch_token())
        .origins([origin.parse()?])
        .build();
    let channel = Endpoint::new(origin)?.connect().await?;
    let channel = channel::authenticated(channel, auth, Duration::from_secs(10));
    let mut client = echo::EchoClient::new(channel);

    let said = client.say("hello".into()).await?;
    println!("unary: {}", said.escape_ascii());

    let revoke = || {
        server.revoke_tokens();
        symbl.revoke_tokens();
        println!("the token is revoked");
    };
    revoke();
    let parts = client.split("abc".into()).await?;
    let parts: Vec<Bytes> = parts.try_collect().await?;
    println!("server stream: {} messages", parts.len());

    revoke();
    let joined = client.join(stream::iter(parts)).await?;
    println!("client stream: {}", joined.escape_ascii());

    revoke();
    let questions = ["who", "where", "why"].map(Bytes::from);
    let answers = client.chat(stream::iter(questions)).await?;
    let answers: Vec<Bytes> = answers.try_collect().await?;
    println!("both ways: {} answers", answers.len());

    let (calls, fetches) = (server.tokens().len(), symbl.token_requests());
    println!("4 calls were sent {calls} times, with {fetches} tokens");
    match (calls, fetches) {
        (7, 4) => Ok(()),
        _ => Err("each revocation should have cost one call and one token".into()),
    }
}
