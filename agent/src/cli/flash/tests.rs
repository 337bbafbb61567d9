//! Dry runs, and what is refused with which words.

use super::*;
use clap::Parser as _;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn args(words: &str) -> Args {
    let source = source().display().to_string();
    let all = ["flash", "--source", &source].into_iter().chain(words.split_whitespace());
    Line::try_parse_from(all).unwrap().args
}

fn plan(words: &str) -> anyhow::Result<Plan> {
    let args = args(words);
    let source = args.source()?;
    let hardware = args.hardware(&source)?;
    Plan::new(&args, &hardware::load(&hardware)?, &hardware, &source)
}

/// A dry run's text, the source tree's path and the board's budget put away.
fn dry(words: &str) -> String {
    let plan = plan(words).unwrap();
    let budget = plan.board.budget.map(|budget| {
        format!("{} and {}", build::grouped(budget.flash_bytes), build::grouped(budget.ram_bytes))
    });
    let text = plan.to_string().replace(&source().display().to_string(), "SOURCE");
    // It moves with the firmware.
    text.replace(&budget.unwrap_or_default(), "BUDGET")
}

fn refused(words: &str) -> String {
    format!("{:#}", plan(words).unwrap_err())
}

#[test]
fn a_dry_run_of_the_emulated_board_shows_the_commands_that_would_run() {
    assert_eq!(
        dry("--board qemu-mps2 --node qemu-demo --emulate --broker 127.0.0.1:1884"),
        "1. check SOURCE/hardware-configs: board qemu-mps2 (QEMU mps2-an386: an emulated Cortex-M4F with Ethernet and UART), node \
         demo/cwru-rig/qemu-demo; its raw data takes 1,662 of the link's 100,000 kbit/s\n\
         2. build the image ELF:\n   cd SOURCE && tests/firmware --json --node qemu-demo qemu-mps2\n\
         3. compare it with the board: 4,194,304 bytes of flash, 4,194,304 of RAM, and its budget: BUDGET\n\
         4. start it in QEMU:\n   qemu-system-arm -M mps2-an386 -display none -monitor none -serial null -nic user,id=net \
         -semihosting-config enable=on,target=native,arg=board,arg=broker=10.0.2.2:1884 -kernel ELF\n\
         5. wait up to 1m for the birth of demo/cwru-rig/qemu-demo, and show its first second: at the broker 127.0.0.1:1884\n"
    );
    let alone = dry("--board qemu-mps2 --node qemu-demo --emulate");
    assert!(
        alone.contains("arg=board -kernel") && alone.ends_with("at the broker 127.0.0.1:1883\n"),
        "{alone}"
    );
}

