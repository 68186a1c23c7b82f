//! Everything that the crate tells during a scenario: spans, events and metrics.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex},
};

use metrics::Unit;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::runtime;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

/// What the scenarios use as app secret, in URLs and in headers; tokens are `token-…`.
const SECRETS: [&str; 4] = ["s3cr3t", "token-", "mock-app-secret", "Bearer"];

pub struct Told {
    entries: Vec<Entry>,
    /// By name and labels, as Prometheus writes them.
    metrics: BTreeMap<String, DebugValue>,
    /// Unit and meaning of each metric, by its name.
    described: BTreeMap<String, (Option<Unit>, Option<String>)>,
}

/// A span or an event.
#[derive(Debug, Clone)]
pub struct Entry {
    span: Option<Id>,
    /// The span's name, or the event's message.
    pub name: String,
    fields: BTreeMap<&'static str, String>,
}

impl Entry {
    /// A field's value, empty without one.
    pub fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }
}

/// Runs a scenario with time paused. What it returns is kept until its runtime has been shut down.
pub fn told<F: Future>(scenario: impl FnOnce(Log) -> F) -> Told {
    let log = Log::default();
    let recorder = DebuggingRecorder::new();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::with_default(subscriber, || {
        metrics::with_local_recorder(&recorder, || {
            let mut builder = runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().start_paused(true).build().unwrap();
            let _kept = runtime.block_on(scenario(log.clone()));
            drop(runtime);
        });
    });
    let metrics = recorder.snapshotter().snapshot().into_vec();
    let mut described = BTreeMap::new();
    let named = metrics.into_iter().map(|(key, unit, meaning, value)| {
        let key = key.key();
        let meaning = meaning.map(|meaning| meaning.into_owned());
        described.insert(key.name().to_owned(), (unit, meaning));
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        (format!("{}{{{}}}", key.name(), labels.join(",")), value)
    });
    let metrics = named.collect();
    let told = Told {
        entries: log.0.lock().unwrap().clone(),
        metrics,
        described,
    };
    for secret in SECRETS {
        told.assert_not_told(secret);
    }
    told
}

impl Told {
    /// The spans or events of that name.
    pub fn all(&self, name: &str) -> Vec<&Entry> {
        let named = self.entries.iter().filter(|entry| entry.name == name);
        named.collect()
    }

    /// The names, units and meanings of all metrics that there are.
    pub fn described(&self) -> impl Iterator<Item = (&str, Option<Unit>, &str)> {
        let described = self.described.iter();
        described.map(|(name, (unit, meaning))| {
            let meaning = meaning.as_deref();
            (&**name, *unit, meaning.unwrap_or_default())
        })
    }

    /// The names of all spans and events, in their order.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| &*entry.name).collect()
    }

    pub fn counter(&self, name: &str) -> u64 {
        match self.metrics.get(name) {
            None => 0,
            Some(DebugValue::Counter(value)) => *value,
            Some(other) => panic!("{name} is {other:?}"),
        }
    }

    pub fn gauge(&self, name: &str) -> f64 {
        match self.metrics.get(&format!("{name}{{}}")) {
            Some(DebugValue::Gauge(value)) => value.0,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// What a histogram has recorded.
    pub fn samples(&self, name: &str) -> Vec<f64> {
        match self.metrics.get(&format!("{name}{{}}")) {
            None => Vec::new(),
            Some(DebugValue::Histogram(values)) => values.iter().map(|value| value.0).collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    pub fn metrics(&self) -> Vec<&str> {
        self.metrics.keys().map(String::as_str).collect()
    }

    pub fn assert_not_told(&self, secret: &str) {
        let shown = format!("{:?} {:?}", self.entries, self.metrics);
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
}

// === recording ===

#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Entry>>>);

impl Log {
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut BTreeMap<&'static str, String>)) {
        let mut entries = self.0.lock().unwrap();
        let mut newest = entries.iter_mut().rev();
        if let Some(entry) = newest.find(|entry| entry.span.as_ref() == Some(id)) {
            change(&mut entry.fields);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if span.metadata().target() != "tower_symbl_auth" {
            return;
        }
        let mut fields = Fields::default();
        span.record(&mut fields);
        if let Some(parent) = context.span(id).and_then(|span| span.parent()) {
            fields.0.insert("parent", parent.name().to_owned());
        }
        self.0.lock().unwrap().push(Entry {
            span: Some(id.clone()),
            name: span.metadata().name().to_owned(),
            fields: fields.0,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut recorded = Fields::default();
        values.record(&mut recorded);
        self.change(id, |fields| fields.extend(recorded.0));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let name = context.span(follows).unwrap().name().to_owned();
        self.change(id, |fields| drop(fields.insert("follows", name)));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "tower_symbl_auth" {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields
            .0
            .insert("level", event.metadata().level().to_string());
        self.0.lock().unwrap().push(Entry {
            span: None,
            name: fields.0.remove("message").unwrap(),
            fields: fields.0,
        });
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let twice = self.0.insert(field.name(), format!("{value:?}"));
        assert_eq!(twice, None, "{field} is recorded once");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
