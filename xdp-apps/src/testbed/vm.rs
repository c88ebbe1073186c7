//! The virtual machine: boots, runs one command, and is gone.
#![forbid(unsafe_code)]

use super::channel::{self, Kind};
use super::fetch::{Cache, Flavour, Kernel, Qemu};
use super::guest::{self, Orders};
use super::initramfs::Initramfs;
use super::{EMULATED, Error, VARIABLE, sys};
use alloc::collections::BTreeMap;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Instant;

/// The two cards, which are of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nic {
    /// virtio_net: zero-copy from Linux 6.13 on; one queue, for QEMU's hub has no more.
    #[default]
    Virtio,
    /// Intel 82576: zero-copy from Linux 6.14 on, several queues, coalescing. Each attach and detach resets its link,
    /// about two seconds.
    Igb,
    /// Intel 82574: no XDP in its driver, the generic kind only.
    E1000e,
    /// VMware's: XDP in its driver, no zero-copy.
    Vmxnet3,
}

impl Nic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Virtio, Self::Igb, Self::E1000e, Self::Vmxnet3];

    /// What it is called here and, but for virtio, in QEMU.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    /// The kernel's driver of it.
    pub const fn driver(self) -> &'static str {
        match self {
            Self::Virtio => "virtio_net",
            other => other.name(),
        }
    }

    /// The kernel that has its driver.
    pub const fn flavour(self) -> Flavour {
        match self {
            Self::Virtio | Self::Vmxnet3 => Flavour::Cloud,
            Self::Igb | Self::E1000e => Flavour::Full,
        }
    }

    /// The oldest QEMU that has it, and everything else we ask for.
    pub const fn oldest_qemu(self) -> (u32, u32) {
        match self {
            Self::Igb => (8, 0),
            _ => (7, 2),
        }
    }

    /// The device on QEMU's command line.
    fn device(self) -> &'static str {
        match self {
            // without the platform's IOMMU interface, which needs no IOMMU, virtio has no zero-copy (bind: EINVAL)
            Self::Virtio => "virtio-net-pci,iommu_platform=on,disable-legacy=on",
            other => other.name(),
        }
    }
}

/// What runs the machine's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM where a trial boot succeeds within ten seconds, else emulation. The answer is kept until the host reboots.
    #[default]
    Probe,
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// Emulation: works everywhere, some ten to thirty times slower.
    Tcg,
}

/// Which of the command's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its output.
    Stdout,
    /// Its complaints.
    Stderr,
}

/// A machine to be booted: what it has, and how long it may take.
#[derive(Clone, Debug)]
pub struct Vm {
    nic: Nic,
    queues: u32,
    kernel: Option<String>,
    cpus: u32,
    memory_mb: u32,
    timeout: Duration,
    accelerator: Accelerator,
    pcap: Option<PathBuf>,
    files: Vec<(PathBuf, String)>,
    collect: Vec<String>,
    variables: Vec<String>,
    init: Option<PathBuf>,
    warnings_allowed: bool,
    cache: Cache,
}

impl Default for Vm {
    fn default() -> Self {
        Self::new()
    }
}

impl Vm {
    /// Two virtio cards of one queue, two processors, 512 MB, the pinned kernel, two minutes.
    pub fn new() -> Self {
        Self {
            nic: Nic::Virtio,
            queues: 0,
            kernel: None,
            cpus: 2,
            memory_mb: 512,
            timeout: Duration::from_secs(120),
            accelerator: Accelerator::Probe,
            pcap: None,
            files: Vec::new(),
            collect: Vec::new(),
            variables: Vec::new(),
            init: None,
            warnings_allowed: false,
            cache: Cache::user(),
        }
    }

