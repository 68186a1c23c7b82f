//! Spans and events.

use std::future::Future;

use ::tracing::{Instrument, Span, debug, field, field::Empty, info_span, warn};
use http::Uri;

use super::labels;
use crate::{FetchReason, NotRetried, TokenError};

/// Not the module's path, which is nobody's business.
const TARGET: &str = "tower_symbl_auth";
const FETCH: &str = "symbl_auth.fetch";

pub(super) fn in_fetch<F: Future>(
    reason: FetchReason,
    fetch: F,
) -> impl Future<Output = F::Output> {
    let span = info_span!(
        target: TARGET,
        parent: None,
        FETCH,
        reason = labels::reason(reason),
        attempts = Empty,
        outcome = Empty,
        error = Empty,
    );
    // A child would keep the span of whoever came first open until the fetch has ended.
    span.follows_from(Span::current());
    fetch.instrument(span)
}

pub(super) fn attempts(made: u32) {
    fetch().record("attempts", made);
}

pub(super) fn fetched(reason: FetchReason, newer: bool, error: Option<&TokenError>) {
    let span = fetch();
    span.record("outcome", labels::outcome(newer, error));
    if let Some(error) = error {
        span.record("error", field::display(error));
        let reason = labels::reason(reason);
        warn!(target: TARGET, reason, %error, "token fetch failed");
    }
}

pub(super) fn lost() {
    fetch().record("outcome", labels::LOST);
}

pub(super) fn rejected(key: &str, generation: u64) {
    let (method, path) = parts(key);
    debug!(target: TARGET, method, path, generation, "token rejected");
}

pub(super) fn retried(key: &str, generation: u64, accepted: bool) {
    let (method, path) = parts(key);
    debug!(target: TARGET, method, path, generation, accepted, "request sent again");
}

pub(super) fn handed_back(key: &str, why: &NotRetried) {
    let (method, path) = parts(key);
    debug!(target: TARGET, method, path, reason = %why, "rejection handed back");
}

pub(super) fn limited() {
    warn!(
        target: TARGET,
        "too many fetches after rejections: another process may revoke the tokens, or a node of the \
         API may know none of them"
    );
}

pub(super) fn unstamped(uri: &Uri, is_new: bool) {
    let origin = origin(uri);
    if is_new {
        warn!(target: TARGET, origin, "request left unstamped");
    } else {
        debug!(target: TARGET, origin, "request left unstamped");
    }
}

#[cfg(feature = "reqwest-middleware")]
pub(super) fn led_away(from: &str, to: &str) {
    warn!(target: TARGET, from, to, "redirect led to another origin");
}

#[cfg(feature = "store")]
pub(super) fn store_trouble(operation: &'static str, error: &dyn std::fmt::Display) {
    warn!(target: TARGET, operation, %error, "token store trouble");
}

#[cfg(feature = "store")]
pub(super) fn store_ignored(reason: &dyn std::fmt::Display) {
    warn!(target: TARGET, %reason, "stored token ignored");
}

#[cfg(feature = "store")]
pub(super) fn store_limited() {
    warn!(target: TARGET, "limit of the fleet reached");
}

/// The fetch's span, if this is its task. Any other span is the user's, whose fields may have the same
/// names.
fn fetch() -> Span {
    let span = Span::current();
    match span.metadata() {
        Some(metadata) if (metadata.target(), metadata.name()) == (TARGET, FETCH) => span,
        _ => Span::none(),
    }
}

/// Method and path of a key; it has neither if the caller's token was added to nothing.
fn parts(key: &str) -> (Option<&str>, Option<&str>) {
    let Some((method, target)) = key.split_once(' ') else {
        return (None, None);
    };
    // A path may hold another URI, so the scheme is looked for in front only.
    let schemes = ["https://", "http://"];
    let rest = schemes.iter().find_map(|it| target.strip_prefix(it));
    let rest = rest.unwrap_or(target);
    (Some(method), rest.find('/').map(|start| &rest[start..]))
}

/// Without userinfo, which is a reason for the guard to let a request pass, and a secret.
fn origin(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    let scheme = uri.scheme_str().map(|scheme| format!("{scheme}://"));
    let port = uri.port_u16().map(|port| format!(":{port}"));
    let (scheme, port) = (scheme.unwrap_or_default(), port.unwrap_or_default());
    Some(format!("{scheme}{host}{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_key_its_method_and_path_are_told() {
        for (key, method, path) in [
            ("GET https://api.symbl.ai/v1/job/1", "GET", "/v1/job/1"),
            ("PUT http://[::1]:80/a b", "PUT", "/a b"),
            (
                "POST api.symbl.ai/to/https://b/c",
                "POST",
                "/to/https://b/c",
            ),
            ("GET /v1/job/1", "GET", "/v1/job/1"),
        ] {
            assert_eq!(parts(key), (Some(method), Some(path)), "{key}");
        }
        assert_eq!(parts("token"), (None, None));
    }

    #[test]
    fn of_a_uri_its_origin_is_told_without_userinfo_path_and_query() {
        for (uri, told) in [
            (
                "https://me:s3cr3t@a.example:8443/p?q=s3cr3t",
                "https://a.example:8443",
            ),
            ("http://[::1]/p", "http://[::1]"),
            ("s3cr3t@a.example:443", "a.example:443"),
        ] {
            assert_eq!(
                origin(&uri.parse().unwrap()).as_deref(),
                Some(told),
                "{uri}"
            );
        }
        assert_eq!(origin(&"/p?q=s3cr3t".parse().unwrap()), None);
    }
}
