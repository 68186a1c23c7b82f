//! A hundred requests in flight whose token is revoked, their 401s spread over 100 ms; and the same once
//! more, right after.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use azure_core::http::policies::Policy;
use futures::future::join_all;
use http::{Request, Response};
use toolkit_http::HttpError;
use tower::{Layer, Service};

use crate::{
    common::{Shape, number_of, send},
    endpoint::Endpoint,
    peers::{azure, gears, ours},
};

const IN_FLIGHT: u64 = 100;

pub async fn print() {
    println!("\n### 100 requests in flight, token revoked, 401s over 100 ms\n");
    println!("| peer | revocation | fetches | end in 401 |");
    println!("|---|---|---|---|");

    let endpoint = Endpoint::new(false);
    let service = ours::layer(&endpoint).layer(Api::<Infallible>::of(&endpoint));
    let request = || Shape::Post.request();
    let call = async || send(&mut service.clone(), request()).await;
    rows("tower-symbl-auth", &endpoint, call).await;

    let endpoint = Endpoint::new(false);
    let layer = gears::layer(&endpoint).await;
    let service = layer.layer(Api::<HttpError>::of(&endpoint));
    let call = async || send(&mut service.clone(), request()).await;
    rows("cf-gears-toolkit-auth", &endpoint, call).await;

    let endpoint = Endpoint::new(false);
    let policy = azure::policy(&endpoint);
    let api = Api::<Infallible>::of(&endpoint);
    let next: [Arc<dyn Policy>; 1] = [Arc::new(azure::Api(move |number| api.rejects(number)))];
    let call = async || azure::send(&policy, azure::request(Shape::Post), &next).await;
    rows("azure_core", &endpoint, call).await;

    println!("\naws-smithy-runtime's identity cache and yup-oauth2 do not see the API's answers.");
}

async fn rows(peer: &str, endpoint: &Endpoint, call: impl AsyncFn() -> u16) {
    assert_eq!(call().await, 200, "{peer} gets its first token");
    for revocation in ["first", "second, right after"] {
        let before = endpoint.fetches();
        endpoint.revoke();
        let ends = join_all((0..IN_FLIGHT).map(|_| call())).await;
        let fetches = endpoint.fetches() - before;
        let rejected = ends.iter().filter(|status| **status == 401).count();
        assert!(!ends.contains(&0), "{peer} fails a request");
        println!("| {peer} | {revocation} | {fetches} | {rejected} |");
    }
}

/// Answers a live token at once; each rejection takes a millisecond longer than the one before, up to 100.
struct Api<E> {
    endpoint: Endpoint,
    rejections: Arc<AtomicU64>,
    error: PhantomData<fn() -> E>,
}

impl<E> Api<E> {
    fn of(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            rejections: Arc::default(),
            error: PhantomData,
        }
    }

    fn rejects(&self, number: usize) -> Option<Duration> {
        if self.endpoint.accepts(number) {
            return None;
        }
        let nth = self.rejections.fetch_add(1, Relaxed) % IN_FLIGHT;
        Some(Duration::from_millis(nth))
    }
}

impl<E> Clone for Api<E> {
    fn clone(&self) -> Self {
        Self {
            rejections: Arc::clone(&self.rejections),
            ..Self::of(&self.endpoint)
        }
    }
}

impl<E: Debug + Send + 'static, B> Service<Request<B>> for Api<E> {
    type Response = Response<()>;
    type Error = E;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, E>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let rejected = self.rejects(number_of(request.headers()));
        Box::pin(async move {
            let mut response = Response::new(());
            if let Some(delay) = rejected {
                tokio::time::sleep(delay).await;
                *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        })
    }
}
