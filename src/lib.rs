//! Authenticates outgoing HTTP with Symbl.ai access tokens: a tower layer that fetches one token, shares
//! it, refreshes it ahead of its end, stamps every request, and sends once more what the API rejects.
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
//! # What it guarantees
//!
//! - While a token is live no request waits for one; a refresh that fails leaves it in service.
//! - With none, callers join one fetch, and its outcome goes to all of them.
//! - A 401 for one request never delays or fails another. One retry a request; what cannot be sent again
//!   is handed back with [`NotRetried`] among its extensions.
//! - The token is sent to the layer's origins and to no other; no secret is ever shown.
//! - Dropping any future at any point loses nothing.
//!
//! What no middleware can heal: an HTTP/1.1 server that hangs up on an upload it has not read, so that its
//! client sees a broken pipe and never the 401. A connector can: see `EarlyResponse` in [`integrations`].
//!
//! A tokio runtime with time enabled is needed wherever a token may have to be fetched.
//!
//! # Features
//!
//! `client` (default): the HTTP client of [`FetchToken`]. `ring` (default), `aws-lc-rs`: its crypto provider,
//! unless the process has a default. `reqwest`, `reqwest-middleware`: see [`integrations`].
//! `store`, `file-store` and `redis-store`: one token for a whole fleet, see [`store`].
//! `tracing` and `metrics`: see [`telemetry`]. `mock`: a stand-in server, for tests. `full`: all, on ring.
//!
#![doc = include_str!("clients.md")]
#![forbid(unsafe_code)]

mod credentials;
#[cfg(any(feature = "client", feature = "redis-store"))]
mod crypto;
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
