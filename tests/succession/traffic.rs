//! Who asks: how often, on how many paths, with which bodies; and the playing of a trouble before them.

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::AtomicU32},
    time::Duration,
};

use fastrand::Rng;
use futures::future::{Either, select};
use http::{Request, Response, StatusCode, Uri};
use tokio::{
    sync::Notify,
    time::{sleep, sleep_until},
};
use tower::{BoxError, Layer, ServiceExt};
use tower_symbl_auth::{NotRetried, SymblAuth};

use crate::{
    bodies::{Bodies, Payload},
    measured::{Measured, Refused},
    trouble::{LATENCY, Seconds, Trouble},
    world::{Api, Trace, Traced, World},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    pub paths: usize,
    /// Requests a second.
    pub rate: f64,
    pub bodies: Bodies,
    pub poisson: bool,
}

impl Traffic {
    /// All there are, the least first.
    pub fn all() -> impl Iterator<Item = Self> {
        let bodies = [Bodies::Replayable, Bodies::Known, Bodies::Unknown];
        let rates = [1.0, 20.0, 300.0].into_iter();
        rates.flat_map(move |rate| {
            [1, 7, 300].into_iter().flat_map(move |paths| {
                bodies.into_iter().flat_map(move |bodies| {
                    [false, true].map(|poisson| Self {
                        paths,
                        rate,
                        bodies,
                        poisson,
                    })
                })
            })
        })
    }

    pub fn replayable(&self) -> bool {
        self.bodies == Bodies::Replayable
    }

    /// How many requests come in so many seconds, at most.
    pub fn in_seconds(&self, seconds: Seconds) -> usize {
        let mean = self.rate * seconds;
        let more = if self.poisson {
            3.0 + 5.0 * mean.sqrt()
        } else {
            1.0
        };
        (mean + more) as usize
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            paths,
            rate,
            bodies,
            poisson,
        } = self;
        let spacing = if *poisson { "Poisson" } else { "even" };
        let bodies = format!("{bodies:?}").to_lowercase();
        write!(f, "{paths:>3} paths {rate:>3}/s {bodies:<10} {spacing:<7}")
    }
}

/// When the next request comes, and on which path.
struct Arrivals {
    traffic: Traffic,
    rng: Rng,
    count: usize,
    /// Of good and of bad paths; even traffic takes them in turns.
    share_of_bad: f64,
    due_to_bad: f64,
}

impl Arrivals {
    fn gap(&mut self, processes: usize) -> Seconds {
        let mean = 1.0 / (self.traffic.rate * processes as f64);
        match self.traffic.poisson {
            true => -mean * (1.0 - self.rng.f64()).ln(),
            false => mean,
        }
    }

    fn next(&mut self, trouble: &Trouble) -> (usize, bool) {
        self.count += 1;
        self.due_to_bad += self.share_of_bad;
        let bad = match self.traffic.poisson {
            true => self.rng.f64() < self.share_of_bad,
            false => self.due_to_bad >= 1.0,
        };
        if bad {
            self.due_to_bad -= 1.0;
        }
        let paths = if bad { trouble.bad } else { self.traffic.paths };
        // At random, or a revocation a second would meet the same path each time, and no other word of it.
        let path = match trouble.ids {
            true => self.count,
            false => self.rng.usize(..paths),
        };
        (path, bad)
    }
}

