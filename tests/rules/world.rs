//! A layer with its token service and its API, whose answers a test sets.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, StatusCode};
use tokio::time::{advance, sleep};
use tower_symbl_auth::{AccessToken, Builder, InvalidToken, NotRetried, SymblAuthLayer};

use crate::support::*;

type Judge = dyn Fn(&str, usize) -> u16 + Send + Sync;

/// The API answers each request as `answers` says, by its path and the number of its token.
#[derive(Clone)]
pub struct World {
    pub issuer: Issuer,
    pub layer: SymblAuthLayer,
    pub api: Api<Upload>,
    judge: Arc<Mutex<Arc<Judge>>>,
    delay: Arc<Mutex<Duration>>,
    told: Arc<Mutex<usize>>,
}

/// What a caller got.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub why: Option<NotRetried>,
}

impl World {
    /// A new token each time, at once, good for long.
    pub fn new() -> Self {
        Self::with(scripted(|call| (call, Duration::ZERO)), |builder| builder)
    }

    pub fn with(issuer: Issuer, settings: impl FnOnce(Builder) -> Builder) -> Self {
        let judge: Arc<Judge> = Arc::new(|_, _| 200);
        let judge = Arc::new(Mutex::new(judge));
        let delay: Arc<Mutex<Duration>> = Arc::default();
        let (judges, delays) = (Arc::clone(&judge), Arc::clone(&delay));
        let api = Api::new(move |request: ApiRequest<Upload>| {
            let judge = Arc::clone(&judges.lock().unwrap());
            let status = judge(request.uri().path(), number(token_of(request.headers())));
            let delay = *delays.lock().unwrap();
            async move {
                pause(delay).await;
                Ok(answer(StatusCode::from_u16(status)?))
            }
        });
        Self {
            layer: settings(issuer.builder()).build(),
            issuer,
            api,
            judge,
            delay,
            told: Arc::default(),
        }
    }

    /// How the API answers from now on, by path and number of the token.
    pub fn answers(&self, judge: impl Fn(&str, usize) -> u16 + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Arc::new(judge);
    }

    /// Only these tokens are accepted from now on, but never on a path that begins with `/bad`.
    pub fn accepts(&self, tokens: &[usize]) {
        let tokens = tokens.to_vec();
        self.answers(move |path, token| {
            match !path.starts_with("/bad") && tokens.contains(&token) {
                true => 200,
                false => 401,
            }
        });
    }

    /// How long the API takes to answer from now on.
    pub fn delays(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    /// A request that can be sent again.
    pub async fn get(&self, path: &str) -> Got {
        self.send(path, 0).await
    }

    /// A request that is known to be over the replay limit.
    pub async fn upload(&self, path: &str) -> Got {
        self.send(path, 2 << 20).await
    }

    /// A request that is sent now, and never answered.
    pub async fn hang(&self, path: &str) {
        let delay = *self.delay.lock().unwrap();
        self.delays(3650 * DAY);
        tokio::spawn(self.send(path, 0));
        settle().await;
        self.delays(delay);
    }

    fn send(&self, path: &str, length: usize) -> impl Future<Output = Got> + use<> {
        let uri = format!("https://api.symbl.ai{path}");
        let request = Request::post(uri).body(Upload::new(length)).unwrap();
        let (layer, api) = (self.layer.clone(), self.api.clone());
        async move {
            let response = send(&layer, &api, request).await.unwrap();
            settle().await;
            Got {
                status: response.status().as_u16(),
                why: response.extensions().get().cloned(),
            }
        }
    }

    /// The numbers of the tokens that requests were sent with since this was last asked.
    pub fn sent(&self) -> Vec<usize> {
        let tokens = self.api.tokens();
        let mut told = self.told.lock().unwrap();
        let new = tokens[*told..].iter().map(|token| number(token)).collect();
        *told = tokens.len();
        new
    }

    /// The number of the token that is served.
    pub async fn served(&self) -> usize {
        number(self.layer.token().await.unwrap().expose_secret())
    }

    /// How many tokens have been fetched.
    pub fn fetches(&self) -> usize {
        self.issuer.calls()
    }

    /// A world in which the API has accepted the first token, which is three seconds old.
    pub async fn with_a_proven_token() -> Self {
        let world = Self::new();
        world.prove().await;
        world
    }

    /// A world in which the API has accepted the first token, which is good for another 500 s, and the
    /// second has just been fetched ahead and not been tried yet.
    pub async fn with_a_candidate() -> Self {
        let world = Self::with(third_brings(3), |builder| builder);
        world.bring_the_candidate().await;
        world
    }

    /// See [`Self::with_a_candidate`].
    pub async fn bring_the_candidate(&self) {
        self.prove().await;
        advance(500 * SECOND).await;
        layer_in_use(&self.layer).await;
        assert_eq!((self.fetches(), self.served().await), (2, 1));
    }

    /// Has the API accept the served token, three seconds ago and now.
    pub async fn prove(&self) {
        self.get("/good").await.accepted();
        advance(3 * SECOND).await;
        self.get("/good").await.accepted();
        self.sent();
    }
}

impl Got {
    /// It was sent again or not, and accepted.
    #[track_caller]
    pub fn accepted(&self) {
        assert!(self.status == 200 && self.why.is_none(), "{self:?}");
    }

    /// Its 401 was handed back, and this is why.
    #[track_caller]
    pub fn because(&self, is: fn(&NotRetried) -> bool) {
        let why = self.why.as_ref();
        assert!(self.status == 401 && why.is_some_and(is), "{self:?}");
    }
}

/// Nothing at all if it is zero: tokio's timers round up.
pub async fn pause(delay: Duration) {
    if delay > Duration::ZERO {
        sleep(delay).await;
    }
}

/// The token of that number, good for thirty days. Each ends later than the one before, though no time may
/// pass in between.
pub fn token(number: usize) -> Result<AccessToken, InvalidToken> {
    let lifetime = 30 * DAY + number as u32 * 10 * SECOND;
    AccessToken::new(format!("token-{number}"), lifetime)
}

/// A token service whose nth answer is the token of that number, after that delay; 0 for a failure.
pub fn scripted(script: impl Fn(usize) -> (usize, Duration) + Send + Sync + 'static) -> Issuer {
    Issuer::new(move |call| {
        let (number, delay) = script(call);
        async move {
            pause(delay).await;
            match number {
                0 => Err("down".into()),
                _ => Ok(token(number)?),
            }
        }
    })
}

/// Token 1, which is good for 1,003 s, then 2, the one asked for, and 4, 5 and so on, which are good for
/// long.
pub fn third_brings(third: usize) -> Issuer {
    Issuer::new(move |call| {
        let (number, lifetime) = match call {
            1 => (1, 1003 * SECOND),
            3 => (third, 30 * DAY),
            _ => (call, 30 * DAY),
        };
        async move { Ok(AccessToken::new(format!("token-{number}"), lifetime)?) }
    })
}
