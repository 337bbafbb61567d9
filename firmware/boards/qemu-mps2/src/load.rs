//! What the board executes, in steps of the machine's 25 MHz counter: with QEMU's `-icount` a step is a fixed number of
//! instructions. Models stand in for chips, which work by themselves: their steps are counted apart.

use crate::time;
use core::cell::Cell;
use core::future::poll_fn;
use core::pin::pin;
use critical_section::Mutex;
use embedded_hal::digital::ErrorType as PinErrorType;
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::{ErrorType, Operation, SpiDevice};

/// Steps counted.
pub struct Steps(Mutex<Cell<u64>>);

/// Before the first task ran.
pub static STARTING: Steps = Steps::new();
/// While the processor slept.
pub static ASLEEP: Steps = Steps::new();
/// In the models of the board's sensors.
pub static MODELS: Steps = Steps::new();

impl Steps {
    const fn new() -> Self {
        Self(Mutex::new(Cell::new(0)))
    }

    /// Adds some.
    pub fn add(&self, steps: u32) {
        critical_section::with(|section| {
            let sum = self.0.borrow(section);
            sum.set(sum.get() + u64::from(steps));
        });
    }

    /// The sum.
    pub fn get(&self) -> u64 {
        critical_section::with(|section| self.0.borrow(section).get())
    }

    /// Does something and adds what it takes.
    pub fn of<R>(&self, act: impl FnOnce() -> R) -> R {
        let start = time::steps();
        let result = act();
        self.add(time::steps().wrapping_sub(start));
        result
    }
}

/// A part of a model that counts what it takes.
pub struct Modelled<T>(pub T);

/// What a model does, counted.
pub async fn modelled<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|context| MODELS.of(|| work.as_mut().poll(context))).await
}

impl<T: ErrorType> ErrorType for Modelled<T> {
    type Error = T::Error;
}

impl<T: SpiDevice> SpiDevice for Modelled<T> {
    async fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), T::Error> {
        modelled(self.0.transaction(operations)).await
    }
}

impl<T: PinErrorType> PinErrorType for Modelled<T> {
    type Error = T::Error;
}

impl<T: Wait> Wait for Modelled<T> {
    async fn wait_for_high(&mut self) -> Result<(), T::Error> {
        modelled(self.0.wait_for_high()).await
    }

    async fn wait_for_low(&mut self) -> Result<(), T::Error> {
        modelled(self.0.wait_for_low()).await
    }

    async fn wait_for_rising_edge(&mut self) -> Result<(), T::Error> {
        modelled(self.0.wait_for_rising_edge()).await
    }

    async fn wait_for_falling_edge(&mut self) -> Result<(), T::Error> {
        modelled(self.0.wait_for_falling_edge()).await
    }

    async fn wait_for_any_edge(&mut self) -> Result<(), T::Error> {
        modelled(self.0.wait_for_any_edge()).await
    }
}
