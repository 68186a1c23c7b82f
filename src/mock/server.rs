//! The server: accepts connections, and leads each request to the token endpoint or to the API.

use std::{error::Error, fmt, future, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    TOKEN_PATH, TokenReply, api,
    state::Shared,
    tokens::{self, Refusal},
};

pub(super) type Answer = Response<Full<Bytes>>;

/// Runs until it is aborted, which ends its connections as well: they are this task's children.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
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

async fn route(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Disconnect> {
    if request.uri().path() == TOKEN_PATH {
        shared.count(|counts| counts.token_requests += 1);
        return token(&shared, request).await;
    }
    shared.count(|counts| counts.api_requests += 1);
    if !shared.tokens().accepts(request.headers()) {
        shared.count(|counts| counts.rejections += 1);
        discard(request);
        let text = "Token validation failed for provided token.";
        return Ok(message(StatusCode::UNAUTHORIZED, text));
    }
    Ok(api::route(&shared, request).await)
}

async fn token(shared: &Shared, request: Request<Incoming>) -> Result<Answer, Disconnect> {
    let reply = shared.tokens().script.pop_front();
    match reply {
        Some(TokenReply::Status(status)) => return Ok(scripted(status)),
        Some(TokenReply::RetryAfter(status, delay)) => {
            let mut answer = scripted(status);
            let seconds = delay.as_secs_f64().ceil() as u64;
            let seconds = seconds.into();
            answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            return Ok(answer);
        }
        Some(TokenReply::Body(body)) => return Ok(Response::new(body.into())),
        Some(TokenReply::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(TokenReply::Hang) => future::pending().await,
        Some(TokenReply::Disconnect) => return Err(Disconnect),
        None => {}
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
        Err(Refusal::Credentials) => message(StatusCode::UNAUTHORIZED, "Invalid credentials"),
        Err(Refusal::Malformed) => {
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

pub(super) fn answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(body.to_string().into());
    *answer.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

pub(super) fn message(status: StatusCode, text: &str) -> Answer {
    answer(status, &json!({ "message": text }))
}

fn scripted(status: StatusCode) -> Answer {
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
