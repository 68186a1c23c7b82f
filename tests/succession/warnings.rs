//! The warning that a limit on fetches was met.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry,
};

/// Counts them on this thread, until dropped.
pub struct Warnings {
    count: Arc<AtomicUsize>,
    _guard: DefaultGuard,
}

impl Warnings {
    pub fn listen() -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Counter(Arc::clone(&count)).with_filter(LevelFilter::WARN);
        let guard = tracing::subscriber::set_default(registry().with(counter));
        Self {
            count,
            _guard: guard,
        }
    }

    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
}

struct Counter(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Counter {
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let mut message = Message(false);
        event.record(&mut message);
        if *event.metadata().level() == Level::WARN && message.0 {
            self.0.fetch_add(1, Relaxed);
        }
    }
}

/// Whether it is the one.
struct Message(bool);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.0 |=
            field.name() == "message" && text.starts_with("too many fetches after rejections");
    }
}
