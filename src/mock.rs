//! A stand-in for Symbl.ai: a real HTTP server on loopback, for examples and tests. Feature `mock`.
//!
//! It hands out tokens and checks them as the real service is known to, and answers the requests that
//! its documentation shows, over HTTP/1.1 and HTTP/2 (with prior knowledge) on one port:
//!
//! | request | answer |
//! |---|---|
//! | `POST /oauth2/token:generate` | 200 and a token; 401 for other credentials, 400 for what is no token request |
//! | `POST /v1/process/text` | 201 `{"conversationId", "jobId"}`: what is posted can be read back |
//! | `POST /v1/process/audio`, `/v1/process/video` (`?name=`) | the same; 411 without `Content-Length` |
//! | `GET /v1/job/{id}` | `in_progress` the first time, then `completed` |
//! | `GET /v1/conversations/{id}`, and its `/messages`, `/topics` | what was posted; of an upload, its length |
//! | `DELETE /v1/conversations/{id}` | 200, and it is gone |
//! | `POST /v1/manage/tracker` | 200 `{"tracker"}`; 409 if there is one of that name |
//! | WebSockets at `/v1/streaming/{id}`, `/v1/subscribe/{id}`, `/v1/realtime/insights/{id}`, `/session/subscribe/{id}` | text is echoed as `{"type":"message","message":{"text"}}`, `__PING__` is answered `__PONG__` |
//! | any of these without a good token | 401 |
//! | anything else | 404 |
//!
//! A good token is one of its own, neither revoked nor expired, in `Authorization: Bearer`, in `x-api-key`, or,
//! as Symbl's JavaScript SDK has it, as the subprotocol of a WebSocket. Errors are `{"message"}`.
//! [`next_token_responses`](MockSymbl::next_token_responses) and
//! [`next_api_responses`](MockSymbl::next_api_responses) have it answer otherwise.
//!
//! ```
//! use http_body_util::Empty;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{Layer, ServiceExt};
//! use tower_symbl_auth::mock::MockSymbl;
//! # use bytes::Bytes;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let symbl = MockSymbl::start().await?;
//! let client = symbl.layer().layer(Client::builder(TokioExecutor::new()).build_http());
//!
//! let job = http::Request::get(symbl.url("/v1/job/1")).body(Empty::<Bytes>::new())?;
//! symbl.revoke_tokens();
//! assert_eq!(client.clone().oneshot(job.clone()).await?.status(), 404);
//! symbl.revoke_tokens();
//! assert_eq!(client.oneshot(job).await?.status(), 404); // not 401
//!
//! assert_eq!((symbl.token_requests(), symbl.rejections()), (2, 1));
//! # Ok::<(), tower::BoxError>(()) }).unwrap();
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::{Credentials, FetchToken, Origin, SymblAuthLayer};
use state::MockState;

mod api;
mod server;
mod state;
mod streaming;
mod tokens;

const APP_ID: &str = "mock-app-id";
const APP_SECRET: &str = "mock-app-secret";
const TOKEN_PATH: &str = "/oauth2/token:generate";

/// How the stand-in answers when it is told to; see [`MockSymbl::next_token_responses`] and
/// [`MockSymbl::next_api_responses`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// That status, with a message.
    Status(StatusCode),
    /// That status, with a message and `Retry-After` in whole seconds, rounded up.
    RetryAfter(StatusCode, Duration),
    /// Status 200, with that body.
    Body(String),
    /// As usual, after that time.
    Delay(Duration),
    /// Nothing, ever.
    Hang,
    /// The connection is closed without an answer; over HTTP/2 the request's stream is.
    Disconnect,
}

/// A [`Reply`] to a token request.
pub type TokenReply = Reply;

/// The stand-in server. Dropping it ends it, with all its connections.
pub struct MockSymbl {
    address: SocketAddr,
    shared: Arc<MockState>,
    server: AbortHandle,
}

impl MockSymbl {
    /// Starts a server on 127.0.0.1, on a port that the system chooses.
    ///
    /// # Errors
    ///
    /// That of binding the port.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(MockState::default());
        let server = tokio::spawn(server::run(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// The credentials it gives tokens for.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials::new(APP_ID, APP_SECRET)
    }

    /// Where it is: `http://127.0.0.1:…`.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let origin = format!("http://{}", self.address);
        origin.parse().expect("an address makes an origin")
    }

    /// The URI of a path (and query) on it.
    ///
    /// # Panics
    ///
    /// If the path is none.
    #[must_use]
    pub fn url(&self, path: &str) -> Uri {
        assert!(path.starts_with('/'), "a path starts with a slash: {path}");
        let uri = format!("http://{}{path}", self.address);
        uri.parse().expect("it is asked for a path")
    }

