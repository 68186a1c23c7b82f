//! What the tests share: a scripted token service, an API that panics when it is called unready, and a
//! wall clock to set.
#![allow(dead_code)]

use std::{
    future::Future,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_symbl_auth::{
    AccessToken, Builder, FetchReason, Origin, ReplayBody, SymblAuth, SymblAuthLayer, TokenRequest,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const DAY: Duration = Duration::from_secs(86_400);
pub const URL: &str = "https://api.symbl.ai/v1/conversations/1";

// === token service ===

type TokenAnswer = BoxFuture<'static, Result<AccessToken, BoxError>>;

/// A token service that answers its nth call (from 1) as the script says, and remembers each.
#[derive(Clone)]
pub struct Issuer {
    calls: Arc<Mutex<Vec<FetchReason>>>,
    script: Arc<dyn Fn(usize) -> TokenAnswer + Send + Sync>,
}

impl Issuer {
    pub fn new<F, A>(script: F) -> Self
    where
        F: Fn(usize) -> A + Send + Sync + 'static,
        A: Future<Output = Result<AccessToken, BoxError>> + Send + 'static,
    {
        Self {
            calls: Arc::default(),
            script: Arc::new(move |call| Box::pin(script(call))),
        }
    }

    /// `token-1`, `token-2` and so on, each good for that long, each after that delay.
    pub fn fresh(lifetime: Duration, delay: Duration) -> Self {
        Self::new(move |call| async move {
            tokio::time::sleep(delay).await;
            Ok(AccessToken::new(format!("token-{call}"), lifetime)?)
        })
    }

    pub fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub fn reasons(&self) -> Vec<FetchReason> {
        self.calls.lock().unwrap().clone()
    }

    pub fn builder(&self) -> Builder {
        SymblAuthLayer::builder(self.clone())
    }

    pub fn layer(&self) -> SymblAuthLayer {
        self.builder().build()
    }
}

impl Service<TokenRequest> for Issuer {
    type Response = AccessToken;
    type Error = BoxError;
    type Future = TokenAnswer;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> TokenAnswer {
        let mut calls = self.calls.lock().unwrap();
        calls.push(request.reason());
        let call = calls.len();
        drop(calls);
        (self.script)(call)
    }
}

// === API ===

pub type ApiRequest<B> = Request<ReplayBody<B>>;
type ApiAnswer = BoxFuture<'static, Result<Response<Full<Bytes>>, BoxError>>;
type Handler<B> = dyn Fn(ApiRequest<B>) -> ApiAnswer + Send + Sync;

/// The inner service. Each instance must have been made ready before it is called, or it panics.
pub struct Api<B> {
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    handler: Arc<Handler<B>>,
    ready: bool,
}

impl<B> Api<B> {
    pub fn new<F, A>(handler: F) -> Self
    where
        F: Fn(ApiRequest<B>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response<Full<Bytes>>, BoxError>> + Send + 'static,
    {
        Self {
            seen: Arc::default(),
            handler: Arc::new(move |request| Box::pin(handler(request))),
            ready: false,
        }
    }

    /// Answers at once, with the status that the token earns. The body is dropped unread.
    pub fn judging(judge: impl Fn(&str) -> StatusCode + Send + Sync + 'static) -> Self
    where
        B: Send + 'static,
    {
        Self::new(move |request| {
            let response = answer(judge(token_of(request.headers())));
            async move { Ok(response) }
        })
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The headers of each call.
    pub fn seen(&self) -> Vec<HeaderMap> {
        self.seen.lock().unwrap().clone()
    }

    /// The token of each call; empty for none.
    pub fn tokens(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .map(|headers| token_of(headers).to_owned())
            .collect()
    }
}

impl<B> Clone for Api<B> {
    fn clone(&self) -> Self {
        Self {
            seen: Arc::clone(&self.seen),
            handler: Arc::clone(&self.handler),
            ready: false,
        }
    }
}

impl<B> Service<ApiRequest<B>> for Api<B> {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = ApiAnswer;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ApiRequest<B>) -> ApiAnswer {
        assert!(self.ready, "called an instance that was not made ready");
        self.ready = false;
        self.seen.lock().unwrap().push(request.headers().clone());
        (self.handler)(request)
    }
}

pub fn answer(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// A body that tells its length and comes in frames of 1 MiB: over that it is not in memory whole.
#[derive(Default)]
pub struct Upload(Bytes);

impl Upload {
    pub fn new(length: usize) -> Self {
        Self(vec![7; length].into())
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let length = self.0.len().min(1 << 20);
        let frame = (length > 0).then(|| http_body::Frame::data(self.0.split_to(length)));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.len() as u64)
    }
}

/// The token that a request was stamped with; empty for none.
pub fn token_of(headers: &HeaderMap) -> &str {
    let value = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap());
    value.map_or("", |value| value.strip_prefix("Bearer ").unwrap())
}

pub fn get(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

pub fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

/// One request through the layer.
pub async fn send<B>(
    layer: &SymblAuthLayer,
    api: &Api<B>,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, BoxError>
where
    B: http_body::Body + Unpin,
    B::Error: Into<BoxError>,
{
    let service: SymblAuth<Api<B>> = layer.layer(api.clone());
    service.oneshot(request).await
}

// === wall clock ===

/// A wall clock that stands still until it is moved.
#[derive(Clone)]
pub struct Wall(Arc<Mutex<SystemTime>>);

impl Wall {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::now())))
    }

    pub fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    pub fn back(&self, by: Duration) {
        *self.0.lock().unwrap() -= by;
    }

    pub fn reader(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let wall = self.clone();
        move || *wall.0.lock().unwrap()
    }
}

// === time ===

/// Equal but for the wall clock's own progress.
pub fn assert_near(actual: Duration, expected: Duration) {
    let (low, high) = (expected.saturating_sub(SECOND), expected + SECOND);
    assert!(
        (low..=high).contains(&actual),
        "{actual:?} is not {expected:?}"
    );
}

/// Whether a future is still pending when everything else that can run has run.
pub async fn is_pending<F: Future>(future: F) -> bool {
    let mut future = std::pin::pin!(future);
    for _ in 0..100 {
        if futures::poll!(future.as_mut()).is_ready() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

/// Asks for the token, as a request does, and lets what that began run.
pub async fn layer_in_use(layer: &SymblAuthLayer) {
    layer.token().await.unwrap();
    settle().await;
}

/// Lets all run that can, without any time passing.
pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

// === services ===

/// The number of `token-…`; 0 for none.
pub fn number(token: &str) -> usize {
    token
        .strip_prefix("token-")
        .map_or(0, |number| number.parse().unwrap())
}

pub fn get_owned(url: String) -> Request<Empty<Bytes>> {
    get(&url)
}

/// Ready at once for its first call; its clones only once they are let.
pub struct SlowToBeReady<S> {
    inner: S,
    wait: Option<futures::future::Shared<tokio::sync::oneshot::Receiver<()>>>,
    next: futures::future::Shared<tokio::sync::oneshot::Receiver<()>>,
}

impl<S> SlowToBeReady<S> {
    pub fn new(inner: S, wait: tokio::sync::oneshot::Receiver<()>) -> Self {
        Self {
            inner,
            wait: None,
            next: futures::FutureExt::shared(wait),
        }
    }
}

impl<S: Clone> Clone for SlowToBeReady<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            wait: Some(self.next.clone()),
            next: self.next.clone(),
        }
    }
}

impl<R, S: Service<R>> Service<R> for SlowToBeReady<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if let Some(wait) = &mut self.wait {
            let _ = std::task::ready!(std::pin::Pin::new(wait).poll(cx));
            self.wait = None;
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}