    /// With cards of this kind.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nic = nic;
        self
    }

    /// With so many queues on each card; as many as the driver likes, if not said.
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// With the newest fetched kernel of this version, such as `6.18`.
    pub fn kernel(mut self, version: impl Into<String>) -> Self {
        self.kernel = Some(version.into());
        self
    }

    /// With so many processors.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus.max(1);
        self
    }

    /// With so much memory, in MB.
    pub fn memory_mb(mut self, memory_mb: u32) -> Self {
        self.memory_mb = memory_mb;
        self
    }

    /// Stopped after this time, boot included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Run by this.
    pub fn accelerator(mut self, accelerator: Accelerator) -> Self {
        self.accelerator = accelerator;
        self
    }

    /// Writes what passes between the cards to this file, as seen from outside the machine.
    pub fn pcap(mut self, file: impl Into<PathBuf>) -> Self {
        self.pcap = Some(file.into());
        self
    }

    /// With a file of this host at an absolute path of the machine; with the shared libraries that it needs, if it is a program.
    pub fn file(mut self, host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        self.files.push((host.into(), guest.into()));
        self
    }

    /// Brings this file of the machine back, if it is there at the end ([`Outcome::files`]). 16 MB at most.
    pub fn collect(mut self, guest: impl Into<String>) -> Self {
        self.collect.push(guest.into());
        self
    }

    /// Sets a variable of the command's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push(format!("{name}={value}"));
        self
    }

    /// Boots this binary as process 1 and as `xdp-apps`; the running one, if not said. It must call
    /// [`guest::enter`] first thing in its `main`.
    pub fn init(mut self, binary: impl Into<PathBuf>) -> Self {
        self.init = Some(binary.into());
        self
    }

    /// Lets the run pass although the machine's kernel warned: for commands that provoke it.
    pub fn allow_warnings(mut self) -> Self {
        self.warnings_allowed = true;
        self
    }

    /// With a cache of one's own.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// The QEMU and the kernel it would boot. No network.
    ///
    /// # Errors
    /// [`Error::Missing`], with what to run.
    pub fn parts(&self) -> Result<(Qemu, Kernel), Error> {
        let qemu = self.cache.qemu(self.nic.oldest_qemu())?;
        Ok((qemu, self.cache.kernel(self.kernel.as_deref(), self.nic.flavour())?))
    }

    /// As [`parts`](Self::parts), fetched if they are not there.
    pub fn fetch(&self, say: &mut dyn FnMut(&str)) -> Result<(Qemu, Kernel), Error> {
        let qemu = self.cache.fetch_qemu(self.nic.oldest_qemu(), say)?;
        Ok((qemu, self.cache.fetch_kernel(self.kernel.as_deref(), self.nic.flavour(), say)?))
    }

    /// Boots, runs the command, and returns how it ended. A first word with a slash is a program of this host, which is
    /// taken along; any other makes the whole a command of our own binary; none at all only boots.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no QEMU or kernel, [`Error::TimedOut`], and [`Error::Broken`] if the machine ended
    /// without a verdict: a command that fails is no error, but an [`Outcome`] that did not pass.
    pub fn run(&self, command: &[impl AsRef<str>]) -> Result<Outcome, Error> {
        self.run_with(command, &mut |_, _| {})
    }

    /// As [`run`](Self::run), and shows what the command writes when it does.
    pub fn run_with(
        &self,
        command: &[impl AsRef<str>],
        show: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Outcome, Error> {
        if !cfg!(target_arch = "x86_64") {
            return Err(Error::missing("the virtual machine is an x86-64 one", "run it on such a host"));
        }
        if self.nic == Nic::Virtio && self.queues > 1 {
            return Err(Error::missing(
                "virtio has one queue here, for QEMU's hub has one",
                "take --nic igb for more",
            ));
        }
        let (qemu, kernel) = self.parts()?;
        let command: Vec<_> = command.iter().map(|word| word.as_ref().to_string()).collect();
        let desk = Desk::new()?;
        fs::write(desk.initrd(), self.initramfs(&kernel, &command)?)
            .map_err(|error| Error::io("write the initramfs", &error))?;
        let kvm = match self.accelerator {
            Accelerator::Kvm => true,
            Accelerator::Tcg => false,
            Accelerator::Probe => self.probe_kvm(&kernel),
        };
        let mut killed_before = false;
        loop {
            let mut machine = Machine::start(self.command_line(&qemu, &kernel, &desk, kvm), &desk)?;
            match machine.attend(self, show) {
                // the host's out-of-memory killer, most likely; once is bad luck
                Err(Ended::Killed) if !killed_before => killed_before = true,
                Err(Ended::Killed) => return Err(Error::broken("QEMU was killed, twice", machine.console())),
                Err(Ended::Error(error)) => return Err(error),
                Ok(mut outcome) => {
                    outcome.kernel = kernel.release;
                    outcome.qemu = qemu.version;
                    outcome.kvm = kvm;
                    outcome.warnings_allowed = self.warnings_allowed;
                    return Ok(outcome);
                }
            }
        }
    }

    fn initramfs(&self, kernel: &Kernel, command: &[String]) -> Result<Vec<u8>, Error> {
        let mut archive = Initramfs::new();
        for directory in ["/proc", "/sys", "/dev", "/run", "/tmp", "/bin", "/etc", guest::MODULES] {
            archive.directory(directory);
        }
        archive.device("/dev/console", 5, 1);
        let init = match &self.init {
            Some(init) => init.clone(),
            None => env::current_exe().map_err(|error| Error::io("find the running binary", &error))?,
        };
        archive.program(&init, "/init")?;
        archive.link("/bin/xdp-apps", "/init");
        let mut orders = Orders { queues: self.queues, collect: self.collect.clone(), ..Orders::default() };
        orders.variables =
            ["PATH=/bin", "HOME=/tmp", "TMPDIR=/tmp", "RUST_BACKTRACE=1"].map(str::to_string).to_vec();
        orders.variables.push(format!("{VARIABLE}={}", self.nic.name()));
        orders.variables.extend(self.variables.iter().cloned());

        let modules =
            kernel.modules(&[self.nic.driver(), "veth", "dummy", "ifb", "tun", "bridge", "sch_netem"])?;
        for module in modules {
            let name = module.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            archive.copy(&module, &format!("{}/{name}", guest::MODULES))?;
            orders.modules.push(name);
        }
        for (host, guest) in &self.files {
            archive.program(host, guest)?;
        }
        match command {
            [] => {}
            [program, rest @ ..] if program.contains('/') => {
                let host = Path::new(program);
                if !host.is_file() {
                    let taken = self.files.iter().any(|(_, guest)| guest == program);
                    if !taken {
                        return Err(Error::missing(
                            format!("no program {program}"),
                            "build it first, or check the path",
                        ));
                    }
                    orders.command.push(program.clone());
                } else {
                    let name =
                        host.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    let place = format!("/bin/{name}");
                    archive.program(host, &place)?;
                    orders.command.push(place);
                }
                orders.command.extend_from_slice(rest);
            }
            ours => {
                orders.command.push("/bin/xdp-apps".to_string());
                orders.command.extend_from_slice(ours);
            }
        }
        archive.file(guest::ORDERS, 0o644, orders.to_text().as_bytes());
        Ok(archive.finish())
    }

    fn command_line(&self, qemu: &Qemu, kernel: &Kernel, desk: &Desk, kvm: bool) -> Command {
        let mut arguments = Arguments(qemu.command(true));
        arguments.words("-nodefaults -no-user-config -display none -no-reboot -machine q35");
        match kvm {
            true => arguments.words("-accel kvm -cpu host"),
            false => arguments.words("-accel tcg,thread=multi -cpu max,la57=off"),
        }
        arguments.pair("-smp", self.cpus.to_string());
        arguments.pair("-m", self.memory_mb.to_string());
        arguments.pair("-kernel", kernel.image());
        arguments.pair("-initrd", desk.initrd());
        arguments.pair("-append", kernel_parameters(kvm));
        // the first line for the kernel's console, the second for messages
        let mut console = OsString::from("file:");
        console.push(desk.console());
        arguments.pair("-serial", console);
        arguments.words("-chardev stdio,id=messages,signal=off -serial chardev:messages");
        arguments.words("-device isa-debug-exit,iobase=0xf4,iosize=4");
        for (n, mac) in guest::MACS.iter().enumerate() {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            // igb is offered virtual functions, which a bus of its own has room for
            arguments
                .pair("-device", format!("pcie-root-port,id=rp{n},slot={n},chassis={n},addr={}.0", n + 4));
            arguments.pair("-netdev", format!("hubport,id=n{n},hubid=0"));
            arguments
                .pair("-device", format!("{},bus=rp{n},netdev=n{n},mac={mac},romfile=", self.nic.device()));
        }
        if let Some(file) = &self.pcap {
            let mut dump = OsString::from("filter-dump,id=dump,netdev=n0,file=");
            dump.push(file);
            arguments.pair("-object", dump);
        }
        arguments.0
    }

    /// Whether KVM boots this kernel here, from an earlier trial or a new one.
    fn probe_kvm(&self, kernel: &Kernel) -> bool {
        if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return false;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let note = self.cache.directory().join(format!("kvm-{}", kernel.release));
        if let Ok(known) = fs::read_to_string(&note) {
            if let Some(answer) = known.strip_prefix(boot.trim()) {
                return answer.trim() == "works";
            }
        }
        let trial = Self {
            nic: Nic::Virtio,
            queues: 0,
            accelerator: Accelerator::Kvm,
            timeout: Duration::from_secs(10),
            pcap: None,
            files: Vec::new(),
            ..self.clone()
        };
        let works = trial.run(&[""; 0]).is_ok_and(|outcome| outcome.passed());
        // only to save the next trial
        let _ = fs::write(note, format!("{} {}\n", boot.trim(), if works { "works" } else { "fails" }));
        works
    }
}

