//! What a client gets done over real sockets, bare and with the layer: hyper-util's client to a hyper server
//! over loopback, the server on a thread and a runtime of its own.
//!
//! Short rounds of the one and the other take turns, for what else the machine does lasts longer than a
//! round: throughputs are compared round by round, and latencies over all rounds. The bare client sends a
//! fixed token, so that both put the same bytes on the wire. There are two bare clients: by how much the one differs
//! from the other is what such a comparison cannot tell (A/A). `-- ROUNDS` after `cargo bench --bench
//! end_to_end` sets how many rounds each has; two hundred, if it is left out.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_symbl_auth::{Origin, SymblAuthLayer};

mod common;

use common::{
    bars::{at_least, at_most, median},
    tokens::Tokens,
};

const ROUND: Duration = Duration::from_millis(50);
/// The layer has every third round, so that to it this is a second.
const SECOND: Duration = Duration::from_millis(333);
const MANY_STREAMS: u32 = 2_048;

#[derive(Clone, Copy, PartialEq)]
enum Meanwhile {
    Nothing,
    Refreshes,
    Revocations,
}

fn main() {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok());
    let rounds = rounds.unwrap_or(200);
    let tokens = Tokens::default();
    let address = serve(tokens.clone());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime starts");

    println!(
        "| protocol | in flight | meanwhile | stack | requests/s | p50, µs | p99, µs | p99.9, µs | not 200 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for http2 in [false, true] {
        for in_flight in [1, 64, 1_000] {
            let whiles = match in_flight {
                64 => &[
                    Meanwhile::Nothing,
                    Meanwhile::Refreshes,
                    Meanwhile::Revocations,
                ][..],
                _ => &[Meanwhile::Nothing],
            };
            for meanwhile in whiles {
                let case = Case {
                    http2,
                    in_flight,
                    meanwhile: *meanwhile,
                };
                let compared = case.compare(address, &tokens, rounds);
                let compared = runtime.block_on(compared);
                ratios.push((case, compared));
            }
        }
    }
    println!();
    for (case, compared) in ratios {
        if case.in_flight == 64 && case.meanwhile != Meanwhile::Revocations {
            let (name, Compared { rate, p99 }) = (case.name(), compared);
            println!(
                "{name}: A/A throughput {:.3}, p99 {:.3}",
                rate.of_bare, p99.of_bare
            );
            let least = thousandths(0.98 - rate.spread());
            at_least(&format!("{name}: throughput to bare"), rate.of_ours, least);
            let most = thousandths(1.05 + p99.spread());
            at_most(&format!("{name}: p99 to bare"), p99.of_ours, most);
        }
    }
}

fn thousandths(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

/// Against the first bare client.
struct Compared {
    rate: Ratios,
    p99: Ratios,
}

struct Ratios {
    /// The second bare client.
    of_bare: f64,
    of_ours: f64,
}

impl Ratios {
    /// What is no difference.
    fn spread(&self) -> f64 {
        (self.of_bare - 1.0).abs()
    }
}

// === one case ===

struct Case {
    http2: bool,
    in_flight: usize,
    meanwhile: Meanwhile,
}

impl Case {
    fn protocol(&self) -> &'static str {
        if self.http2 { "h2" } else { "h1" }
    }

    fn while_(&self) -> &'static str {
        match self.meanwhile {
            Meanwhile::Nothing => "nothing",
            Meanwhile::Refreshes => "a refresh a second",
            Meanwhile::Revocations => "a revocation a second",
        }
    }

    fn name(&self) -> String {
        format!(
            "{}, {} in flight, {}",
            self.protocol(),
            self.in_flight,
            self.while_()
        )
    }

    async fn compare(&self, address: SocketAddr, tokens: &Tokens, rounds: usize) -> Compared {
        let uri: Uri = format!("http://{address}/v1/conversations/1/messages")
            .parse()
            .expect("it is a URI");
        let layer = layer_for(address, tokens).await;
        let ours = layer.layer(client(self.http2));
        let bare = [client(self.http2), client(self.http2)];
        let fixed = fixed();
        let plain = move || {
            let mut request = Request::new(Full::default());
            *request.uri_mut() = uri.clone();
            request
        };
        let stamped = {
            let plain = plain.clone();
            move || {
                let mut request = plain();
                request.headers_mut().insert(AUTHORIZATION, fixed.clone());
                request
            }
        };

        let ticker = tokio::spawn(tick(self.meanwhile, layer.clone(), tokens.clone()));
        let mut taken: [Vec<Round>; 3] = Default::default();
        for number in 0..=rounds {
            // Each has each place in turn.
            for place in 0..3 {
                let who = (number + place) % 3;
                let round = match bare.get(who) {
                    Some(bare) => round(bare, stamped.clone(), self.in_flight).await,
                    None => round(&ours, plain.clone(), self.in_flight).await,
                };
                // The first ones warm up.
                if number > 0 {
                    taken[who].push(round);
                }
            }
        }
        ticker.abort();

        let to_first = |of: &[Round]| {
            let pairs = taken[0].iter().zip(of);
            median(pairs.map(|(first, of)| of.rate / first.rate))
        };
        let rate = Ratios {
            of_bare: to_first(&taken[1]),
            of_ours: to_first(&taken[2]),
        };
        let summaries = taken.map(Summary::of);
        for (stack, of) in ["bare", "bare again", "ours"].iter().zip(&summaries) {
            let Summary {
                rate,
                quantiles: [p50, p99, p999],
                refused,
            } = of;
            let (protocol, in_flight, meanwhile) = (self.protocol(), self.in_flight, self.while_());
            println!(
                "| {protocol} | {in_flight} | {meanwhile} | {stack} | {rate:.0} | {p50:.0} | {p99:.0} | {p999:.0} | {refused} |"
            );
        }
        let [first, again, ours] = summaries.map(|summary| summary.quantiles[1]);
        let p99 = Ratios {
            of_bare: again / first,
            of_ours: ours / first,
        };
        Compared { rate, p99 }
    }
}

