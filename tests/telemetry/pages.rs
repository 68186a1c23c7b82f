//! The page, the alert rules and the dashboard for whoever operates this name what the crate emits, and all of it.

use std::collections::BTreeSet;

use serde_json::Value;
use tower_symbl_auth::{Origin, SymblAuthLayer};

use crate::{support::*, told::told};

const OPERATING: &str = include_str!("../../docs/operating.md");
const ALERTS: &str = include_str!("../../docs/alerts.yml");
const DASHBOARD: &str = include_str!("../../docs/dashboard.json");
/// Where each value of a label is documented.
const DOCUMENTED: &str = include_str!("../../src/telemetry.rs");
/// Of a feature that this target can do without; `tests/store/telemetry.rs` sees it emitted.
const OF_THE_STORE: &str = "symbl_auth_store_total";

/// The metrics that a text names, without what Prometheus puts behind a histogram's name.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c == '_' || c.is_ascii_lowercase();
    let names = text.split(|c| !is_name(c));
    let metrics = names.filter(|name| name.starts_with("symbl_auth_"));
    let parts = metrics.map(|name| {
        let part = ["_sum", "_count", "_bucket"];
        let base = part.iter().find_map(|part| name.strip_suffix(part));
        base.unwrap_or(name).to_owned()
    });
    parts.collect()
}

fn emitted() -> BTreeSet<String> {
    let told = told(|_| async {
        let layer: SymblAuthLayer = Issuer::fresh(DAY, SECOND).layer();
        let rejecting = Api::judging(|_| http::StatusCode::UNAUTHORIZED);
        send(&layer, &rejecting, get(URL)).await.unwrap();
        let other: Origin = "https://other.example".parse().unwrap();
        send(&layer, &rejecting, get(&other.to_string()))
            .await
            .unwrap();
    });
    let emitted = told.described().map(|(name, ..)| name.to_owned());
    emitted.chain([OF_THE_STORE.to_owned()]).collect()
}

#[test]
fn the_page_tells_every_metric_and_no_other() {
    assert_eq!(named(OPERATING), emitted());
    assert_eq!(named(DOCUMENTED), emitted());
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown: BTreeSet<_> = queries
        .flat_map(|query| named(query["expr"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, emitted());
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(
        ids.len(),
        panels.len(),
        "each panel has a number of its own"
    );
}

#[test]
fn the_alerts_name_what_is_emitted() {
    let emitted = emitted();
    let (alerted, known) = (named(ALERTS), &emitted);
    assert!(alerted.len() > 3 && alerted.is_subset(known), "{alerted:?}");
}

#[test]
fn values_of_labels_in_queries_are_documented_ones() {
    for text in [ALERTS, &DASHBOARD.replace("\\\"", "\"")] {
        let mut seen = 0;
        for label in ["outcome", "reason"] {
            for operator in ["=\"", "!=\"", "=~\"", "!~\""] {
                let start = format!("{label}{operator}");
                for query in text.split(&start).skip(1) {
                    let (values, _) = query.split_once('"').unwrap();
                    for value in values.split('|') {
                        assert!(
                            DOCUMENTED.contains(&format!("`{value}`")),
                            "{label} {value}"
                        );
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 1, "no query names a value");
    }
}

#[test]
fn the_page_tells_every_event() {
    let table = DOCUMENTED
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"));
    let events: Vec<_> = table
        .filter_map(|line| line.split('`').next())
        .filter(|name| name.contains(' '))
        .collect();
    assert_eq!(events.len(), 10, "{events:?}");
    for event in events {
        assert!(OPERATING.contains(&format!("| `{event}` |")), "{event}");
    }
}
