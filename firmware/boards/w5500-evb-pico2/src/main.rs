//! x
#![no_std]
#![no_main]
use embassy_executor::Spawner;
use embassy_rp as _;
use embassy_net as _;
#[embassy_executor::main]
async fn main(_spawner: Spawner) {}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
