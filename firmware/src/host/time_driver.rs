//! embassy-time on a host: one thread, one heap, no bound on the number of waiting tasks. (embassy-time's own `std` driver
//! has a queue of fixed, small size.)
//!
//! As in embassy's own queues each task has one entry, its earliest wake-up; when woken it asks again. So what a cancelled
//! timer leaves behind is at most one early wake-up per task.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the clock of virtual boards, and it runs one thread of its own"
)]

use core::task::Waker;
use embassy_time_driver::Driver;
use parking_lot::{Condvar, Mutex};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What tells one task from another: its waker's data and vtable.
type Key = (usize, usize);

#[derive(Default)]
struct Queue {
    wakers: HashMap<Key, (u64, Waker)>,
    /// May hold entries that are out of date; `wakers` decides.
    heap: BinaryHeap<Reverse<(u64, Key)>>,
    running: bool,
}

struct HostDriver {
    start: OnceLock<Instant>,
    queue: OnceLock<Mutex<Queue>>,
    changed: Condvar,
}

impl HostDriver {
    fn queue(&self) -> &Mutex<Queue> {
        self.queue.get_or_init(Mutex::default)
    }

    fn run(&self) {
        let mut due = Vec::new();
        let mut queue = self.queue().lock();
        loop {
            let now = self.now();
            while let Some(&Reverse((at, key))) = queue.heap.peek() {
                let current = queue.wakers.get(&key).is_some_and(|(its, _)| *its == at);
                if current && at > now {
                    break;
                }
                queue.heap.pop();
                if current && let Some((_, waker)) = queue.wakers.remove(&key) {
                    due.push(waker);
                }
            }
            if !due.is_empty() {
                // Waking runs foreign code: never under the lock.
                drop(queue);
                due.drain(..).for_each(Waker::wake);
                queue = self.queue().lock();
                continue;
            }
            match queue.heap.peek() {
                Some(&Reverse((at, _))) => {
                    self.changed.wait_for(&mut queue, Duration::from_micros(at.saturating_sub(now)));
                }
                None => self.changed.wait(&mut queue),
            }
        }
    }
}

impl Driver for HostDriver {
    fn now(&self) -> u64 {
        let elapsed = self.start.get_or_init(Instant::now).elapsed();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        let key = (waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize);
        let mut queue = self.queue().lock();
        if queue.wakers.get(&key).is_some_and(|(its, _)| *its <= at) {
            return;
        }
        let first = queue.heap.peek().is_none_or(|Reverse((earliest, _))| at < *earliest);
        queue.wakers.insert(key, (at, waker.clone()));
        queue.heap.push(Reverse((at, key)));
        if !queue.running {
            queue.running = true;
            let thread = std::thread::Builder::new().name("spindle-time".into());
            // Without its thread nothing in this process could ever wait: there is nobody to report it to but the panic.
            #[allow(clippy::expect_used, reason = "see above")]
            thread.spawn(|| DRIVER.run()).expect("the timer thread starts");
        } else if first {
            drop(queue);
            self.changed.notify_one();
        }
    }
}

embassy_time_driver::time_driver_impl!(static DRIVER: HostDriver = HostDriver {
    start: OnceLock::new(),
    queue: OnceLock::new(),
    changed: Condvar::new(),
});

#[cfg(test)]
mod tests {
    use embassy_time::{Duration, Instant, Timer};

    #[test]
    fn a_thousand_tasks_wait_at_once_and_each_wakes_in_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = tokio::task::LocalSet::new();
        let waits: Vec<_> = (0..1000u64)
            .map(|task| {
                tasks.spawn_local(async move {
                    let start = Instant::now();
                    let wait = Duration::from_millis(20 + task % 50);
                    Timer::after(wait).await;
                    assert!(start.elapsed() >= wait);
                })
            })
            .collect();
        runtime.block_on(tasks.run_until(async {
            for wait in waits {
                wait.await.unwrap();
            }
        }));
    }
}
