//! The layer as a middleware of reqwest-middleware, over real sockets. The servers count what they get.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use reqwest::Body;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next, Result};
use tokio::net::TcpListener;
use tower::BoxError;
use tower_symbl_auth::{
    AccessToken, Builder, NotRetried, Placement, SkipAuth, SymblAuthLayer, TokenError,
    TokenErrorKind, TokenRequest,
};

#[path = "reqwest/answers.rs"]
mod answers;
mod clock;

// === server ===

/// A request as it came over the wire.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    path: String,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn token(&self) -> &str {
        self.header("authorization")
    }
}

type Answer = Response<Full<Bytes>>;

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (record, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                    async move {
                        let seen = read(request).await;
                        record.lock().unwrap().push(seen.clone());
                        let answer = answer(&seen);
                        if answer.status() == StatusCode::IM_A_TEAPOT {
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, Infallible>(answer)
                    }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn tokens(&self) -> Vec<String> {
        let seen = self.seen();
        seen.iter().map(|seen| seen.token().to_owned()).collect()
    }
}

async fn read(request: http::Request<Incoming>) -> Seen {
    let (parts, body) = request.into_parts();
    Seen {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        version: parts.version,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

fn answer(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::from("answer"));
    *answer.status_mut() = status;
    answer
}

fn rejected_or_hanging(rejected: bool) -> Answer {
    // The server takes a teapot for a hang.
    answer(if rejected {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::IM_A_TEAPOT
    })
}

fn redirect(status: u16, to: &str) -> Answer {
    let mut answer = answer(StatusCode::from_u16(status).unwrap());
    (answer.headers_mut()).insert("location", to.parse().unwrap());
    answer
}

/// 200 for the second token, or any later one.
fn refuse_first(seen: &Seen) -> Answer {
    answer(match seen.token() {
        "" | "Bearer token-1" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    })
}

// === client ===

/// `token-1`, `token-2` and so on, and how many there were.
fn tokens() -> (Builder, Arc<AtomicUsize>) {
    slow_tokens(Duration::ZERO)
}

/// The same, whose first token is there at once, and each later one after that delay.
fn slow_tokens(delay: Duration) -> (Builder, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let tokens = tower::service_fn(move |_: TokenRequest| {
        let call = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            if call > 1 && !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let token = format!("token-{call}");
            Ok::<_, BoxError>(AccessToken::new(token, Duration::from_secs(3600))?)
        }
    });
    (SymblAuthLayer::builder(tokens), fetches)
}

/// A client of those servers, with reqwest's own redirect policy, and the number of fetches.
fn client(servers: &[&Server]) -> (ClientWithMiddleware, Arc<AtomicUsize>) {
    let (builder, fetches) = tokens();
    (with(builder.origins(origins(servers)).build()), fetches)
}

fn with(layer: SymblAuthLayer) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new())
        .with(layer)
        .build()
}

fn origins(servers: &[&Server]) -> Vec<tower_symbl_auth::Origin> {
    let origins = servers.iter().map(|server| server.url("").parse().unwrap());
    origins.collect()
}

fn why(response: &reqwest::Response) -> Option<&NotRetried> {
    response.extensions().get()
}

/// A body that reqwest cannot clone, of that many frames of 1 KiB, with a size hint or without.
fn stream(frames: usize, sized: bool) -> Body {
    let content = Bytes::from(vec![7; 1024 * frames]);
    if sized {
        return Body::wrap(Slices(content));
    }
    let frame = |n| Ok::<_, Infallible>(Frame::data(content.slice(n * 1024..(n + 1) * 1024)));
    let frames: Vec<_> = (0..frames).map(frame).collect();
    Body::wrap(StreamBody::new(futures::stream::iter(frames)))
}

struct Slices(Bytes);

impl http_body::Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return std::task::Poll::Ready(None);
        }
        std::task::Poll::Ready(Some(Ok(Frame::data(self.0.split_to(1024)))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.len() as u64)
    }
}

// === rejection ===

