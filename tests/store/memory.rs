//! A store in memory, by tokio's clock, that fails when it is told to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tower::BoxError;
use tower_symbl_auth::store::{Stored, TokenStore};

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Contents>>);

#[derive(Default)]
pub struct Contents {
    pub values: HashMap<String, (Bytes, Instant)>,
    pub leases: HashMap<String, (String, Instant)>,
    /// The operations there have been.
    pub asked: Vec<&'static str>,
    pub mood: Mood,
    /// Operations that do as the mood says, if not all.
    pub of: Option<&'static str>,
}

#[derive(Default, Clone, Copy, Debug)]
pub enum Mood {
    #[default]
    Well,
    Failing,
    Panicking,
    Slow(Duration),
}

impl Memory {
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }

    pub fn set(&self, mood: Mood) {
        self.contents().mood = mood;
    }

    pub fn asked(&self) -> usize {
        self.contents().asked.len()
    }

    /// The name and bytes of the one value.
    pub fn only(&self) -> (String, Bytes) {
        let contents = self.contents();
        assert_eq!(contents.values.len(), 1);
        let (key, (bytes, _)) = contents.values.iter().next().unwrap();
        (key.clone(), bytes.clone())
    }

    /// Puts other bytes in the place of the one value.
    pub fn plant(&self, bytes: impl Into<Bytes>) {
        let mut contents = self.contents();
        let value = contents.values.values_mut().next().unwrap();
        value.0 = bytes.into();
    }

    async fn ask(&self, operation: &'static str) -> Result<MutexGuard<'_, Contents>, BoxError> {
        let mood = {
            let mut contents = self.contents();
            contents.asked.push(operation);
            let concerned = contents.of.is_none_or(|of| of == operation);
            if concerned { contents.mood } else { Mood::Well }
        };
        match mood {
            Mood::Well => {}
            Mood::Failing => return Err("the store is broken".into()),
            Mood::Panicking => panic!("the store panics"),
            Mood::Slow(delay) => sleep(delay).await,
        }
        Ok(self.contents())
    }
}

impl Contents {
    fn holder(&self, key: &str) -> Option<&str> {
        let (owner, end) = self.leases.get(key)?;
        (Instant::now() < *end).then_some(owner)
    }
}

impl TokenStore for Memory {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, BoxError>> {
        Box::pin(async move {
            let contents = self.ask("load").await?;
            let stored = contents.values.get(key).map(|(bytes, end)| Stored {
                bytes: bytes.clone(),
                expires_in: end.saturating_duration_since(Instant::now()),
            });
            Ok(stored.filter(|stored| !stored.expires_in.is_zero()))
        })
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        bytes: Bytes,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        Box::pin(async move {
            let mut contents = self.ask("save").await?;
            let saves = contents.holder(key) == Some(owner);
            if saves {
                let value = (bytes, Instant::now() + expires_in);
                contents.values.insert(key.to_owned(), value);
            }
            Ok(saves)
        })
    }

    fn lease<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        Box::pin(async move {
            let mut contents = self.ask("lease").await?;
            let free = contents.holder(key).is_none_or(|holder| holder == owner);
            if free {
                let lease = (owner.to_owned(), Instant::now() + lasts);
                contents.leases.insert(key.to_owned(), lease);
            }
            Ok(free)
        })
    }

    fn release<'a>(&'a self, key: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move {
            let mut contents = self.ask("release").await?;
            if contents.holder(key) == Some(owner) {
                contents.leases.remove(key);
            }
            Ok(())
        })
    }
}
