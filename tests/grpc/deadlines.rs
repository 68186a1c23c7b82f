//! What bounds a call whose token takes long: a timeout around the layer all of it; the call's own each attempt, of which
//! the second has what the first has left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join;
use tokio::time::{Instant, advance, sleep};
use tonic::{Code, Request, Status, body::Body, client::GrpcService, metadata::MetadataMap};
use tower::{BoxError, service_fn};
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenRequest};

use crate::{
    Setup, channel,
    clock::{self, soon, until},
    echo::EchoClient,
};

const SECOND: Duration = Duration::from_secs(1);

/// A client with a timeout of three seconds around its layer, whose first token takes so long, and its second so long;
/// and how many it has asked for.
fn client(
    setup: &Setup,
    [first, second]: [Duration; 2],
) -> (
    EchoClient<impl GrpcService<Body, ResponseBody = Body>>,
    Arc<AtomicUsize>,
) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let tokens = service_fn(move |_: TokenRequest| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            let delay = if number == 1 { first } else { second };
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let token = AccessToken::new(format!("token-{number}"), 3600 * SECOND)?;
            Ok::<_, BoxError>(token)
        }
    });
    let layer = SymblAuthLayer::builder(tokens).build();
    let channel = channel::authenticated(setup.channel.clone(), layer, 3 * SECOND);
    (EchoClient::new(channel), asked)
}

/// A call with a timeout of one second, and so much time from when that token has been asked for.
async fn call(
    (mut client, asked): (
        EchoClient<impl GrpcService<Body, ResponseBody = Body>>,
        Arc<AtomicUsize>,
    ),
    token: usize,
    time: Duration,
) -> Result<Bytes, Status> {
    let mut request = Request::new(Bytes::from("one"));
    request.set_timeout(SECOND);
    let passes = async {
        until(|| asked.load(Ordering::SeqCst) == token).await;
        advance(time).await;
    };
    soon(join(client.say_with(request), passes)).await.0
}

fn timeout(call: &MetadataMap) -> Duration {
    let timeout = call.get("grpc-timeout").unwrap().to_str().unwrap();
    let (number, unit) = timeout.split_at(timeout.len() - 1);
    let unit = match unit {
        "S" => SECOND,
        "m" => SECOND / 1000,
        "u" => SECOND / 1_000_000,
        "n" => SECOND / 1_000_000_000,
        other => panic!("{other}"),
    };
    unit * number.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_layers_timeout_bounds_the_wait_for_the_first_token_and_the_calls_own_does_not() {
    let _clock = clock::hold();
    let setup = Setup::new().await;
    let slow = client(&setup, [2 * SECOND, SECOND]);
    assert_eq!(call(slow, 1, 2 * SECOND).await.unwrap(), "one");
    let calls = setup.received.calls();
    assert_eq!(timeout(&calls[0]), SECOND, "all of it is left");

    let begun = Instant::now();
    let too_slow = client(&setup, [4 * SECOND, SECOND]);
    let status = call(too_slow, 1, 3 * SECOND).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert_eq!(setup.received.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_second_attempts_timeout_is_what_the_fetch_has_left_of_it() {
    let _clock = clock::hold();
    let setup = Setup::new().await;
    let mut slow = client(&setup, [Duration::ZERO, 3 * SECOND / 10]);
    slow.0.say("zero".into()).await.unwrap();
    setup.received.revoke_tokens();
    assert_eq!(call(slow, 2, 3 * SECOND / 10).await.unwrap(), "one");
    let calls = setup.received.calls();
    let timeouts: Vec<_> = calls[1..].iter().map(timeout).collect();
    assert_eq!(timeouts, [SECOND, 7 * SECOND / 10]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_runs_out_of_time_while_another_token_is_fetched_is_unauthenticated_in_time() {
    let _clock = clock::hold();
    let setup = Setup::new().await;
    let mut slow = client(&setup, [Duration::ZERO, 2 * SECOND]);
    slow.0.say("zero".into()).await.unwrap();
    setup.received.revoke_tokens();
    let begun = Instant::now();
    let status = call(slow, 2, SECOND).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(begun.elapsed(), SECOND);
    assert_eq!(setup.received.tokens(), ["token-1", "token-1"]);
}
