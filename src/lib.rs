//! Authenticates outgoing HTTP with Symbl.ai access tokens.

mod credentials;
mod error;
mod origin;
mod token;

pub use credentials::{Credentials, CredentialsError};
pub use error::{TokenError, TokenErrorKind};
pub use origin::{InvalidOrigin, Origin};
pub use token::{AccessToken, InvalidToken};