/// Plays a trouble before that traffic.
pub async fn play(trouble: Trouble, traffic: Traffic, seed: u64) -> Measured {
    // The layer's jitter comes from here, too.
    fastrand::seed(seed);
    let world = World::new(trouble);
    let trouble = &world.trouble;
    let layers: Vec<_> = (0..trouble.processes).map(|_| world.layer()).collect();
    let services: Vec<_> = (layers.iter())
        .map(|layer| layer.layer(Api::new(Arc::clone(&world))))
        .collect();
    let measured = Arc::new(Mutex::new(Measured::default()));
    #[cfg(feature = "tracing")]
    let warnings = crate::warnings::Warnings::listen();
    let bad = trouble.bad as f64;
    let mut arrivals = Arrivals {
        traffic,
        rng: Rng::with_seed(seed),
        count: 0,
        share_of_bad: match trouble.ids {
            true => 0.5,
            false => (bad / (bad + traffic.paths as f64)).min(0.5),
        },
        due_to_bad: 0.0,
    };
    for &at in &trouble.refreshes {
        let (world, layer) = (Arc::clone(&world), layers[0].clone());
        tokio::spawn(async move {
            sleep_until(world.instant(at)).await;
            let _ = layer.refresh().await;
        });
    }
    if trouble.known_for > 0.0 {
        for service in &services {
            let (request, _) = request(traffic.bodies, 0, false);
            service.clone().oneshot(request).await.unwrap();
        }
    }
    let mut at = -trouble.known_for.min(3.0);
    let begins = at;
    while at < trouble.lasts {
        if trouble.quiet.contains(&at) {
            at = trouble.quiet.end;
        }
        sleep_until(world.instant(at)).await;
        let (path, bad) = arrivals.next(trouble);
        let service = services[arrivals.count % services.len()].clone();
        measured.lock().unwrap().begins();
        tokio::spawn(one(
            Arc::clone(&world),
            service,
            request(traffic.bodies, path, bad),
            Arc::clone(&measured),
        ));
        at += arrivals.gap(services.len());
    }
    // Whatever still waits ends within the time that a fetch may take.
    sleep(Duration::from_secs(60)).await;
    world.forget_layer();
    let mut measured = std::mem::take(&mut *measured.lock().unwrap());
    let calls = world.calls().into_iter();
    measured.fetches = calls.filter(|at| *at >= begins).collect();
    measured.broken = world.broken.load(std::sync::atomic::Ordering::Relaxed);
    #[cfg(feature = "tracing")]
    {
        measured.warnings = Some(warnings.count());
    }
    measured
}

fn request(bodies: Bodies, path: usize, bad: bool) -> (Request<Payload>, Trace) {
    let kind = if bad { "bad" } else { "good" };
    let uri: Uri = format!("https://api.symbl.ai/v1/{kind}/{path}")
        .parse()
        .unwrap();
    let payload = Payload::new(bodies);
    let trace = Trace(Arc::new(Traced {
        path,
        bad,
        length: payload.left(),
        attempts: AtomicU32::new(0),
        again: Notify::new(),
    }));
    let request = Request::post(uri).extension(trace.clone());
    (request.body(payload).unwrap(), trace)
}

/// Why a response is no success.
fn why_refused(response: Result<Response<()>, BoxError>) -> Option<String> {
    match response {
        Err(error) => Some(format!("error: {error}")),
        Ok(response) if response.status() == StatusCode::UNAUTHORIZED => {
            let why: Option<&NotRetried> = response.extensions().get();
            Some(why.map_or("401 without a word".to_owned(), |why| {
                format!("{why:?}").split('(').next().unwrap().to_owned()
            }))
        }
        Ok(_) => None,
    }
}

/// One request, from its caller's side.
async fn one(
    world: Arc<World>,
    service: SymblAuth<Api>,
    (request, Trace(trace)): (Request<Payload>, Trace),
    measured: Arc<Mutex<Measured>>,
) {
    let sent = world.now();
    let response = service.oneshot(request);
    let response = if world.trouble.hang_up {
        let again = std::pin::pin!(trace.again.notified());
        match select(Box::pin(response), again).await {
            Either::Left((response, _)) => Some(response),
            Either::Right(_) => None,
        }
    } else {
        Some(response.await)
    };
    let at = world.now();
    let attempts = trace.attempts.load(std::sync::atomic::Ordering::Relaxed);
    let waited = at - sent - LATENCY * f64::from(attempts);
    let why = response.and_then(why_refused);
    let mut measured = measured.lock().unwrap();
    measured.ended(waited);
    if let Some(why) = why {
        measured.refused(
            trace.bad,
            Refused {
                path: trace.path,
                at,
                why,
            },
        );
    }
}
