//! Process 1 of the machine: makes it ready, runs the command, and says how it ended.
//!
//! The binary that is to be process 1 calls [`enter`] first thing in `main`; anywhere else that does nothing.
#![forbid(unsafe_code)]

use super::channel::{self, Kind};
use super::{FAR, NEAR, sys};
use core::ffi::CStr;
use core::time::Duration;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use xdp_core::netdev::Mac;
use xdp_core::netdev::ethtool::Channels;
use xdp_core::netdev::{Interface, Namespace};
use xdp_core::{Errno, cpu};

/// What the machine is told, in its file system.
pub(super) const ORDERS: &str = "/etc/testbed";
/// Where its modules are.
pub(super) const MODULES: &str = "/modules";
/// The addresses of the two cards.
pub(super) const MACS: [[u8; 6]; 2] = [[0x52, 0x54, 0, 0, 0, 0x0a], [0x52, 0x54, 0, 0, 0, 0x0b]];

/// What is told QEMU's `isa-debug-exit`, which turns a byte `v` into the exit status `v << 1 | 1`: bytes whose statuses
/// (33, 35, 37) QEMU does not end with by itself.
pub(super) const PASSED: u8 = 16;
pub(super) const FAILED: u8 = 17;
pub(super) const BROKEN: u8 = 18;

/// If this process is the first of a machine of the test bed: does all its work, and never returns. Otherwise nothing.
pub fn enter() {
    if std::process::id() != 1 || !Path::new(ORDERS).is_file() {
        return;
    }
    let verdict = Guest::work().unwrap_or(BROKEN);
    let _ = sys::exit_machine(verdict);
    // not under QEMU, or without the device: whoever waits sees a machine that ended without a verdict
    let _ = sys::power_off();
    loop {
        thread::park();
    }
}

/// What is to be done, a line each: a word, a space, its value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) modules: Vec<String>,
    pub(super) queues: u32,
    pub(super) command: Vec<String>,
    pub(super) collect: Vec<String>,
    pub(super) variables: Vec<String>,
}

impl Orders {
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("queues {}\n", self.queues);
        let lists = [
            ("module", &self.modules),
            ("word", &self.command),
            ("collect", &self.collect),
            ("set", &self.variables),
        ];
        for (key, values) in lists {
            for value in values {
                text += &format!("{key} {}\n", value.replace('\\', "\\\\").replace('\n', "\\n"));
            }
        }
        text
    }

    fn parse(text: &str) -> Self {
        let mut orders = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            let value = unescape(value);
            match key {
                "queues" => orders.queues = value.parse().unwrap_or(0),
                "module" => orders.modules.push(value),
                "word" => orders.command.push(value),
                "collect" => orders.collect.push(value),
                "set" => orders.variables.push(value),
                _ => {}
            }
        }
        orders
    }
}

/// Undoes the escapes of backslash and line feed.
fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(if letters.next() == Some('n') { '\n' } else { '\\' }),
            letter => text.push(letter),
        }
    }
    text
}

struct Guest {
    line: Mutex<File>,
    start: Instant,
}

impl Guest {
    /// The verdict; an error only where nobody can be told of it.
    fn work() -> Result<u8, String> {
        mount_all()?;
        let line = OpenOptions::new().write(true).open("/dev/ttyS1");
        let line = line.map_err(|error| format!("open /dev/ttyS1: {error}"))?;
        sys::make_raw(&line).map_err(|errno| format!("set /dev/ttyS1: {errno}"))?;
        let guest = Self { line: Mutex::new(line), start: Instant::now() };
        let verdict = match guest.serve() {
            Ok(0) => PASSED,
            Ok(_) => FAILED,
            Err(why) => {
                guest.say(Kind::Broken, why.as_bytes());
                BROKEN
            }
        };
        let line = guest.line.lock().unwrap_or_else(PoisonError::into_inner);
        sys::drain(&*line).map_err(|errno| errno.to_string())?;
        Ok(verdict)
    }

