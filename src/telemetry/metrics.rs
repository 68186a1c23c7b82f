//! Metrics, for whichever recorder is installed.

use std::time::Duration;

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::labels;
use crate::FetchReason;

/// Gives the recorder the metrics' units and meanings, Prometheus's HELP among them. With each fetch, which is a few
/// times a day: a recorder may be installed after the layer was made, and another take its place.
fn describe() {
    describe_counter!(
        "symbl_auth_fetches_total",
        "Token fetches that have ended, by the reason for them and their outcome"
    );
    describe_histogram!(
        "symbl_auth_fetch_duration_seconds",
        Unit::Seconds,
        "How long token fetches took, retries included"
    );
    describe_counter!(
        "symbl_auth_rejections_total",
        "Requests whose token the API rejected, by what came of them: sent again, or why not"
    );
    describe_histogram!(
        "symbl_auth_token_wait_seconds",
        Unit::Seconds,
        "How long callers waited for a token fetch; those that did not have to are not counted"
    );
    describe_gauge!(
        "symbl_auth_token_seconds_left",
        Unit::Seconds,
        "What was left of the live token's life when a fetch last began ahead of its end, or ended; 0 without a token"
    );
    describe_unstamped();
    #[cfg(feature = "store")]
    describe_counter!(
        "symbl_auth_store_total",
        "What came of asking the token store that several processes share, by outcome"
    );
}

pub(super) fn describe_unstamped() {
    describe_counter!(
        "symbl_auth_unstamped_total",
        "Requests sent without a token, since their origin is not among the layer's"
    );
}

pub(super) fn fetched(reason: FetchReason, outcome: &'static str, took: Duration) {
    describe();
    let reason = labels::reason(reason);
    counter!("symbl_auth_fetches_total", "reason" => reason, "outcome" => outcome).increment(1);
    histogram!("symbl_auth_fetch_duration_seconds").record(took);
}

pub(super) fn rejected(outcome: &'static str) {
    counter!("symbl_auth_rejections_total", "outcome" => outcome).increment(1);
}

pub(super) fn waited(time: Duration) {
    histogram!("symbl_auth_token_wait_seconds").record(time);
}

pub(super) fn left(life: Duration) {
    gauge!("symbl_auth_token_seconds_left").set(life.as_secs_f64());
}

pub(super) fn unstamped() {
    counter!("symbl_auth_unstamped_total").increment(1);
}

#[cfg(feature = "store")]
pub(super) fn store(outcome: &'static str) {
    counter!("symbl_auth_store_total", "outcome" => outcome).increment(1);
}
