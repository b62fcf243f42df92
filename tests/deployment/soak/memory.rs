//! What the worker's lives have had of memory, as time went on.

/// Tasks that a life has to have for its memory to show anything.
const MANY: usize = 1000;

/// By so many bytes it may grow, once the worker has done this part of its life's tasks: by what the allocator keeps.
const GROWTH: u64 = 8 << 20;
const BEGIN: usize = 4;

/// Tasks between two lines of the table.
const STEP: usize = 1000;

/// One moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    resolved: usize,
    bytes: u64,
}

/// See the module's head.
#[derive(Default)]
pub struct Memory {
    /// Of each life that had one.
    lives: Vec<Vec<Moment>>,
    is_begun: bool,
}

impl Memory {
    /// A worker has been killed, and another one begins.
    pub fn begin_life(&mut self) {
        self.is_begun = false;
    }

    /// Notes what the worker has, when so many runs are resolved in all.
    pub fn note(&mut self, resolved: usize, bytes: u64) {
        if !self.is_begun {
            self.lives.push(Vec::new());
            self.is_begun = true;
        }
        self.lives.last_mut().unwrap().push(Moment { resolved, bytes });
    }

    /// The life that had most tasks.
    fn longest(&self) -> &[Moment] {
        let longest = self.lives.iter().max_by_key(|life| tasks(life));
        longest.map_or(&[], Vec::as_slice)
    }

    /// Lines of a table: the longest life at some moments.
    pub fn lines(&self) -> Vec<String> {
        let mut next = 0;
        let mut lines = Vec::new();
        for moment in self.longest() {
            if moment.resolved >= next {
                lines.push(format!("{:>6} runs: {:>5} KiB", moment.resolved, moment.bytes >> 10));
                next = (moment.resolved / STEP + 1) * STEP;
            }
        }
        lines
    }

    /// A sentence if the worker has grown in its longest life.
    pub fn problem(&self) -> Option<String> {
        let life = self.longest();
        let (count, first, last) = (tasks(life), life.first()?, life.last()?);
        if count < MANY {
            return None;
        }
        let begun = life.iter().find(|moment| moment.resolved >= first.resolved + count / BEGIN)?;
        (last.bytes > begun.bytes + GROWTH).then(|| {
            format!(
                "the worker has grown from {} KiB to {} KiB while {} runs were resolved",
                begun.bytes >> 10,
                last.bytes >> 10,
                last.resolved - begun.resolved
            )
        })
    }
}

fn tasks(life: &[Moment]) -> usize {
    life.first().zip(life.last()).map_or(0, |(first, last)| last.resolved - first.resolved)
}
