//! A tower layer that adds a Symbl.ai access token to the requests that your HTTP client sends.
//!
//! It fetches one token for all requests and replaces it before it ends. When the API answers 401, it fetches a new
//! one and sends the request again, once, body and all.
//!
//! ```no_run
//! # #[cfg(feature = "client")] {
//! use tower_symbl_auth::{Credentials, SymblAuthLayer};
//!
//! // SYMBL_APP_ID and SYMBL_APP_SECRET; nothing is fetched before the first request.
//! let layer = SymblAuthLayer::new(Credentials::from_env()?);
//! # }
//! # Ok::<(), tower_symbl_auth::CredentialsError>(())
//! ```
//!
//! A whole program for hyper-util, axum, tonic, reqwest and others is in [`clients`].
//!
//! # What it guarantees
//!
//! - While a token is live, requests do not wait, except after a 401. If no other token is known to work, they may then
//!   wait up to 1 s for a new one to become known. A request whose body is too long to be sent again waits up to 10 s for
//!   its fetch, before that. A refresh that fails leaves the token in use.
//! - Without a token, callers wait for one fetch, and its outcome goes to all of them.
//! - A 401 on one path does not delay or fail requests on others. (Where very many paths always answer 401, fetches reach
//!   a limit, and a revocation shows as 401s for up to 10 s.)
//! - A request is sent twice at most. If it cannot be sent again, its 401 is handed back, with [`NotRetried`] among the
//!   response's extensions.
//! - The layer adds the token to requests for its origins only. A URI without a host goes where the wrapped service leads,
//!   so it gets the token too, unless a `Host` header names another host. What a client beneath the layer does with
//!   the header is its own matter: see `reqwest_client` for reqwest, which follows redirects.
//! - No secret is in `Debug`, errors, spans or metrics.
//! - Dropping any future at any point loses nothing.
//!
//! A request starts the refresh; [`keep_fresh`](SymblAuthLayer::keep_fresh) does so without one.
//!
//! What no middleware can mend: an HTTP/1.1 server that hangs up on an upload it has not read. Its client sees a broken
//! pipe and never the 401. A connector can: see `EarlyResponse` in [`integrations`]. Nor a peer that hangs: put a timeout
//! around the layer.
//!
//! Tokens are fetched in tasks, so the layer needs a tokio runtime with time enabled.
//!
//! # Features
//!
//! `client` (default): the HTTP client of [`FetchToken`]. `ring` (default), `aws-lc-rs`: its crypto provider,
//! unless the process has a default. `reqwest`, `reqwest-middleware`: see [`integrations`].
//! `store`, `file-store` and `redis-store`: one token for a whole fleet, see [`store`].
//! `tracing` and `metrics`: see [`telemetry`]. `mock`: a stand-in server, for tests. `full`: all, on ring.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

// Its programs need all of the features.
#[cfg(all(doc, any(not(doctest), feature = "full")))]
#[doc = include_str!("clients.md")]
pub mod clients {}

mod credentials;
#[cfg(any(feature = "client", feature = "redis-store"))]
mod crypto;
mod deadline;
mod error;
mod fetch;
mod grpc_timeout;
pub mod integrations;
mod layer;
#[cfg(feature = "mock")]
pub mod mock;
mod not_retried;
mod origin;
mod replay;
mod rt;
#[cfg(feature = "store")]
pub mod store;
mod sync;
pub mod telemetry;
mod token;

pub use credentials::{Credentials, CredentialsError};
pub use error::{TokenError, TokenErrorKind};
#[cfg(feature = "client")]
pub use fetch::DefaultClient;
pub use fetch::{FetchToken, InvalidEndpoint};
pub use layer::{Builder, Placement, ResponseFuture, SkipAuth, SymblAuth, SymblAuthLayer};
pub use not_retried::NotRetried;
pub use origin::{InvalidOrigin, Origin};
pub use replay::ReplayBody;
pub use token::{AccessToken, FetchReason, InvalidToken, TokenRequest};

/// The README's programs are compiled, and the one that can be run is.
#[cfg(all(doctest, feature = "client", feature = "mock"))]
#[doc = include_str!("../README.md")]
struct Readme;
