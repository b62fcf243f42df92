//! How a pull goes on, for somebody who watches standard error while the log goes elsewhere.
//!
//! The log says of each layer when it begins and when it is done. So where the log can be read, nothing is said twice;
//! where it cannot, one line that changes shows that something happens.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use images::store::PullEvent;

use crate::cli::operator::Operator;
use crate::task::image::PullObserver;

/// Time between two looks of the line.
const REFRESH: Duration = Duration::from_millis(100);

/// The observer of a task's pull, by where standard output, which has the log, and standard error lead.
pub(super) fn beside_log(operator: &Operator) -> PullObserver {
    if io::stdout().is_terminal() { Arc::new(|_| {}) } else { observer(operator) }
}

/// The observer of a pull of which nothing else tells.
pub(super) fn observer(operator: &Operator) -> PullObserver {
    if !io::stderr().is_terminal() {
        return Arc::new(|_| {});
    }
    let pull = Mutex::new(Pull::default());
    let operator = operator.clone();
    Arc::new(move |event| {
        let mut pull = pull.lock().unwrap_or_else(PoisonError::into_inner);
        pull.hear(event);
        let now = Instant::now();
        if pull.is_over() || pull.shown.is_none_or(|shown| now.duration_since(shown) >= REFRESH) {
            pull.shown = Some(now);
            operator.show_progress(&pull.line());
        }
    })
}

/// The layers of an image that are on their way.
#[derive(Default)]
struct Pull {
    layers: BTreeMap<String, Layer>,
    shown: Option<Instant>,
}

#[derive(Default)]
struct Layer {
    total_bytes: u64,
    bytes: u64,
    is_done: bool,
}

impl Pull {
    fn hear(&mut self, event: &PullEvent) {
        match event {
            PullEvent::LayerStarted { id, total_bytes } => {
                self.layers.insert(id.clone(), Layer { total_bytes: *total_bytes, ..Layer::default() });
            }
            PullEvent::LayerProgress { id, bytes, .. } => {
                if let Some(layer) = self.layers.get_mut(id) {
                    layer.bytes = *bytes;
                }
            }
            PullEvent::LayerDone { id, .. } => {
                if let Some(layer) = self.layers.get_mut(id) {
                    layer.bytes = layer.total_bytes;
                    layer.is_done = true;
                }
            }
            PullEvent::Status(_) => {}
        }
    }

    fn is_over(&self) -> bool {
        self.layers.values().all(|layer| layer.is_done)
    }

    /// Empty when there is nothing to show.
    fn line(&self) -> String {
        if self.is_over() {
            return String::new();
        }
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        let sum = |bytes: fn(&Layer) -> u64| {
            let tenths = self.layers.values().map(bytes).sum::<u64>() / 100_000;
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        format!(
            "docker-worker: image: {done} of {} layers, {} of {} MB",
            self.layers.len(),
            sum(|layer| layer.bytes),
            sum(|layer| layer.total_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_shows_all_layers_and_goes_with_the_last() {
        let started = |id: &str, total_bytes| PullEvent::LayerStarted { id: id.to_owned(), total_bytes };
        let done = |id: &str| PullEvent::LayerDone { id: id.to_owned(), took: Duration::from_secs(1) };
        let cases = [
            (started("a", 2_000_000), "docker-worker: image: 0 of 1 layers, 0.0 of 2.0 MB"),
            (started("b", 10_550_000), "docker-worker: image: 0 of 2 layers, 0.0 of 12.5 MB"),
            (done("a"), "docker-worker: image: 1 of 2 layers, 2.0 of 12.5 MB"),
            (done("b"), ""),
        ];
        let mut pull = Pull::default();
        for (event, expected) in cases {
            pull.hear(&event);
            assert_eq!(pull.line(), expected, "{event:?}");
        }
    }
}
