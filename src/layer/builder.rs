//! Settings of a layer.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode};

use super::{Auth, Placement, SymblAuthLayer, auth::RejectedWhen};
use crate::{
    Origin, telemetry,
    token::{
        cache::{Config, TokenCache},
        clock::Clock,
        fetching::Fetch,
    },
};

/// Builds a [`SymblAuthLayer`]; made by [`SymblAuthLayer::builder`].
#[must_use = "a builder does nothing until it is built"]
#[derive(Clone)]
pub struct Builder {
    fetch: Fetch,
    origins: Vec<Origin>,
    placement: Placement,
    margin: Option<Duration>,
    replay_limit: usize,
    rejected_when: Option<RejectedWhen>,
    clock: Clock,
}

impl Builder {
    pub(super) fn new(fetch: Fetch) -> Self {
        Self {
            fetch,
            origins: Origin::symbl().into(),
            placement: Placement::default(),
            margin: None,
            replay_limit: 1 << 20,
            rejected_when: None,
            clock: Clock::default(),
        }
    }

    /// The only origins that are sent the token, in place of the default list: `https://api.symbl.ai`
    /// and `https://api-labs.symbl.ai`. Requests to any other pass through untouched.
    ///
    /// A request whose URI has no host, as those of tonic's clients, is sent the token as well, unless a `Host` header names
    /// another host: it goes where the wrapped service leads. So wrap only services that lead to these origins.
    pub fn origins(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.origins = origins.into_iter().collect();
        self
    }

    /// As [`origins`](Self::origins), of anything that can be made an origin of, such as a string.
    ///
    /// ```
    /// # use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};
    /// # let tokens = tower::service_fn(|_: TokenRequest| async {
    /// #     AccessToken::new("token", std::time::Duration::from_secs(60))
    /// # });
    /// let layer = SymblAuthLayer::builder(tokens)
    ///     .try_origins(["https://api.example", "https://uploads.example:8443"])?
    ///     .build();
    /// # Ok::<(), tower_symbl_auth::InvalidOrigin>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidOrigin`](crate::InvalidOrigin) if one of them could never match a request.
    pub fn try_origins<O>(self, origins: impl IntoIterator<Item = O>) -> Result<Self, O::Error>
    where
        O: TryInto<Origin>,
    {
        let origins: Vec<_> = origins
            .into_iter()
            .map(O::try_into)
            .collect::<Result<_, _>>()?;
        Ok(self.origins(origins))
    }

    /// What counts as a rejection of the token, besides status 401 and the gRPC status 16: for an API that
    /// answers 403, or redirects to a login page. Such a response is treated like a 401: another token is
    /// tried, once.
    ///
    /// ```
    /// # use http::{StatusCode, header::LOCATION};
    /// # use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};
    /// # let tokens = tower::service_fn(|_: TokenRequest| async {
    /// #     AccessToken::new("token", std::time::Duration::from_secs(60))
    /// # });
    /// let layer = SymblAuthLayer::builder(tokens)
    ///     .rejected_when(|status, headers| {
    ///         status == StatusCode::FORBIDDEN
    ///             || status.is_redirection()
    ///                 && headers.get(LOCATION).is_some_and(|to| to.as_bytes().starts_with(b"/login"))
    ///     })
    ///     .build();
    /// ```
    ///
    /// It may be asked more than once about one answer.
    ///
    /// # Panics
    ///
    /// Should it panic, so does the response future of the request, and of no other.
    pub fn rejected_when(
        mut self,
        is_rejection: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rejected_when = Some(Arc::new(is_rejection));
        self
    }

    /// Which header carries the token. Default: [`Placement::Bearer`].
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// How long before its expiry a token is refreshed, by the first request from then on. Default: an hour.
    ///
    /// Of a token's lifetime half is used at most, so one of less than two hours is refreshed halfway. Up to 20 % of that is
    /// then added at random, so that many processes do not refresh at once.
    pub fn refresh_margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// How many bytes of a streamed body are kept, so that the request can be sent again. Default: 1 MiB for each request.
    ///
    /// They are kept until the response begins. Large frames of `Bytes` are not copied. A 401 to a request whose
    /// body is longer is handed back. A body that is in memory whole needs no keeping, and has no limit.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// Reads the wall clock from here: for tests, which can pause tokio's clock but not the system's.
    pub fn wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(now);
        self
    }

    /// Shares the token with other processes through a store: short for
    /// [`Shared`](crate::store::Shared) around the token service. Default: none.
    #[cfg(feature = "store")]
    pub fn store(
        mut self,
        store: impl crate::store::TokenStore,
        key: crate::store::SealingKey,
    ) -> Self {
        let fetch = self.fetch;
        let service = tower::service_fn(move |request| {
            let fetched = fetch(request);
            async move { Ok::<_, crate::TokenError>(fetched.await?.token) }
        });
        self.fetch = crate::token::fetching::erase(crate::store::Shared::new(service, store, key));
        self
    }

    /// The layer. Nothing is fetched before the first request needs a token.
    #[must_use]
    pub fn build(self) -> SymblAuthLayer {
        let cache = TokenCache::new(Config {
            fetch: self.fetch,
            header: self.placement.header(),
            margin: self.margin,
            clock: self.clock,
        });
        SymblAuthLayer {
            auth: Arc::new(Auth {
                cache,
                origins: self.origins.into(),
                placement: self.placement,
                replay_limit: self.replay_limit,
                rejected_when: self.rejected_when,
                unlisted: telemetry::Unlisted::default(),
                #[cfg(feature = "reqwest-middleware")]
                led_away: telemetry::LedAway::default(),
            }),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("origins", &self.origins)
            .field("placement", &self.placement)
            .field("refresh_margin", &self.margin)
            .field("replay_limit", &self.replay_limit)
            .finish_non_exhaustive()
    }
}
