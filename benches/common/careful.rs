//! What a careful engineer writes under a retry: the token is shared, checked for its expiry, and goes to two origins.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{
    HeaderValue, Request,
    header::AUTHORIZATION,
    uri::{Authority, Scheme},
};
use tokio::{sync::Notify, time::Instant};
use tower::{Layer, Service};

struct Token {
    value: HeaderValue,
    expires: Instant,
}

struct Shared {
    token: ArcSwap<Token>,
    /// Wakes whoever fetches.
    expired: Notify,
    origins: [(Scheme, Authority); 2],
}

#[derive(Clone)]
pub struct CarefulLayer(Arc<Shared>);

impl CarefulLayer {
    pub fn new(token: &str) -> Self {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).expect("it is ASCII");
        value.set_sensitive(true);
        let origin = |host| (Scheme::HTTPS, Authority::from_static(host));
        Self(Arc::new(Shared {
            token: ArcSwap::from_pointee(Token {
                value,
                expires: Instant::now() + Duration::from_secs(86_400),
            }),
            expired: Notify::new(),
            origins: ["api.symbl.ai", "api-labs.symbl.ai"].map(origin),
        }))
    }
}

impl<S> Layer<S> for CarefulLayer {
    type Service = Careful<S>;

    fn layer(&self, inner: S) -> Careful<S> {
        let shared = Arc::clone(&self.0);
        Careful { inner, shared }
    }
}

#[derive(Clone)]
pub struct Careful<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B> Service<Request<B>> for Careful<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let uri = request.uri();
        let is = |(scheme, authority): &(Scheme, Authority)| {
            uri.scheme() == Some(scheme) && uri.authority() == Some(authority)
        };
        if self.shared.origins.iter().any(is) {
            let token = self.shared.token.load();
            if token.expires <= Instant::now() {
                self.shared.expired.notify_one();
            }
            let value = token.value.clone();
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        self.inner.call(request)
    }
}