#[test]
fn a_dry_run_of_a_node_on_a_serial_line_says_how_a_gateway_reads_it() {
    let text = dry("--board qemu-mps2 --node bench-serial --emulate");
    assert!(text.contains("-serial pty -nic user,id=net") && !text.contains("arg=broker"), "{text}");
    for part in ["[[source.serial]]", "baud = 921600", "--config", "spindle node show bench-serial"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn a_dry_run_of_a_board_with_a_probe_shows_its_chip() {
    let text = dry("--board nucleo-h563zi --node mill-3-spindle --timeout 30s");
    let (_, steps) = text.split_once("4. ").unwrap();
    assert_eq!(
        steps,
        "flash it by the probe:\n   probe-rs download --verify --chip STM32H563ZITx ELF\n   probe-rs reset --chip STM32H563ZITx\n\
         5. wait up to 30s for the birth of plant-1/demo-mill/mill-3-spindle, and show its first second: at the broker \
         192.168.1.10:1883\n"
    );
}

#[test]
fn a_dry_run_of_the_rp2350_shows_a_uf2_file_its_drive_or_a_probe() {
    let base = "--board w5500-evb-pico2 --node press-2-frame";
    let step = |words: &str| dry(words).split_once("4. ").unwrap().1.to_owned();
    assert_eq!(
        step(base),
        format!("write it as UF2, family 0xe48bff59, to press-2-frame.uf2\n5. {COPY_WORDS}\n")
    );
    let both = step(&format!("{base} --uf2 a.uf2 --drive /media/RP2350"));
    assert!(
        both.starts_with(
            "write it as UF2, family 0xe48bff59, to a.uf2 and to the board's drive /media/RP2350\n5. wait"
        ),
        "{both}"
    );
    assert!(step(&format!("{base} --probe")).contains("probe-rs reset --chip RP235x"));
}

#[test]
fn hardware_and_credentials_of_ones_own_are_in_the_build_s_environment_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let hardware = folder.path().join("hardware");
    for kind in ["boards", "sensors", "machines", "nodes"] {
        std::fs::create_dir_all(hardware.join(kind)).unwrap();
        for entry in std::fs::read_dir(source().join("hardware-configs").join(kind)).unwrap().flatten() {
            std::fs::copy(entry.path(), hardware.join(kind).join(entry.file_name())).unwrap();
        }
    }
    let credentials = folder.path().join("credentials");
    let words = format!(
        "--board qemu-mps2 --node qemu-demo --emulate --hardware {} --credentials {}",
        hardware.display(),
        credentials.display()
    );
    let missing = refused(&words);
    assert!(
        missing.contains("login.toml; make it: spindle provision --out")
            && missing.contains("--node qemu-demo"),
        "{missing}"
    );
    std::fs::create_dir_all(credentials.join("nodes/qemu-demo")).unwrap();
    std::fs::write(
        credentials.join("nodes/qemu-demo/login.toml"),
        "user = \"u\"\npassword = \"open sesame\"\n",
    )
    .unwrap();
    let text = dry(&words);
    let place = folder.path().display();
    assert!(
        text.contains(&format!(
            "SPINDLE_HARDWARE={place}/hardware SPINDLE_CREDENTIALS={place}/credentials tests/firmware"
        )),
        "{text}"
    );
    assert!(text.contains("as user gateway") && !text.contains("sesame"), "{text}");
}

#[test]
fn what_does_not_fit_together_is_refused_with_what_would() {
    for (words, wanted) in [
        ("--board nucleo --node mill-3-spindle", "there is no board nucleo; there are: host, nucleo-h563zi"),
        ("--board qemu-mps2 --node nobody", "nodes with this board: bench-serial, qemu-demo"),
        ("--board qemu-mps2 --node mill-3-spindle --emulate", "is on board nucleo-h563zi, not on qemu-mps2"),
        (
            "--board nucleo-h563zi --node mill-3-spindle --emulate",
            "is not emulated; what is:\n  spindle flash --board qemu-mps2 --node bench-serial --emulate\n  spindle flash --board \
             qemu-mps2 --node qemu-demo --emulate",
        ),
        ("--board qemu-mps2 --node qemu-demo", "exists in emulation only: add --emulate"),
        ("--board host --node host-demo", "has no table [flash]"),
        ("--board nucleo-h563zi --node mill-3-spindle --uf2 x", "takes no UF2 file"),
        ("--board qemu-mps2 --node qemu-demo --emulate --broker here", "write HOST:PORT"),
        ("--board qemu-mps2 --node qemu-demo --emulate --broker broker.plant:1883", "address in numbers"),
    ] {
        let said = refused(words);
        assert!(said.contains(wanted), "{words}: {said}");
    }
    let tree = tempfile::tempdir().unwrap();
    let line = ["flash", "--board", "b", "--node", "n", "--source", tree.path().to_str().unwrap()];
    let said = Line::try_parse_from(line).unwrap().args.source().unwrap_err().to_string();
    assert!(said.contains("tests/firmware") && said.contains("--source DIR"), "{said}");
}

#[test]
fn options_that_exclude_each_other_are_a_wrong_command_line() {
    for words in ["--emulate --uf2 x", "--emulate --probe", "--for 5s", "--tty x", "--probe --drive x"] {
        let all = ["flash", "--board", "b", "--node", "n"].into_iter().chain(words.split(' '));
        assert!(Line::try_parse_from(all).is_err(), "{words}");
    }
}

#[test]
fn each_missing_tool_is_named_with_the_command_that_gets_it() {
    let empty = tempfile::tempdir().unwrap();
    for (words, wanted) in [
        (
            "--board qemu-mps2 --node qemu-demo --emulate",
            "qemu-system-arm is missing; get it: apt-get install qemu-system-arm",
        ),
        (
            "--board nucleo-h563zi --node mill-3-spindle",
            "probe-rs is missing; get it: cargo install probe-rs-tools --locked",
        ),
    ] {
        let said = args(words).run_with(empty.path().as_os_str()).unwrap_err().to_string();
        assert_eq!(said, wanted);
    }
}

#[test]
fn the_build_s_own_words_about_a_missing_compiler_come_through() {
    // tests/firmware with exit code 3, as it is without a compiler.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("firmware");
    std::fs::write(&script, "#!/bin/sh\necho 'no compiler' >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let tool = tools::Tool::new(script.as_os_str(), "");
    let said = build::image(&tool, OsStr::new(""), &Stop::new(), true).unwrap_err().to_string();
    assert!(said.contains("a tool is missing, see above"), "{said}");
}

#[test]
fn a_hardware_configuration_that_is_wrong_is_exit_code_1_and_nothing_is_built() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("boards")).unwrap();
    std::fs::write(folder.path().join("boards/b.toml"), "name = \"b\"\n").unwrap();
    let words = format!("--board b --node n --hardware {}", folder.path().display());
    assert_eq!(args(&words).run_with(OsStr::new("")).unwrap(), Outcome::Wrong);
}

