//! How a pull goes on, for whoever watches standard error: a bar for each layer on a terminal, plain
//! lines elsewhere, nothing beside events.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use images::store::PullEvent;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::say;
use crate::task::run::PullObserver;

/// The form of a layer's bar.
const BAR: &str = "{prefix} [{bar:40}] {bytes:>10} of {total_bytes:<10} {bytes_per_sec}";

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// People, on a terminal or not.
    People,
    /// Nobody: events say it.
    Nobody,
}

/// The observer for an audience.
pub fn observer(audience: Audience) -> PullObserver {
    match audience {
        Audience::Nobody => Box::new(|_| {}),
        Audience::People if io::stderr().is_terminal() => {
            let bars = Bars::default();
            Box::new(move |event| bars.show(event))
        }
        Audience::People => Box::new(print),
    }
}

fn print(event: &PullEvent) {
    match event {
        PullEvent::LayerStarted { id, total_bytes } => {
            say(&format!("layer {id}: downloading {total_bytes} bytes"));
        }
        PullEvent::LayerDone { id, took } => {
            say(&format!("layer {id}: done in {:.1} s", took.as_secs_f64()));
        }
        PullEvent::LayerProgress { .. } | PullEvent::Status(_) => {}
    }
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    fn show(&self, event: &PullEvent) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            PullEvent::LayerStarted { id, total_bytes } => {
                let style = ProgressStyle::with_template(BAR);
                let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = ProgressBar::new(*total_bytes).with_style(style).with_prefix(id.clone());
                layers.insert(id.clone(), self.all.add(bar));
            }
            PullEvent::LayerProgress { id, bytes, .. } => {
                if let Some(bar) = layers.get(id) {
                    bar.set_position(*bytes);
                }
            }
            PullEvent::LayerDone { id, .. } => {
                if let Some(bar) = layers.remove(id) {
                    // Gone when done: the task's output follows on the same terminal.
                    bar.finish_and_clear();
                }
            }
            PullEvent::Status(_) => {}
        }
    }
}
