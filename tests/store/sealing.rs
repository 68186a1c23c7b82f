//! F1: who reads the store learns nothing, and who writes it plants nothing. Covers from elsewhere: an entry
//! sealed with yesterday's key that throws for ever instead of being replaced.

use std::time::Duration;

use tower_symbl_auth::{
    Credentials, FetchToken,
    store::{SealingKey, Shared},
};

use crate::{
    memory::Memory,
    sharing::{first, key, process},
    support::*,
};

#[tokio::test(start_paused = true)]
async fn neither_token_nor_secret_nor_app_can_be_read_in_the_store() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    first(&process(&issuer, &store)).await;
    let (name, bytes) = store.only();
    for secret in ["token-1", "secret", "app"] {
        let windows = |bytes: &[u8]| {
            bytes
                .windows(secret.len())
                .any(|it| it == secret.as_bytes())
        };
        assert!(!windows(&bytes) && !windows(name.as_bytes()), "{secret}");
    }
    assert!(name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_open_is_a_miss_and_is_replaced() {
    let (issuer, store) = (Issuer::fresh(DAY, Duration::ZERO), Memory::default());
    first(&process(&issuer, &store)).await;
    let (_, sealed) = store.only();
    let changed = |at: usize| {
        let mut bytes = sealed.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let planted = [
        Vec::new(),
        b"token-planted".to_vec(),
        sealed[..sealed.len() - 1].to_vec(),
        sealed[..10].to_vec(),
        changed(0), // a version of the future
        changed(1),
        changed(30),
    ];
    for (number, bytes) in planted.into_iter().enumerate() {
        store.plant(bytes);
        let token = first(&process(&issuer, &store)).await;
        assert_eq!(token.expose_secret(), format!("token-{}", number + 2));
        // The next one can use it again.
        first(&process(&issuer, &store)).await;
        assert_eq!(issuer.calls(), number + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sealed_for_another_app_or_with_another_secret_is_a_miss() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    for other in [
        SealingKey::new("secret", "other"),
        SealingKey::new("yesterday", "app"),
    ] {
        let (store, others) = (Memory::default(), Memory::default());
        first(&process(&issuer, &store)).await;
        first(&Shared::new(issuer.clone(), others.clone(), other)).await;
        let calls = issuer.calls();
        store.plant(others.only().1);
        let token = first(&process(&issuer, &store)).await;
        assert_eq!(token.expose_secret(), format!("token-{}", calls + 1));
    }
}

#[test]
fn a_sealing_key_shows_nothing_of_itself() {
    let shown = format!("{:?}", SealingKey::new("s3cr3t", "context"));
    assert_eq!(shown, "SealingKey([redacted])");
    let key = key();
    let hides = |shown: String| assert!(!shown.contains("s3cr3t"), "{shown}");
    hides(format!("{:?}", Shared::new((), Memory::default(), key)));
}

/// A key is known by the name that it stores under.
async fn name(key: SealingKey) -> String {
    let store = Memory::default();
    first(&Shared::new(
        Issuer::fresh(DAY, Duration::ZERO),
        store.clone(),
        key,
    ))
    .await;
    store.only().0
}

#[tokio::test(start_paused = true)]
async fn the_key_of_a_token_service_is_bound_to_secret_app_and_endpoint() {
    let fetch = |id: &str, secret: &str, endpoint: &str| {
        let fetch = FetchToken::with_client(Credentials::new(id, secret), ());
        fetch
            .endpoint(endpoint.parse().unwrap())
            .unwrap()
            .sealing_key()
    };
    let names = [
        name(fetch("app", "secret", "https://a.example/t")).await,
        name(fetch("app", "other", "https://a.example/t")).await,
        name(fetch("app2", "secret", "https://a.example/t")).await,
        name(fetch("app", "secret", "https://b.example/t")).await,
    ];
    for (index, one) in names.iter().enumerate() {
        assert!(!names[..index].contains(one));
    }
    let again = name(fetch("app", "secret", "https://a.example/t")).await;
    assert_eq!(names[0], again);
    // As documented, for those who make the key elsewhere.
    let documented = SealingKey::new("secret", "3:apphttps://a.example/t");
    assert_eq!(names[0], name(documented).await);
}