#[test]
fn a_drive_that_is_no_boot_loader_s_is_refused_and_one_that_is_gets_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let words = format!("--board w5500-evb-pico2 --node press-2-frame --drive {}", folder.path().display());
    let (args, plan) = (args(&words), plan(&words).unwrap());
    let elf = folder.path().join("elf");
    // A header, one segment of four bytes at the start of flash.
    let mut content = vec![0; 52];
    content[..6].copy_from_slice(b"\x7fELF\x01\x01");
    content[28..32].copy_from_slice(&52u32.to_le_bytes());
    content[42..46].copy_from_slice(&[32, 0, 1, 0]);
    for word in [1u32, 84, 0x1000_0000, 0x1000_0000, 4, 4, 5, 4] {
        content.extend(word.to_le_bytes());
    }
    content.extend(b"code");
    std::fs::write(&elf, content).unwrap();
    let image =
        json!({ "elf": elf, "flash_bytes": 4, "ram_bytes": 0, "stack_room_bytes": 0, "within_budget": true });
    let image: Image = serde_json::from_value(image).unwrap();
    let (stop, clock) = (Stop::new(), Clock::manual(0));
    let flashing = Flashing { args: &args, plan: &plan, path: OsStr::new(""), stop: &stop, clock: &clock };
    let Way::Uf2 { family_id, flash, file, drive } = &plan.way else { panic!("{:?}", plan.way) };
    let write = || flashing.write_uf2(&image, *family_id, flash, file.as_deref(), drive.as_deref());
    let said = write().unwrap_err().to_string();
    assert!(said.contains("no INFO_UF2.TXT") && said.contains("BOOTSEL"), "{said}");
    std::fs::write(folder.path().join("INFO_UF2.TXT"), "UF2 Bootloader v1.0\n").unwrap();
    let written = write().unwrap().unwrap();
    assert_eq!(written, folder.path().join("press-2-frame.uf2"));
    let content = std::fs::read(written).unwrap();
    assert_eq!((content.len(), &content[..4], &content[32..36]), (512, &b"UF2\n"[..], &b"code"[..]));
}
