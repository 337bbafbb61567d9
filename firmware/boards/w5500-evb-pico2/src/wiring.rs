//! Which pin goes where: `hardware-configs/boards/w5500-evb-pico2.toml` and the board's README in code.

use crate::{adc, chip};
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_futures::block_on;
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, Runner, State};
use embassy_rp::adc::{Adc, Channel};
use embassy_rp::flash::{self, Flash};
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::peripherals::{DMA_CH0, DMA_CH1, DMA_CH2, DMA_CH3, FLASH, SPI0, SPI1, TRNG, UART0};
use embassy_rp::spi::{self, Async, Spi};
use embassy_rp::trng::{self, Trng};
use embassy_rp::uart::{self, BufferedInterruptHandler, BufferedUart};
use embassy_rp::watchdog::Watchdog;
use embassy_rp::{Peripherals, bind_interrupts, dma};
use embassy_time::{Delay, Duration};
use embedded_hal_bus::spi::ExclusiveDevice;
use spindle_firmware::app::{self, WATCHDOG_TIMEOUT_MS};
use spindle_firmware::config::{LinkConfig, SensorConfig};
use static_cell::{ConstStaticCell, StaticCell};

bind_interrupts!(struct Interrupts {
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>, dma::InterruptHandler<DMA_CH1>,
        dma::InterruptHandler<DMA_CH2>, dma::InterruptHandler<DMA_CH3>;
    DMA_IRQ_1 => adc::PieceFilled;
    TRNG_IRQ => trng::InterruptHandler<TRNG>;
    UART0_IRQ => BufferedInterruptHandler<UART0>;
});

/// Flash of the board.
pub const FLASH_LEN: usize = 2 * 1024 * 1024;

/// One sensor's bus.
pub type SensorBus = ExclusiveDevice<Spi<'static, SPI1, Async>, Output<'static>, Delay>;

/// The Ethernet, for the network stack.
pub type Network = Device<'static>;

/// The serial line to the gateway.
pub type SerialPort = BufferedUart;

/// The light.
pub type Led = Output<'static>;

/// The chip's watchdog.
pub struct Guard(Watchdog);

impl Guard {
    /// From now on it must be fed. A debugger that halts the processor halts it too.
    pub fn start(&mut self) {
        self.0.pause_on_debug(true);
        self.0.start(Duration::from_millis(WATCHDOG_TIMEOUT_MS.into()));
    }
}

impl app::Watchdog for Guard {
    fn feed(&mut self) {
        self.0.feed(Duration::from_millis(WATCHDOG_TIMEOUT_MS.into()));
    }
}

/// Randomness that nobody can guess, from the chip's noise (RP2350 datasheet, TRNG).
pub struct Random(Trng<'static, TRNG>);

impl Random {
    /// Waits for it: about 2 ms for 24 bytes by the datasheet. Noise that fails the chip's tests is not used; a chip whose noise
    /// is gone ends at the watchdog.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        // The driver's own blocking calls panic at noise that fails a test; this one starts again.
        block_on(self.0.fill_bytes(bytes));
    }
}

/// The W5500's bus.
type EthernetBus = ExclusiveDevice<Spi<'static, SPI0, Async>, Output<'static>, Delay>;

/// What moves frames between the W5500 and the network stack: a task of its own.
pub type EthernetRunner = Runner<'static, W5500, EthernetBus, Input<'static>, Output<'static>>;

/// The W5500 before it was spoken to.
pub struct Ethernet {
    bus: EthernetBus,
    interrupt: Input<'static>,
    reset: Output<'static>,
}

/// A sensor port.
pub struct Port {
    /// Its SPI with chip select.
    pub bus: SensorBus,
    /// Its interrupt.
    pub int1: Input<'static>,
}

/// The chip's flash.
pub type SettingsFlash = BlockingAsync<Flash<'static, FLASH, flash::Blocking, FLASH_LEN>>;

/// The way to the gateway that the node's file names.
pub enum Link {
    /// MQTT over Ethernet.
    Ethernet(Ethernet),
    /// Frames over UART0.
    Serial(SerialPort),
}

/// Everything on the board, by what it is for.
pub struct Wired {
    /// Port `spi1`, where a sensor is wired to it.
    pub spi1: Option<Port>,
    /// Port `adc`, where a sensor is wired to it.
    pub adc: Option<adc::Stream>,
    /// The way to the gateway.
    pub link: Link,
    /// Settings: sectors that `memory.x` keeps free, erased and written in place.
    pub settings: SettingsFlash,
    /// The user LED.
    pub led: Led,
    /// Starts when it is told to.
    pub guard: Guard,
    /// The chip's random number generator.
    pub random: Random,
}

/// Frames that wait on their way to and from the W5500, which has 16 KB of its own for each direction.
const TX_FRAMES: usize = 8;
const RX_FRAMES: usize = 4;

