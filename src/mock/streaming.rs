//! The WebSockets. A handshake is authenticated as any request is, by its headers, or by a subprotocol that
//! is the token, as Symbl's JavaScript SDK has it. A token in its query, which ends up in logs, counts for nothing.
//!
//! What Symbl sends over them is not known well enough to be imitated. So text messages are echoed, in
//! an envelope that is the stand-in's own: `{"type":"message","message":{"text":"…"}}`. Others, such as
//! audio, are read and dropped. That SDK's `__PING__` is answered as it wants, with `__PONG__`.

use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::server::create_response_with_body, protocol::Role},
};

use super::{
    server::{HttpAnswer, message},
    state::MockState,
};

pub(super) fn open(shared: &MockState, mut request: Request<Incoming>) -> HttpAnswer {
    let Ok(mut answer) = create_response_with_body(&request, Full::default) else {
        let text = "a WebSocket handshake over HTTP/1.1 is required";
        return message(StatusCode::UPGRADE_REQUIRED, text);
    };
    // RFC 6455 section 4.1: a client that offers subprotocols may fail a connection that takes none.
    if let Some(token) = shared.tokens().subprotocol(request.headers()) {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, token);
    }
    shared.spawn_stream(echo(upgrade::on(&mut request)));
    answer
}

/// Until the client closes the WebSocket, or hangs up.
async fn echo(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    let stream = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(received)) = socket.next().await {
        let Message::Text(text) = received else {
            continue;
        };
        let answer = if text == "__PING__" {
            "__PONG__".to_owned()
        } else {
            json!({ "type": "message", "message": { "text": text.as_str() } }).to_string()
        };
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}