    /// The URI of its token endpoint.
    #[must_use]
    pub fn token_endpoint(&self) -> Uri {
        self.url(TOKEN_PATH)
    }

    /// A layer with all defaults that gets its tokens from here, and sends them here and nowhere else.
    #[must_use]
    pub fn layer(&self) -> SymblAuthLayer {
        SymblAuthLayer::builder(self.fetch_token())
            .origins([self.origin()])
            .build()
    }

    /// The token service of [`layer`](Self::layer), for a layer with settings of its own.
    pub fn fetch_token(&self) -> FetchToken<Client<HttpConnector, Full<Bytes>>> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        FetchToken::with_client(self.credentials(), client)
            .endpoint(self.token_endpoint())
            .expect("it is on loopback")
    }

    /// How long new tokens are good for. Default: 24 h.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.tokens().lifetime = lifetime;
    }

    /// Whether token requests are answered with the same token, and what remains of its lifetime, until
    /// near its expiry, as Symbl does. Default: yes.
    pub fn cache_tokens(&self, cache: bool) {
        self.shared.tokens().cache = cache;
    }

    /// How near to a cached token's expiry a new one is handed out. Default: 60 s; Symbl's is not
    /// documented.
    pub fn set_cache_margin(&self, margin: Duration) {
        self.shared.tokens().cache_margin = margin;
    }

    /// Refuses all tokens handed out so far. The next token request brings a new one.
    pub fn revoke_tokens(&self) {
        self.shared.tokens().revoke();
    }

    /// How the next token requests are answered, one each, after those it has been told before; those after
    /// them are answered with tokens.
    pub fn next_token_responses<I>(&self, replies: I)
    where
        I: IntoIterator<Item = Reply>,
        I::IntoIter: Send + 'static,
    {
        self.shared.script_tokens(replies.into_iter());
    }

    /// How the next requests to the API are answered, one each, whatever token they carry, after those it has
    /// been told before; those after them are answered as usual.
    ///
    /// The iterator may be endless. It is asked at each request, and not again once it has ended:
    ///
    /// ```
    /// use std::{iter, sync::{Arc, atomic::{AtomicBool, Ordering}}};
    /// use tower_symbl_auth::mock::{MockSymbl, Reply};
    /// # use bytes::Bytes;
    /// # use http_body_util::Empty;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # use tower::{Layer, ServiceExt};
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let symbl = MockSymbl::start().await?;
    /// # let client = symbl.layer().layer(Client::builder(TokioExecutor::new()).build_http());
    /// # let job = http::Request::get(symbl.url("/v1/job/1")).body(Empty::<Bytes>::new())?;
    /// # let status = async || Ok::<_, tower::BoxError>(client.clone().oneshot(job.clone()).await?.status());
    /// symbl.next_api_responses([Reply::Status(http::StatusCode::TOO_MANY_REQUESTS)]);
    /// # assert_eq!(status().await?, 429);
    ///
    /// let refuses = Arc::new(AtomicBool::new(true)); // until it is set otherwise
    /// let lasting = Arc::clone(&refuses);
    /// symbl.next_api_responses(iter::from_fn(move || {
    ///     let refuses = lasting.load(Ordering::Relaxed);
    ///     refuses.then_some(Reply::Status(http::StatusCode::UNAUTHORIZED))
    /// }));
    /// # assert_eq!((status().await?.as_u16(), status().await?.as_u16()), (401, 401));
    /// # refuses.store(false, Ordering::Relaxed);
    /// # assert_eq!(status().await?, 404);
    /// # Ok::<(), tower::BoxError>(()) }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn next_api_responses<I>(&self, replies: I)
    where
        I: IntoIterator<Item = Reply>,
        I::IntoIter: Send + 'static,
    {
        self.shared.script_api(replies.into_iter());
    }

    /// How many token requests there have been.
    #[must_use]
    pub fn token_requests(&self) -> usize {
        self.shared.counts().token_requests
    }

    /// How many requests there have been to the API, those it rejected included.
    #[must_use]
    pub fn api_requests(&self) -> usize {
        self.shared.counts().api_requests
    }

    /// How many requests the API has answered with 401.
    #[must_use]
    pub fn rejections(&self) -> usize {
        self.shared.counts().rejections
    }
}

impl Drop for MockSymbl {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl fmt::Debug for MockSymbl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockSymbl")
            .field("address", &self.address)
            .field("counts", &self.shared.counts())
            .finish()
    }
}
