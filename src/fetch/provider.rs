//! Where the credentials of a token request come from.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use tower::BoxError;

use crate::Credentials;

type AskProvider = dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync;

#[derive(Clone)]
pub(super) enum Provider {
    /// The same for ever.
    Fixed(Credentials),
    /// Asked for before every token request, since they rotate.
    #[cfg_attr(not(feature = "client"), allow(dead_code))]
    Asked(Arc<AskProvider>),
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(credentials) => credentials.fmt(f),
            Self::Asked(_) => f.write_str("Provider"),
        }
    }
}
