//! A WebSocket whose handshake carries the token: in a header, never in the URL.
//!
//! The handshake is sent by the WebSocket client, not through the layer. So the layer adds the
//! token's header to it (`authorize`), and is told what became of the token (`accepted`, `rejected`). Runs against the stand-in
//! server in this crate.
//!
//! `cargo run --example streaming --features full`

use futures::{SinkExt, StreamExt};
use http::{StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};
use tower::BoxError;
use tower_symbl_auth::{Placement, SymblAuthLayer, mock::MockSymbl};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let symbl = MockSymbl::start().await?;
    let layer = SymblAuthLayer::builder(symbl.fetch_token())
        .origins([symbl.origin()])
        .placement(Placement::ApiKey) // as Symbl's SDKs do it
        .build();
    let uri: Uri = symbl
        .url("/v1/streaming/standup")
        .to_string()
        .replacen("http", "ws", 1)
        .parse()?;

    let mut socket = connect(&layer, &uri).await?;
    println!("the API echoes: {}", say(&mut socket, "Hello").await?);

    symbl.revoke_tokens();
    let mut socket = connect(&layer, &uri).await?;
    println!(
        "and once its token is revoked: {}",
        say(&mut socket, "Hello again").await?
    );

    println!(
        "{} handshakes, of which {} refused; {} token fetches",
        symbl.api_requests(),
        symbl.rejections(),
        symbl.token_requests()
    );
    Ok(())
}

/// Connects; if the token is refused and there is a newer one, once more.
pub(crate) async fn connect(layer: &SymblAuthLayer, uri: &Uri) -> Result<Socket, BoxError> {
    let mut again = false;
    loop {
        let mut request = uri.into_client_request()?;
        let token = layer.authorize(&mut request).await?;
        match (connect_async(request).await, token) {
            (Ok((socket, _)), token) => {
                token.inspect(|token| layer.accepted(token));
                return Ok(socket);
            }
            (Err(Error::Http(answer)), Some(token))
                if answer.status() == StatusCode::UNAUTHORIZED && !again =>
            {
                if layer.rejected(&token).await?.is_none() {
                    return Err(Error::Http(answer).into());
                }
                again = true;
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
}

pub(crate) async fn say(socket: &mut Socket, text: &str) -> Result<Value, BoxError> {
    socket.send(Message::text(text)).await?;
    let answer = socket.next().await.ok_or("the WebSocket was closed")??;
    Ok(serde_json::from_str(answer.to_text()?)?)
}
