//! One request for a token.
//!
//! ```text
//!           ┌──────────────── another has it: 50–200 ms ◄────────────┐
//!           ▼                                                        │
//!   ─────► load ──► newer? ── no ──► lease ──► load ──► newer? ── no ─► at a limit? ── no ─► fetch, save, release
//!           │         │                ▲         │        │              │
//!           │        yes: that one     └─ taken  │       yes: that one   yes: the same again
//!           └─────────┴─ trouble, or 30 s are over ──────► fetch
//! ```
//!
//! For the first 25 s there is one name to look at. Should nothing have come by then, whoever has the
//! lease may be dead, and it lasts longer than those who wait have time: so they look at a second name as
//! well, under which one of them takes the lease and fetches, for all.

use std::{ops::Range, sync::Arc, time::Duration};

use secrecy::zeroize::Zeroizing;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service, ServiceExt};

use super::{
    aid::{Aid, Unaided},
    criteria::Criteria,
    envelope::Envelope,
    found::{Found, kept_for},
    key::random,
    lease::Lease,
    limits::FleetLimits,
};
use crate::{
    AccessToken, TokenRequest,
    telemetry::{self, StoreOutcome},
    token::clock::Moment,
};

const SECOND_NAME_AFTER: Duration = Duration::from_secs(25);
/// What is then left of a fetch's 35 s is enough for one attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const POLL_MILLIS: Range<u64> = 50..200;

pub(super) struct Turn<T> {
    service: T,
    aid: Arc<Aid>,
    request: TokenRequest,
    want: Criteria,
    /// Something stored was not used, and that has been told.
    told: bool,
}

/// What came of waiting.
enum WaitEnd {
    Taken(AccessToken),
    /// With what the counter of fetches for rejections was when the request began.
    Leased(Lease, u64),
}