/// What the machine's kernel is told.
fn kernel_parameters(kvm: bool) -> String {
    let mut parameters = "console=ttyS0,115200 quiet loglevel=5 panic=-1 mitigations=off nokaslr audit=0 \
                          random.trust_cpu=1 net.ifnames=0 rcupdate.rcu_expedited=1 no_timer_check rdinit=/init"
        .to_string();
    if !kvm {
        // the emulation hands the host's counter through, whose frequency the machine misjudges on a loaded host
        parameters += " tsc=reliable";
        if let Some(khz) = tsc_khz() {
            parameters += &format!(" tsc_early_khz={khz}");
        }
    }
    parameters
}

/// The frequency of the host's time-stamp counter, which is what its bogomips are made of.
fn tsc_khz() -> Option<u64> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = cpuinfo.lines().find(|line| line.starts_with("bogomips"))?;
    let bogomips: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    Some((bogomips * 500.0).round() as u64)
}

struct Arguments(Command);

impl Arguments {
    fn words(&mut self, words: &str) {
        self.0.args(words.split_whitespace());
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.arg(option).arg(value.into());
    }
}

/// The files of one run, in a directory that only we can read; gone when dropped.
struct Desk(PathBuf);

impl Desk {
    fn new() -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("xdp-apps-vm-{}-{n}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Error::io(format!("create {}", path.display()), &error))?;
        Ok(Self(path))
    }

