//! A stand-in for Symbl.ai: a real HTTP server on loopback, for examples and tests. Feature `mock`.
//!
//! It hands out tokens and checks them as the real service is known to, and answers the requests that
//! its documentation shows, over HTTP/1.1 and HTTP/2 (with prior knowledge) on one port. At
//! `/v1/streaming/{id}` and `/v1/subscribe/{id}` it opens WebSockets, and echoes their text messages.
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
use state::Shared;

mod api;
mod server;
mod state;
mod streaming;
mod tokens;

const APP_ID: &str = "mock-app-id";
const APP_SECRET: &str = "mock-app-secret";
const TOKEN_PATH: &str = "/oauth2/token:generate";

/// How the stand-in answers a token request, when it is told to; see
/// [`MockSymbl::next_token_responses`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenReply {
    /// That status, with a message.
    Status(StatusCode),
    /// That status, with a message and `Retry-After` in whole seconds.
    RetryAfter(StatusCode, Duration),
    /// Status 200, with that body.
    Body(String),
    /// A token, after that time.
    Delay(Duration),
    /// Nothing, ever.
    Hang,
    /// The connection is closed without an answer.
    Disconnect,
}

/// The stand-in server. Dropping it ends it, with all its connections.
pub struct MockSymbl {
    address: SocketAddr,
    shared: Arc<Shared>,
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
        let shared = Arc::new(Shared::default());
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

    /// How the next token requests are answered, one each; those after them are answered with tokens.
    pub fn next_token_responses(&self, replies: impl IntoIterator<Item = TokenReply>) {
        self.shared.tokens().script.extend(replies);
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
