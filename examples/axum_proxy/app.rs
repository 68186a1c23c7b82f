//! The app: one authenticated client in its state, a handler that calls the API, and a proxy to it.

use std::{io, net::SocketAddr};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri, Version,
        header::{self, HeaderName},
    },
    response::{IntoResponse, Response},
    routing::{any, get},
    serve::{Listener, ListenerExt},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tower::{BoxError, Layer, ServiceExt};
use tower_symbl_auth::{Origin, ReplayBody, SymblAuth, SymblAuthLayer, TokenError, TokenErrorKind};

#[derive(Clone)]
struct App {
    client: SymblAuth<Client<HttpConnector, ReplayBody<Body>>>,
    api: Origin,
}

pub(crate) fn app(layer: &SymblAuthLayer, api: Origin) -> Router {
    // Over HTTP/2 (with TLS, ALPN settles it): an upload that is rejected before it is read ends its stream only. Many HTTP/1.1 servers
    // then close the connection, and the client may see a broken pipe in place of the 401, unless its connector is an `EarlyResponse`.
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(connector);
    let client = layer.layer(client);
    Router::new()
        .route("/texts/{conversation}", get(texts))
        .route("/v1/{*path}", any(proxy))
        .with_state(App { client, api })
}

/// Accepts connections without Nagle's algorithm, which against delayed acknowledgements holds answers back
/// for up to 40 ms. It is to be switched off on both sides of a proxy.
pub(crate) async fn listen(
    address: SocketAddr,
) -> io::Result<impl Listener<Io = TcpStream, Addr = SocketAddr>> {
    let listener = TcpListener::bind(address).await?;
    Ok(listener.tap_io(|stream| {
        // Of a connection that is gone already, serving it will tell.
        let _ = stream.set_nodelay(true);
    }))
}

/// What was said in a conversation: calls the API, and makes an answer of its own.
async fn texts(
    State(app): State<App>,
    // A number: no text that would lead to another path.
    Path(conversation): Path<u64>,
) -> Result<Response, Failure> {
    let path = format!("/v1/conversations/{conversation}/messages");
    let request = Request::get(app.uri(&path)?).body(Body::empty())?;
    let response = app.send(request).await?;
    if !response.status().is_success() {
        return Ok(response); // the API's errors as they are
    }
    let body = to_bytes(response.into_body(), 1 << 20).await?;
    let messages: Value = serde_json::from_slice(&body)?;
    let texts = messages["messages"].as_array().into_iter().flatten();
    let texts: Vec<&Value> = texts.map(|message| &message["text"]).collect();
    Ok(Json(json!({ "texts": texts })).into_response())
}

/// Hands the request on, and its response back, both as streams. Only the caller's path and query are used:
/// a request for `http://elsewhere/v1/…` (absolute form) that went there would take the token along.
async fn proxy(State(app): State<App>, mut request: Request) -> Result<Response, Failure> {
    let path = request.uri().path_and_query();
    *request.uri_mut() = app.uri(path.map_or("/", |path| path.as_str()))?;
    // What the caller speaks with this app says nothing of what this app speaks with the API.
    *request.version_mut() = Version::HTTP_11; // which goes over either protocol
    let headers = request.headers_mut();
    drop_hop_by_hop(headers);
    // The caller's own credentials, cookies and host are for this app, not for the API.
    let own = ["authorization", "x-api-key", "cookie", "host"];
    for name in own {
        headers.remove(name);
    }
    let mut response = app.send(request).await?;
    drop_hop_by_hop(response.headers_mut());
    Ok(response)
}

impl App {
    fn uri(&self, path: &str) -> Result<Uri, Failure> {
        Ok(format!("{}{path}", self.api).parse::<Uri>()?)
    }

    async fn send(&self, request: Request) -> Result<Response, Failure> {
        let response = self.client.clone().oneshot(request).await?;
        Ok(response.map(Body::new))
    }
}

/// RFC 9110 section 7.6.1: what is meant for one connection, and whatever `Connection` names.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    const ALWAYS: [HeaderName; 7] = [
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let named = headers.get_all(header::CONNECTION).into_iter();
    let named: Vec<String> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
    for name in ALWAYS {
        headers.remove(name);
    }
}

/// Why the API gave no answer.
struct Failure(BoxError);

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let token_error = self.0.downcast_ref::<TokenError>();
        let status = match token_error.map(TokenError::kind) {
            // These pass by themselves.
            Some(
                TokenErrorKind::RateLimited | TokenErrorKind::Unavailable | TokenErrorKind::Timeout,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        let message = match token_error {
            Some(_) => "no access token for the API",
            None => "the API could not be reached",
        };
        let mut response = (status, Json(json!({ "message": message }))).into_response();
        if let Some(delay) = token_error.and_then(TokenError::retry_after) {
            // Rounded up: who comes back too early is told to wait again.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
