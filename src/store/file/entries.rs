//! What is in the file: JSON, an entry for each key.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::store::{Stored, key::hex};

/// Entries by key. Times are the machine's wall clock, in milliseconds since 1970.
#[derive(Default)]
pub(super) struct Entries(BTreeMap<String, Entry>);

struct Entry {
    bytes: Bytes,
    saved: u64,
    ends: u64,
}

impl Entries {
    /// Those in the text; none in a text that is cut off, or something else.
    pub(super) fn parse(text: &[u8]) -> Self {
        let all: Value = serde_json::from_slice(text).unwrap_or_default();
        let all = all.as_object().into_iter().flatten();
        Self(
            all.filter_map(|(key, entry)| Some((key.clone(), Entry::parse(entry)?)))
                .collect(),
        )
    }

    pub(super) fn text(&self) -> String {
        let entry = |entry: &Entry| json!({ "bytes": hex(&entry.bytes), "saved": entry.saved, "ends": entry.ends });
        let all = self.0.iter().map(|(key, it)| (key.clone(), entry(it)));
        Value::Object(all.collect()).to_string()
    }

    pub(super) fn get(&self, key: &str, now: u64) -> Option<Stored> {
        let entry = self.0.get(key).filter(|entry| entry.is_alive(now))?;
        Some(Stored {
            bytes: entry.bytes.clone(),
            expires_in: Duration::from_millis(entry.ends - now),
        })
    }

    /// Adds an entry, and drops those whose time is over.
    pub(super) fn insert(&mut self, key: &str, bytes: &Bytes, lives: Duration, now: u64) {
        self.0.retain(|_, entry| entry.is_alive(now));
        let entry = Entry {
            bytes: bytes.clone(),
            saved: now,
            ends: now.saturating_add(millis(lives)),
        };
        self.0.insert(key.to_owned(), entry);
    }
}

impl Entry {
    fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            bytes: unhex(value["bytes"].as_str()?)?.into(),
            saved: value["saved"].as_u64()?,
            ends: value["ends"].as_u64()?,
        })
    }

    /// One from the future was saved before the clock was set back, and nobody knows how long ago.
    fn is_alive(&self, now: u64) -> bool {
        (self.saved..self.ends).contains(&now)
    }
}

pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    millis(now.unwrap_or_default())
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn entries_survive_being_written_and_read() {
        let mut entries = Entries::default();
        entries.insert("a", &Bytes::from_static(&[0, 1, 255]), MINUTE, 1000);
        entries.insert("b", &Bytes::new(), MINUTE, 31_000);
        let read = Entries::parse(entries.text().as_bytes());
        let stored = read.get("a", 31_000).unwrap();
        assert_eq!(
            (&*stored.bytes, stored.expires_in),
            (&[0, 1, 255][..], MINUTE / 2)
        );
        assert_eq!(read.get("b", 31_000).unwrap().expires_in, MINUTE);
        assert!(read.get("c", 31_000).is_none());
    }

    #[test]
    fn an_entry_whose_time_is_over_is_dropped_with_the_next_save() {
        let mut entries = Entries::default();
        entries.insert("a", &Bytes::new(), MINUTE, 0);
        assert!(entries.get("a", 60_000).is_none());
        entries.insert("b", &Bytes::new(), MINUTE, 60_000);
        assert!(!entries.text().contains("\"a\""));
    }

    #[test]
    fn an_entry_from_the_future_is_not_used() {
        let mut entries = Entries::default();
        entries.insert("a", &Bytes::new(), MINUTE, 100_000);
        assert!(entries.get("a", 99_999).is_none());
    }

    #[test]
    fn a_text_that_is_cut_off_or_something_else_has_no_entries() {
        let mut entries = Entries::default();
        entries.insert("a", &Bytes::from_static(b"abc"), MINUTE, 0);
        let text = entries.text();
        for length in 0..text.len() {
            assert!(Entries::parse(&text.as_bytes()[..length]).0.is_empty());
        }
        for other in [
            "[1]",
            "null",
            r#"{"a":1}"#,
            r#"{"a":{"bytes":"é0","saved":0,"ends":9}}"#,
        ] {
            assert!(Entries::parse(other.as_bytes()).0.is_empty(), "{other}");
        }
    }
}
