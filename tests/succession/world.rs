//! A trouble being played, by the paused clock: the issuer, the API and the layers between them.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::future::{BoxFuture, pending};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tower::{BoxError, Service, service_fn};
use tower_symbl_auth::{
    AccessToken, Credentials, FetchToken, ReplayBody, SymblAuthLayer, TokenError, TokenErrorKind,
    TokenRequest,
};

use crate::{
    bodies::{Payload, REPLAY_LIMIT},
    trouble::{Call, DAY, FETCH, LATENCY, Reply, Seconds, Seen, Trouble},
};

/// One trouble, being played.
pub struct World {
    pub trouble: Trouble,
    /// When the trouble begins.
    zero: Instant,
    wall_zero: SystemTime,
    state: Mutex<State>,
    /// Bodies that the API did not get whole.
    pub broken: AtomicUsize,
    layer: Mutex<Option<SymblAuthLayer>>,
}

#[derive(Default)]
struct State {
    calls: Vec<Seconds>,
    tokens: Vec<Issued>,
}

#[derive(Clone, Copy)]
struct Issued {
    at: Seconds,
    ends: Seconds,
}

/// What is known of a request outside the layer: an extension of it.
#[derive(Clone)]
pub struct Trace(pub Arc<Traced>);

pub struct Traced {
    pub path: usize,
    pub bad: bool,
    /// The length of its body.
    pub length: usize,
    pub attempts: AtomicU32,
    /// It is being sent again.
    pub again: Notify,
}

impl World {
    pub fn new(trouble: Trouble) -> Arc<Self> {
        Arc::new(Self {
            zero: Instant::now() + Duration::from_secs_f64(trouble.known_for),
            wall_zero: SystemTime::now() + Duration::from_secs_f64(trouble.known_for),
            trouble,
            state: Mutex::default(),
            broken: AtomicUsize::new(0),
            layer: Mutex::default(),
        })
    }

    pub fn now(&self) -> Seconds {
        let now = Instant::now();
        let after = now.saturating_duration_since(self.zero);
        let before = self.zero.saturating_duration_since(now);
        after.as_secs_f64() - before.as_secs_f64()
    }

    pub fn instant(&self, at: Seconds) -> Instant {
        let by = Duration::from_secs_f64(at.abs());
        if at < 0.0 {
            self.zero - by
        } else {
            self.zero + by
        }
    }

    pub fn calls(&self) -> Vec<Seconds> {
        self.state().calls.clone()
    }

    /// A layer of its own for each process.
    pub fn layer(self: &Arc<Self>) -> SymblAuthLayer {
        let world = Arc::clone(self);
        let builder = if self.trouble.endpoint {
            let client = service_fn(move |_: Request<Full<Bytes>>| Arc::clone(&world).endpoint());
            SymblAuthLayer::builder(FetchToken::with_client(
                Credentials::new("id", "secret"),
                client,
            ))
        } else {
            let service = move |_: TokenRequest| {
                let world = Arc::clone(&world);
                async move { world.token().await }
            };
            SymblAuthLayer::builder(service_fn(service))
        };
        let world = Arc::clone(self);
        let mut builder = builder
            .replay_limit(REPLAY_LIMIT)
            .wall_clock(move || world.wall());
        if let Some(margin) = self.trouble.margin {
            builder = builder.refresh_margin(Duration::from_secs_f64(margin));
        }
        let layer = builder.build();
        *self.layer.lock().unwrap() = Some(layer.clone());
        layer
    }

    /// The layer is gone with the last process; a world that holds it would keep both.
    pub fn forget_layer(&self) {
        self.layer.lock().unwrap().take();
    }

    fn wall(&self) -> SystemTime {
        let shown = (self.trouble.wall)(self.now());
        let by = Duration::from_secs_f64(shown.abs());
        if shown < 0.0 {
            self.wall_zero - by
        } else {
            self.wall_zero + by
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A reply may be to panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new token, or of the newest.
    fn hand_out(&self, new: bool, life: Seconds) -> usize {
        let at = self.now();
        let ends = at + life;
        let mut state = self.state();
        if new || state.tokens.is_empty() {
            state.tokens.push(Issued { at, ends });
        }
        state.tokens.len()
    }

    async fn token(&self) -> Result<AccessToken, TokenError> {
        let at = self.now();
        let number = {
            let mut state = self.state();
            state.calls.push(at);
            state.calls.len()
        };
        sleep(Duration::from_secs_f64(FETCH)).await;
        let reply = (self.trouble.issuer)(&Call { at, number });
        let down = TokenError::new(TokenErrorKind::Unavailable, "down");
        let (new, life) = match reply {
            Reply::New(life) => (true, life),
            Reply::Again(life) => (false, life),
            Reply::Fails => return Err(down),
            Reply::RetryAfter(delay) => {
                return Err(down.with_retry_after(Duration::from_secs(delay)));
            }
            Reply::Hangs => pending().await,
            Reply::Panics => panic!("as the script says"),
            Reply::CallsTheLayer => {
                let layer = self.layer.lock().unwrap().clone();
                let _ = layer.unwrap().token().await;
                (true, DAY)
            }
        };
        let secret = format!("token-{}", self.hand_out(new, life));
        Ok(AccessToken::new(secret, Duration::from_secs_f64(life)).unwrap())
    }

    /// The same over HTTP.
    async fn endpoint(self: Arc<Self>) -> Result<Response<Full<Bytes>>, Infallible> {
        let response = match self.token().await {
            Ok(token) => {
                let secret = token.expose_secret();
                let life = token.expires_in().as_secs_f64();
                let body = format!(r#"{{"accessToken":"{secret}","expiresIn":{life}}}"#);
                Response::new(Full::from(body))
            }
            Err(error) => {
                let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
                let response = match error.retry_after() {
                    Some(delay) => response.header("retry-after", delay.as_secs()),
                    None => response,
                };
                response.body(Full::default()).unwrap()
            }
        };
        Ok(response)
    }

    fn judge(&self, trace: &Traced, token: &str) -> bool {
        let number = token.strip_prefix("Bearer token-");
        let number: usize = number.and_then(|it| it.parse().ok()).unwrap();
        let state = self.state();
        let Issued { at: issued, ends } = state.tokens[number - 1];
        let seen = Seen {
            at: self.now(),
            path: trace.path,
            token: number,
            issued,
            ends,
            newest: state.tokens.len(),
            roll: fastrand::f64(),
        };
        drop(state);
        !trace.bad && (self.trouble.api)(&seen)
    }
}

// === API ===

/// Each instance must have been made ready before it is called.
pub struct Api {
    world: Arc<World>,
    ready: bool,
}

impl Api {
    pub fn new(world: Arc<World>) -> Self {
        let ready = false;
        Self { world, ready }
    }
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.world))
    }
}

impl Service<Request<ReplayBody<Payload>>> for Api {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<Payload>>) -> Self::Future {
        assert!(self.ready, "called an instance that was not made ready");
        self.ready = false;
        let world = Arc::clone(&self.world);
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            let Trace(trace) = parts.extensions.get::<Trace>().unwrap().clone();
            if trace.attempts.fetch_add(1, Relaxed) == 1 {
                trace.again.notify_one();
            }
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                length += frame?.data_ref().map_or(0, Bytes::len);
            }
            if length != trace.length {
                world.broken.fetch_add(1, Relaxed);
            }
            let token = parts.headers["authorization"].to_str()?;
            let accepted = world.judge(&trace, token);
            sleep(Duration::from_secs_f64(LATENCY)).await;
            let mut response = Response::new(());
            if !accepted {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        })
    }
}
