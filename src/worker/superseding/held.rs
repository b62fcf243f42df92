//! The tasks that a worker has now, so that it does not have one twice: what it holds, a queue gives it once more.

use std::cell::RefCell;
use std::rc::Rc;

use crate::queue::task_id::TaskId;

/// All of them. A task may be there twice: its second run may begin before the first one is gone from here.
#[derive(Debug, Default)]
pub(super) struct HeldTasks(Rc<RefCell<Vec<TaskId>>>);

/// One of them, as long as it lives.
#[derive(Debug)]
pub(in crate::worker) struct HeldTask {
    all: Rc<RefCell<Vec<TaskId>>>,
    task_id: TaskId,
}

impl HeldTasks {
    pub(super) fn hold(&self, task_id: &TaskId) -> HeldTask {
        self.0.borrow_mut().push(task_id.clone());
        HeldTask { all: Rc::clone(&self.0), task_id: task_id.clone() }
    }

    /// Nothing where the worker has it already.
    pub(super) fn hold_if_free(&self, task_id: &TaskId) -> Option<HeldTask> {
        let is_held = self.0.borrow().contains(task_id);
        (!is_held).then(|| self.hold(task_id))
    }
}

impl Drop for HeldTask {
    fn drop(&mut self) {
        let mut all = self.all.borrow_mut();
        if let Some(place) = all.iter().position(|task_id| *task_id == self.task_id) {
            all.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_held_until_the_last_one_lets_go() {
        let (tasks, task) = (HeldTasks::default(), TaskId::random().unwrap());
        let (first, second) = (tasks.hold(&task), tasks.hold(&task));
        assert!(tasks.hold_if_free(&task).is_none());
        drop(first);
        assert!(tasks.hold_if_free(&task).is_none());
        drop(second);
        assert!(tasks.hold_if_free(&task).is_some());
    }
}
