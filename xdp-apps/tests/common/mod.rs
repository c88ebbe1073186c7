//! What both test programs need: hosts on wires, and the program itself as a child.
#![allow(dead_code, reason = "each test program uses a part")]

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Instant;
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::{End, Interface, Namespace, NewLink};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_xdp-apps");

/// One at a time: each test has workers that spin on the machine's few cores.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits for the other tests to end; `None`, said aloud, without the privileges.
pub(crate) fn alone_and_privileged() -> Option<MutexGuard<'static, ()>> {
    let missing = cpu::missing(&[Cap::SysAdmin, Cap::NetAdmin, Cap::NetRaw, Cap::Bpf]).unwrap();
    if missing.is_empty() {
        return Some(ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
    let names: Vec<_> = missing.iter().map(|cap| cap.name()).collect();
    println!("skipped: no {}", names.join(", "));
    None
}

/// Whether there are cores for two spinning programs.
pub(crate) fn has_two_cores() -> bool {
    let enough = cpu::allowed().unwrap().len() >= 2;
    if !enough {
        println!("skipped: two spinning programs need two cores");
    }
    enough
}

/// A name no other test has, of at most 15 bytes.
pub(crate) fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A host: a named network namespace, gone with the value.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
}

/// Two interfaces on one wire, up.
pub(crate) struct Wire {
    pub(crate) near: Interface,
    pub(crate) far: Interface,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { namespace: Namespace::create_named(&fresh("xh")).unwrap() }
    }

    pub(crate) fn name(&self) -> &str {
        self.namespace.name().unwrap()
    }

    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(job).unwrap()
    }

    pub(crate) fn has_program(&self, interface: &Interface) -> bool {
        self.run(|| interface.refresh().unwrap().xdp.any())
    }
}

/// A veth pair between two hosts.
pub(crate) fn wire(near: &Host, far: &Host, queues: u32, mtu: u32) -> Wire {
    let ends = (
        End::new(fresh("xn")).in_namespace(&near.namespace),
        End::new(fresh("xf")).in_namespace(&far.namespace),
    );
    let [a, b] = NewLink::veth(ends.0, ends.1).queues(queues).mtu(mtu).create_pair().unwrap();
    near.run(|| a.set_up(true)).unwrap();
    far.run(|| b.set_up(true)).unwrap();
    let wait = Duration::from_secs(5);
    let near = near.run(|| a.wait_operational(wait)).unwrap();
    let far = far.run(|| b.wait_operational(wait)).unwrap();
    Wire { near, far }
}

/// What a child said and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program, running; killed when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    stderr: Option<thread::JoinHandle<String>>,
}

/// A command of the program, without what the environment says of it.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("XDP_APPS_") {
            command.env_remove(name);
        }
    }
    command.env_remove("SSH_CONNECTION").args(arguments);
    command
}

/// Runs it to its end, a minute at most.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    Running::spawn(program(arguments), None).wait(Duration::from_secs(60))
}

impl Running {
    /// Starts it, and waits until its sockets are bound.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--verbose"]).collect();
        Self::spawn(program(&arguments), Some("running"))
    }

    pub(crate) fn spawn(mut command: Command, awaited: Option<&str>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let (said, ready) = mpsc::channel();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            while lines.read_line(&mut text).is_ok_and(|read| read > 0) {
                let _ = said.send(text.lines().last().unwrap_or_default().to_string());
            }
            text
        });
        let mut running = Self { child: Some(child), stderr: Some(stderr) };
        if let Some(awaited) = awaited {
            let deadline = Instant::now() + Duration::from_secs(20);
            while ready.recv_timeout(deadline.saturating_duration_since(Instant::now())).as_deref()
                != Ok(awaited)
            {
                let is_late = Instant::now() >= deadline;
                let is_gone = running.child.as_mut().unwrap().try_wait().unwrap().is_some();
                assert!(!is_late && !is_gone, "never ran: {:?}", running.kill());
            }
        }
        running
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal by its name, as `kill` does.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    pub(crate) fn interrupt(self) -> Ended {
        self.signal("INT");
        self.wait(Duration::from_secs(10))
    }

    pub(crate) fn kill(&mut self) -> Ended {
        let _ = self.child.as_mut().unwrap().kill();
        self.end()
    }

    pub(crate) fn wait(mut self, time: Duration) -> Ended {
        let deadline = Instant::now() + time;
        while self.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                panic!("did not end in {time:?}: {:?}", self.kill());
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }

    fn end(&mut self) -> Ended {
        let mut child = self.child.take().unwrap();
        let mut stdout = String::new();
        child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let code = child.wait().unwrap().code();
        Ended { code, stdout, stderr: self.stderr.take().unwrap().join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ended {
    /// The last line it wrote to stderr: the one that says why it failed.
    pub(crate) fn why(&self) -> &str {
        self.stderr.trim_end().lines().last().unwrap_or_default()
    }

    /// Asserts that it failed with `code` and one line that holds all of `parts`.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines = self.stderr.trim_end().lines().filter(|line| !line.starts_with("note: "));
        assert_eq!(lines.count(), 1, "{self:?}");
        for part in parts {
            assert!(self.why().contains(part), "no {part:?} in {self:?}");
        }
    }
}
