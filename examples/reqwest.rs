//! reqwest, authenticated: an upload that streams, and whose token is revoked before it is sent.
//!
//! Runs against the stand-in server in this crate.
//!
//! `cargo run --example reqwest --features full`

use std::error::Error;

use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use reqwest::Body;
use serde_json::{Value, json};
use tower_symbl_auth::mock::MockSymbl;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let symbl = MockSymbl::start().await?;
    let layer = symbl.layer();
    let client = layer.reqwest_client(reqwest::Client::builder())?;

    let conversation = json!({
        "name": "standup",
        "messages": [{ "payload": { "content": "The release is done." }, "from": { "name": "Ada" } }],
    });
    let response = client
        .post(symbl.url("/v1/process/text").to_string())
        .header("content-type", "application/json")
        .body(conversation.to_string())
        .send()
        .await?;
    println!("posted a conversation: {}", response.status());

    symbl.revoke_tokens();
    println!("the token is revoked");

    // Half a megabyte that is there only once, chunk by chunk, as from a microphone or a file.
    const CHUNK: usize = 16 * 1024;
    const CHUNKS: usize = 32;
    let chunks =
        (0..CHUNKS).map(|n| Ok::<_, BoxError>(Frame::data(Bytes::from(vec![n as u8; CHUNK]))));
    let response = client
        .post(symbl.url("/v1/process/audio?name=microphone").to_string())
        .header("content-type", "audio/wav")
        .header("content-length", CHUNK * CHUNKS)
        .body(Body::wrap(StreamBody::new(stream::iter(chunks))))
        .send()
        .await?;
    println!("uploaded a stream: {}", response.status());
    if response.status() != StatusCode::CREATED {
        return Err("the upload did not survive the revocation".into());
    }
    let posted: Value = serde_json::from_slice(&response.bytes().await?)?;
    let id = posted["conversationId"].as_str().ok_or("no conversation")?;

    let messages = symbl.url(&format!("/v1/conversations/{id}/messages"));
    let response = client.get(messages.to_string()).send().await?;
    let messages: Value = serde_json::from_slice(&response.bytes().await?)?;
    println!("of it arrived: {}", messages["messages"][0]["text"]);
    println!(
        "{} requests, {} of them rejected, {} token fetches",
        symbl.api_requests(),
        symbl.rejections(),
        symbl.token_requests(),
    );
    Ok(())
}

type BoxError = Box<dyn Error + Send + Sync>;
