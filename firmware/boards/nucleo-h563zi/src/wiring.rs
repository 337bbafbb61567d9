//! Which pin goes where: `hardware-configs/boards/nucleo-h563zi.toml` and the board's README in code.

use crate::chip;
use embassy_embedded_hal::adapter::BlockingAsync;
use embassy_stm32::eth::{self, Ethernet, GenericPhy, PacketQueue, Sma};
use embassy_stm32::exti::{self, ExtiInput};
use embassy_stm32::flash::{self, Flash};
use embassy_stm32::gpio::{Level, Output, Pull, Speed};
use embassy_stm32::mode::Async;
use embassy_stm32::rng::{self, Rng};
use embassy_stm32::spi::mode::Master;
use embassy_stm32::spi::{self, Spi};
use embassy_stm32::time::Hertz;
use embassy_stm32::usart::{self, RingBufferedUartRx, Uart, UartTx};
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::{Peripherals, bind_interrupts, dma, interrupt, peripherals};
use embassy_time::Delay;
use embedded_hal_bus::spi::ExclusiveDevice;
use spindle_firmware::app::{WATCHDOG_TIMEOUT_MS, Watchdog};
use spindle_firmware::config::{LinkConfig, SensorConfig};
use static_cell::{ConstStaticCell, StaticCell};

bind_interrupts!(struct Interrupts {
    ETH => eth::InterruptHandler;
    EXTI2 => exti::InterruptHandler<interrupt::typelevel::EXTI2>;
    EXTI3 => exti::InterruptHandler<interrupt::typelevel::EXTI3>;
    GPDMA1_CHANNEL0 => dma::InterruptHandler<peripherals::GPDMA1_CH0>;
    GPDMA1_CHANNEL1 => dma::InterruptHandler<peripherals::GPDMA1_CH1>;
    GPDMA1_CHANNEL2 => dma::InterruptHandler<peripherals::GPDMA1_CH2>;
    GPDMA1_CHANNEL3 => dma::InterruptHandler<peripherals::GPDMA1_CH3>;
    GPDMA1_CHANNEL4 => dma::InterruptHandler<peripherals::GPDMA1_CH4>;
    GPDMA1_CHANNEL5 => dma::InterruptHandler<peripherals::GPDMA1_CH5>;
    RNG => rng::InterruptHandler<peripherals::RNG>;
    USART3 => usart::InterruptHandler<peripherals::USART3>;
});

/// The Ethernet MAC and its PHY.
pub type Network = Ethernet<'static, peripherals::ETH, GenericPhy<Sma<'static, peripherals::ETH_SMA>>>;

/// One sensor's bus.
pub type SensorBus = ExclusiveDevice<Spi<'static, Async, Master>, Output<'static>, Delay>;

/// A sensor port.
pub struct Port {
    /// Its SPI with chip select.
    pub bus: SensorBus,
    /// Its interrupt.
    pub int1: ExtiInput<'static, Async>,
}

/// The line to the gateway through the ST-LINK's USB.
pub struct SerialPort {
    tx: UartTx<'static, Async>,
    rx: RingBufferedUartRx<'static>,
}

/// The light.
pub type Led = Output<'static>;

