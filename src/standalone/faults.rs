//! What the queue cannot do by itself is told to the operator.

use tokio::sync::watch;

use crate::event::{Event, Events};

/// Tells of each fault as it comes, for ever.
pub(super) async fn tell(mut faults: watch::Receiver<Option<String>>, events: Events) {
    while faults.changed().await.is_ok() {
        let fault = faults.borrow_and_update().clone();
        if let Some(fault) = fault {
            let message = format!("{fault}; this is tried again every now and then");
            events.emit(&Event::Warning { message: &message });
        }
    }
}
