//! What the board has from the computer that emulates it, by semihosting: arguments, randomness, a console, an exit status.
//! QEMU needs `-semihosting-config enable=on,target=native`.

use core::fmt::Write as _;
use cortex_m_semihosting::{hio, nr};

/// Longest command line.
const LINE_LEN: usize = 512;

/// `ADP_Stopped_ApplicationExit`, the reason that carries a status.
const APPLICATION_EXIT: usize = 0x2_0026;

/// The words of `-semihosting-config arg=...`, for tests and trials; each is `NAME=VALUE`. Unknown ones end the run, so that a
/// misspelt one is noticed. QEMU splits at commas.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arguments {
    /// `broker=ADDRESS:PORT` in place of the node's.
    pub broker: Option<&'static str>,
    /// `link=ethernet` or `link=serial` in place of the node's.
    pub link: Option<Link>,
    /// `seed=N`: of the modelled sensors; sensor number i has seed N + i.
    pub seed: u32,
    /// `samples=N`: each model ends after N frames; when all are acknowledged the run ends with status 0.
    pub samples: Option<u64>,
    /// `overruns=on`: models overrun their FIFO when they are read too late, as real ones do; without it they wait.
    pub overruns: bool,
    /// `hang=TASK`: in the first run after power-on the task (`uplink`, or a sensor's name) waits for ever after 3 s.
    pub hang: Option<&'static str>,
    /// `spin=TASK`: the same, but it never lets go of the processor.
    pub spin: Option<&'static str>,
    /// `panic=SECONDS`: in the first run after power-on there is a panic after so long.
    pub panic_s: Option<u64>,
    /// `random=N`: in place of the computer's randomness, so that a boot id repeats.
    pub random: Option<u64>,
}

/// Ways to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// MQTT.
    Ethernet,
    /// The UART.
    Serial,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// The word that is not understood.
    pub fn read() -> Result<Self, &'static str> {
        let mut arguments = Self { seed: 1, ..Self::default() };
        for word in command_line().split_ascii_whitespace() {
            // The image's path, or a name that stands for it.
            let Some((name, value)) = word.split_once('=') else { continue };
            arguments.take(name, value).ok_or(word)?;
        }
        Ok(arguments)
    }

    fn take(&mut self, name: &str, value: &'static str) -> Option<()> {
        match name {
            "broker" => self.broker = Some(value),
            "link" => {
                self.link = Some(match value {
                    "ethernet" => Link::Ethernet,
                    "serial" => Link::Serial,
                    _ => return None,
                });
            }
            "seed" => self.seed = value.parse().ok()?,
            "samples" => self.samples = Some(value.parse().ok()?),
            "overruns" => self.overruns = value == "on",
            "hang" => self.hang = Some(value),
            "spin" => self.spin = Some(value),
            "panic" => self.panic_s = Some(value.parse().ok()?),
            "random" => self.random = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

fn command_line() -> &'static str {
    static LINE: static_cell::ConstStaticCell<[u8; LINE_LEN]> =
        static_cell::ConstStaticCell::new([0; LINE_LEN]);
    let Some(line) = LINE.try_take() else { return "" };
    let mut block = [line.as_mut_ptr().expose_provenance(), LINE_LEN];
    // SAFETY: the block names memory that is ours alone for as long as the call lasts, and its length.
    if unsafe { cortex_m_semihosting::syscall(nr::GET_CMDLINE, &mut block) } != 0 {
        return "";
    }
    let len = line.iter().position(|&byte| byte == 0).unwrap_or(0);
    core::str::from_utf8(line.get(..len).unwrap_or_default()).unwrap_or("")
}

/// 64 random bits of the computer; its seconds where it has no `/dev/urandom`.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    if fill(&mut bytes).is_some() {
        return u64::from_le_bytes(bytes);
    }
    // SAFETY: SYS_TIME reads nothing.
    unsafe { cortex_m_semihosting::syscall1(nr::TIME, 0) as u64 }
}

/// Fills with the computer's randomness, of which keys can be made. Without it the run ends.
#[cfg(feature = "tls")]
pub fn fill_random(bytes: &mut [u8]) {
    if fill(bytes).is_none() {
        print(format_args!("the computer has no /dev/urandom to make keys of"));
        exit(2);
    }
}

fn fill(bytes: &mut [u8]) -> Option<()> {
    const PATH: &str = "/dev/urandom\0";
    const READ_BINARY: usize = 1;
    let open = [PATH.as_ptr().expose_provenance(), READ_BINARY, PATH.len() - 1];
    // SAFETY: the blocks name memory that outlives the calls, with its right lengths.
    unsafe {
        let file = cortex_m_semihosting::syscall(nr::OPEN, &open);
        if file == usize::MAX {
            return None;
        }
        let read = [file, bytes.as_mut_ptr().expose_provenance(), bytes.len()];
        // It tells how many bytes were not read.
        let missing = cortex_m_semihosting::syscall(nr::READ, &read);
        cortex_m_semihosting::syscall(nr::CLOSE, &[file]);
        (missing == 0).then_some(())
    }
}

/// Prints a line on the computer's console. The board stands still meanwhile.
pub fn print(line: core::fmt::Arguments<'_>) {
    // Words between defmt's frames would garble them.
    let console = if cfg!(feature = "defmt") { hio::hstderr() } else { hio::hstdout() };
    if let Ok(mut console) = console {
        // Best effort: a console that is closed is no reason to stop.
        let _ = console.write_fmt(format_args!("{line}\n"));
    }
}

/// Ends the emulation with this status.
pub fn exit(status: u8) -> ! {
    let block = [APPLICATION_EXIT, usize::from(status)];
    loop {
        // SAFETY: SYS_EXIT_EXTENDED reads two words.
        unsafe { cortex_m_semihosting::syscall(0x20, &block) };
    }
}