async fn tick(meanwhile: Meanwhile, layer: SymblAuthLayer, tokens: Tokens) {
    let mut seconds = tokio::time::interval(SECOND);
    loop {
        seconds.tick().await;
        match meanwhile {
            Meanwhile::Nothing => return,
            Meanwhile::Refreshes => {
                _ = layer
                    .refresh()
                    .await
                    .expect("the token service never fails")
            }
            Meanwhile::Revocations => tokens.revoke(),
        }
    }
}

/// What one round has to show: requests a second, and latencies.
struct Round {
    rate: f64,
    latencies: Vec<Duration>,
    refused: usize,
}

/// Over all rounds: the median rate; p50, p99 and p99.9 in microseconds.
struct Summary {
    rate: f64,
    quantiles: [f64; 3],
    refused: usize,
}

impl Summary {
    fn of(rounds: Vec<Round>) -> Self {
        let latencies = rounds.iter().flat_map(|round| &round.latencies);
        let mut latencies: Vec<_> = latencies.collect();
        latencies.sort_unstable();
        let quantile = |of: f64| {
            let at = (latencies.len() as f64 * of) as usize;
            latencies[at].as_secs_f64() * 1e6
        };
        Self {
            rate: median(rounds.iter().map(|round| round.rate)),
            quantiles: [0.5, 0.99, 0.999].map(quantile),
            refused: rounds.iter().map(|round| round.refused).sum(),
        }
    }
}

/// So many callers, each a task that sends one request after the other.
async fn round<S>(
    service: &S,
    request: impl Fn() -> Request<Full<Bytes>> + Clone + Send + 'static,
    in_flight: usize,
) -> Round
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let start = Instant::now();
    let callers: Vec<_> = (0..in_flight)
        .map(|_| tokio::spawn(caller(service.clone(), request.clone(), start + ROUND)))
        .collect();
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for caller in callers {
        let (each, not_ok) = caller.await.expect("no caller panics");
        latencies.extend(each);
        refused += not_ok;
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    Round {
        rate,
        latencies,
        refused,
    }
}

/// Latencies, and how many answers were not 200.
async fn caller<S>(
    mut service: S,
    request: impl Fn() -> Request<Full<Bytes>>,
    end: Instant,
) -> (Vec<Duration>, usize)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>>,
    S::Error: Into<BoxError>,
{
    let (mut latencies, mut refused) = (Vec::new(), 0);
    loop {
        let sent = Instant::now();
        if sent >= end {
            return (latencies, refused);
        }
        let status = exchange(&mut service, request()).await;
        latencies.push(sent.elapsed());
        refused += usize::from(status.expect("the server answers") != StatusCode::OK);
    }
}

async fn exchange<S>(service: &mut S, request: Request<Full<Bytes>>) -> Result<StatusCode, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>>,
    S::Error: Into<BoxError>,
{
    let ready = service.ready().await.map_err(Into::into)?;
    let response = ready.call(request).await.map_err(Into::into)?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

// === client, server, tokens ===

fn client<B>(http2: bool) -> Client<HttpConnector, B>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .http2_initial_max_send_streams(MANY_STREAMS as usize)
        .build(connector)
}

fn serve(tokens: Tokens) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime starts");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("loopback has a free port");
            tell.send(listener.local_addr().expect("it is bound"))
                .expect("the client waits for it");
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let tokens = tokens.clone();
                let answer = service_fn(move |request| {
                    let status = tokens.status(request.headers());
                    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
                    *response.status_mut() = status;
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().max_concurrent_streams(MANY_STREAMS);
                tokio::spawn(async move {
                    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
    });
    told.recv().expect("the server starts")
}

/// A layer that has a live token.
async fn layer_for(address: SocketAddr, tokens: &Tokens) -> SymblAuthLayer {
    let origin = format!("http://{address}").parse::<Origin>();
    let layer = tokens.builder().origins([origin.expect("it is an origin")]);
    let layer = layer.build();
    layer.token().await.expect("the token service never fails");
    layer
}

/// A token that is never revoked.
fn fixed() -> HeaderValue {
    let value = format!("Bearer {:0>400}", usize::MAX);
    let mut value = HeaderValue::try_from(value).expect("it is ASCII");
    // As the layer's are: HTTP/2 then sends it anew each time, instead of its place in a table.
    value.set_sensitive(true);
    value
}