#[tokio::test]
async fn requests_carry_one_token_that_is_fetched_once() {
    let server = Server::start(|_| answer(StatusCode::OK)).await;
    let (client, fetches) = client(&[&server]);
    for _ in 0..3 {
        let request = client
            .get(server.url("/a"))
            .header("authorization", "Basic xyz");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.url().as_str(), server.url("/a"));
        assert_eq!(response.text().await.unwrap(), "answer");
    }
    assert_eq!(server.tokens(), ["Bearer token-1"; 3]);
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_revocation_amid_many_requests_is_healed_with_one_fetch() {
    let server = Server::start(refuse_first).await;
    let (client, fetches) = client(&[&server]);
    let requests = (0..20).map(|n| client.get(server.url(&format!("/{n}"))).send());
    for response in futures::future::join_all(requests).await {
        let response = response.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(why(&response).is_none());
    }
    assert_eq!(fetches.load(Ordering::Relaxed), 2);
    let second = |token: &&String| *token == "Bearer token-2";
    assert_eq!(server.tokens().iter().filter(second).count(), 20);
}

#[tokio::test]
async fn bodies_arrive_whole_on_both_attempts_with_the_same_framing() {
    let server = Server::start(refuse_first).await;
    // Body, Content-Length, Transfer-Encoding
    let bodies: [(Body, &str, &str); 4] = [
        (stream(64, true), "65536", ""),
        (stream(64, false), "", "chunked"),
        (Body::from(vec![7; 65536]), "65536", ""),
        // hyper sends none, for it is the same as zero.
        (Body::default(), "", ""),
    ];
    for (body, length, encoding) in bodies {
        server.seen.lock().unwrap().clear();
        let (client, fetches) = client(&[&server]);
        let request = client
            .post(server.url("/v1/process/audio"))
            .header("x-id", "1");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let seen = server.seen();
        assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
        for seen in &seen {
            assert_eq!(seen.method, Method::POST);
            assert_eq!(seen.path, "/v1/process/audio");
            assert_eq!(seen.header("x-id"), "1");
            assert_eq!(seen.header("content-length"), length);
            assert_eq!(seen.header("transfer-encoding"), encoding);
        }
        let empty = length.is_empty() && encoding.is_empty();
        assert_eq!(seen[0].body.len(), if empty { 0 } else { 65536 });
        assert_eq!(seen[0].body, seen[1].body);
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn a_second_rejection_is_handed_back_as_it_is_and_says_why() {
    let server = Server::start(|seen| {
        let mut answer = answer(StatusCode::UNAUTHORIZED);
        answer
            .headers_mut()
            .insert("x-token", seen.token().parse().unwrap());
        answer
    })
    .await;
    let (client, _) = client(&[&server]);
    let response = client.get(server.url("/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(matches!(why(&response), Some(NotRetried::SecondRejection)));
    assert_eq!(response.headers()["x-token"], "Bearer token-2");
    assert_eq!(response.text().await.unwrap(), "answer");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_grpc_rejection_counts_as_one() {
    let server = Server::start(|seen| {
        let mut answer = answer(StatusCode::OK);
        if seen.token() == "Bearer token-1" {
            (answer.headers_mut()).insert("grpc-status", "16".parse().unwrap());
        }
        answer
    })
    .await;
    let (client, _) = client(&[&server]);
    let response = client.post(server.url("/")).send().await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_body_over_the_limit_is_handed_back_and_says_why() {
    let server = Server::start(refuse_first).await;
    for body in [stream(4, true), stream(4, false)] {
        let (builder, _) = tokens();
        let layer = builder.origins(origins(&[&server])).replay_limit(1024);
        let request = with(layer.build()).post(server.url("/")).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(matches!(why(&response), Some(NotRetried::Body)));
    }
    assert_eq!(server.tokens(), ["Bearer token-1"; 2]);
}

#[tokio::test]
async fn a_body_in_memory_is_sent_again_whatever_its_size() {
    let server = Server::start(refuse_first).await;
    let (builder, _) = tokens();
    let layer = builder.origins(origins(&[&server])).replay_limit(1024);
    let client = with(layer.build());
    let body = Body::from(vec![7; 4 * 1024]);
    let response = client.post(server.url("/")).body(body).send().await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

// === origins and redirects ===

#[tokio::test]
async fn a_request_to_another_origin_is_left_as_it_is() {
    let other = Server::start(|_| answer(StatusCode::UNAUTHORIZED)).await;
    let ours = Server::start(refuse_first).await;
    let (client, fetches) = client(&[&ours]);
    let request = client.post(other.url("/")).body(stream(1, true));
    let request = request.header("authorization", "Basic theirs");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(matches!(why(&response), Some(NotRetried::Unstamped)));
    assert_eq!(other.tokens(), ["Basic theirs"]);
    assert_eq!(other.seen()[0].header("content-length"), "1024");
    assert_eq!(fetches.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_redirect_to_another_host_goes_without_the_token_and_its_401_is_no_rejection() {
    let other = Server::start(|_| answer(StatusCode::UNAUTHORIZED)).await;
    let to = other.url("/there");
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let ours = Server::start(move |_| redirect(status, &to)).await;
        // Whether or not the token might go there as well.
        for origins in [&[&ours][..], &[&ours, &other][..]] {
            other.seen.lock().unwrap().clear();
            let (client, fetches) = client(origins);
            let response = client.get(ours.url("/")).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(response.url().as_str(), other.url("/there"));
            assert!(why(&response).is_none(), "handed back as it is");
            assert_eq!(other.tokens(), [""], "{status}");
            assert_eq!(fetches.load(Ordering::Relaxed), 1, "{status}");
        }
        assert_eq!(ours.tokens(), ["Bearer token-1"; 2]);
    }
}

#[tokio::test]
async fn with_the_layers_policy_no_redirect_leads_away_from_the_origin() {
    let (ours, other) = leading_away(302).await;
    let (builder, _) = tokens();
    let layer = builder.origins(origins(&[&ours])).build();
    let client = reqwest::Client::builder().redirect(layer.redirect_policy());
    let client = ClientBuilder::new(client.build().unwrap())
        .with(layer)
        .build();

    let response = client.get(ours.url("/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], other.url("/there"));
    assert_eq!(ours.tokens(), ["Bearer token-1"; 2], "within the origin");
    assert!(other.seen().is_empty());

    let elsewhere = client.get(other.url("/there")).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::OK);
    assert_eq!(other.tokens(), ["", ""]);
}

#[tokio::test]
async fn an_api_key_is_refused_for_a_redirect_would_carry_it_away() {
    let other = Server::start(|_| answer(StatusCode::OK)).await;
    let to = other.url("/there");
    let ours = Server::start(move |_| redirect(302, &to)).await;
    let (builder, fetches) = tokens();
    let layer = builder.placement(Placement::ApiKey);
    let client = with(layer.origins(origins(&[&ours])).build());
    let error = client.get(ours.url("/")).send().await.unwrap_err();
    assert!(error.is_middleware());
    assert!(error.to_string().contains("use `Placement::Bearer`"));
    assert!(ours.seen().is_empty() && other.seen().is_empty());
    assert_eq!(fetches.load(Ordering::Relaxed), 0);

    let elsewhere = client.get(other.url("/")).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::OK);
    assert_eq!(other.seen()[0].header("x-api-key"), "");
}

#[tokio::test]
async fn a_rejection_behind_a_redirect_within_the_origin_is_healed_from_the_start() {
    let server = Server::start(|seen| match &*seen.path {
        "/old" => redirect(307, "/new"),
        _ => refuse_first(seen),
    })
    .await;
    let (client, fetches) = client(&[&server]);
    // In memory, so that reqwest repeats it itself.
    let request = client.put(server.url("/old")).body("content");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let seen = server.seen();
    let paths: Vec<_> = seen.iter().map(|seen| &*seen.path).collect();
    assert_eq!(paths, ["/old", "/new", "/old", "/new"]);
    assert!(seen.iter().all(|seen| seen.body == "content"));
    assert_eq!(fetches.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_a_redirect_says_has_been_done_is_not_done_again_for_a_rejection_behind_it() {
    let server = Server::start(|seen| match &*seen.path {
        "/jobs" => redirect(303, "/jobs/1"),
        _ => refuse_first(seen),
    })
    .await;
    let (client, _) = client(&[&server]);
    let request = client.post(server.url("/jobs")).body("content");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let posted = server.seen();
    let posted = posted.iter().filter(|seen| seen.path == "/jobs");
    assert_eq!(posted.count(), 1);
}

/// An API that leads to a host that leads on within itself.
async fn leading_away(status: u16) -> (Server, Server) {
    let other = Server::start(|seen| match &*seen.path {
        "/there" => redirect(302, "/on"),
        _ => answer(StatusCode::OK),
    })
    .await;
    let to = other.url("/there");
    let ours = Server::start(move |seen| match &*seen.path {
        "/" => redirect(302, "/next"),
        "/next" => redirect(status, &to),
        _ => answer(StatusCode::OK),
    })
    .await;
    (ours, other)
}

/// As the page of clients shows it for reqwest without the middleware.
#[tokio::test]
async fn a_client_that_follows_no_redirects_takes_a_token_of_its_own_nowhere_else() {
    let (ours, other) = leading_away(302).await;
    let layer = tokens().0.origins(origins(&[&ours])).build();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = client.build().unwrap();
    let token = layer.token().await.unwrap();
    for path in ["/", "/next"] {
        let request = client
            .get(ours.url(path))
            .bearer_auth(token.expose_secret());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn the_layers_client_follows_redirects_with_the_token_within_the_origin_only() {
    for (placement, header, value) in [
        (Placement::Bearer, "authorization", "Bearer token-1"),
        (Placement::ApiKey, "x-api-key", "token-1"),
    ] {
        let (ours, other) = leading_away(307).await;
        let (builder, _) = tokens();
        let layer = builder.placement(placement).origins(origins(&[&ours]));
        // Its own policy gives way.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::limited(3));
        let client = layer.build().reqwest_client(client).unwrap();

        let response = client.get(ours.url("/")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.headers()["location"], other.url("/there"));
        let seen = ours.seen();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|seen| seen.header(header) == value));
        assert!(other.seen().is_empty(), "{placement:?}");

        // What goes there by itself goes without the token, from hop to hop.
        let elsewhere = client.get(other.url("/there")).send().await.unwrap();
        assert_eq!(elsewhere.status(), StatusCode::OK);
        assert_eq!(other.seen().len(), 2);
        assert!(
            other
                .seen()
                .iter()
                .all(|seen| seen.header(header).is_empty())
        );
    }
}

#[tokio::test]
async fn a_redirect_to_a_login_page_elsewhere_is_a_rejection_if_the_user_says_so() {
    let server = Server::start(|seen| match seen.token() {
        "Bearer token-1" => redirect(302, "https://login.example/?back=1"),
        _ => answer(StatusCode::OK),
    })
    .await;
    let (builder, fetches) = tokens();
    let layer = builder.origins(origins(&[&server]));
    let layer = layer.rejected_when(|status, headers| {
        let login = |to: &http::HeaderValue| to.as_bytes().starts_with(b"https://login.example/");
        status.is_redirection() && headers.get("location").is_some_and(login)
    });
    let client = layer.build().reqwest_client(reqwest::Client::builder());
    let response = client.unwrap().get(server.url("/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
    assert_eq!(fetches.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_long_rejection_is_held_for_a_second_and_a_short_one_until_there_is_a_token() {
    for (length, status) in [
        (17 * 1024, StatusCode::UNAUTHORIZED),
        (1024, StatusCode::OK),
    ] {
        let server = Server::start(move |seen| {
            let mut answer = refuse_first(seen);
            if answer.status() == StatusCode::UNAUTHORIZED {
                *answer.body_mut() = Full::from(vec![7; length]);
            }
            answer
        })
        .await;
        let layer = slow_tokens(Duration::from_millis(1500))
            .0
            .origins(origins(&[&server]));
        let response = with(layer.build()).get(server.url("/")).send().await;
        let response = response.unwrap();
        assert_eq!(response.status(), status);
        if status == StatusCode::UNAUTHORIZED {
            assert!(matches!(why(&response), Some(NotRetried::Token(_))));
            assert_eq!(response.headers()["content-length"], length.to_string());
            assert_eq!(response.bytes().await.unwrap().len(), length);
        }
    }
}

#[tokio::test]
async fn a_request_with_skip_auth_goes_as_it_is() {
    let server = Server::start(refuse_first).await;
    let (client, fetches) = client(&[&server]);
    let request = client.get(server.url("/")).with_extension(SkipAuth);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(why(&response).is_none());
    assert_eq!(server.tokens(), [""]);
    assert_eq!(fetches.load(Ordering::Relaxed), 0);
}

// === what reqwest has and http has not ===

fn timeout_of(error: &Error) -> &TokenError {
    let Error::Middleware(error) = error else {
        panic!("{error:?}");
    };
    let error = error.downcast_ref::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    error
}

#[tokio::test]
async fn a_requests_timeout_bounds_the_wait_for_its_first_token() {
    let server = Server::start(|_| answer(StatusCode::OK)).await;
    let never = tower::service_fn(|_: TokenRequest| std::future::pending::<TokenResult>());
    let layer = SymblAuthLayer::builder(never).origins(origins(&[&server]));
    let start = std::time::Instant::now();
    let request = with(layer.build()).get(server.url("/"));
    let error = request.timeout(Duration::from_millis(300)).send().await;
    let error = error.unwrap_err();
    assert!(timeout_of(&error).to_string().contains("own timeout"));
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(server.seen().is_empty());
}

type TokenResult = std::result::Result<AccessToken, BoxError>;

#[tokio::test]
async fn a_requests_timeout_bounds_the_wait_for_another_token() {
    let server = Server::start(refuse_first).await;
    let layer = slow_tokens(Duration::from_secs(6))
        .0
        .origins(origins(&[&server]));
    let start = std::time::Instant::now();
    let request = with(layer.build()).get(server.url("/"));
    let error = request.timeout(Duration::from_secs(1)).send().await;
    timeout_of(&error.unwrap_err());
    assert!(start.elapsed() < Duration::from_millis(2500));
}

#[tokio::test]
async fn the_second_attempt_has_what_is_left_of_the_requests_timeout() {
    // Hangs on the second attempt, after a second's wait for the token.
    let server = Server::start(|seen| rejected_or_hanging(seen.token() == "Bearer token-1")).await;
    let layer = slow_tokens(Duration::from_secs(1))
        .0
        .origins(origins(&[&server]));
    let left = Arc::default();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(layer.build())
        .with(Timeouts(Arc::clone(&left)))
        .build();
    let start = std::time::Instant::now();
    let request = client.get(server.url("/")).timeout(Duration::from_secs(2));
    let error = request.send().await.unwrap_err();
    assert!(error.is_timeout(), "reqwest's own: {error:?}");
    assert!(start.elapsed() < Duration::from_millis(2900));
    let left: Vec<Duration> = left.lock().unwrap().clone();
    assert!(left[0] > Duration::from_millis(1500) && left[0] <= Duration::from_secs(2));
    assert!(left[1] <= Duration::from_secs(1), "{left:?}");
}

#[tokio::test]
async fn the_second_attempts_grpc_timeout_is_what_is_left_of_the_requests() {
    let server = Server::start(refuse_first).await;
    let layer = slow_tokens(Duration::from_secs(1))
        .0
        .origins(origins(&[&server]));
    let layer = layer.build();
    layer.token().await.unwrap();
    let client = with(layer);
    let request = client.get(server.url("/")).header("grpc-timeout", "3S");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let seen = server.seen();
    assert_eq!(seen[0].header("grpc-timeout"), "3S");
    let left = seen[1].header("grpc-timeout").strip_suffix('u').unwrap();
    let left = Duration::from_micros(left.parse().unwrap());
    assert!(left <= Duration::from_secs(2), "{left:?}");
}

/// Beneath the layer: notes the timeout of each attempt.
struct Timeouts(Arc<Mutex<Vec<Duration>>>);

#[async_trait]
impl Middleware for Timeouts {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        self.0.lock().unwrap().extend(request.timeout());
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_middleware_beneath_that_heeds_no_timeout_is_cut_off() {
    struct Hangs;

    #[async_trait]
    impl Middleware for Hangs {
        async fn handle(
            &self,
            _: reqwest::Request,
            _: &mut Extensions,
            _: Next<'_>,
        ) -> Result<reqwest::Response> {
            std::future::pending().await
        }
    }

    let server = Server::start(|_| answer(StatusCode::OK)).await;
    let (builder, _) = tokens();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(builder.origins(origins(&[&server])).build())
        .with(Hangs)
        .build();
    let request = client.get(server.url("/"));
    let error = request.timeout(Duration::from_millis(200)).send().await;
    timeout_of(&error.unwrap_err());
}

#[tokio::test]
async fn a_request_without_a_timeout_or_with_the_longest_is_not_bound() {
    let server = Server::start(refuse_first).await;
    let (client, _) = client(&[&server]);
    let request = client.get(server.url("/")).timeout(Duration::MAX / 4);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn timeout_and_version_are_those_of_the_request_on_both_attempts() {
    // Hangs on the second attempt.
    let server = Server::start(|seen| rejected_or_hanging(seen.token() == "Bearer token-1")).await;
    for body in [stream(1, true), Body::from("content")] {
        server.seen.lock().unwrap().clear();
        let (client, _) = client(&[&server]);
        let request = client.post(server.url("/")).version(Version::HTTP_10);
        let request = request.timeout(Duration::from_millis(200)).body(body);
        let sent = tokio::time::timeout(Duration::from_secs(10), request.send()).await;
        let error = sent.expect("its own timeout comes first").unwrap_err();
        assert!(error.is_timeout());
        let versions: Vec<_> = server.seen().iter().map(|seen| seen.version).collect();
        assert_eq!(versions, [Version::HTTP_10; 2]);
    }
}

#[derive(Debug, Clone, PartialEq)]
struct FromCaller(u32);

#[derive(Debug, Clone, Default, PartialEq)]
struct FromBeneath(Vec<FromCaller>);

/// Beneath the layer: notes what it finds in the extensions, attempt by attempt.
struct Notes;

#[async_trait]
impl Middleware for Notes {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let found = extensions.get::<FromCaller>().unwrap().clone();
        let notes = extensions.get_or_insert_default::<FromBeneath>();
        notes.0.push(found);
        next.run(request, extensions).await
    }
}

/// Above the layer: gives up at once if told to, and keeps what is in the extensions afterwards.
struct Reads(Duration, Arc<Mutex<Option<FromBeneath>>>);

#[async_trait]
impl Middleware for Reads {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response> {
        let response = tokio::time::timeout(self.0, next.run(request, extensions)).await;
        *self.1.lock().unwrap() = extensions.get().cloned();
        response.map_err(Error::middleware)?
    }
}

#[tokio::test]
async fn extensions_go_down_on_both_attempts_and_come_up_also_if_the_caller_gives_up() {
    let heals = Server::start(refuse_first).await;
    let hangs = Server::start(|seen| rejected_or_hanging(seen.token() == "Bearer token-1")).await;
    for (server, patience) in [(&heals, 60_000), (&hangs, 200)] {
        let read = Arc::default();
        let (builder, _) = tokens();
        let client = ClientBuilder::new(reqwest::Client::new())
            .with(Reads(Duration::from_millis(patience), Arc::clone(&read)))
            .with(builder.origins(origins(&[server])).build())
            .with(Notes)
            .build();
        let request = client.get(server.url("/")).with_extension(FromCaller(7));
        assert_eq!(request.send().await.is_ok(), patience > 200);
        let both = FromBeneath(vec![FromCaller(7); 2]);
        assert_eq!(*read.lock().unwrap(), Some(both));
    }
}

// === errors ===

#[derive(Debug, PartialEq)]
struct Beneath;

impl std::fmt::Display for Beneath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("beneath")
    }
}

impl std::error::Error for Beneath {}

#[async_trait]
impl Middleware for Beneath {
    async fn handle(
        &self,
        _: reqwest::Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> Result<reqwest::Response> {
        Err(Error::middleware(Self))
    }
}

#[tokio::test]
async fn an_error_from_beneath_comes_back_as_it_is() {
    let server = Server::start(refuse_first).await;
    let (builder, _) = tokens();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(builder.origins(origins(&[&server])).build())
        .with(Beneath)
        .build();
    match client.get(server.url("/")).send().await.unwrap_err() {
        Error::Middleware(error) => assert_eq!(error.downcast_ref(), Some(&Beneath)),
        Error::Reqwest(error) => panic!("{error}"),
    }

    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (builder, _) = tokens();
    let client = with(builder.origins([gone.parse().unwrap()]).build());
    let error = client.get(&gone).send().await.unwrap_err();
    assert!(matches!(&error, Error::Reqwest(error) if error.is_connect()));
}

#[tokio::test]
async fn a_token_error_is_downcast_from_the_middlewares() {
    let server = Server::start(refuse_first).await;
    let failing = tower::service_fn(|_: TokenRequest| async {
        let error = TokenError::new(TokenErrorKind::Credentials, "no such application");
        Err::<AccessToken, _>(error)
    });
    let layer = SymblAuthLayer::builder(failing).origins(origins(&[&server]));
    let error = with(layer.build()).get(server.url("/")).send().await;
    let Err(Error::Middleware(error)) = error else {
        panic!("{error:?}");
    };
    let error = error.downcast_ref::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Credentials);
    assert!(server.seen().is_empty());
}

// === telemetry ===

#[cfg(feature = "tracing")]
mod told {
    use tracing_subscriber::{
        Layer,
        layer::{Context, SubscriberExt},
        util::SubscriberInitExt,
    };

    use super::*;

    /// The events, with all their fields.
    #[derive(Clone, Default)]
    struct Events(Arc<Mutex<Vec<String>>>);

    struct Fields(String);

    impl tracing::field::Visit for Fields {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0 += &format!("{field}={value:?} ");
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Events {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields(format!("{} ", event.metadata().level()));
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }

    impl Events {
        fn of(&self, what: &str) -> Vec<String> {
            let events = self.0.lock().unwrap();
            let of = events.iter().filter(|event| event.contains(what));
            of.cloned().collect()
        }
    }

    const LED_AWAY: &str = "redirect led to another origin";

    #[tokio::test]
    async fn the_first_answer_from_another_origin_is_warned_of_and_none_with_the_layers_client() {
        let events = Events::default();
        let _guard = tracing_subscriber::registry()
            .with(events.clone())
            .set_default();
        let (ours, other) = leading_away(307).await;
        let (builder, _) = tokens();
        let layer = builder.origins(origins(&[&ours])).build();

        let client = layer.reqwest_client(reqwest::Client::builder()).unwrap();
        client.get(ours.url("/")).send().await.unwrap();
        assert!(events.of(LED_AWAY).is_empty());

        let client = with(layer);
        client.get(ours.url("/elsewhere")).send().await.unwrap();
        client.get(other.url("/there")).send().await.unwrap();
        assert!(
            events.of(LED_AWAY).is_empty(),
            "within the origin, or not ours"
        );
        for _ in 0..3 {
            let away = client.get(ours.url("/")).send().await.unwrap();
            assert_eq!(away.status(), StatusCode::OK);
        }
        let warnings = events.of(LED_AWAY);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("WARN"));
        assert!(warnings[0].contains(&ours.url("")) && warnings[0].contains(&other.url("")));
    }

    #[tokio::test]
    async fn an_answer_from_another_origin_is_neither_acceptance_nor_rejection() {
        for status in [StatusCode::OK, StatusCode::UNAUTHORIZED] {
            let events = Events::default();
            let _guard = tracing_subscriber::registry()
                .with(events.clone())
                .set_default();
            let other = Server::start(move |_| answer(status)).await;
            let to = other.url("/there");
            let ours = Server::start(move |seen| match seen.token() {
                "Bearer token-1" => answer(StatusCode::UNAUTHORIZED),
                _ => redirect(302, &to),
            })
            .await;
            let (client, _) = client(&[&ours]);
            let response = client.get(ours.url("/")).send().await.unwrap();
            assert_eq!(response.status(), status);
            assert!(why(&response).is_none());
            assert_eq!(ours.tokens(), ["Bearer token-1", "Bearer token-2"]);
            assert_eq!(events.of("token rejected").len(), 1, "the first");
            assert!(events.of("request sent again").is_empty());
        }
    }
}
