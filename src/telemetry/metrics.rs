//! Metrics, for whichever recorder is installed.

use std::time::Duration;

use ::metrics::{counter, gauge, histogram};

use super::labels;
use crate::FetchReason;

pub(super) fn fetched(reason: FetchReason, outcome: &'static str, took: Duration) {
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