    /// Runs the command on a machine that is ready, and returns its status.
    fn serve(&self) -> Result<i32, String> {
        let orders = fs::read_to_string(ORDERS).map_err(|error| format!("read {ORDERS}: {error}"))?;
        let orders = Orders::parse(&orders);
        for module in &orders.modules {
            load(module)?;
        }
        // the far card's namespace lives while this value does
        let far = Namespace::create_named(FAR).map_err(|error| error.to_string())?;
        set_up_cards(&far, orders.queues)?;

        let mut log = KernelLog::open()?;
        log.warnings(); // those of the boot are not the command's
        self.say(Kind::Begin, format!("{} {}", self.now_ns(), cpu::kernel_release()).as_bytes());
        let status = match orders.command.is_empty() {
            true => 0,
            false => self.run(&orders)?,
        };
        for name in &orders.collect {
            if let Ok(contents) = fs::read(name) {
                self.say(Kind::Name, name.as_bytes());
                self.say(Kind::File, &contents);
            }
        }
        for warning in log.warnings() {
            self.say(Kind::Warning, warning.as_bytes());
        }
        self.say(Kind::End, format!("{status} {}", self.now_ns()).as_bytes());
        drop(far);
        Ok(status)
    }

    fn run(&self, orders: &Orders) -> Result<i32, String> {
        let mut command = Command::new(&orders.command[0]);
        command.args(&orders.command[1..]).current_dir("/tmp").env_clear();
        command.envs(orders.variables.iter().filter_map(|set| set.split_once('=')));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| format!("start {}: {error}", orders.command[0]))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let status = thread::scope(|scope| {
            scope.spawn(|| self.relay(Kind::Stdout, stdout));
            scope.spawn(|| self.relay(Kind::Stderr, stderr));
            child.wait()
        });
        let status = status.map_err(|error| format!("wait for {}: {error}", orders.command[0]))?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    fn relay(&self, kind: Kind, from: Option<impl Read>) {
        let Some(mut from) = from else { return };
        let mut bytes = [0; 4096];
        loop {
            match from.read(&mut bytes) {
                Ok(0) => return,
                Ok(n) => self.say(kind, &bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Where the line is broken, whoever listens notices by the silence.
    fn say(&self, kind: Kind, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = channel::write(&mut *line, kind, bytes);
    }

    /// Nanoseconds since process 1 started, by the machine's monotonic clock: the one that may be miscalibrated.
    fn now_ns(&self) -> u128 {
        self.start.elapsed().as_nanos()
    }
}

fn mount_all() -> Result<(), String> {
    let all: [(&CStr, &CStr); 5] = [
        (c"proc", c"/proc"),
        (c"sysfs", c"/sys"),
        (c"devtmpfs", c"/dev"),
        (c"tmpfs", c"/run"),
        (c"bpf", c"/sys/fs/bpf"),
    ];
    for (kind, at) in all {
        match sys::mount(kind, at) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(format!("mount {}: {errno}", at.to_string_lossy())),
        }
    }
    Ok(())
}

fn load(module: &str) -> Result<(), String> {
    let path = format!("{MODULES}/{module}");
    let file = File::open(&path).map_err(|error| format!("open {path}: {error}"))?;
    match sys::load_module(&file) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(format!("load {module}: {errno}")),
    }
}

/// Names the two cards, sets their queues, moves the far one away, and brings both up.
fn set_up_cards(far: &Namespace, queues: u32) -> Result<(), String> {
    let said = |error: xdp_core::netdev::Error| error.to_string();
    let [near_card, far_card] = MACS.map(|mac| find_card(Mac(mac)));
    for (card, name) in [(near_card?, NEAR), (far_card?, FAR)] {
        card.rename(name).map_err(said)?;
        let card = card.refresh().map_err(said)?;
        if queues > 0 {
            set_queues(&card, queues)?;
        }
    }
    Interface::named(FAR).and_then(|card| card.move_to(far)).map_err(said)?;
    let ready = |name: &str, ip: [u8; 4]| {
        let card = Interface::named(name)?;
        // a kernel without IPv6 is quiet anyway
        let _ = card.set_ipv6_autoconfigured(false);
        card.add_address(ip.into(), 24)?;
        card.set_up(true)
    };
    ready(NEAR, [198, 18, 0, 1]).map_err(said)?;
    far.run(|| ready(FAR, [198, 18, 0, 2])).map_err(said)?.map_err(said)?;
    Interface::named("lo").and_then(|lo| lo.set_up(true)).map_err(said)?;
    let operational = |name: &str| Interface::named(name)?.wait_operational(Duration::from_secs(20));
    operational(NEAR).map_err(said)?;
    far.run(|| operational(FAR)).map_err(said)?.map_err(said)?;
    Ok(())
}

fn set_queues(card: &Interface, queues: u32) -> Result<(), String> {
    let said = |error: xdp_core::netdev::Error| error.to_string();
    let Some(found) = card.channels().map_err(said)?.value() else {
        return if queues == 1 { Ok(()) } else { Err(format!("{} has one queue only", card.name)) };
    };
    let mut wanted = Channels::default();
    match found.combined_max {
        Some(max) if max > 0 => wanted.combined = Some(queues),
        _ => (wanted.rx, wanted.tx) = (Some(queues), Some(queues)),
    }
    if wanted.combined.is_some() && found.combined == wanted.combined {
        return Ok(());
    }
    card.set_channels(&wanted).map(drop).map_err(said)
}

/// The card of this address, once its driver has found it.
fn find_card(mac: Mac) -> Result<Interface, String> {
    let start = Instant::now();
    loop {
        let all = Interface::all().map_err(|error| error.to_string())?;
        if let Some(found) = all.into_iter().find(|one| one.mac == Some(mac)) {
            return Ok(found);
        }
        if start.elapsed() > Duration::from_secs(20) {
            return Err(format!("no card {mac}: is its driver's module among those loaded?"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The kernel's messages, from the last one read on.
struct KernelLog(File);

impl KernelLog {
    fn open() -> Result<Self, String> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        file.map(Self).map_err(|error| format!("open /dev/kmsg: {error}"))
    }

    /// What it warned of since the last call. Each read gives one message.
    fn warnings(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut message = [0; 8192];
        loop {
            match self.0.read(&mut message) {
                Ok(0) => return warnings,
                Ok(len) => warnings.extend(warning_in(&String::from_utf8_lossy(&message[..len]))),
                // the oldest messages were written over: go on with those that are there
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return warnings, // no more
            }
        }
    }
}

/// The words of a message of `/dev/kmsg`, if the kernel warns with them of a fault of its own.
fn warning_in(message: &str) -> Option<String> {
    const SIGNS: [&str; 7] = [
        "WARNING: ",
        "BUG: ",
        "kernel BUG at",
        "Oops: ",
        "general protection fault",
        "Failed to disable zero-copy",
        "is not a head!",
    ];
    let first = message.lines().next()?;
    let (_, words) = first.split_once(';')?;
    SIGNS.iter().any(|sign| words.contains(sign)).then(|| words.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_back_as_they_were_given() {
        let orders = Orders {
            modules: vec!["a.ko".into(), "b.ko".into()],
            queues: 3,
            command: vec!["/bin/x".into(), "".into(), "two words".into(), "a\\n\nb".into()],
            collect: vec!["/tmp/out".into()],
            variables: vec!["PATH=/bin".into()],
        };
        assert_eq!(Orders::parse(&orders.to_text()), orders);
    }

    #[test]
    fn the_kernels_warnings_are_told_from_its_news() {
        let warning =
            "4,1093,52614,-;WARNING: CPU: 1 PID: 62 at net/xdp/xsk.c:1 xsk_bind+0x1/0x2\n SUBSYSTEM=x\n";
        assert!(warning_in(warning).unwrap().starts_with("WARNING: CPU: 1"));
        assert!(warning_in("1,9,9,-;BUG: kernel NULL pointer dereference, address: 0").is_some());
        assert_eq!(warning_in("6,1,2,-;igb 0000:01:00.0: added PHC on far"), None);
        assert_eq!(warning_in("6,1,2,-;x\n WARNING: in the tags"), None);
        assert_eq!(warning_in("no header"), None);
    }

    #[test]
    fn entering_does_nothing_but_in_process_one() {
        assert_ne!(std::process::id(), 1);
        enter();
    }
}
