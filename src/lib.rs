//! Authenticates outgoing HTTP with Symbl.ai access tokens.
//!
#![doc = include_str!("clients.md")]
#![forbid(unsafe_code)]

mod credentials;
mod error;
mod fetch;
pub mod integrations;
mod layer;
#[cfg(feature = "mock")]
pub mod mock;
mod not_retried;
mod origin;
mod replay;
mod rt;
mod sync;
pub mod telemetry;
mod token;

pub use credentials::{Credentials, CredentialsError};
pub use error::{TokenError, TokenErrorKind};
#[cfg(feature = "client")]
pub use fetch::DefaultClient;
pub use fetch::{FetchToken, InvalidEndpoint};
pub use layer::{Builder, Placement, ResponseFuture, SymblAuth, SymblAuthLayer};
pub use not_retried::NotRetried;
pub use origin::{InvalidOrigin, Origin};
pub use replay::ReplayBody;
pub use token::{AccessToken, FetchReason, InvalidToken, TokenRequest};