    fn initrd(&self) -> PathBuf {
        self.0.join("initrd")
    }

    fn console(&self) -> PathBuf {
        self.0.join("console")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // what stays is in nobody's way
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// QEMU, running; killed when dropped.
struct Machine<'d> {
    qemu: Child,
    started: Instant,
    arrivals: mpsc::Receiver<Vec<u8>>,
    complaints: Option<thread::JoinHandle<String>>,
    desk: &'d Desk,
}

/// Why the machine gave no outcome.
enum Ended {
    /// By a SIGKILL that was not ours.
    Killed,
    Error(Error),
}

impl<'d> Machine<'d> {
    fn start(mut command: Command, desk: &'d Desk) -> Result<Self, Error> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::die_with_us(&mut command);
        let mut qemu = command.spawn().map_err(|error| Error::io("start QEMU", &error))?;
        let (sender, arrivals) = mpsc::channel();
        if let Some(stdout) = qemu.stdout.take() {
            thread::spawn(move || read_all(stdout, |bytes| sender.send(bytes.to_vec()).is_ok()));
        }
        let complaints = qemu.stderr.take().map(|stderr| {
            thread::spawn(move || {
                let mut text = Vec::new();
                read_all(stderr, |bytes| {
                    text.extend_from_slice(bytes);
                    true
                });
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        Ok(Self { qemu, started: Instant::now(), arrivals, complaints, desk })
    }

    /// Listens until the machine is off or its time is up.
    fn attend(&mut self, vm: &Vm, show: &mut dyn FnMut(Stream, &[u8])) -> Result<Outcome, Ended> {
        let mut reader = channel::Reader::default();
        let mut report = Report::default();
        loop {
            let left = vm.timeout.saturating_sub(self.started.elapsed());
            match self.arrivals.recv_timeout(left) {
                Ok(bytes) => reader.push(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.stop();
                    let after_s = vm.timeout.as_secs();
                    return Err(Ended::Error(Error::TimedOut {
                        after_s,
                        said: report.last_words(&self.console()),
                    }));
                }
            }
            loop {
                match reader.take() {
                    Ok(Some((kind, bytes))) => report.take(kind, bytes, self.started.elapsed(), show),
                    Ok(None) => break,
                    Err(garbled) => {
                        self.stop();
                        return Err(Ended::Error(Error::broken(
                            "the machine's messages are garbled",
                            garbled,
                        )));
                    }
                }
            }
        }
        self.conclude(report)
    }

    /// The machine is off, or about to be: the outcome, if its words and its exit status agree.
    fn conclude(&mut self, report: Report) -> Result<Outcome, Ended> {
        let patience = Instant::now();
        let status = loop {
            match self.qemu.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if patience.elapsed() < Duration::from_secs(10) => {
                    thread::sleep(Duration::from_millis(10))
                }
                Ok(None) => {
                    self.stop();
                    return Err(Ended::Error(Error::broken(
                        "QEMU did not end after the machine had",
                        self.console(),
                    )));
                }
                Err(error) => return Err(Ended::Error(Error::io("wait for QEMU", &error))),
            }
        };
        if status.signal() == Some(libc::SIGKILL) {
            return Err(Ended::Killed);
        }
        if let Some(why) = report.broken {
            return Err(Ended::Error(Error::broken(
                format!("the machine could not be made ready: {why}"),
                self.console(),
            )));
        }
        let expected = |verdict: u8| Some(i32::from(verdict) << 1 | 1);
        match (report.end, status.code()) {
            (Some((0, _)), code) if code == expected(guest::PASSED) => {}
            (Some((1.., _)), code) if code == expected(guest::FAILED) => {}
            (end, _) => {
                let after = if end.is_some() { "after its last word" } else { "without a verdict" };
                let complaints =
                    self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
                let said = format!("{}\n{complaints}", self.console());
                return Err(Ended::Error(Error::broken(
                    format!("the machine ended {after} (QEMU: {status})"),
                    said,
                )));
            }
        }
        Ok(report.into_outcome(self.started.elapsed(), self.console()))
    }

    fn stop(&mut self) {
        // it may be gone already
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }

    /// What the machine's kernel wrote.
    fn console(&self) -> String {
        let bytes = fs::read(self.desk.console()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Passes on what can be read, until there is no more or nobody wants it.
fn read_all(mut from: impl Read, mut to: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(n) if to(&bytes[..n]) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// What the machine has said so far.
#[derive(Default)]
struct Report {
    /// When the command began: by our clock, and by the machine's.
    begin: Option<(Duration, Duration)>,
    /// The command's status, and how far the machine's clock went while it ran.
    end: Option<(i32, Duration)>,
    ran: Duration,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    warnings: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
    name: String,
    broken: Option<String>,
}

impl Report {
    fn take(&mut self, kind: Kind, bytes: Vec<u8>, now: Duration, show: &mut dyn FnMut(Stream, &[u8])) {
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match kind {
            Kind::Begin => {
                let guest = Duration::from_nanos(number(text().split(' ').next()));
                self.begin = Some((now, guest));
            }
            Kind::Stdout => {
                show(Stream::Stdout, &bytes);
                self.stdout.extend_from_slice(&bytes);
            }
            Kind::Stderr => {
                show(Stream::Stderr, &bytes);
                self.stderr.extend_from_slice(&bytes);
            }
            Kind::Name => self.name = text(),
            Kind::File => {
                self.files.insert(core::mem::take(&mut self.name), bytes);
            }
            Kind::Warning => self.warnings.push(text()),
            Kind::Broken => self.broken = Some(text()),
            Kind::End => {
                let text = text();
                let mut words = text.split(' ');
                let status = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
                let guest = Duration::from_nanos(number(words.next()));
                let (host_begin, guest_begin) = self.begin.unwrap_or_default();
                self.end = Some((status, guest.saturating_sub(guest_begin)));
                self.ran = now.saturating_sub(host_begin);
            }
        }
    }

    /// Whatever was said last: by the command, or, where it has not said anything, by the machine's kernel.
    fn last_words(&self, console: &str) -> String {
        let said = [&self.stdout[..], &self.stderr[..]].concat();
        let said = super::tail(&String::from_utf8_lossy(&said));
        if said.is_empty() { super::tail(console) } else { said }
    }

    fn into_outcome(self, took: Duration, console: String) -> Outcome {
        let (status, ran_guest) = self.end.unwrap_or_default();
        Outcome {
            status,
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
            files: self.files,
            warnings: self.warnings,
            warnings_allowed: false,
            console,
            kernel: String::new(),
            qemu: (0, 0),
            kvm: false,
            booted: self.begin.map(|(host, _)| host).unwrap_or_default(),
            ran: self.ran,
            ran_guest,
            took,
        }
    }
}

/// How a command ended in the machine, and what it left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The command's exit status; 128 and the signal's number if one killed it.
    pub status: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    /// The files that were to be [collected](Vm::collect), those that were there.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Of the machine's kernel while the command ran.
    pub warnings: Vec<String>,
    warnings_allowed: bool,
    /// Everything that kernel wrote on its console.
    pub console: String,
    /// The kernel's release.
    pub kernel: String,
    /// The version of QEMU.
    pub qemu: (u32, u32),
    /// Whether it ran on KVM; else everything was emulated.
    pub kvm: bool,
    /// From the start until the command could start.
    pub booted: Duration,
    /// The command's time, by this host's clock.
    pub ran: Duration,
    /// The command's time, by the machine's clock.
    pub ran_guest: Duration,
    /// From the start until the machine was off.
    pub took: Duration,
}

impl Outcome {
    /// Whether the command succeeded, the kernel did not warn, and the clock was right.
    pub fn passed(&self) -> bool {
        self.status == 0 && self.objection().is_none()
    }

    /// Why the run counts as failed whatever the command says.
    pub fn objection(&self) -> Option<String> {
        if let (Some(first), false) = (self.warnings.first(), self.warnings_allowed) {
            let more = self.warnings.len() - 1;
            return Some(format!("the machine's kernel warned: {first} ({more} more)"));
        }
        if !clocks_agree(self.ran, self.ran_guest) {
            return Some(format!(
                "the machine's clock is wrong: {:?} there, {:?} here",
                self.ran_guest, self.ran
            ));
        }
        None
    }
}

/// Whether two clocks went equally far: by a third and a second at most, for messages may be late on a busy host.
fn clocks_agree(here: Duration, there: Duration) -> bool {
    here.abs_diff(there) <= here.max(there) / 4 + Duration::from_secs(1)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.kvm { "KVM" } else { "TCG" };
        let (major, minor) = self.qemu;
        write!(
            f,
            "status {} on Linux {} (QEMU {major}.{minor}, {by}; boot {:.1} s, command {:.1} s, all {:.1} s; {EMULATED})",
            self.status,
            self.kernel,
            self.booted.as_secs_f64(),
            self.ran.as_secs_f64(),
            self.took.as_secs_f64(),
        )?;
        if let Some(objection) = self.objection() {
            write!(f, "\n{objection}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(messages: &[(Kind, &str, u64)]) -> Report {
        let mut report = Report::default();
        for (kind, text, at_ms) in messages {
            report.take(*kind, text.as_bytes().to_vec(), Duration::from_millis(*at_ms), &mut |_, _| {});
        }
        report
    }

    #[test]
    fn a_report_becomes_an_outcome_with_both_clocks() {
        let said = [
            (Kind::Begin, "2000000000 7.3.4", 5000),
            (Kind::Stdout, "one\n", 5100),
            (Kind::Stderr, "hm\n", 5200),
            (Kind::Stdout, "two\n", 5300),
            (Kind::Name, "/tmp/f", 5400),
            (Kind::File, "contents", 5400),
            (Kind::End, "3 5500000000", 8400),
        ];
        let outcome = report(&said).into_outcome(Duration::from_secs(9), String::new());
        assert_eq!(
            (outcome.status, outcome.stdout.as_str(), outcome.stderr.as_str()),
            (3, "one\ntwo\n", "hm\n")
        );
        assert_eq!(outcome.files["/tmp/f"], b"contents");
        assert_eq!(outcome.booted, Duration::from_secs(5));
        assert_eq!(
            (outcome.ran, outcome.ran_guest),
            (Duration::from_millis(3400), Duration::from_millis(3500))
        );
        assert!(!outcome.passed() && outcome.objection().is_none());
    }

    #[test]
    fn a_machine_that_is_stopped_is_told_by_the_commands_last_words_else_the_kernels() {
        let silent = report(&[(Kind::Begin, "0 x", 0)]);
        assert_eq!(silent.last_words("booting\n"), "booting");
        let talking = report(&[(Kind::Stdout, "test one ... ok\n", 1), (Kind::Stderr, "hm", 2)]);
        assert_eq!(talking.last_words("booting\n"), "test one ... ok\nhm");
    }

    #[test]
    fn a_kernel_warning_fails_a_command_that_succeeded_unless_it_is_allowed() {
        let said = [(Kind::Begin, "0 x", 0), (Kind::Warning, "WARNING: at", 1), (Kind::End, "0 1000000", 1)];
        let mut outcome = report(&said).into_outcome(Duration::from_secs(1), String::new());
        assert!(!outcome.passed());
        assert!(outcome.to_string().contains("kernel warned: WARNING: at"), "{outcome}");
        outcome.warnings_allowed = true;
        assert!(outcome.passed());
    }

    #[test]
    fn a_clock_that_runs_away_fails_the_run() {
        let seconds = Duration::from_secs;
        assert!(clocks_agree(seconds(10), seconds(12)));
        assert!(clocks_agree(Duration::from_millis(20), Duration::from_millis(900)));
        assert!(!clocks_agree(seconds(46), seconds(163)), "as seen once under load");
        assert!(!clocks_agree(seconds(10), seconds(5)));
    }

    #[test]
    fn what_the_hub_cannot_do_is_refused_before_anything_is_started() {
        let error = Vm::new().queues(4).run(&["ping-demo"]).unwrap_err();
        assert!(matches!(&error, Error::Missing { remedy, .. } if remedy.contains("igb")), "{error}");
    }

    #[test]
    fn a_missing_kernel_or_qemu_says_what_to_run() {
        let vm = Vm::new().cache(Cache::at(env::temp_dir().join("xdp-apps-no-such-cache")));
        let error = vm.run(&[""; 0]).unwrap_err().to_string();
        assert!(error.contains("testbed vm fetch"), "{error}");
    }

    #[test]
    fn what_is_told_to_the_kernel_has_the_hosts_tsc_only_under_emulation() {
        assert!(!kernel_parameters(true).contains("tsc"));
        assert!(kernel_parameters(false).contains("tsc=reliable"));
    }
}