/// Bytes on their way to the serial line: its interrupt refills half a FIFO at a time, the sender wakes now and then.
const SERIAL_TX_LEN: usize = 1024;

/// Bytes of the gateway's messages that wait: two of the longest.
const SERIAL_RX_LEN: usize = 256;

/// The W5500's datasheet guarantees 33.3 MHz; of 150 MHz the SPI makes 25 MHz, which is more than the 15 Mbit/s that the chip
/// moves.
const ETHERNET_SPI_HZ: u32 = 33_300_000;

/// Bit rates that UART0 reaches from 150 MHz with an error below the line's (PL011, RP2350 datasheet).
pub const fn is_baud(baud: u32) -> bool {
    baud >= 1_000 && baud <= 3_000_000
}

/// Connects the pins. `sensor` tells what is wired to a port of this name.
pub fn wire(
    p: Peripherals,
    link: LinkConfig,
    sensor: impl Fn(&str) -> Option<&'static SensorConfig>,
) -> Wired {
    let spi1 = sensor("spi1").map(|sensor| {
        let mut config = spi::Config::default();
        config.frequency = sensor.spi_hz_max;
        if sensor.spi_mode == 3 {
            config.phase = spi::Phase::CaptureOnSecondTransition;
            config.polarity = spi::Polarity::IdleHigh;
        }
        let bus = Spi::new(p.SPI1, p.PIN_10, p.PIN_11, p.PIN_12, p.DMA_CH2, p.DMA_CH3, Interrupts, config);
        let bus = exclusive(bus, Output::new(p.PIN_13, Level::High));
        // No pull: the sensor drives the line, and a pull-down is weaker than what an RP2350 pin may leak (erratum RP2350-E9).
        Port { bus, int1: Input::new(p.PIN_14, Pull::None) }
    });
    let adc = sensor("adc").map(|sensor| {
        let pins = [Channel::new_pin(p.PIN_26, Pull::None), Channel::new_pin(p.PIN_27, Pull::None)];
        let converter = Adc::new_blocking(p.ADC, embassy_rp::adc::Config::default());
        let self_test = Output::new(p.PIN_28, Level::Low);
        adc::Stream::new(converter, pins, p.DMA_CH4, Interrupts, self_test, sensor)
    });
    let link = match link {
        LinkConfig::Ethernet { .. } => {
            let mut config = spi::Config::default();
            config.frequency = ETHERNET_SPI_HZ;
            let bus =
                Spi::new(p.SPI0, p.PIN_18, p.PIN_19, p.PIN_16, p.DMA_CH0, p.DMA_CH1, Interrupts, config);
            Link::Ethernet(Ethernet {
                bus: exclusive(bus, Output::new(p.PIN_17, Level::High)),
                interrupt: Input::new(p.PIN_21, Pull::Up),
                reset: Output::new(p.PIN_20, Level::High),
            })
        }
        LinkConfig::Serial { baud } => {
            static SENDING: ConstStaticCell<[u8; SERIAL_TX_LEN]> = ConstStaticCell::new([0; SERIAL_TX_LEN]);
            static RECEIVED: ConstStaticCell<[u8; SERIAL_RX_LEN]> = ConstStaticCell::new([0; SERIAL_RX_LEN]);
            let mut config = uart::Config::default();
            config.baudrate = baud;
            let (sending, received) = (SENDING.take(), RECEIVED.take());
            Link::Serial(BufferedUart::new(p.UART0, p.PIN_0, p.PIN_1, Interrupts, sending, received, config))
        }
    };
    Wired {
        spi1,
        adc,
        link,
        settings: BlockingAsync::new(Flash::new_blocking(p.FLASH)),
        led: Output::new(p.PIN_25, Level::Low),
        guard: Guard(Watchdog::new(p.WATCHDOG)),
        random: Random(Trng::new(p.TRNG, Interrupts, trng::Config::default())),
    }
}

/// A bus with one device on it.
fn exclusive<B>(bus: B, chip_select: Output<'static>) -> ExclusiveDevice<B, Output<'static>, Delay> {
    match ExclusiveDevice::new(bus, chip_select, Delay) {
        Ok(device) => device,
        // The chip select pin has no error.
        Err(error) => match error {},
    }
}

impl Ethernet {
    /// Resets the W5500 and sets it up. Its task must run for frames to move.
    pub async fn start(self) -> Option<(Device<'static>, EthernetRunner)> {
        static FRAMES: StaticCell<State<RX_FRAMES, TX_FRAMES>> = StaticCell::new();
        let frames = FRAMES.init(State::new());
        // Fails when the chip does not answer as a W5500.
        embassy_net_wiznet::new(chip::mac_address(), frames, self.bus, self.interrupt, self.reset).await.ok()
    }
}
