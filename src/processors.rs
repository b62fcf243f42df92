//! One processor for each task (`restrictCPU`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::scheduling::ProcessorSet;

/// The processors that no task has.
#[derive(Debug)]
pub struct Processors(Mutex<BTreeSet<usize>>);

/// A processor that one task has. It is free again when the value goes.
#[derive(Debug)]
pub struct Processor {
    number: usize,
    from: Arc<Processors>,
}

impl Processors {
    /// All of these are free.
    pub fn of(set: &ProcessorSet) -> Arc<Processors> {
        Arc::new(Processors(Mutex::new(set.numbers().collect())))
    }

    /// The lowest that is free.
    pub fn take(self: &Arc<Self>) -> Option<Processor> {
        let number = self.free().pop_first()?;
        Some(Processor { number, from: Arc::clone(self) })
    }

    fn free(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Processor {
    /// Which one.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.from.free().insert(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tasks_have_the_same_processor() {
        let processors = Processors::of(&"1,3".parse().unwrap());
        let first = processors.take().unwrap();
        let second = processors.take().unwrap();
        assert_eq!((first.number(), second.number()), (1, 3));
        assert!(processors.take().is_none());
        drop(first);
        assert_eq!(processors.take().map(|again| again.number()), Some(1));
    }
}