/// The independent watchdog.
pub struct Guard(pub IndependentWatchdog<'static, peripherals::IWDG>);

impl Watchdog for Guard {
    fn feed(&mut self) {
        self.0.pet();
    }
}

/// Randomness that nobody can guess: the chip's noise, conditioned (RM0481, RNG).
pub struct Random(Rng<'static, peripherals::RNG>);

impl Random {
    /// Waits for it, some microseconds a word. Noise that fails its tests is not used: the generator is set up again, and a chip
    /// whose noise is gone ends at the watchdog.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// The chip's flash.
pub type SettingsFlash = BlockingAsync<Flash<'static, flash::Blocking>>;

/// The way to the gateway that the node's file names.
pub enum Link {
    /// MQTT over Ethernet.
    Ethernet(Network),
    /// Frames over USART3.
    Serial(SerialPort),
}

/// Everything on the board, by what it is for.
pub struct Wired {
    /// Port `spi1`, where a sensor is wired to it.
    pub spi1: Option<Port>,
    /// Port `spi3`, where a sensor is wired to it.
    pub spi3: Option<Port>,
    /// The way to the gateway.
    pub link: Link,
    /// Settings: sectors that `memory.x` keeps free, erased and written in place.
    pub settings: SettingsFlash,
    /// LD1, green.
    pub led: Led,
    /// Starts when it is told to.
    pub guard: Guard,
    /// The chip's random number generator.
    pub random: Random,
}

/// Frames that the Ethernet hardware holds: outgoing ones by the burst that the TCP window allows, incoming ones are acks.
const TX_FRAMES: usize = 8;
const RX_FRAMES: usize = 4;

/// Bytes of the gateway's messages that the serial line's DMA holds: two of the longest.
const SERIAL_RX_LEN: usize = 256;

/// Bit rates that USART3 reaches from 250 MHz: it divides by 16 to 65,535 (RM0481, USART_BRR).
pub const fn is_baud(baud: u32) -> bool {
    baud >= 250_000_000 / 65_535 + 1 && baud <= 250_000_000 / 16
}

/// Connects the pins. `sensor` tells what is wired to a port of this name.
pub fn wire(
    p: Peripherals,
    link: LinkConfig,
    sensor: impl Fn(&str) -> Option<&'static SensorConfig>,
) -> Wired {
    let spi1 = sensor("spi1").map(|sensor| {
        let (tx, rx) = (p.GPDMA1_CH0, p.GPDMA1_CH1);
        let bus = Spi::new(p.SPI1, p.PA5, p.PB5, p.PG9, tx, rx, Interrupts, spi_config(sensor));
        let int1 = ExtiInput::new(p.PF3, p.EXTI3, Pull::Down, Interrupts);
        Port::new(bus, Output::new(p.PD14, Level::High, Speed::High), int1)
    });
    let spi3 = sensor("spi3").map(|sensor| {
        let (tx, rx) = (p.GPDMA1_CH2, p.GPDMA1_CH3);
        let bus = Spi::new(p.SPI3, p.PC10, p.PC12, p.PC11, tx, rx, Interrupts, spi_config(sensor));
        let int1 = ExtiInput::new(p.PG2, p.EXTI2, Pull::Down, Interrupts);
        Port::new(bus, Output::new(p.PD2, Level::High, Speed::High), int1)
    });
    let link = match link {
        LinkConfig::Ethernet { .. } => {
            static FRAMES: ConstStaticCell<PacketQueue<TX_FRAMES, RX_FRAMES>> =
                ConstStaticCell::new(PacketQueue::new());
            // RMII to the LAN8742 (UM3115): clock, carrier, receive 0 and 1, transmit 0 and 1, enable; then its registers.
            Link::Ethernet(Ethernet::new(
                FRAMES.take(),
                p.ETH,
                Interrupts,
                p.PA1,
                p.PA7,
                p.PC4,
                p.PC5,
                p.PG13,
                p.PB15,
                p.PG11,
                chip::mac_address(),
                p.ETH_SMA,
                p.PA2,
                p.PC1,
            ))
        }
        LinkConfig::Serial { baud } => {
            static RECEIVED: StaticCell<[u8; SERIAL_RX_LEN]> = StaticCell::new();
            let mut config = usart::Config::default();
            config.baudrate = baud;
            let (tx, rx) = (p.GPDMA1_CH4, p.GPDMA1_CH5);
            let uart = Uart::new(p.USART3, p.PD9, p.PD8, tx, rx, Interrupts, config);
            #[expect(clippy::unwrap_used, reason = "the build has checked the rate with `is_baud`")]
            let (tx, rx) = uart.unwrap().split();
            let rx = rx.into_ring_buffered(RECEIVED.init([0; SERIAL_RX_LEN]));
            Link::Serial(SerialPort { tx, rx })
        }
    };
    Wired {
        spi1,
        spi3,
        link,
        settings: BlockingAsync::new(Flash::new_blocking(p.FLASH)),
        led: Output::new(p.PB0, Level::Low, Speed::Low),
        guard: Guard(IndependentWatchdog::new(p.IWDG, WATCHDOG_TIMEOUT_MS * 1_000)),
        random: Random(Rng::new(p.RNG, Interrupts)),
    }
}

fn spi_config(sensor: &SensorConfig) -> spi::Config {
    let mut config = spi::Config::default();
    config.mode = if sensor.spi_mode == 3 { spi::MODE_3 } else { spi::MODE_0 };
    config.frequency = Hertz(sensor.spi_hz_max);
    // Wires of some decimetres: slower edges ring less, and are fast enough for 10 MHz.
    config.gpio_speed = Speed::Medium;
    config
}

impl Port {
    fn new(
        bus: Spi<'static, Async, Master>,
        chip_select: Output<'static>,
        int1: ExtiInput<'static, Async>,
    ) -> Self {
        // The chip select pin has no error.
        let bus = match ExclusiveDevice::new(bus, chip_select, Delay) {
            Ok(bus) => bus,
            Err(error) => match error {},
        };
        Self { bus, int1 }
    }
}

impl embedded_io_async::ErrorType for SerialPort {
    type Error = usart::Error;
}

impl embedded_io_async::Read for SerialPort {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, usart::Error> {
        self.rx.read(bytes).await
    }
}

impl embedded_io_async::Write for SerialPort {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, usart::Error> {
        self.tx.write(bytes).await?;
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), usart::Error> {
        // `write` returns when DMA has taken the last byte; the line's next bytes queue behind it.
        Ok(())
    }
}