impl<T> Turn<T>
where
    T: Service<TokenRequest, Response = AccessToken> + Send,
    T::Error: Into<BoxError> + Send,
    T::Future: Send,
{
    pub(super) fn new(service: T, aid: Arc<Aid>, request: TokenRequest) -> Self {
        let want = Criteria::new(&request, &aid.memory());
        Self {
            service,
            aid,
            request,
            want,
            told: false,
        }
    }

    pub(super) async fn run(mut self) -> Result<AccessToken, T::Error> {
        match self.wait().await {
            Ok(WaitEnd::Taken(token)) => Ok(token),
            Ok(WaitEnd::Leased(lease, asked)) => self.fetch_for_all(lease, asked).await,
            Err(Unaided) => self.fetch_alone().await,
        }
    }

    /// Until there is a token in the store, or a lease to fetch one.
    async fn wait(&mut self) -> Result<WaitEnd, Unaided> {
        let start = Instant::now();
        let owner = random().ok_or(Unaided)?;
        let names = self.aid.names();
        let mut asked = [None; 2];
        loop {
            let looked_at = match start.elapsed() < SECOND_NAME_AFTER {
                true => 1,
                false => 2,
            };
            for (name, asked) in names.iter().zip(&mut asked).take(looked_at) {
                let found = self.load(name).await?;
                let asked = *asked.get_or_insert(found.as_ref().map_or(0, |found| found.asked));
                if let Some(token) = self.taken(found.as_ref(), asked) {
                    return Ok(WaitEnd::Taken(token));
                }
                if let Some(lease) = self.aid.lease(name, &owner).await? {
                    return Ok(WaitEnd::Leased(lease, asked));
                }
            }
            if start.elapsed() >= LONGEST_WAIT {
                telemetry::store_trouble("lease", &"its holder has brought no token for 30 s");
                return Err(Unaided);
            }
            sleep(Duration::from_millis(fastrand::u64(POLL_MILLIS))).await;
        }
    }

    async fn fetch_for_all(mut self, lease: Lease, asked: u64) -> Result<AccessToken, T::Error> {
        let Ok(found) = self.load(lease.name()).await else {
            return self.fetch_alone().await;
        };
        let found = found.as_ref();
        if let Some(token) = self.taken(found, asked) {
            lease.release().await;
            return Ok(token);
        }
        let mut limits = found.map_or(FleetLimits::FULL, |found| found.limits);
        if self.want.is_limited() {
            match (limits.draw(), self.same_again(found)) {
                (Some(less), _) => limits = less,
                (None, Some(token)) => {
                    self.tell_limit();
                    lease.release().await;
                    return Ok(token);
                }
                (None, None) => {}
            }
        }
        match self.fetch().await {
            Ok(token) => {
                let token = self.share(token, found, limits, &lease, asked).await;
                lease.release().await;
                Ok(token)
            }
            Err(error) => {
                // What is left of the limits is to be known all the same.
                if let Some(found) = found.filter(|_| self.want.is_limited()) {
                    let envelope = found.sealed_again(limits.failed());
                    let _ = self.aid.save(&lease, &envelope).await;
                }
                lease.release().await;
                Err(error)
            }
        }
    }

    /// Saves a token for all. What comes back is the one to go on with: should the lease have run out
    /// meanwhile, that of whoever had it next.
    async fn share(
        &mut self,
        token: AccessToken,
        found: Option<&Found>,
        limits: FleetLimits,
        lease: &Lease,
        asked: u64,
    ) -> AccessToken {
        let highest = self.aid.memory().highest();
        let sequence = self.want.number(&token, found, highest);
        let envelope = Envelope {
            sequence,
            asked: found.map_or(0, |found| found.asked) + u64::from(self.want.asks_the_issuer()),
            kept: kept_for(&token),
            good: token.expires_in(),
            limits,
            confirmed: self.want.is_confirmed_by(&token, found),
            secret: Zeroizing::new(token.expose_secret().to_owned()),
        };
        match self.aid.save(lease, &envelope).await {
            Ok(true) => {
                self.aid.memory().hand(&token, sequence);
                telemetry::store(StoreOutcome::Saved);
                return token;
            }
            Ok(false) => {
                telemetry::store_trouble("save", &"the lease had run out");
                let found = self.load(lease.name()).await.ok().flatten();
                if let Some(token) = self.taken(found.as_ref(), asked) {
                    return token;
                }
            }
            Err(Unaided) => {}
        }
        self.hand_unsaved(&token);
        token
    }

    async fn fetch_alone(mut self) -> Result<AccessToken, T::Error> {
        let token = self.fetch().await?;
        self.hand_unsaved(&token);
        Ok(token)
    }

    fn hand_unsaved(&self, token: &AccessToken) {
        self.aid.memory().hand_unsaved(token);
        telemetry::store(StoreOutcome::Bypassed);
    }

    async fn fetch(&mut self) -> Result<AccessToken, T::Error> {
        let ready = self.service.ready().await?;
        let sent = Moment::now();
        let token = ready.call(self.request.clone()).await?;
        Ok(token.counted_from(sent))
    }

    /// What is stored under a name, if it can be used.
    async fn load(&mut self, name: &str) -> Result<Option<Found>, Unaided> {
        match self.aid.load(name).await? {
            Ok(found) => Ok(found),
            Err(why) => {
                if !self.told {
                    telemetry::store_ignored(&why);
                }
                self.told = true;
                Ok(None)
            }
        }
    }

    /// What was found, if it will do.
    fn taken(&self, found: Option<&Found>, asked: u64) -> Option<AccessToken> {
        let found = found.filter(|found| self.want.takes(found, asked))?;
        self.aid.memory().hand(&found.token, found.sequence);
        telemetry::store(StoreOutcome::Shared);
        Some(found.token.clone())
    }

    /// The newest token there is, as if the issuer had handed it out once more: what was found is no
    /// newer than the one to be replaced.
    fn same_again(&self, found: Option<&Found>) -> Option<AccessToken> {
        let replaced = self.want.replaced();
        let token = replaced.or(found.map(|found| &found.token))?;
        (!token.expires_in().is_zero()).then(|| token.clone())
    }

    fn tell_limit(&self) {
        telemetry::store(StoreOutcome::Limited);
        let tells = self.aid.memory().tells_limit();
        if tells {
            telemetry::store_limited();
        }
    }
}
