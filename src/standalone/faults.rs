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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn each_fault_is_told_and_no_end_of_one() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let events = Events::to(move |event| {
            if let Event::Warning { message } = event {
                heard.lock().unwrap().push((*message).to_owned());
            }
        });
        let (faulty, faults) = watch::channel(None);
        let telling = tell(faults, events);
        let failing = async {
            for fault in [Some("one"), None, Some("two")] {
                faulty.send_replace(fault.map(str::to_owned));
                tokio::task::yield_now().await;
            }
            drop(faulty);
        };
        tokio::join!(biased; telling, failing);
        let again = "; this is tried again every now and then";
        assert_eq!(*told.lock().unwrap(), [format!("one{again}"), format!("two{again}")]);
    }
}
