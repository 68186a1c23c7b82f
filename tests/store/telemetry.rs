//! What is told of the store, so that nobody finds out after weeks that nothing was shared. Covers from
//! elsewhere: store failures that are swallowed.

use std::time::Duration;

use tower_symbl_auth::FetchReason;

use crate::{
    memory::{Memory, Mood},
    sharing::{ask, first, process},
    support::*,
    told::{Told, told},
};

fn counts(told: &Told) -> Vec<(&str, u64)> {
    let outcome = |name: &'static str| {
        let name = format!("symbl_auth_store_total{{outcome={name}}}");
        told.metrics()
            .contains(&&*name)
            .then(|| told.counter(&name))
    };
    let all = [
        "shared", "saved", "bypassed", "limited", "trouble", "ignored",
    ];
    all.into_iter()
        .filter_map(|name| Some((name, outcome(name)?)))
        .collect()
}

fn memory() -> (Issuer, Memory) {
    (Issuer::fresh(DAY, Duration::ZERO), Memory::default())
}

#[test]
fn a_token_saved_and_one_taken_are_counted_and_nothing_is_logged() {
    let told = told(|_| async {
        let (issuer, store) = memory();
        first(&process(&issuer, &store)).await;
        first(&process(&issuer, &store)).await;
    });
    assert_eq!(counts(&told), [("shared", 1), ("saved", 1)]);
    assert!(told.names().is_empty(), "{:?}", told.names());
}

#[test]
fn every_kind_of_trouble_is_logged_and_counted() {
    let moods = [
        (Mood::Failing, "the store is broken"),
        (Mood::Panicking, "it panicked"),
        (Mood::Slow(DAY), "it took longer than 1 s"),
    ];
    for (mood, error) in moods {
        for operation in ["load", "lease", "save", "release"] {
            let told = told(|_| async {
                let (issuer, store) = memory();
                store.contents().of = Some(operation);
                store.set(mood);
                first(&process(&issuer, &store)).await;
            });
            let outcome = match operation {
                "release" => ("saved", 1),
                _ => ("bypassed", 1),
            };
            assert_eq!(counts(&told), [outcome, ("trouble", 1)], "{operation}");
            let trouble = told.all("token store trouble")[0];
            assert_eq!(
                (trouble.get("operation"), trouble.get("error")),
                (operation, error)
            );
        }
    }
}

#[test]
fn what_is_stored_and_not_used_is_told_with_the_reason() {
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let spoilt: [(Spoil, &str); 3] = [
        (|_| Vec::new(), "it is cut off"),
        (|_| vec![2; 100], "its version is 2, and 1 is known"),
        (
            |_| vec![1; 100],
            "it was not sealed with this key, or is damaged",
        ),
    ];
    for (spoil, reason) in spoilt {
        let told = told(|_| async {
            let (issuer, store) = memory();
            first(&process(&issuer, &store)).await;
            store.plant(spoil(store.only().1.to_vec()));
            first(&process(&issuer, &store)).await;
        });
        assert_eq!(counts(&told), [("saved", 2), ("ignored", 1)]);
        assert_eq!(told.all("stored token ignored")[0].get("reason"), reason);
    }
}

#[test]
fn a_replayed_token_is_told() {
    let told = told(|_| async {
        let (issuer, store) = memory();
        let process = process(&issuer, &store);
        let old = first(&process).await;
        let (_, replayed) = store.only();
        let newer = ask(&process, FetchReason::Rejected, Some(&old))
            .await
            .unwrap();
        store.plant(replayed);
        ask(&process, FetchReason::Early, Some(&newer))
            .await
            .unwrap();
    });
    let reason = told.all("stored token ignored")[0].get("reason");
    assert_eq!(reason, "it is older than what was stored before");
}

#[test]
fn the_fleets_limit_is_told_at_first_and_once_a_minute() {
    let told = told(|_| async {
        let (issuer, store) = memory();
        let process = process(&issuer, &store);
        let mut newest = first(&process).await;
        for _ in 0..16 + 50 {
            newest = ask(&process, FetchReason::Rejected, Some(&newest))
                .await
                .unwrap();
        }
        tokio::time::advance(60 * SECOND).await;
        for _ in 0..6 + 50 {
            newest = ask(&process, FetchReason::Rejected, Some(&newest))
                .await
                .unwrap();
        }
    });
    assert_eq!(counts(&told), [("saved", 1 + 16 + 6), ("limited", 100)]);
    assert_eq!(told.all("limit of the fleet reached").len(), 2);
}

#[test]
fn a_lease_that_ran_out_before_its_token_came_is_told() {
    let told = told(|_| async {
        let (issuer, store) = (Issuer::fresh(DAY, 50 * SECOND), Memory::default());
        first(&process(&issuer, &store)).await;
    });
    let trouble = told.all("token store trouble")[0];
    assert_eq!(
        (trouble.get("operation"), trouble.get("error")),
        ("save", "the lease had run out")
    );
}
