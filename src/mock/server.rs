//! The server: accepts connections, and leads each request to the token endpoint or to the API.

use std::{error::Error, fmt, future, io, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    Reply, TOKEN_PATH, api,
    state::MockState,
    tokens::{self, TokenRefusal},
};

pub(super) type HttpAnswer = Response<Full<Bytes>>;

/// Runs until it is aborted, which ends its connections as well: they are this task's children.
pub(super) async fn run(listener: TcpListener, shared: Arc<MockState>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(stream) = accept(&listener).await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| route(Arc::clone(&shared), request));
            let server = Builder::new(TokioExecutor::new());
            let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
            // A client may hang up whenever it likes.
            let _ = connection.await;
        });
    }
}

/// Without Nagle's algorithm, which against delayed acknowledgements holds answers back for 40 ms.
async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn route(
    shared: Arc<MockState>,
    request: Request<Incoming>,
) -> Result<HttpAnswer, Disconnect> {
    if request.uri().path() == TOKEN_PATH {
        shared.count(|counts| counts.token_requests += 1);
        return token(&shared, request).await;
    }
    shared.count(|counts| counts.api_requests += 1);
    let reply = shared.next_api_reply();
    if let Some(answer) = play(reply).await? {
        if answer.status() == StatusCode::UNAUTHORIZED {
            shared.count(|counts| counts.rejections += 1);
        }
        discard(request);
        return Ok(answer);
    }
    if !shared.tokens().accepts(request.headers()) {
        shared.count(|counts| counts.rejections += 1);
        discard(request);
        let text = "Token validation failed for provided token.";
        return Ok(message(StatusCode::UNAUTHORIZED, text));
    }
    Ok(api::route(&shared, request).await)
}

/// Does what the script says. `None`: go on as usual.
async fn play(reply: Option<Reply>) -> Result<Option<HttpAnswer>, Disconnect> {
    match reply {
        Some(Reply::Status(status)) => Ok(Some(scripted(status))),
        Some(Reply::RetryAfter(status, delay)) => {
            let mut answer = scripted(status);
            let seconds = delay.as_secs_f64().ceil() as u64;
            let headers = answer.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
            Ok(Some(answer))
        }
        Some(Reply::Body(body)) => Ok(Some(Response::new(body.into()))),
        Some(Reply::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(None)
        }
        Some(Reply::Hang) => future::pending().await,
        Some(Reply::Disconnect) => Err(Disconnect),
        None => Ok(None),
    }
}

async fn token(shared: &MockState, request: Request<Incoming>) -> Result<HttpAnswer, Disconnect> {
    let reply = shared.next_token_reply();
    if let Some(answer) = play(reply).await? {
        return Ok(answer);
    }
    if request.method() != Method::POST {
        return Ok(message(StatusCode::METHOD_NOT_ALLOWED, "use POST"));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| !value.as_bytes().starts_with(b"application/json")) {
        let text = "Content-Type must be application/json";
        return Ok(message(StatusCode::BAD_REQUEST, text));
    }
    let Some(body) = read(request).await else {
        return Ok(message(StatusCode::BAD_REQUEST, "the body is too long"));
    };
    Ok(match tokens::check(&body) {
        Ok(()) => answer(StatusCode::OK, &shared.tokens().issue()),
        Err(TokenRefusal::Credentials) => message(StatusCode::UNAUTHORIZED, "Invalid credentials"),
        Err(TokenRefusal::Malformed) => {
            let text = "type, appId and appSecret are required";
            message(StatusCode::BAD_REQUEST, text)
        }
    })
}

/// For an answer before the body is read, as a gateway gives it. The body is read on all the same: were
/// it not, HTTP/1.1 clients would find the connection reset, and might never see the answer.
pub(super) fn discard(request: Request<Incoming>) {
    let mut body = request.into_body();
    // Ends with its connection at the latest.
    tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
}

/// A body of at most 16 MiB.
pub(super) async fn read(request: Request<Incoming>) -> Option<Bytes> {
    let body = Limited::new(request.into_body(), 16 << 20).collect().await;
    Some(body.ok()?.to_bytes())
}

pub(super) fn answer(status: StatusCode, body: &Value) -> HttpAnswer {
    let mut answer = Response::new(body.to_string().into());
    *answer.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

pub(super) fn message(status: StatusCode, text: &str) -> HttpAnswer {
    answer(status, &json!({ "message": text }))
}

fn scripted(status: StatusCode) -> HttpAnswer {
    message(status, status.canonical_reason().unwrap_or("scripted"))
}

/// What closes a connection.
#[derive(Debug)]
pub(super) struct Disconnect;

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script says to disconnect")
    }
}

impl Error for Disconnect {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_do_without_nagles_algorithm() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let client = TcpStream::connect(address).await.expect("it listens");
        let accepted = accept(&listener).await.expect("one is waiting");
        assert!(accepted.nodelay().expect("a socket"));
        drop(client);
    }
}
